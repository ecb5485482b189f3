//! What will happen, in the order of simulated time.

use std::collections::BTreeMap;

use muster_protocol::Frame;
use muster_protocol::message::Obstacle;

use crate::faults::Fault;
use crate::ranks::RankEvent;
use crate::wires::ConnId;

/// A program on a machine: 0 is the launcher, `i + 1` the agent of host `i`.
pub type Node = usize;

/// One thing that will happen.
#[derive(Debug, Clone)]
pub enum What {
    /// A frame arrives.
    Frame(ConnId, Frame),
    /// The other side's close arrives.
    Closed(ConnId),
    /// A dial arrives.
    Dial(ConnId),
    /// A dialler hears that it is connected.
    Accepted(ConnId),
    /// A dialler hears that it is not connected.
    Refused(ConnId, Obstacle),
    /// A probe arrives.
    Probe(u64),
    /// A probing node has its answer, or has waited long enough.
    Probed(u64, bool),
    /// Something is due.
    Tick,
    /// The launcher's heartbeat is due.
    Heartbeat,
    /// Something happens to the ranks of a host, in its job with this number.
    Rank(u32, RankEvent),
    /// A fault strikes.
    Fault(Fault),
    /// The time to connect is over.
    ConnectDeadline,
    /// The launcher leaves.
    Farewell,
}

/// The queue. What was put in first comes first among things of the same time.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<(u64, u64), (Node, What)>,
    next: u64,
}

impl Queue {
    /// Something will happen to a node.
    pub fn push(&mut self, at_us: u64, node: Node, what: What) {
        self.events.insert((at_us, self.next), (node, what));
        self.next += 1;
    }

    /// The next thing, whenever it is.
    pub fn next(&self) -> Option<&What> {
        self.events.first_key_value().map(|(_, (_, what))| what)
    }

    /// The next thing, unless it is later than this: when, its number, to whom, what.
    pub fn pop_until(&mut self, until_us: u64) -> Option<(u64, u64, Node, What)> {
        let ((at_us, _), _) = self.events.first_key_value()?;
        if *at_us > until_us {
            return None;
        }
        self.events.pop_first().map(|((at_us, number), (node, what))| (at_us, number, node, what))
    }

    /// Puts something back that must wait, before everything that came after it.
    pub fn put_back(&mut self, at_us: u64, number: u64, node: Node, what: What) {
        self.events.insert((at_us, number), (node, what));
    }
}
