//! `--listen`: agents that nobody can dial come in by themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::hello::{HostFacts, Lane, RELEASE, Refusal, Role, Welcome};
use muster_protocol::limits::HANDSHAKE_TIMEOUT_MS;
use muster_protocol::message::HostEntry;
use muster_transport::gate::{Gate, GateError, Guest, Source};
use muster_transport::tls::Acceptor;
use muster_worker_agent::session::tree::{Introduction, TreeInput};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::seats::{Holder, Seats};

/// Who may join.
pub(super) struct Joiners {
    hosts: HashMap<String, HostEntry>,
    seats: Seats,
    introduction: Introduction,
    inbox: mpsc::Sender<TreeInput>,
    tasks: TaskTracker,
}

impl Joiners {
    pub(super) fn new(entries: &[HostEntry], introduction: Introduction, inbox: mpsc::Sender<TreeInput>) -> Self {
        let hosts = entries.iter().map(|e| (e.name.clone(), e.clone())).collect();
        Self { hosts, seats: Seats::default(), introduction, inbox, tasks: TaskTracker::new() }
    }

    /// Listens, and lets them in until the launcher ends.
    pub(super) fn listen(mut self, address: SocketAddr, acceptor: Acceptor) -> Result<(), GateError> {
        let mut gate = Gate::listen(&[address], Some(acceptor))?;
        tracing::info!(address = ?gate.addresses(), "agents may join");
        tokio::spawn(async move {
            loop {
                let guest = gate.next().await;
                self.admit(guest);
            }
        });
        Ok(())
    }

    fn admit(&mut self, guest: Guest) {
        let (entry, seat) = match self.judge(&guest) {
            Ok(known) => known,
            Err(refusal) => {
                guest.refuse(refusal, &self.tasks);
                return;
            }
        };
        let lane = guest.hello.lane;
        let hello = self.introduction.hello(&entry, Role::Launcher, lane);
        let welcome = Welcome {
            version: hello.version_max,
            release: RELEASE.to_owned(),
            incarnation: self.introduction.incarnation,
            facts: HostFacts { hostname: self.introduction.from.clone(), ..HostFacts::default() },
        };
        let inbox = self.inbox.clone();
        self.tasks.spawn(async move {
            let turned = timeout(Duration::from_millis(HANDSHAKE_TIMEOUT_MS), guest.turn(welcome, &hello)).await;
            let dialed = match turned {
                Ok(Ok(dialed)) => Box::new(dialed),
                Ok(Err(error)) => {
                    return tracing::warn!(host = entry.name, %error, "an agent that joined does not serve");
                }
                Err(_) => return tracing::warn!(host = entry.name, "an agent that joined has gone silent"),
            };
            let input = match lane {
                Lane::Control => TreeInput::CameIn(entry, dialed, seat),
                Lane::Bulk => TreeInput::BulkCameIn(entry.index, dialed),
            };
            let _ = inbox.send(input).await;
        });
    }

    fn judge(&mut self, guest: &Guest) -> Result<(HostEntry, Arc<Holder>), Refusal> {
        guest.hello.common_version()?;
        if guest.hello.job != self.introduction.job {
            return Err(Refusal::WrongJob { theirs: self.introduction.job.clone() });
        }
        let name = &guest.hello.your_name;
        let known = find(&self.hosts, name).filter(|_| guest.hello.role == Role::Joiner);
        let entry = known.cloned().ok_or_else(|| Refusal::NotInList { name: name.clone() })?;
        let place = match guest.source {
            Source::Network(address) => format!("{} ({})", guest.hello.from, address.ip()),
            Source::Local => guest.hello.from.clone(),
        };
        let who = Holder { incarnation: guest.hello.incarnation, place };
        let seat = match guest.hello.lane {
            Lane::Control => self.seats.take(&entry.name, who)?,
            Lane::Bulk => self.seats.of(&entry.name, &who)?,
        };
        Ok((entry, seat))
    }
}

/// The host of the list that a joining agent means: by its whole name, or where one name is the other with a longer domain and that
/// says which. An agent in a pod may know less of its domain than the list has, or more.
fn find<'a>(hosts: &'a HashMap<String, HostEntry>, name: &str) -> Option<&'a HostEntry> {
    let begins = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
    let is_address = |name: &str| name.parse::<std::net::IpAddr>().is_ok();
    hosts.get(name).or_else(|| {
        let named = hosts.values().filter(|entry| !is_address(&entry.name) && !is_address(name) && !name.is_empty());
        let mut alike = named.filter(|entry| begins(&entry.name, name) || begins(name, &entry.name));
        let found = alike.next();
        found.filter(|_| alike.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use muster_protocol::HostIndex;

    use super::*;

    #[test]
    fn who_joins_is_found_by_a_name_with_more_or_less_of_its_domain() {
        let names = ["pi-worker-0.pi.ns.svc", "pi-worker-1.pi.ns.svc", "short", "a.x", "a.y", "10.0.0.1"];
        let entry = |(at, name): (usize, &&str)| {
            (
                (*name).to_owned(),
                HostEntry { index: HostIndex(at as u32), name: (*name).to_owned(), port: 1, address: None },
            )
        };
        let hosts = names.iter().enumerate().map(entry).collect();
        for (name, want) in [
            ("pi-worker-1.pi.ns.svc", Some(1)),
            ("pi-worker-1", Some(1)),
            ("pi-worker-1.pi.ns.svc.cluster.local", Some(1)),
            ("pi-worker-1.pi", Some(1)),
            ("pi-worker", None),
            ("short.pi.ns.svc", Some(2)),
            ("pi-worker-1.pi.other.svc", None),
            ("a", None),
            ("a.y", Some(4)),
            ("10.0.0.1", Some(5)),
            ("10", None),
            ("", None),
            ("pi-worker-2", None),
        ] {
            assert_eq!(find(&hosts, name).map(|entry| entry.index.0), want, "{name}");
        }
    }
}
