//! Merging one process group's fences on their way up the tree.
//!
//! What travels is a set of hosts with their key-values, never a count. A host whose parent died reports again through
//! another one; whoever merges sees that the host is already in and drops it.

use bytes::Bytes;
use muster_protocol::limits::FENCE_BYTES_MAX;
use muster_protocol::{Group, HostSet};

/// What goes to the parent: these hosts have all arrived at this fence, and this is what they bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// Number of the fence in its group, from 0.
    pub seq: u64,
    /// The hosts that are in it.
    pub hosts: HostSet,
    /// Their key-values; the blobs may be put one behind the other in any order.
    pub blobs: Vec<Bytes>,
}

/// What became of a contribution that was not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It brought hosts that were not in yet.
    New,
    /// All of its hosts were in already.
    Known,
    /// It belongs to the fence before this one, which is over here. A child that sends it again after it was given a new
    /// parent has missed the result and needs it from us.
    Late,
}

/// Why a contribution or a result was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// The sequence number is further ahead than anybody can be.
    #[error("group {group}: fence {seq} does not fit, this node is at fence {current}")]
    Sequence {
        /// The process group.
        group: Group,
        /// What came.
        seq: u64,
        /// What is going on here.
        current: u64,
    },
    /// A host reports that has no ranks in the group.
    #[error("group {group}: fence {seq} names hosts {hosts:?}, which have no rank in the group")]
    NotMember {
        /// The process group.
        group: Group,
        /// The fence.
        seq: u64,
        /// The hosts that do not belong.
        hosts: HostSet,
    },
    /// A contribution of nobody.
    #[error("group {group}: a contribution to fence {seq} names no host")]
    Nobody {
        /// The process group.
        group: Group,
        /// The fence.
        seq: u64,
    },
    /// All key-values together pass the limit.
    #[error("group {group}: fence {seq} brings {bytes} bytes of key-values, at most {FENCE_BYTES_MAX}")]
    TooLarge {
        /// The process group.
        group: Group,
        /// The fence.
        seq: u64,
        /// What it would be.
        bytes: usize,
    },
}

#[derive(Debug)]
struct Piece {
    hosts: HostSet,
    blobs: Vec<Bytes>,
    bytes: usize,
}

/// The contributions to one fence that have come so far.
#[derive(Debug, Default)]
struct Gathering {
    hosts: HostSet,
    pieces: Vec<Piece>,
    bytes: usize,
    /// The hosts that were in when it was last handed out.
    sent: Option<HostSet>,
}

impl Gathering {
    /// Makes room for a piece: what it contains whole is replaced by it, so that re-parenting does not send bytes twice.
    fn replaced_by(&self, hosts: &HostSet) -> (bool, usize) {
        if self.hosts.is_disjoint(hosts) {
            return (false, 0);
        }
        let bytes = self.pieces.iter().filter(|p| p.hosts.is_subset(hosts)).map(|p| p.bytes).sum();
        (true, bytes)
    }

    fn add(&mut self, piece: Piece, overlaps: bool) {
        if overlaps {
            self.pieces.retain(|p| !p.hosts.is_subset(&piece.hosts));
        }
        self.hosts.union_with(&piece.hosts);
        self.pieces.push(piece);
        self.bytes = self.pieces.iter().map(|p| p.bytes).sum();
    }
}

/// One process group's fence at one node of the tree.
#[derive(Debug)]
pub struct FenceMerge {
    group: Group,
    members: HostSet,
    /// The members below and at this node, which it waits for.
    need: HostSet,
    /// Hosts that were members and take part no more.
    left: HostSet,
    current: u64,
    now: Gathering,
    /// A child may be told the result, through another way, before we are: it can be one fence ahead.
    next: Gathering,
}

impl FenceMerge {
    /// A merge for the hosts that have ranks in the group. It waits for all of them, as the root does, until
    /// [`FenceMerge::set_subtree`] says otherwise.
    pub fn new(group: Group, members: HostSet) -> Self {
        let need = members.clone();
        Self {
            group,
            members,
            need,
            left: HostSet::new(),
            current: 0,
            now: Gathering::default(),
            next: Gathering::default(),
        }
    }

    /// The process group.
    pub fn group(&self) -> Group {
        self.group
    }

    /// The fence that is not over yet.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Says which hosts are at or below this node from now on.
    pub fn set_subtree(&mut self, subtree: &HostSet) {
        self.need = self.members.intersection(subtree);
    }

    /// These hosts take part no more: nobody waits for them, and what they may still bring is dropped.
    pub fn leave(&mut self, hosts: &HostSet) {
        self.left.union_with(&self.members.intersection(hosts));
        self.members.subtract(hosts);
        self.need.subtract(hosts);
    }

