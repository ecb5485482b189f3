//! Hosts that join, and those that do not.

use muster_protocol::event::Event;
use muster_protocol::message::{Joined, Missing, Obstacle};

use super::cause::Cause;
use super::machine::{Job, Stage};

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
            Stage::Ending | Stage::Closing => self.catch_up(&joined.hosts),
            _ => {}
        }
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
        let mut not_authorised = false;
        let mut hosts = Vec::new();
        for host in self.table.hosts.iter().filter(|h| !h.joined) {
            not_authorised |= matches!(host.obstacle, Some((Obstacle::WrongKey | Obstacle::WrongJob, _)));
            let why = host.obstacle.as_ref().map_or("no answer yet", |(_, text)| text);
            hosts.push((host.name.clone(), why.to_owned()));
        }
        self.fail(Cause::Unreachable { hosts, not_authorised });
    }

    /// Hosts that have not joined: name, and the obstacle as last heard.
    pub fn missing_hosts(&self) -> Vec<(&str, Option<&str>)> {
        let missing = self.table.hosts.iter().filter(|h| !h.joined);
        missing.map(|h| (h.name.as_str(), h.obstacle.as_ref().map(|(_, text)| text.as_str()))).collect()
    }
}
