//! Who is in the job: hosts, process groups, processes.

use std::collections::BTreeMap;
use std::ops::Range;

use muster_protocol::message::{Bootstrap, Phase, ProcExit, Spec};
use muster_protocol::{Group, HostIndex, HostSet, ProcId, Rank};

use super::cause::{Cause, RankPlace};
use crate::plan::Placed;

/// A host of the job.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) joined: bool,
    pub(super) lost: bool,
    pub(super) ended: bool,
    /// Why it has not joined, as last heard.
    pub(super) obstacle: Option<(muster_protocol::message::Obstacle, String)>,
    /// Processes it ran of groups that are forgotten, neighbours as one stretch: their output may still be on its way.
    pub(super) forgotten: Vec<Range<u32>>,
}

/// A process group.
#[derive(Debug, Clone)]
pub(super) struct GroupState {
    pub(super) spec: Spec,
    /// Ranks that never speak to their bootstrap are an error.
    pub(super) insists: bool,
    /// Its processes, in the order of their ranks.
    pub(super) procs: Vec<Proc>,
    /// Processes that neither ended nor were lost.
    pub(super) alive: usize,
    pub(super) started: u32,
    /// Some rank of it has initialised its bootstrap.
    pub(super) initialised: bool,
    /// First rank that ended without ever touching its bootstrap, and its status.
    pub(super) untouched_end: Option<(ProcId, u8)>,
}

/// A process.
#[derive(Debug, Clone)]
pub(super) struct Proc {
    pub(super) group: Group,
    pub(super) rank: Rank,
    pub(super) host: HostIndex,
    /// Position of its program in its group's spec.
    pub(super) app: u32,
    pub(super) started: bool,
    pub(super) ended: Option<ProcExit>,
    /// Its host was lost with it.
    pub(super) lost: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) hosts: Vec<Host>,
    /// The groups that are remembered: the worlds of the command line, and those spawned that are not over.
    pub(super) groups: BTreeMap<Group, GroupState>,
    /// The first process of each of them.
    pub(super) firsts: BTreeMap<ProcId, Group>,
    /// Groups there have ever been; their numbers are not used again.
    pub(super) groups_ever: u32,
    /// Processes there have ever been; their numbers are not used again.
    pub(super) procs_ever: u32,
    /// Processes that neither ended nor were lost.
    pub(super) alive: usize,
}

impl Table {
    pub(super) fn add_group(&mut self, spec: Spec, placed: &[Placed], insists: bool) {
        let (group, first) = (spec.group, spec.first_proc);
        let proc = |(rank, at): (usize, &Placed)| {
            let (rank, host, app) = (Rank(rank as u32), at.host, at.app);
            Proc { group, rank, host, app, started: false, ended: None, lost: false }
        };
        let procs: Vec<Proc> = placed.iter().enumerate().map(proc).collect();
        let alive = procs.len();
        self.alive += alive;
        self.groups_ever += 1;
        self.procs_ever += alive as u32;
        self.firsts.insert(first, group);
        let (started, initialised, untouched_end) = (0, false, None);
        self.groups.insert(group, GroupState { spec, insists, procs, alive, started, initialised, untouched_end });
    }

    /// Whether a process of this group neither ended nor was lost.
    pub(super) fn is_alive(&self, group: Group) -> bool {
        self.groups.get(&group).is_some_and(|g| g.alive > 0)
    }

    /// Forgets a group, but for where its processes ran.
    pub(super) fn forget(&mut self, group: Group) -> Option<GroupState> {
        let state = self.groups.remove(&group)?;
        let first = state.spec.first_proc;
        self.firsts.remove(&first);
        for proc in &state.procs {
            let Some(host) = self.hosts.get_mut(proc.host.0 as usize) else { continue };
            let id = first.0 + proc.rank.0;
            match host.forgotten.last_mut().filter(|stretch| stretch.end == id) {
                Some(stretch) => stretch.end = id + 1,
                None => host.forgotten.push(id..id + 1),
            }
        }
        Some(state)
    }

    /// The group of a process and its place among that group's processes.
    fn find(&self, proc: ProcId) -> Option<(Group, usize)> {
        let (first, group) = self.firsts.range(..=proc).next_back()?;
        Some((*group, (proc.0 - first.0) as usize))
    }

    pub(super) fn proc(&self, proc: ProcId) -> Option<&Proc> {
        let (group, at) = self.find(proc)?;
        self.groups.get(&group)?.procs.get(at)
    }

