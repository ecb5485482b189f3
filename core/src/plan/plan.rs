//! The plan of one generation: every rank has a host, every host has its share.

use muster_protocol::{HostIndex, Rank};
use serde::Serialize;

use super::detect::Sign;
use super::placement::{Placed, PlacementError, Request, place};
use super::rank_env::RankFacts;
use super::worlds::{Choice, Unclear, World, choose, divide};
use super::{AppSpec, JobSpec, OnFailure, Placement, StdinTarget};
use crate::hosts::{HostList, HostSpec};

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Ranks do not go onto the hosts.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Standard input for a rank that does not exist.
    #[error("--stdin {rank}: there is no such rank, {whose} has {world} (0 to {last})", last = world - 1)]
    StdinRank {
        /// The rank that was named.
        rank: u32,
        /// Number of ranks.
        world: u32,
        /// What has so many.
        whose: &'static str,
    },
    /// A program may belong to either of two worlds.
    #[error(transparent)]
    Unclear(#[from] Unclear),
}

/// One rank of a host's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProcShare {
    /// Its rank.
    pub rank: Rank,
    /// Its position among the ranks of this host.
    pub local_rank: u32,
    /// Position of its program in [`Plan::apps`].
    pub app: u32,
}

/// What one host runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostShare {
    /// The host.
    pub host: HostIndex,
    /// Its number among the hosts that run ranks, in order of their lowest rank.
    pub node: u32,
    /// Its ranks in ascending order; their number is the local size.
    pub procs: Vec<ProcShare>,
}

/// Which rank runs where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Name of the job.
    pub job: String,
    /// Number of ranks.
    pub world: u32,
    /// How ranks were dealt.
    pub placement: Placement,
    /// What the failure of a rank or a host means for the others.
    pub on_failure: OnFailure,
    /// All hosts of the job, those without ranks too; [`HostIndex`] counts here.
    pub hosts: Vec<HostSpec>,
    /// The programs.
    pub apps: Vec<AppSpec>,
    /// How the ranks of each program find each other.
    pub choices: Vec<Choice>,
    /// The worlds that the programs form; ranks are numbered anew in each.
    pub worlds: Vec<World>,
    /// Host, local rank and program of every rank, of all worlds together.
    pub ranks: Vec<Placed>,
    /// The shares of the hosts that run ranks, in node order.
    pub shares: Vec<HostShare>,
}

impl Plan {
    /// Plans a job on these hosts. `signs` are what is known of each program's bootstrap, by position.
    pub fn make(spec: &JobSpec, signs: &[Option<Sign>], hosts: &HostList) -> Result<Self, PlanError> {
        let counts: Vec<Option<u32>> = spec.apps.iter().map(|app| app.n).collect();
        let (placement, ppn, oversubscribe) = (spec.placement, spec.ppn, spec.oversubscribe);
        let ranks = place(hosts, &Request { counts: &counts, placement, ppn, oversubscribe, used: &[] })?;
        let choices = choose(&spec.apps, signs)?;
        let worlds = divide(&spec.apps, signs, &choices, (&ranks, hosts.len()));
        let first = worlds.first().map_or(0, |first| first.placed.len() as u32);
        if let StdinTarget::Rank(rank) = spec.stdin
            && rank >= first
        {
            let whose = if worlds.len() > 1 { "the first world" } else { "the job" };
            return Err(PlanError::StdinRank { rank, world: first, whose });
        }
        let shares = shares(&ranks, hosts.len());
        Ok(Self {
            job: spec.job.clone(),
            world: ranks.len() as u32,
            placement,
            on_failure: spec.on_failure,
            hosts: hosts.hosts().to_vec(),
            apps: spec.apps.clone(),
            choices,
            worlds,
            shares,
            ranks,
        })
    }

    /// Number of hosts that run ranks.
    pub fn nodes(&self) -> u32 {
        self.shares.len() as u32
    }

    /// The node of every rank: what a PMI process mapping is made of.
    pub fn mapping(&self) -> Vec<u32> {
        node_of_each(&self.ranks, self.hosts.len())
    }

    /// Number of ranks on each host, by [`HostIndex`]: what later placements of the job have to respect.
    pub fn used(&self) -> Vec<u32> {
        let mut used = vec![0; self.hosts.len()];
        for share in &self.shares {
            used[share.host.0 as usize] = share.procs.len() as u32;
        }
        used
    }

    /// What the environment of a rank of the first world is made of; none when there is no such rank.
    pub fn facts(&self, rank: Rank, generation: u32) -> Option<RankFacts<'_>> {
        let first = self.worlds.first()?;
        let placed = first.placed.get(rank.0 as usize)?;
        let shares = shares(&first.placed, self.hosts.len());
        let share = shares.iter().find(|share| share.host == placed.host)?;
        let host = &self.hosts[placed.host.0 as usize];
        Some(RankFacts {
            job: &self.job,
            generation,
            rank: rank.0,
            size: first.placed.len() as u32,
            local_rank: placed.local_rank,
            local_size: share.procs.len() as u32,
            node: share.node,
            nodes: shares.len() as u32,
            host: &host.name,
            reachable_as: host.reachable_as(),
            bootstrap: first.bootstrap,
            spawned: false,
            apps: &first.app_ranks,
            kvsname: &self.job,
            universe: self.hosts.iter().map(|h| h.slots).sum(),
            tolerant: self.on_failure == OnFailure::Continue,
        })
    }
}

/// Groups placed ranks by host, hosts in order of their lowest rank. Serves spawned groups too.
pub fn shares(ranks: &[Placed], hosts: usize) -> Vec<HostShare> {
    let mut out: Vec<HostShare> = Vec::new();
    let mut node: Vec<Option<usize>> = vec![None; hosts];
    for (rank, placed) in ranks.iter().enumerate() {
        let slot = &mut node[placed.host.0 as usize];
        let at = *slot.get_or_insert_with(|| {
            out.push(HostShare { host: placed.host, node: out.len() as u32, procs: Vec::new() });
            out.len() - 1
        });
        out[at].procs.push(ProcShare { rank: Rank(rank as u32), local_rank: placed.local_rank, app: placed.app });
    }
    out
}

/// The node of every rank, nodes numbered by first appearance.
pub fn node_of_each(ranks: &[Placed], hosts: usize) -> Vec<u32> {
    let mut node: Vec<Option<u32>> = vec![None; hosts];
    let mut next = 0;
    ranks
        .iter()
        .map(|placed| {
            *node[placed.host.0 as usize].get_or_insert_with(|| {
                next += 1;
                next - 1
            })
        })
        .collect()
}
