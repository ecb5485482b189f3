//! Who is in the job: hosts, process groups, processes.

use muster_protocol::message::{Bootstrap, Phase, ProcExit, Spec};
use muster_protocol::{Group, HostIndex, ProcId, Rank};

use super::cause::RankPlace;

/// A host of the job.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) joined: bool,
    pub(super) lost: bool,
    pub(super) ended: bool,
    /// Why it has not joined, as last heard.
    pub(super) obstacle: Option<(muster_protocol::message::Obstacle, String)>,
}

/// A process group.
#[derive(Debug, Clone)]
pub(super) struct GroupState {
    pub(super) spec: Spec,
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
    pub(super) started: bool,
    pub(super) ended: Option<ProcExit>,
    /// Its host was lost with it.
    pub(super) lost: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) hosts: Vec<Host>,
    pub(super) groups: Vec<GroupState>,
    pub(super) procs: Vec<Proc>,
    /// Processes that neither ended nor were lost.
    pub(super) alive: usize,
}

impl Table {
    pub(super) fn add_group(&mut self, spec: Spec, hosts_of_ranks: &[HostIndex]) {
        for (rank, host) in hosts_of_ranks.iter().enumerate() {
            let rank = Rank(rank as u32);
            self.procs.push(Proc { group: spec.group, rank, host: *host, started: false, ended: None, lost: false });
        }
        self.alive += hosts_of_ranks.len();
        self.groups.push(GroupState { spec, started: 0, initialised: false, untouched_end: None });
    }

    pub(super) fn proc(&self, proc: ProcId) -> Option<&Proc> {
        self.procs.get(proc.0 as usize)
    }

    pub(super) fn host_name(&self, host: HostIndex) -> String {
        self.hosts.get(host.0 as usize).map_or_else(|| format!("host {host}"), |h| h.name.clone())
    }

    pub(super) fn place(&self, proc: ProcId) -> RankPlace {
        let Some(p) = self.proc(proc) else {
            return RankPlace { rank: format!("process {proc}"), host: "an unknown host".to_owned() };
        };
        let rank = match p.group {
            Group(0) => format!("rank {}", p.rank),
            group => format!("rank {} of spawned group {group}", p.rank),
        };
        RankPlace { rank, host: self.host_name(p.host) }
    }

    /// Ranks that live on each host now.
    pub(super) fn loads(&self) -> Vec<u32> {
        let mut loads = vec![0; self.hosts.len()];
        for proc in self.procs.iter().filter(|p| p.ended.is_none() && !p.lost) {
            loads[proc.host.0 as usize] += 1;
        }
        loads
    }

    /// Whether the ranks of a group use PMI and some rank of it initialised.
    pub(super) fn pmi_in_use(&self, group: Group) -> bool {
        self.groups.get(group.0 as usize).is_some_and(|g| g.initialised && g.spec.bootstrap == Bootstrap::Pmi)
    }

    /// Whether nobody of a finished job ever used PMI.
    pub(super) fn nobody_spoke(&self) -> bool {
        self.procs.iter().all(|p| p.ended.as_ref().is_none_or(|e| e.phase == Phase::Untouched))
            && self.groups.iter().all(|g| !g.initialised)
    }

    pub(super) fn confirmed(&self) -> bool {
        self.hosts.iter().all(|h| !h.joined || h.lost || h.ended)
    }
}
