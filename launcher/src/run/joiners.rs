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
        let known = self.hosts.get(name).filter(|_| guest.hello.role == Role::Joiner);
        let entry = known.cloned().ok_or_else(|| Refusal::NotInList { name: name.clone() })?;
        let place = match guest.source {
            Source::Network(address) => format!("{} ({})", guest.hello.from, address.ip()),
            Source::Local => guest.hello.from.clone(),
        };
        let who = Holder { incarnation: guest.hello.incarnation, place };
        let seat = match guest.hello.lane {
            Lane::Control => self.seats.take(name, who)?,
            Lane::Bulk => self.seats.of(name, &who)?,
        };
        Ok((entry, seat))
    }
}
