//! Hosts that join, and those that do not.

use muster_protocol::event::Event;
use muster_protocol::message::{Joined, Lost, Missing, Obstacle, Release, Wanted};
use muster_protocol::{HostIndex, HostSet};

use super::cause::Cause;
use super::machine::{Job, JobAct, Stage};
use super::table::Host;

/// Time after which a share of which nothing has been heard is sent again for the first time, in milliseconds; it doubles.
const SHARE_FIRST_MS: u64 = 2_000;
/// Longest time between two such attempts, in milliseconds.
const SHARE_LAST_MS: u64 = 16_000;

impl Job {
    pub(super) fn on_joined(&mut self, joined: &Joined) {
        for index in joined.hosts.iter() {
            let Some(host) = self.table.hosts.get_mut(index.0 as usize) else { continue };
            if !host.joined {
                host.joined = true;
                let host = host.name.clone();
                self.emit(Event::HostJoined { index, host });
            }
        }
        match self.stage {
            Stage::Connecting if self.table.hosts.iter().all(|h| h.joined) => self.launch(),
            Stage::Running => {
                self.share_again(&joined.hosts);
                self.tell_dead_again(&joined.hosts);
                self.fetch_again(&joined.hosts);
            }
            Stage::Ending | Stage::Closing => self.catch_up(&joined.hosts),
            _ => {}
        }
    }

    /// A host that joins again while ranks run had lost its place in the tree, perhaps when its share was on its way.
    fn share_again(&mut self, hosts: &HostSet) {
        let again = self.unheard.iter().filter(|((to, _), _)| hosts.contains(*to));
        let again: Vec<_> = again.map(|((to, _), share)| (*to, share.clone())).collect();
        for (to, share) in again {
            self.send(to, &share);
        }
    }

    /// When shares of which nothing has been heard are sent again; the first tick after the start counts from itself.
    pub(super) fn share_due_ms(&self) -> Option<u64> {
        let waiting = self.stage == Stage::Running && !self.unheard.is_empty();
        waiting.then(|| self.share_again_ms.map_or(0, |(at, _)| at))
    }

    /// A host may change its place in the tree unseen from here, and its share go the old way into nothing. So a share is sent again
    /// until something is heard of it, less and less often: starting may just take long, and who has a share lets another be.
    pub(super) fn share_if_due(&mut self, now_ms: u64) {
        match (self.share_due_ms(), self.share_again_ms) {
            (None, _) => self.share_again_ms = None,
            (Some(_), None) => self.share_again_ms = Some((now_ms.saturating_add(SHARE_FIRST_MS), SHARE_FIRST_MS)),
            (Some(due), Some((_, pause))) if due <= now_ms => {
                let pause = (2 * pause).min(SHARE_LAST_MS);
                self.share_again_ms = Some((now_ms.saturating_add(pause), pause));
                let everyone = self.unheard.keys().map(|(host, _)| *host).collect();
                self.share_again(&everyone);
            }
            _ => {}
        }
    }

    /// A host is gone before anything ran on it: it is missing, as it was before it joined, and connected again until the time for
    /// that is over.
    pub(super) fn missing_again(&mut self, lost: &Lost) {
        let Some(host) = self.table.hosts.get_mut(lost.host.0 as usize) else { return };
        let left = !std::mem::replace(&mut host.joined, false) && matches!(host.obstacle, Some((Obstacle::Busy, _)));
        if left {
            // It was let go, which is why its connection has ended.
            self.acts.push(JobAct::Redial(lost.host));
            return;
        }
        let (why, text) = (Obstacle::Waiting, format!("connected, then lost: {}", lost.why));
        host.obstacle = Some((why, text.clone()));
        let event = Event::HostMissing { host: host.name.clone(), obstacle: why, text };
        self.emit(event);
        self.acts.push(JobAct::Redial(lost.host));
    }

    /// Another launcher, which goes first, wants a host. It is let go unless ranks are being started: so one launcher gets all
    /// hosts, instead of each waiting for those of the other. It counts as missing from now on, and is connected again later.
    pub(super) fn on_wanted(&mut self, index: HostIndex, wanted: &Wanted) {
        if self.stage != Stage::Connecting {
            return;
        }
        let Some(host) = self.table.hosts.get_mut(index.0 as usize) else { return };
        host.joined = false;
        let text = format!("left to job \"{}\" of {}, which was started first", wanted.job, wanted.launcher);
        let story = Some((Obstacle::Busy, text.clone()));
        if host.obstacle != story {
            host.obstacle = story;
            let event = Event::HostMissing { host: host.name.clone(), obstacle: Obstacle::Busy, text };
            self.emit(event);
        }
        self.send(index, &Release {});
    }

    pub(super) fn on_missing(&mut self, missing: Missing) {
        let Some(host) = self.table.hosts.get_mut(missing.host.0 as usize) else { return };
        if host.joined {
            return;
        }
        host.obstacle = Some((missing.why, missing.text.clone()));
        let event = Event::HostMissing { host: host.name.clone(), obstacle: missing.why, text: missing.text };
        self.emit(event);
    }

    /// The time to connect is over. Does nothing once all hosts have joined.
    pub fn connect_deadline(&mut self) {
        if self.stage != Stage::Connecting {
            return;
        }
        let denied = |h: &Host| matches!(h.obstacle, Some((Obstacle::WrongKey | Obstacle::WrongJob, _)));
        let not_authorised = self.table.hosts.iter().any(|h| !h.joined && denied(h));
        self.fail(Cause::Unreachable { hosts: self.obstacles(), not_authorised });
    }

    /// Name and obstacle of every host that has not joined, for a verdict.
    pub(super) fn obstacles(&self) -> Vec<(String, String)> {
        let owned = |(name, why): (&str, Option<&str>)| (name.to_owned(), why.unwrap_or("no answer yet").to_owned());
        self.missing_hosts().into_iter().map(owned).collect()
    }

    /// Hosts that have not joined: name, and the obstacle as last heard.
    pub fn missing_hosts(&self) -> Vec<(&str, Option<&str>)> {
        let missing = self.table.hosts.iter().filter(|h| !h.joined);
        missing.map(|h| (h.name.as_str(), h.obstacle.as_ref().map(|(_, text)| text.as_str()))).collect()
    }
}
