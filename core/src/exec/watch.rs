//! One attempt at a command: when it starts, what ends it, and what it came to. Events in, acts out.

use super::{End, Failure};
use crate::exit::Outcome;
use crate::job::Cause;

/// Time that a command has to end by itself after a host was lost, in milliseconds: its daemons have lost theirs as well.
pub const LOST_POLITE_MS: u64 = 400;
/// Time after which it is killed, in milliseconds.
pub const LOST_HARD_MS: u64 = 800;

/// Time that a command of a known MPI has to end by itself after one of its daemons did not end well, in milliseconds. Some wait
/// for ever for one that never came up.
pub const DAEMON_MS: u64 = 10_000;

/// What shall be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Start the command.
    Start,
    /// Send the command a signal.
    Signal(i32),
    /// Kill the command and everything that descends from it.
    Kill,
    /// The attempt is over.
    Over,
}

/// A host, as this attempt sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Not reached yet; why, as far as is known.
    Missing { why: Option<String>, not_authorised: bool },
    /// Its agent answers, or none is needed there.
    Ready,
    /// It was lost after the command had started.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Running,
    Ending { polite_at_ms: Option<u64>, hard_at_ms: Option<u64> },
    Over,
}

/// One attempt.
#[derive(Debug)]
pub struct Watch {
    names: Vec<String>,
    hosts: Vec<Host>,
    /// Commands that remote shells have begun there.
    begun: Vec<u64>,
    phase: Phase,
    failure: Option<Failure>,
    bad_daemon: Option<(usize, u8)>,
    /// When the command must have ended because of it.
    daemon_due_ms: Option<u64>,
    daemons_end_well: bool,
    grace_ms: u64,
    end_signals: u32,
    timeout: Option<(u64, u64)>,
}

/// Sent for a polite end.
const SIGTERM: i32 = 15;

impl Watch {
    /// An attempt with these hosts. Where `daemons_end_well` a daemon that does not has failed, whatever the command says.
    pub fn new(names: Vec<String>, daemons_end_well: bool, grace_ms: u64) -> Self {
        let count = names.len();
        Self {
            names,
            hosts: vec![Host::Missing { why: None, not_authorised: false }; count],
            begun: vec![0; count],
            phase: Phase::Connecting,
            failure: None,
            bad_daemon: None,
            daemon_due_ms: None,
            daemons_end_well,
            grace_ms,
            end_signals: 0,
            timeout: None,
        }
    }

    /// The command ends when this limit, which began at `from_ms`, is over.
    pub fn limit(&mut self, from_ms: u64, limit_ms: u64) {
        self.timeout = Some((from_ms.saturating_add(limit_ms), limit_ms));
    }

    /// Whether hosts are still waited for.
    pub fn connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Who is missing, and why.
    pub fn missing(&self) -> Vec<(&str, Option<&str>)> {
        self.names
            .iter()
            .zip(&self.hosts)
            .filter_map(|(name, host)| match host {
                Host::Missing { why, .. } => Some((name.as_str(), why.as_deref())),
                _ => None,
            })
            .collect()
    }

    /// Commands that remote shells have begun on a host.
    pub fn begun(&self, host: usize) -> u64 {
        self.begun[host]
    }

    /// Hosts that were not lost.
    pub fn alive(&self) -> Vec<bool> {
        self.hosts.iter().map(|host| *host == Host::Ready).collect()
    }

    /// How the attempt failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// A host's agent answers.
    pub fn ready(&mut self, host: usize) -> Vec<Act> {
        if let Host::Missing { .. } = self.hosts[host] {
            self.hosts[host] = Host::Ready;
        }
        if self.connecting() && self.hosts.iter().all(|h| *h == Host::Ready) {
            self.phase = Phase::Running;
            return vec![Act::Start];
        }
        Vec::new()
    }

    /// An attempt to reach a host has failed.
    pub fn unreached(&mut self, host: usize, why: String, not_authorised: bool) {
        if let Host::Missing { .. } = self.hosts[host] {
            self.hosts[host] = Host::Missing { why: Some(why), not_authorised };
        }
    }

    /// A host that was ready is lost. Says whether somebody ought to hear of it although nothing was started there.
    pub fn lost(&mut self, host: usize, why: String, now_ms: u64) -> bool {
        if self.hosts[host] == Host::Lost {
            return false;
        }
        if self.connecting() {
            self.hosts[host] = Host::Missing { why: Some(why), not_authorised: false };
            return false;
        }
        self.hosts[host] = Host::Lost;
        if self.begun[host] == 0 {
            return true;
        }
        let cause = Cause::HostLost { host: self.names[host].clone(), why };
        self.end(Failure::Job(cause), now_ms + LOST_POLITE_MS, now_ms + LOST_HARD_MS);
        false
    }

    /// A remote shell's command has begun on a host, whoever has started it.
    pub fn shell_begun(&mut self, host: usize) {
        self.begun[host] += 1;
    }

    /// A remote shell asks for a host whose agent is not reached: the command cannot do without it.
    pub fn refused(&mut self, host: usize, why: String, now_ms: u64) {
        if self.phase == Phase::Running {
            self.hosts[host] = Host::Lost;
            let cause = Cause::HostLost { host: self.names[host].clone(), why };
            self.end(Failure::Job(cause), now_ms + LOST_POLITE_MS, now_ms + LOST_HARD_MS);
        }
    }

