//! Connections: latency, order, cuts.

use std::collections::{BTreeMap, BTreeSet};

use crate::queue::Node;
use crate::rng::Rng;

/// A connection, or an attempt to make one.
pub type ConnId = u64;

/// A connection between a node and one below it.
#[derive(Debug, Clone)]
pub struct Conn {
    /// Who dialled.
    pub parent: Node,
    /// Number of the dialler's job.
    pub parent_job: u32,
    /// Who was dialled.
    pub child: Node,
    /// The dialler waits for the answer.
    pub dialling: bool,
    /// Open at the dialler's side.
    pub open_above: bool,
    /// Open at the other side.
    pub open_below: bool,
    latency_us: u64,
    last_up_us: u64,
    last_down_us: u64,
}

impl Conn {
    /// The node at the other end.
    pub fn other(&self, node: Node) -> Node {
        if node == self.parent { self.child } else { self.parent }
    }

    /// Whether it is open at this node's side.
    pub fn is_open_at(&self, node: Node) -> bool {
        if node == self.parent { self.open_above } else { self.open_below }
    }

    /// Closes it at this node's side.
    pub fn close_at(&mut self, node: Node) {
        if node == self.parent {
            self.open_above = false;
        } else {
            self.open_below = false;
        }
    }
}

/// The network.
#[derive(Debug)]
pub struct Wires {
    /// Every connection there was.
    pub conns: BTreeMap<ConnId, Conn>,
    cut: BTreeSet<(Node, Node)>,
    isolated: BTreeSet<Node>,
    next: ConnId,
    latency_us: (u64, u64),
    rng: Rng,
}

impl Wires {
    /// A network whose connections have a latency in this range, in microseconds.
    pub fn new(latency_us: (u64, u64), rng: Rng) -> Self {
        Self { conns: BTreeMap::new(), cut: BTreeSet::new(), isolated: BTreeSet::new(), next: 0, latency_us, rng }
    }

    /// A random latency.
    pub fn latency_us(&mut self) -> u64 {
        self.rng.range(self.latency_us.0, self.latency_us.1)
    }

    /// A new attempt to connect.
    pub fn dial(&mut self, parent: Node, parent_job: u32, child: Node) -> ConnId {
        let id = self.next;
        self.next += 1;
        let latency_us = self.latency_us();
        let conn = Conn {
            parent,
            parent_job,
            child,
            dialling: true,
            open_above: false,
            open_below: false,
            latency_us,
            last_up_us: 0,
            last_down_us: 0,
        };
        self.conns.insert(id, conn);
        id
    }

    /// When something that a node sends on a connection now arrives: in order, with jitter. `None` when it never does.
    pub fn arrival_us(&mut self, id: ConnId, from: Node, now_us: u64) -> Option<u64> {
        let jitter = self.rng.range(0, 200);
        let conn = self.conns.get(&id)?;
        if self.is_cut(conn.parent, conn.child) {
            return None;
        }
        let conn = self.conns.get_mut(&id)?;
        let last = if from == conn.child { &mut conn.last_up_us } else { &mut conn.last_down_us };
        *last = (now_us + conn.latency_us + jitter).max(*last);
        Some(*last)
    }

    /// Whether nothing goes from one to the other.
    pub fn is_cut(&self, a: Node, b: Node) -> bool {
        self.cut.contains(&(a.min(b), a.max(b))) || self.isolated.contains(&a) || self.isolated.contains(&b)
    }

    /// Cuts the wire between two nodes for good.
    pub fn cut(&mut self, a: Node, b: Node) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// Cuts every wire of a node for good.
    pub fn isolate(&mut self, node: Node) {
        self.isolated.insert(node);
    }

    /// Connections that are open at this node's side, as parent and as child.
    pub fn open_at(&self, node: Node) -> Vec<ConnId> {
        let mine = |c: &Conn| (c.parent == node || c.child == node) && c.is_open_at(node);
        self.conns.iter().filter(|(_, c)| mine(c)).map(|(id, _)| *id).collect()
    }

    /// Connections to children that are open at this node's side.
    pub fn children_of(&self, node: Node) -> Vec<ConnId> {
        self.open_at(node).into_iter().filter(|id| self.conns[id].parent == node).collect()
    }

    /// Drops what both sides have closed.
    pub fn forget_closed(&mut self) {
        self.conns.retain(|_, c| c.dialling || c.open_above || c.open_below);
    }
}
