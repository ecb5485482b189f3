//! Which rank runs on which host.

use muster_protocol::HostIndex;
use muster_protocol::limits::{PROCS_MAX, RANKS_PER_HOST_MAX};
use serde::Serialize;

use super::Placement;
use crate::hosts::HostList;

/// Where one rank runs; its position in the result is its rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// The host.
    pub host: HostIndex,
    /// Position among the ranks of the same placement on that host.
    pub local_rank: u32,
    /// Position of its program in the job.
    pub app: u32,
}

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Ranks of every program, in order; one of them may be open and gets the slots that are left.
    pub counts: &'a [Option<u32>],
    /// The order of hosts.
    pub placement: Placement,
    /// Ranks per host in place of its slots.
    pub ppn: Option<u32>,
    /// Whether slots may be passed.
    pub oversubscribe: bool,
    /// Ranks that run on each host already (for spawned groups); empty: none.
    pub used: &'a [u32],
}

/// Why ranks cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// No host.
    #[error("no hosts to place ranks on")]
    NoHosts,
    /// No program.
    #[error("no program to run")]
    NoPrograms,
    /// Several programs without a number.
    #[error("programs {first} and {second} both lack -n; only one program of a job can take the slots that are left")]
    SeveralOpen {
        /// Position of the first program without a number, from 1.
        first: usize,
        /// Position of the second.
        second: usize,
    },
    /// A program with zero ranks.
    #[error("program {position} asks for 0 ranks; -n must be at least 1")]
    NoRanks {
        /// Position of the program, from 1.
        position: usize,
    },
    /// A program without a number finds no slot.
    #[error(
        "program {position} has no -n and the other programs use all {slots} slots; give it -n, or more hosts or slots"
    )]
    NothingLeft {
        /// Position of the program, from 1.
        position: usize,
        /// All slots.
        slots: u64,
    },
    /// More ranks than slots.
    #[error(
        "{ranks} ranks do not fit into {slots} {unit} on {hosts} host{s}; use fewer ranks, more hosts or slots, or allow more ranks than slots with --oversubscribe",
        s = if *hosts == 1 { "" } else { "s" }
    )]
    TooManyRanks {
        /// Ranks asked for.
        ranks: u64,
        /// Slots there are.
        slots: u64,
        /// What a slot is here.
        unit: &'static str,
        /// Number of hosts.
        hosts: usize,
    },
    /// Every host has reached its cap.
    #[error(
        "{ranks} ranks do not fit: --oversubscribe never passes a host's max_slots, and that leaves room for {room}; use fewer ranks or raise max_slots"
    )]
    HardCap {
        /// Ranks asked for.
        ranks: u64,
        /// Ranks that fit.
        room: u64,
    },
    /// `--ppn` over a host's cap.
    #[error(
        "--ppn {ppn} is more than max_slots={max_slots} of host {host:?} ({origin}); lower --ppn or raise max_slots"
    )]
    PpnOverMax {
        /// The number per host.
        ppn: u32,
        /// The host.
        host: String,
        /// Its cap.
        max_slots: u32,
        /// Where the host was named.
        origin: String,
    },
    /// `--ppn` with an order that has no room for it.
    #[error(
        "--ppn has no meaning with --placement seq, which puts one rank on each line of the host file; leave one of them out"
    )]
    PpnWithSeq,
    /// A number per host out of range.
    #[error("--ppn is {0}; it must be from 1 to {RANKS_PER_HOST_MAX}")]
    PpnRange(u32),
    /// Over the limit of one job.
    #[error("{0} ranks are more than the {PROCS_MAX} that one job can have")]
    OverProcs(u64),
    /// Over the limit of one host.
    #[error("host {host:?} would get more than {RANKS_PER_HOST_MAX} ranks; use more hosts")]
    OverHost {
        /// The host.
        host: String,
    },
}

/// Places ranks on hosts. Ranks of the first program come first. With `oversubscribe`, hosts are filled again in rounds of
/// their slots once all are full.
pub fn place(hosts: &HostList, request: &Request<'_>) -> Result<Vec<Placed>, PlacementError> {
    if hosts.is_empty() {
        return Err(PlacementError::NoHosts);
    }
    let room = Room::new(hosts, request)?;
    let counts = counts(request, room.free())?;
    let ranks: u64 = counts.iter().map(|n| u64::from(*n)).sum();
    if ranks > u64::from(PROCS_MAX) {
        return Err(PlacementError::OverProcs(ranks));
    }
    if ranks > room.free() && !request.oversubscribe {
        let (slots, unit) = (room.free(), room.unit());
        return Err(PlacementError::TooManyRanks { ranks, slots, unit, hosts: hosts.len() });
    }
    let order = room.order(ranks)?;
    let mut local = vec![0u32; hosts.len()];
    let apps = counts.iter().enumerate().flat_map(|(app, n)| std::iter::repeat_n(app as u32, *n as usize));
    apps.zip(order)
        .map(|(app, host)| {
            let local_rank = local[host.0 as usize];
            if local_rank >= RANKS_PER_HOST_MAX {
                return Err(PlacementError::OverHost { host: name(hosts, host) });
            }
            local[host.0 as usize] += 1;
            Ok(Placed { host, local_rank, app })
        })
        .collect()
}

fn name(hosts: &HostList, host: HostIndex) -> String {
    hosts.get(host).map(|h| h.name.clone()).unwrap_or_default()
}