    /// A remote shell's command has ended by itself.
    pub fn shell_ended(&mut self, host: usize, code: u8, now_ms: u64) {
        if code != 0 && self.phase == Phase::Running {
            self.bad_daemon.get_or_insert((host, code));
            if self.daemons_end_well {
                self.daemon_due_ms.get_or_insert(now_ms + DAEMON_MS);
            }
        }
    }

    fn bad_daemon(&self, waited: bool) -> Option<Failure> {
        let (host, code) = self.bad_daemon.filter(|_| self.daemons_end_well)?;
        Some(Failure::Daemon { host: self.names[host].clone(), code, waited })
    }

    /// The command could not be started.
    pub fn not_started(&mut self, why: String, outcome: Outcome) -> Vec<Act> {
        self.failure.get_or_insert(Failure::NotStarted { why, outcome });
        self.over()
    }

    /// The command has ended.
    pub fn command_ended(&mut self, end: End) -> Vec<Act> {
        let own = match end {
            End::Exited(0) => self.bad_daemon(false),
            end => Some(Failure::Command(end)),
        };
        if self.failure.is_none() {
            self.failure = own;
        }
        self.over()
    }

    /// A signal that asks for the end.
    pub fn end_signal(&mut self, signal: i32, now_ms: u64) -> Vec<Act> {
        self.end_signals += 1;
        match self.phase {
            Phase::Connecting => {
                self.failure.get_or_insert(Failure::Job(Cause::Signal { signal }));
                self.over()
            }
            Phase::Over => Vec::new(),
            _ if self.end_signals > 1 => vec![Act::Kill],
            _ => {
                self.end(Failure::Job(Cause::Signal { signal }), u64::MAX, now_ms.saturating_add(self.grace_ms));
                vec![Act::Signal(signal)]
            }
        }
    }

    /// Hosts have had their time.
    pub fn connect_deadline(&mut self) -> Vec<Act> {
        if !self.connecting() {
            return Vec::new();
        }
        let mut hosts = Vec::new();
        let mut refused = false;
        for (name, host) in self.names.iter().zip(&self.hosts) {
            if let Host::Missing { why, not_authorised } = host {
                refused |= not_authorised;
                hosts.push((name.clone(), why.clone().unwrap_or_else(|| "no answer".to_owned())));
            }
        }
        self.failure.get_or_insert(Failure::Job(Cause::Unreachable { hosts, not_authorised: refused }));
        self.over()
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some((_, limit_ms)) = self.timeout.take_if(|(at, _)| *at <= now_ms) {
            if self.connecting() {
                let hosts = self.missing().into_iter();
                let hosts = hosts.map(|(name, why)| (name.to_owned(), why.unwrap_or("no answer").to_owned())).collect();
                self.failure.get_or_insert(Failure::Job(Cause::TimeoutConnecting { limit_ms, hosts }));
                return self.over();
            }
            self.end(Failure::Job(Cause::Timeout { limit_ms }), now_ms, now_ms.saturating_add(self.grace_ms));
        }
        if self.daemon_due_ms.take_if(|at| *at <= now_ms).is_some()
            && let Some(failure) = self.bad_daemon(true)
        {
            self.end(failure, now_ms, now_ms.saturating_add(self.grace_ms));
        }
        if let Phase::Ending { polite_at_ms, hard_at_ms } = &mut self.phase {
            if polite_at_ms.take_if(|at| *at <= now_ms).is_some() {
                acts.push(Act::Signal(SIGTERM));
            }
            if hard_at_ms.take_if(|at| *at <= now_ms).is_some() {
                acts.push(Act::Kill);
            }
        }
        acts
    }

    /// When [`Watch::tick`] has something to do next.
    pub fn next_due_ms(&self) -> Option<u64> {
        let ending = match self.phase {
            Phase::Ending { polite_at_ms, hard_at_ms } => [polite_at_ms, hard_at_ms],
            _ => [None; 2],
        };
        let over = self.phase == Phase::Over;
        let limit = self.timeout.filter(|_| !over).map(|(at, _)| at);
        let daemon = self.daemon_due_ms.filter(|_| !over);
        ending.into_iter().chain([limit, daemon]).flatten().filter(|at| *at != u64::MAX).min()
    }

    /// The first failure decides; what ends sooner holds.
    fn end(&mut self, failure: Failure, polite_at_ms: u64, hard_at_ms: u64) {
        self.failure.get_or_insert(failure);
        let (polite, hard) = match self.phase {
            Phase::Ending { polite_at_ms: polite, hard_at_ms: hard } => (polite, hard),
            Phase::Over => return,
            _ => (Some(u64::MAX), Some(u64::MAX)),
        };
        self.phase = Phase::Ending {
            polite_at_ms: polite.map(|at| at.min(polite_at_ms)),
            hard_at_ms: hard.map(|at| at.min(hard_at_ms)),
        };
    }

    fn over(&mut self) -> Vec<Act> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        self.phase = Phase::Over;
        vec![Act::Over]
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
