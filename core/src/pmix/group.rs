//! One process group on one host, as its PMIx server sees it.

use std::collections::VecDeque;

use bytes::Bytes;
use muster_protocol::message::EnvVar;
use muster_protocol::{Group, Rank};

use crate::pmi::Phase;

/// How far a group's ranks here are from starting.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    /// The server does not know it yet.
    Waiting,
    /// The hosts compare their libraries.
    Comparing(Vec<Vec<EnvVar>>),
    /// Its ranks have been started.
    Started,
    /// They cannot be.
    Failed,
}

/// A rank here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) rank: Rank,
    pub(super) phase: Phase,
    pub(super) living: bool,
}

/// See the module above.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) group: Group,
    pub(super) stage: Stage,
    pub(super) members: Vec<Member>,
    /// Number of the group's next fence.
    pub(super) seq: u64,
    /// The fence that is going on over the tree, by the library's number; the hosts' own has none.
    pub(super) in_flight: Option<Option<u64>>,
    /// Fences of the library that wait for it.
    pub(super) waiting: VecDeque<(u64, Bytes)>,
}

impl Local {
    pub(super) fn new(group: Group, ranks: Vec<Rank>) -> Self {
        let member = |rank| Member { rank, phase: Phase::Untouched, living: true };
        Self {
            group,
            members: ranks.into_iter().map(member).collect(),
            stage: Stage::Waiting,
            seq: 0,
            in_flight: None,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn member_mut(&mut self, rank: u32) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.rank == Rank(rank))
    }

    /// The next fence, if none is going on.
    pub(super) fn next_fence(&mut self) -> Option<(u64, Bytes)> {
        if self.in_flight.is_some() {
            return None;
        }
        let (token, blob) = self.waiting.pop_front()?;
        self.in_flight = Some(Some(token));
        Some((self.seq, blob))
    }
}
