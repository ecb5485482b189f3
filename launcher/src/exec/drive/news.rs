//! What lines tell, for the watch and for those who keep a status.

use muster_core::exec::{Act, Watch};
use muster_protocol::HostIndex;
use muster_protocol::event::Event;
use muster_protocol::message::Obstacle;
use muster_sys::clock::boottime_ms;

use super::Drive;
use crate::exec::lines::News;
use crate::report;

impl Drive<'_> {
    /// News of a line; only hosts of this attempt concern the watch.
    pub(super) fn hear(&mut self, at: usize, news: News, chosen: &[usize], watch: &mut Watch) -> Vec<Act> {
        self.tell_news(at, &news);
        let state = &mut self.states[at];
        let host = chosen.iter().position(|chosen| *chosen == at);
        match news {
            News::Ready(reached) => {
                state.up = true;
                state.reached = *reached;
                return host.map_or_else(Vec::new, |host| watch.ready(host));
            }
            News::Unreached { why, not_authorised } => {
                if let Some(host) = host {
                    watch.unreached(host, why, not_authorised);
                }
            }
            News::Lost { why } => {
                state.up = false;
                let idle = host.is_some_and(|host| watch.lost(host, why.clone(), boottime_ms()));
                if idle {
                    let name = &self.hosts.hosts()[at].name;
                    report::say(&format!(
                        "muster: host {name}, on which this launcher has started nothing itself, is lost: {why}"
                    ));
                }
            }
            News::Begun => {
                if let Some(host) = host {
                    watch.shell_begun(host);
                }
            }
            News::Shells(shells) => {
                state.reached.shells = Some(shells);
                if let Some(host) = host.filter(|host| !watch.connecting() && watch.begun(*host) == 0)
                    && state.before.is_some_and(|before| shells > before)
                {
                    watch.shell_begun(host);
                }
            }
            News::Refused { why } => {
                if let Some(host) = host {
                    watch.refused(host, why, boottime_ms());
                }
            }
            News::Ended { code } => {
                if let Some(host) = host {
                    watch.shell_ended(host, code, boottime_ms());
                }
            }
        }
        Vec::new()
    }

    /// What news of a line are for those who keep a status.
    pub(super) fn tell_news(&self, at: usize, news: &News) {
        let host = || self.hosts.hosts()[at].name.clone();
        match news {
            News::Ready(_) => self.tell(|| Event::HostJoined { index: HostIndex(at as u32), host: host() }),
            News::Unreached { why, .. } => {
                let (obstacle, text) = (Obstacle::Waiting, why.clone());
                self.tell(|| Event::HostMissing { host: host(), obstacle, text });
            }
            News::Lost { why } => self.tell(|| Event::HostLost { host: host(), why: why.clone() }),
            News::Begun | News::Shells(_) | News::Refused { .. } | News::Ended { .. } => {}
        }
    }
}
