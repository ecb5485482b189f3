//! What the events of a job amount to.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::event::Event;

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Starting,
    Running,
    Ending,
    Succeeded,
    Failed,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ending => "ending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// A job so far.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub(super) job: Option<String>,
    pub(super) hosts: usize,
    /// Ranks asked for; none for a command that starts its own.
    pub(super) ranks: Option<u64>,
    /// Worlds of the command line, and those that do not run yet.
    worlds: u32,
    to_start: u32,
    pub(super) ready: BTreeSet<String>,
    /// Hosts that are waited for, with the reason.
    pub(super) missing: BTreeMap<String, String>,
    /// Hosts that were lost and have not come back; several may tell of the same one.
    pub(super) lost: BTreeSet<String>,
    /// Ranks that run, by their hosts.
    up: BTreeMap<String, u64>,
    pub(super) ended: u64,
    pub(super) restarts: u32,
    /// When everything ran, since the start of the command.
    pub(super) startup_ms: Option<u64>,
    pub(super) first_failure: Option<String>,
    pub(super) ending: bool,
    pub(super) status: Option<u8>,
}

impl Progress {
    /// Takes an event in. Says whether it is worth a report.
    pub fn note(&mut self, event: &Event, at_ms: u64) -> bool {
        match event {
            Event::JobStarting { job, hosts, ranks, worlds } => {
                self.to_start = *worlds;
                self.worlds = *worlds;
                self.job = Some(job.clone());
                self.hosts = *hosts;
                self.ranks = (*ranks > 0).then_some(u64::from(*ranks));
            }
            Event::HostMissing { host, text, .. } => {
                self.ready.remove(host);
                self.missing.insert(host.clone(), text.clone());
            }
            Event::HostJoined { host, .. } => {
                self.missing.remove(host);
                self.lost.remove(host);
                self.ready.insert(host.clone());
            }
            Event::HostLost { host, why } => {
                self.ready.remove(host);
                // Nobody will tell the ends of its ranks.
                self.up.remove(host);
                self.lost.insert(host.clone());
                self.fail(&format!("host {host} is lost: {why}"));
            }
            Event::RankStarted { host, .. } => *self.up.entry(host.clone()).or_default() += 1,
            Event::GroupRunning { group, .. } if group.0 < self.worlds => {
                self.to_start = self.to_start.saturating_sub(1);
                self.startup_ms = self.startup_ms.or((self.to_start == 0).then_some(at_ms));
            }
            Event::GroupRunning { .. } => return false,
            Event::CommandStarted { restarts } => {
                self.restarts = *restarts;
                // What went wrong before has been got over.
                self.first_failure = None;
                self.startup_ms.get_or_insert(at_ms);
            }
            Event::RankEnded { host, .. } => {
                self.ended += 1;
                if let Some(up) = self.up.get_mut(host) {
                    *up = up.saturating_sub(1);
                }
            }
            Event::Spawned { size, .. } => self.ranks = self.ranks.map(|ranks| ranks + u64::from(*size)),
            Event::Ending { cause } => {
                self.ending = true;
                // The cause is what the job itself has found to be first.
                self.first_failure = Some(cause.clone());
            }
            Event::JobEnded { status, cause } => {
                self.status = Some(*status);
                match cause {
                    Some(cause) => self.first_failure = Some(cause.clone()),
                    None if *status == 0 => self.first_failure = None,
                    None => {}
                }
            }
            _ => return false,
        }
        true
    }

    /// Whether there is a job to speak of.
    pub fn has_begun(&self) -> bool {
        self.job.is_some()
    }

    /// Ranks that run, as far as is known.
    pub(super) fn ranks_up(&self) -> u64 {
        self.up.values().sum()
    }

    fn fail(&mut self, what: &str) {
        self.first_failure.get_or_insert_with(|| what.to_owned());
    }

    pub(super) fn phase(&self) -> Phase {
        match self.status {
            Some(0) => Phase::Succeeded,
            Some(_) => Phase::Failed,
            None if self.ending => Phase::Ending,
            None if self.startup_ms.is_some() => Phase::Running,
            None if self.ready.len() >= self.hosts => Phase::Starting,
            None => Phase::Connecting,
        }
    }
}
