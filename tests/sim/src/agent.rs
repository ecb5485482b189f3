//! An agent: what its shell does around the node of the tree and the ranks.

use muster_core::tree::{Act, TreeNode};
use muster_protocol::frame::Kind;
use muster_protocol::limits::SILENCE_DEAD_MS;
use muster_protocol::message::Stamp;
use muster_protocol::{Frame, HostIndex};

use crate::ranks::{Program, RankAct, Ranks};
use crate::rng::Rng;
use crate::wires::ConnId;

/// Whether a machine and its agent run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// The agent has not been started yet; the machine refuses connections.
    NotYet,
    /// It serves.
    On,
    /// The agent has died; its machine closed its connections and refuses new ones.
    Crashed,
    /// The machine is off: nobody answers.
    Off,
}

/// The agent of one host.
#[derive(Debug)]
pub struct Agent {
    /// Whether it runs.
    pub power: Power,
    /// It does nothing until then.
    pub frozen_until_us: u64,
    /// Time it takes to answer a dial.
    pub accept_us: u64,
    /// Difference of its clock from the world's, in milliseconds.
    pub clock_ms: u64,
    /// Its job.
    pub job: Option<AgentJob>,
    /// Jobs it has had.
    pub jobs: u32,
}

/// A job on one host.
#[derive(Debug)]
pub struct AgentJob {
    /// Its number on this host.
    pub number: u32,
    /// The node of the tree.
    pub tree: TreeNode,
    /// The ranks.
    pub ranks: Ranks,
    /// The parent's connection and when it was heard.
    pub parent: Option<(ConnId, u64)>,
    parents: u32,
    shared: bool,
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Deed {
    /// Of the tree.
    Tree(Act),
    /// Of the ranks.
    Rank(RankAct),
    /// A frame for the parent.
    ToParent(ConnId, Frame),
}

impl Agent {
    /// An agent that runs, or will.
    pub fn new(power: Power, accept_us: u64, clock_ms: u64) -> Self {
        Self { power, frozen_until_us: 0, accept_us, clock_ms, job: None, jobs: 0 }
    }

    /// Whether a dial finds it bound to a living parent.
    pub fn has_parent(&self, now_ms: u64) -> bool {
        let heard = self.job.as_ref().and_then(|j| j.parent);
        heard.is_some_and(|(_, heard_ms)| now_ms.saturating_sub(heard_ms) < SILENCE_DEAD_MS)
    }

    /// Takes a parent; gives the connection of the one it replaces.
    pub fn take_parent(&mut self, conn: ConnId, new_job: impl FnOnce(u32) -> AgentJob, now_ms: u64) -> Option<ConnId> {
        if self.job.is_none() {
            self.jobs += 1;
            self.job = Some(new_job(self.jobs));
        }
        let job = self.job.as_mut()?;
        job.parents += 1;
        let old = job.parent.replace((conn, now_ms));
        if job.parents > 1 {
            job.tree.reparented();
        }
        old.map(|(conn, _)| conn)
    }
}

impl AgentJob {
    /// A job that has just begun.
    pub fn new(number: u32, me: HostIndex, stamp: Stamp, program: Program, rng: Rng) -> Self {
        Self {
            number,
            tree: TreeNode::new(Some(me), stamp),
            ranks: Ranks::new(me, stamp, program, rng),
            parent: None,
            parents: 0,
            shared: false,
        }
    }

    /// A frame from the parent.
    pub fn from_parent(&mut self, conn: ConnId, frame: Frame, now_ms: u64) {
        let Some((_, heard_ms)) = self.parent.as_mut().filter(|(parent, _)| *parent == conn) else { return };
        *heard_ms = now_ms;
        self.tree.from_parent(frame, now_ms);
    }

    /// Decides everything that follows from what happened; what is to be done outside is added to `deeds`.
    pub fn settle(&mut self, now_ms: u64, deeds: &mut Vec<Deed>) {
        loop {
            let (mut acts, rank_acts) = (self.tree.take_acts(), self.ranks.take_acts());
            if acts.is_empty() && rank_acts.is_empty() {
                return;
            }
            for act in acts.drain(..) {
                match act {
                    Act::Local(frame) => {
                        self.shared |= frame.header.kind == Kind::Share;
                        self.ranks.frame(&frame, now_ms);
                    }
                    Act::Up(frame) => deeds.extend(self.parent.map(|(conn, _)| Deed::ToParent(conn, frame))),
                    other => deeds.push(Deed::Tree(other)),
                }
            }
            for act in rank_acts {
                match act {
                    RankAct::Up(frame) => self.tree.from_here(frame, now_ms),
                    RankAct::Fence(group, seq, blob) => {
                        if let Err(why) = self.tree.own_fence(group, seq, blob) {
                            deeds.push(Deed::Rank(RankAct::Wrong(why)));
                        }
                    }
                    other => deeds.push(Deed::Rank(other)),
                }
            }
        }
    }

    /// Whether nobody asks for it and nothing of it is left.
    pub fn is_over(&self) -> bool {
        self.parent.is_none() && (self.ranks.is_over() || !self.shared)
    }

    /// When it must be ticked next.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.tree.next_due_ms().into_iter().chain(self.ranks.next_due_ms()).min()
    }
}
