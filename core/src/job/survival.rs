//! A job that goes on when ranks or hosts die (`--on-failure continue`): the others are told, and nobody waits for the dead.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::event::Event;
use muster_protocol::message::{Bootstrap, Dead, DeadRank, ProcEnd};
use muster_protocol::{Group, HostSet, ProcId, Rank};

use super::cause::Cause;
use super::machine::Job;
use crate::plan::OnFailure;

/// Who has died, and whether anybody has not.
#[derive(Debug, Default)]
pub(super) struct Survival {
    /// What happened first.
    first: Option<Cause>,
    /// Some rank has come to a good end.
    pub(super) survived: bool,
    /// Whom the others have been told of.
    dead: BTreeMap<Group, BTreeSet<Rank>>,
}

impl Survival {
    /// Why the job has failed after all, when nobody has come to a good end.
    pub(super) fn nobody(&self) -> Option<Cause> {
        self.first.clone().filter(|_| !self.survived)
    }
}

impl Job {
    /// Whether the job outlives its ranks.
    pub(super) fn goes_on(&self) -> bool {
        self.setup.on_failure == OnFailure::Continue
    }

    /// These processes are dead, for this reason.
    pub(super) fn go_on_without(&mut self, cause: Cause, procs: &[ProcId]) {
        let sentence = cause.to_string();
        self.survival.first.get_or_insert(cause);
        let mut groups = BTreeSet::new();
        for id in procs {
            let Some(proc) = self.table.proc(*id) else { continue };
            let (group, rank) = (proc.group, proc.rank);
            if self.survival.dead.entry(group).or_default().insert(rank) {
                groups.insert(group);
            }
        }
        self.emit(Event::WentOn { cause: sentence });
        for group in groups {
            if let Some(message) = self.dead_of(group) {
                self.broadcast(&message);
            }
        }
        self.exchange_goes_on();
    }

    /// Hosts that have a new place in the tree may have missed it.
    pub(super) fn tell_dead_again(&mut self, hosts: &HostSet) {
        let groups: Vec<Group> = self.survival.dead.keys().copied().collect();
        let messages: Vec<Dead> = groups.into_iter().filter_map(|group| self.dead_of(group)).collect();
        for message in messages {
            for host in hosts.iter() {
                self.send(host, &message);
            }
        }
    }

    /// All the dead of a group: hosts know whom they have told of.
    fn dead_of(&self, group: Group) -> Option<Dead> {
        let state = self.table.groups.get(&group).filter(|g| g.spec.bootstrap == Bootstrap::Pmix)?;
        let dead = self.survival.dead.get(&group)?;
        let violent = |rank: &Rank| {
            let end = state.procs.get(rank.0 as usize).and_then(|p| p.ended.as_ref());
            end.is_none_or(|e| !matches!(e.end, ProcEnd::Exited(_)))
        };
        let ranks = dead.iter().map(|rank| DeadRank { rank: *rank, violent: violent(rank) }).collect();
        let alive: HostSet = state.procs.iter().filter(|p| p.ended.is_none() && !p.lost).map(|p| p.host).collect();
        let mut hosts: HostSet = dead.iter().filter_map(|r| state.procs.get(r.0 as usize)).map(|p| p.host).collect();
        hosts.subtract(&alive);
        Some(Dead { group, ranks, hosts })
    }
}
