//! Who comes through the door: who is served, with what, and who not.

use std::ffi::OsString;

use muster_core::exec::speaks_of_interfaces;
use muster_core::plan::scrubbed;
use muster_protocol::hello::{Hello, HostFacts, HostNetwork, Lane, RELEASE, Refusal, Role, Welcome};
use muster_transport::gate::Guest;

use super::{Agent, network};
use crate::session::Job;
use crate::shell::Shells;

impl Agent {
    pub(super) fn admit(&mut self, guest: Guest, now_ms: u64) {
        match self.judge(&guest.hello, now_ms) {
            Err(refusal) => {
                let free = self.quarantine.is_none() && self.hold.refusal().is_none();
                if guest.hello.lane == Lane::Control && self.job.is_none() && free {
                    self.door.reopen(false);
                }
                guest.refuse(refusal, &self.tasks);
            }
            Ok(version) => {
                let welcome = Welcome {
                    version,
                    release: RELEASE.to_owned(),
                    incarnation: self.incarnation,
                    facts: HostFacts {
                        shells: Some(self.shells.as_ref().map_or(0, Shells::begun)),
                        // Interfaces come and go.
                        network: if guest.hello.role == Role::Shell { self.network() } else { None },
                        ..self.facts.clone()
                    },
                };
                self.receive(guest, welcome, now_ms);
            }
        }
    }

    /// Where this host is on its networks, unless what ranks here find in their environment is to decide about interfaces.
    fn network(&self) -> Option<HostNetwork> {
        let decides = |(name, _): &(OsString, OsString)| {
            name.to_str().is_some_and(|name| speaks_of_interfaces(name) && scrubbed(name).is_none())
        };
        if self.environment.iter().any(decides) { None } else { network() }
    }

    /// Who is served: see `docs/protocol.md`, connections.
    fn judge(&mut self, hello: &Hello, now_ms: u64) -> Result<u32, Refusal> {
        let version = hello.common_version()?;
        if let Some(theirs) = self.settings.job.as_ref().filter(|job| **job != hello.job) {
            return Err(Refusal::WrongJob { theirs: theirs.clone() });
        }
        if let Some(held) = self.hold.refusal() {
            return Err(held);
        }
        if self.job.is_none() {
            self.look_for_survivors(true, now_ms);
            if let Some(held) = &self.quarantine {
                return Err(held.refusal());
            }
        }
        match hello.role {
            Role::Probe => return Ok(version),
            // It looks for a launcher that listens, and this is none.
            Role::Shell if self.leaving => return Err(Refusal::Leaving),
            Role::Shell => return Ok(version),
            Role::Joiner => return Err(Refusal::NotInList { name: hello.your_name.clone() }),
            Role::Launcher | Role::Parent => {}
        }
        if self.leaving && hello.lane == Lane::Control {
            return Err(Refusal::Leaving);
        }
        let Some(job) = &mut self.job else {
            return match hello.lane {
                Lane::Bulk => Err(Refusal::NoEdge),
                Lane::Control => {
                    self.promises.judge(&hello.job, hello.epoch)?;
                    self.rivals.judge(hello, now_ms).map(|()| version)
                }
            };
        };
        match (job.is_of(hello), hello.lane) {
            (true, Lane::Bulk) => Ok(version),
            (true, Lane::Control) if job.has_parent(now_ms) => Err(Refusal::HasParent),
            (true, Lane::Control) => Ok(version),
            (false, Lane::Bulk) => Err(Refusal::NoEdge),
            (false, Lane::Control) if !job.was_served() && job.has_parent(now_ms) => {
                if self.rivals.ask(hello, (job.stamp().epoch, job.name())) {
                    job.wanted_by(hello);
                }
                Err(Refusal::Busy { job: job.name().to_owned(), launcher: job.launcher().to_owned() })
            }
            (false, Lane::Control) if job.name() == hello.job && hello.epoch < job.stamp().epoch => {
                Err(Refusal::StaleEpoch { promised: job.stamp().epoch })
            }
            (false, Lane::Control) => {
                if job.is_orphan() {
                    // Its launcher is gone and another one asks: the ranks it left behind end now, not with their lease.
                    job.give_up(0, now_ms);
                }
                Err(Refusal::Busy { job: job.name().to_owned(), launcher: job.launcher().to_owned() })
            }
        }
    }

    fn receive(&mut self, guest: Guest, welcome: Welcome, now_ms: u64) {
        if guest.hello.role == Role::Probe {
            let (sender, _) = guest.welcome(welcome, 1, &self.tasks);
            sender.close();
            return;
        }
        if guest.hello.role == Role::Shell {
            return self.run_shell(guest, welcome);
        }
        if guest.hello.lane == Lane::Bulk {
            if let Some(job) = &mut self.job {
                job.take_bulk(guest, welcome);
            }
            return;
        }
        if self.job.is_none() {
            // What tasks of an earlier job still have to say is nobody's business any more.
            self.inboxes.renew();
            let job = Job::new(&guest.hello, self.surroundings());
            tracing::info!(job = guest.hello.job, launcher = guest.hello.from, "job begins");
            self.job = Some(job);
        }
        if let Some(job) = &mut self.job {
            job.take_parent(guest, welcome, now_ms);
        }
    }

    fn run_shell(&mut self, guest: Guest, welcome: Welcome) {
        if self.shells.is_none() {
            match Shells::start(
                self.environment.clone(),
                self.settings.shell_variables.clone(),
                self.command_over.clone(),
            ) {
                Ok(shells) => self.shells = Some(shells),
                // The guest is dropped, which tells its client.
                Err(error) => return tracing::error!(%error, "this agent cannot run remote shells"),
            }
        }
        if let Some(shells) = &self.shells {
            shells.serve(guest, welcome);
        }
    }
}