/// The number of ranks of every program, with the open one filled in.
fn counts(request: &Request<'_>, free: u64) -> Result<Vec<u32>, PlacementError> {
    if request.counts.is_empty() {
        return Err(PlacementError::NoPrograms);
    }
    if let Some(i) = request.counts.iter().position(|n| *n == Some(0)) {
        return Err(PlacementError::NoRanks { position: i + 1 });
    }
    let mut open = request.counts.iter().enumerate().filter(|(_, n)| n.is_none()).map(|(i, _)| i + 1);
    let (first, second) = (open.next(), open.next());
    if let (Some(first), Some(second)) = (first, second) {
        return Err(PlacementError::SeveralOpen { first, second });
    }
    let fixed: u64 = request.counts.iter().flatten().map(|n| u64::from(*n)).sum();
    let rest = free.saturating_sub(fixed).min(u64::from(PROCS_MAX)) as u32;
    match first {
        Some(position) if rest == 0 => Err(PlacementError::NothingLeft { position, slots: free }),
        _ => Ok(request.counts.iter().map(|n| n.unwrap_or(rest)).collect()),
    }
}

/// The room there is, host by host.
struct Room<'a> {
    /// Ranks of one round, per host.
    capacity: Vec<u32>,
    /// Ranks a host takes at most from now on.
    cap: Vec<u32>,
    /// Ranks a host takes in the first round.
    first: Vec<u32>,
    placement: Placement,
    mentions: &'a [HostIndex],
}

impl<'a> Room<'a> {
    fn new(hosts: &'a HostList, request: &Request<'_>) -> Result<Self, PlacementError> {
        if let Some(ppn) = request.ppn {
            if request.placement == Placement::Seq {
                return Err(PlacementError::PpnWithSeq);
            }
            if !(1..=RANKS_PER_HOST_MAX).contains(&ppn) {
                return Err(PlacementError::PpnRange(ppn));
            }
        }
        let mut room = Self {
            capacity: Vec::with_capacity(hosts.len()),
            cap: Vec::with_capacity(hosts.len()),
            first: Vec::with_capacity(hosts.len()),
            placement: request.placement,
            mentions: hosts.mentions(),
        };
        for (i, host) in hosts.hosts().iter().enumerate() {
            let used = request.used.get(i).copied().unwrap_or(0);
            if let (Some(ppn), Some(max_slots)) = (request.ppn, host.max_slots)
                && ppn > max_slots
            {
                let (host, origin) = (host.name.clone(), host.origin.to_string());
                return Err(PlacementError::PpnOverMax { ppn, host, max_slots, origin });
            }
            let capacity = request.ppn.unwrap_or(host.slots);
            let cap = host.max_slots.map_or(u32::MAX, |max| max.saturating_sub(used));
            room.capacity.push(capacity);
            room.first.push(capacity.saturating_sub(used).min(cap));
            room.cap.push(cap);
        }
        Ok(room)
    }

    /// Ranks that fit without oversubscription.
    fn free(&self) -> u64 {
        match self.placement {
            Placement::Seq => self.mentions.len() as u64,
            _ => self.first.iter().map(|n| u64::from(*n)).sum(),
        }
    }

    fn unit(&self) -> &'static str {
        match self.placement {
            Placement::Seq if self.free() == 1 => "line of the host list",
            Placement::Seq => "lines of the host list",
            _ if self.free() == 1 => "slot",
            _ => "slots",
        }
    }

    /// The host of every rank.
    fn order(&self, ranks: u64) -> Result<Vec<HostIndex>, PlacementError> {
        let ranks = ranks as usize;
        let mut order = Vec::with_capacity(ranks);
        let mut left = self.cap.clone();
        let mut round: Vec<u32> = self.first.clone();
        loop {
            let before = order.len();
            match self.placement {
                Placement::Block => block(&round, &mut left, ranks, &mut order),
                Placement::Cyclic => cyclic(&round, &mut left, ranks, &mut order),
                Placement::Seq => sequence(self.mentions, &mut left, ranks, &mut order),
            }
            if order.len() >= ranks {
                return Ok(order);
            }
            // A first round without room (all slots used by others) is no reason to give up; a later one is.
            let exhausted = left.iter().all(|n| *n == 0);
            if exhausted || (order.len() == before && round == self.capacity) {
                return Err(PlacementError::HardCap { ranks: ranks as u64, room: order.len() as u64 });
            }
            round.clone_from(&self.capacity);
        }
    }
}

fn block(round: &[u32], left: &mut [u32], ranks: usize, order: &mut Vec<HostIndex>) {
    for (i, room) in round.iter().enumerate() {
        let n = (*room).min(left[i]).min((ranks - order.len()) as u32);
        left[i] -= n;
        order.extend(std::iter::repeat_n(HostIndex(i as u32), n as usize));
    }
}

fn cyclic(round: &[u32], left: &mut [u32], ranks: usize, order: &mut Vec<HostIndex>) {
    let mut turn = 0;
    loop {
        let before = order.len();
        for (i, room) in round.iter().enumerate() {
            if turn < *room && left[i] > 0 && order.len() < ranks {
                left[i] -= 1;
                order.push(HostIndex(i as u32));
            }
        }
        if order.len() == before {
            return;
        }
        turn += 1;
    }
}

fn sequence(mentions: &[HostIndex], left: &mut [u32], ranks: usize, order: &mut Vec<HostIndex>) {
    for host in mentions {
        if order.len() < ranks && left[host.0 as usize] > 0 {
            left[host.0 as usize] -= 1;
            order.push(*host);
        }
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
