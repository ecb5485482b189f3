//! A job that goes on when ranks or hosts die (`--on-failure continue`): the others are told, and nobody waits for the dead.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::event::Event;
use muster_protocol::message::{Bootstrap, Dead, DeadRank, Phase, ProcEnd};
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

    /// A group is over, and nobody hears of its dead any more.
    pub(super) fn forget(&mut self, group: Group) {
        self.dead.remove(&group);
    }

    #[cfg(test)]
    pub(super) fn is_told_of(&self, group: Group) -> bool {
        self.dead.contains_key(&group)
    }
}

impl Job {
    /// Whether the job outlives its ranks.
    pub(super) fn goes_on(&self) -> bool {
        self.setup.on_failure == OnFailure::Continue
    }

    /// These processes are dead, for this reason.
    pub(super) fn go_on_without(&mut self, cause: Cause, procs: &[ProcId]) {
        let mut groups = BTreeSet::new();
        let is_host = matches!(cause, Cause::HostLost { .. });
        for id in procs {
            let Some(proc) = self.table.proc(*id) else { continue };
            let (group, rank) = (proc.group, proc.rank);
            if self.survival.dead.entry(group).or_default().insert(rank) {
                groups.insert(group);
            }
        }
        if groups.is_empty() && !is_host {
            return;
        }
        self.emit(Event::WentOn { cause: cause.to_string() });
        self.survival.first.get_or_insert(cause);
        for group in groups {
            if let Some(message) = self.dead_of(group) {
                self.broadcast(&message);
            }
        }
    }

    /// Ranks of a group that ended before they touched their bootstrap are dead, now that others wait for them.
    pub(super) fn go_on_without_silent(&mut self, group: Group, cause: Cause) {
        let Some(state) = self.table.groups.get(&group) else { return };
        let untouched = |p: &&super::table::Proc| p.ended.as_ref().is_some_and(|e| e.phase == Phase::Untouched);
        let first = state.spec.first_proc.0;
        let silent: Vec<ProcId> = state.procs.iter().filter(untouched).map(|p| ProcId(first + p.rank.0)).collect();
        if silent.iter().any(|proc| self.has_neighbours(*proc)) {
            self.fail(cause);
        } else {
            self.go_on_without(cause, &silent);
        }
    }

    /// Whether ranks of its group live on the host of a process that never touched its bootstrap. The PMIx library there waits for it
    /// in every fence and cannot be told otherwise, so they cannot go on.
    pub(super) fn has_neighbours(&self, proc: ProcId) -> bool {
        let Some((group, host)) = self.table.proc(proc).map(|p| (p.group, p.host)) else { return false };
        let state = self.table.groups.get(&group).filter(|g| g.spec.bootstrap == Bootstrap::Pmix);
        let lives = |p: &super::table::Proc| p.host == host && p.ended.is_none() && !p.lost;
        state.is_some_and(|g| g.procs.iter().any(lives))
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