    pub(super) fn proc_mut(&mut self, proc: ProcId) -> Option<&mut Proc> {
        let (group, at) = self.find(proc)?;
        self.groups.get_mut(&group)?.procs.get_mut(at)
    }

    /// All processes that are remembered.
    pub(super) fn procs(&self) -> impl Iterator<Item = &Proc> {
        self.groups.values().flat_map(|g| &g.procs)
    }

    /// A process has ended, as told; what was heard before is not news.
    pub(super) fn end(&mut self, exit: &ProcExit) -> Option<&Proc> {
        let (group, at) = self.find(exit.proc)?;
        let state = self.groups.get_mut(&group)?;
        let proc = state.procs.get_mut(at).filter(|p| p.ended.is_none() && !p.lost)?;
        proc.ended = Some(exit.clone());
        state.alive -= 1;
        self.alive -= 1;
        Some(proc)
    }

    /// Every process of a host counts as gone. Names all that it ever ran.
    pub(super) fn bury(&mut self, host: HostIndex) -> Vec<ProcId> {
        let forgotten = self.hosts.get(host.0 as usize).into_iter().flat_map(|h| h.forgotten.clone());
        let mut gone: Vec<ProcId> = forgotten.flatten().map(ProcId).collect();
        for state in self.groups.values_mut() {
            for proc in state.procs.iter_mut().filter(|p| p.host == host) {
                gone.push(ProcId(state.spec.first_proc.0 + proc.rank.0));
                if proc.ended.is_none() && !proc.lost {
                    proc.lost = true;
                    state.alive -= 1;
                    self.alive -= 1;
                }
            }
        }
        gone
    }

    pub(super) fn host_name(&self, host: HostIndex) -> String {
        self.hosts.get(host.0 as usize).map_or_else(|| format!("host {host}"), |h| h.name.clone())
    }

    pub(super) fn place(&self, proc: ProcId) -> RankPlace {
        let Some(p) = self.proc(proc) else {
            let ran = |h: &&Host| h.forgotten.iter().any(|stretch| stretch.contains(&proc.0));
            let host = self.hosts.iter().find(ran).map_or("an unknown host", |h| &h.name);
            return RankPlace { rank: format!("process {proc}"), host: host.to_owned() };
        };
        let spawned = self.groups.get(&p.group).is_some_and(|g| g.spec.spawned_by.is_some());
        let rank = match p.group {
            Group(0) => format!("rank {}", p.rank),
            group if spawned => format!("rank {} of spawned group {group}", p.rank),
            world => format!("rank {} of world {world}", p.rank),
        };
        RankPlace { rank, host: self.host_name(p.host) }
    }

    /// Hosts that run nothing any more.
    pub(super) fn gone(&self) -> HostSet {
        let gone = self.hosts.iter().enumerate().filter(|(_, h)| h.lost || h.ended);
        gone.map(|(i, _)| HostIndex(i as u32)).collect()
    }

    /// Ranks that live on each host now.
    pub(super) fn loads(&self) -> Vec<u32> {
        let mut loads = vec![0; self.hosts.len()];
        for proc in self.procs().filter(|p| p.ended.is_none() && !p.lost) {
            loads[proc.host.0 as usize] += 1;
        }
        loads
    }

    /// Whether somebody waits for every rank of a group that uses PMI or PMIx: another rank of it has initialised, or it was spawned
    /// and its parents wait.
    pub(super) fn pmi_in_use(&self, group: Group) -> bool {
        let waited_for = |g: &GroupState| g.initialised || g.spec.spawned_by.is_some();
        self.groups.get(&group).is_some_and(|g| waited_for(g) && g.spec.bootstrap != Bootstrap::None)
    }

    /// Ranks of a finished job that were each alone because none of them ever spoke to its bootstrap, if that is an error.
    pub(super) fn singletons(&self) -> Option<Cause> {
        let untouched = |p: &Proc| p.ended.as_ref().is_none_or(|e| e.phase == Phase::Untouched);
        let nobody_spoke = |g: &&GroupState| !g.initialised && g.procs.iter().all(untouched);
        let group = self.groups.values().filter(|g| g.insists && g.spec.size > 1).find(nobody_spoke)?;
        let world = Some(group.spec.group).filter(|group| *group != Group(0));
        Some(Cause::Singletons { ranks: group.spec.size, world, bootstrap: group.spec.bootstrap })
    }

    pub(super) fn confirmed(&self) -> bool {
        self.hosts.iter().all(|h| !h.joined || h.lost || h.ended)
    }
}
