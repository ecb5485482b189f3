//! Whether a command has used its hosts.

use muster_core::exec::{Use, Watch, idle_note};
use muster_core::exit::Outcome;
use muster_core::hosts::HostList;
use muster_protocol::event::Event;

use super::{Drive, Verdict};
use crate::report;

impl Drive<'_> {
    /// Whether the command has used its hosts.
    pub(super) async fn look_at_use(&mut self, hosts: &HostList, chosen: &[usize], watch: &Watch) -> Verdict {
        let unsure = (0..chosen.len()).any(|host| watch.begun(host) == 0 && !self.states[chosen[host]].here);
        // Daemons start further daemons by themselves: only the host's own agent knows of those.
        let counts = if unsure { self.each(|target| async move { target.shells().await }).await } else { Vec::new() };
        let by_others = |at: usize| {
            let now = counts.get(at).copied().flatten();
            self.states[at].before.zip(now).is_some_and(|(before, now)| now > before)
        };
        let use_of = |(host, at): (usize, &usize)| match &self.states[*at] {
            state if state.here => Use::Here,
            _ if watch.begun(host) > 0 || by_others(*at) => Use::Started,
            _ => Use::Nothing,
        };
        let uses: Vec<Use> = chosen.iter().enumerate().map(use_of).collect();
        let success = Verdict { outcome: Outcome::Success, why: None };
        let Some(note) = idle_note(hosts, &uses, &self.family, &self.options.argv) else { return success };
        report::say(&format!("muster: {note}"));
        if !self.options.strict {
            return success;
        }
        self.tell(|| Event::Ending { cause: note.clone() });
        Verdict { outcome: Outcome::Rank(1), why: Some(note) }
    }
}