    /// The hosts that take part.
    pub fn members(&self) -> &HostSet {
        &self.members
    }

    /// Takes in what a child, or this host itself, brings.
    pub fn contribute(&mut self, seq: u64, mut hosts: HostSet, blobs: Vec<Bytes>) -> Result<Offered, FenceError> {
        let group = self.group;
        if hosts.is_empty() {
            return Err(FenceError::Nobody { group, seq });
        }
        hosts.subtract(&self.left);
        if hosts.is_empty() {
            return Ok(Offered::Known);
        }
        if !hosts.is_subset(&self.members) {
            let mut strangers = hosts;
            strangers.subtract(&self.members);
            return Err(FenceError::NotMember { group, seq, hosts: strangers });
        }
        let gathering = if seq == self.current {
            &mut self.now
        } else if seq.checked_sub(1) == Some(self.current) {
            &mut self.next
        } else if self.current.checked_sub(1) == Some(seq) {
            return Ok(Offered::Late);
        } else if seq < self.current {
            // The fence after it is over, so nobody waits for it: a node that has changed its place tells what it once knew.
            return Ok(Offered::Known);
        } else {
            return Err(FenceError::Sequence { group, seq, current: self.current });
        };
        if hosts.is_subset(&gathering.hosts) {
            return Ok(Offered::Known);
        }
        let blobs: Vec<Bytes> = blobs.into_iter().filter(|b| !b.is_empty()).collect();
        let bytes = blobs.iter().fold(0usize, |sum, b| sum.saturating_add(b.len()));
        let (overlaps, replaced) = gathering.replaced_by(&hosts);
        let total = (gathering.bytes - replaced).saturating_add(bytes);
        if total > FENCE_BYTES_MAX {
            return Err(FenceError::TooLarge { group, seq, bytes: total });
        }
        gathering.add(Piece { hosts, blobs, bytes }, overlaps);
        Ok(Offered::New)
    }

    /// What is to go to the parent now, or at the root: what is complete. Handed out once, and again whenever more hosts
    /// have come in.
    pub fn poll(&mut self) -> Option<Contribution> {
        if !self.is_complete() || self.now.sent.as_ref() == Some(&self.now.hosts) {
            return None;
        }
        self.now.sent = Some(self.now.hosts.clone());
        Some(self.contribution())
    }

    /// The same again for a new parent. `None` while hosts of the subtree are missing and nothing has been handed out:
    /// [`FenceMerge::poll`] will tell. Hosts that have come in below since are not waited for: they may have the result.
    pub fn resend(&mut self) -> Option<Contribution> {
        if self.now.sent.take().is_none() {
            return self.poll();
        }
        self.now.sent = Some(self.now.hosts.clone());
        self.arrived()
    }

    /// Who has arrived at the current fence so far, and what they bring.
    pub fn arrived(&self) -> Option<Contribution> {
        (!self.now.hosts.is_empty()).then(|| self.contribution())
    }

    /// Whether every member in this subtree has arrived at the current fence.
    pub fn is_complete(&self) -> bool {
        !self.need.is_empty() && self.need.is_subset(&self.now.hosts)
    }

    /// The fence is over: its result has come down, or was made here. Says whether it was news.
    pub fn done(&mut self, seq: u64) -> Result<bool, FenceError> {
        if seq > self.current {
            return Err(FenceError::Sequence { group: self.group, seq, current: self.current });
        }
        if seq < self.current {
            return Ok(false);
        }
        self.current += 1;
        self.now = std::mem::take(&mut self.next);
        Ok(true)
    }

    /// Something proves that all fences before this one are over, though their results have not passed here.
    pub fn catch_up(&mut self, seq: u64) {
        if seq > self.current {
            let ahead = std::mem::take(&mut self.next);
            self.now = if seq - self.current == 1 { ahead } else { Gathering::default() };
            self.current = seq;
        }
    }

    /// The members of this subtree that have not arrived at a fence.
    pub fn missing(&self, seq: u64) -> HostSet {
        let mut missing = self.need.clone();
        if seq < self.current {
            return HostSet::new();
        } else if seq == self.current {
            missing.subtract(&self.now.hosts);
        } else if seq - self.current == 1 {
            missing.subtract(&self.next.hosts);
        }
        missing
    }

    fn contribution(&self) -> Contribution {
        Contribution {
            seq: self.current,
            hosts: self.now.hosts.clone(),
            blobs: self.now.pieces.iter().flat_map(|p| p.blobs.iter().cloned()).collect(),
        }
    }
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
