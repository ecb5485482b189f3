//! What the user sees on standard error: nothing while all is well, progress while waiting, the cause when it fails.

use std::io::IsTerminal;

use muster_protocol::event::Event;
use muster_worker_agent::teller;

/// Waiting that is not worth a word, in milliseconds.
const QUIET_MS: u64 = 1_000;
/// Time between two looks at who is missing, in milliseconds.
const REFRESH_MS: u64 = 500;
/// Time between two progress lines where they cannot be overwritten, in milliseconds.
const REPEAT_MS: u64 = 10_000;
/// Missing hosts that are named.
const NAMED_MAX: usize = 4;

pub(crate) struct Terminal {
    interactive: bool,
    drawn: bool,
    due_ms: Option<u64>,
    last: String,
    said_ms: u64,
    /// Process groups of the command line.
    worlds: u32,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let interactive = std::io::stderr().is_terminal();
        Self { interactive, drawn: false, due_ms: Some(QUIET_MS), last: String::new(), said_ms: 0, worlds: 1 }
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.erase();
        say(text);
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.drawn) {
            write("\r\x1b[K");
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::JobStarting { worlds, .. } => self.worlds = *worlds,
            Event::RankStarted { .. } | Event::JobEnded { .. } => {
                self.due_ms = None;
                self.erase();
            }
            Event::WentOn { cause } => self.say(&format!("muster: {cause}; the job goes on")),
            Event::RankSaid { text, .. } => self.say(text.trim_end()),
            Event::HostLost { host, why } => self.say(&format!("muster: host {host} is lost: {why}")),
            Event::HostStained { host, survivors } => {
                let list: Vec<String> = survivors.iter().map(|(pid, name)| format!("{pid} ({name})")).collect();
                self.say(&format!("muster: host {host} could not end these processes: {}", list.join(", ")));
            }
            Event::FenceWaiting { group, seq, arrived, absent, silent_hosts } => {
                let of = match group.0 {
                    0 => String::new(),
                    world if world < self.worlds => format!(" of world {world}"),
                    _ => format!(" of spawned group {group}"),
                };
                let names: Vec<String> = absent.iter().map(|(rank, host)| format!("{rank} on {host}")).collect();
                let mut text =
                    format!("muster: fence {seq}{of}: {arrived} ranks wait, {} have not arrived", absent.len());
                if !names.is_empty() {
                    text = format!("{text}: rank {}", names.join(", rank "));
                }
                if !silent_hosts.is_empty() {
                    text = format!("{text}; no answer from {}", silent_hosts.join(", "));
                }
                self.say(&text);
            }
            Event::NoFenceWaiting { silent_hosts } if silent_hosts.is_empty() => {
                self.say("muster: no rank waits in a fence");
            }
            Event::NoFenceWaiting { silent_hosts } => {
                self.say(&format!(
                    "muster: no rank is known to wait in a fence; no answer from {}",
                    silent_hosts.join(", ")
                ));
            }
            _ => {}
        }
    }

    /// Says who is missing and why, when there has been waiting for a while.
    pub(crate) fn progress(&mut self, missing: &[(&str, Option<&str>)], at_ms: u64) {
        if missing.is_empty() {
            self.due_ms = None;
        }
        if self.due_ms.is_none_or(|due| at_ms < due) {
            return;
        }
        self.due_ms = Some(at_ms + REFRESH_MS);
        let line = describe(missing);
        if self.interactive {
            write(&format!("\r\x1b[K{line} ({} s)", at_ms / 1000));
            self.drawn = true;
        } else if line != self.last || at_ms >= self.said_ms + REPEAT_MS {
            say(&line);
            self.said_ms = at_ms;
            self.last = line;
        }
    }
}

fn describe(missing: &[(&str, Option<&str>)]) -> String {
    let one = |(host, why): &(&str, Option<&str>)| format!("{host}: {}", why.unwrap_or("no answer yet"));
    let named: Vec<String> = missing.iter().take(NAMED_MAX).map(one).collect();
    let more = missing.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let plural = if missing.len() == 1 { "" } else { "s" };
    format!("muster: waiting for {} host{plural}: {}{more}", missing.len(), named.join("; "))
}

pub(super) fn say(text: &str) {
    write(&format!("{text}\n"));
}

fn write(text: &str) {
    teller::tell(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_are_named_with_their_obstacles() {
        let missing = [("w-0", Some("connection refused by 10.0.0.1:2222")), ("w-1", None)];
        let line = describe(&missing);
        assert_eq!(line, "muster: waiting for 2 hosts: w-0: connection refused by 10.0.0.1:2222; w-1: no answer yet");
        let many: Vec<_> = (0..9).map(|_| ("h", None)).collect();
        assert!(describe(&many).ends_with("; and 5 more"));
    }
}
