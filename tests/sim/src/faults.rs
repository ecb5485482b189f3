//! What goes wrong, and when.

use muster_protocol::HostIndex;

use crate::agent::Power;
use crate::queue::{Node, What};
use crate::world::{ROOT, World, host_of, node_of};

/// Time after which a kernel gives up a connection on which nothing is acknowledged.
const USER_TIMEOUT_US: u64 = 10_000_000;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An agent dies; its machine closes its connections.
    Crash(Victim),
    /// A machine goes off without a word.
    Off(Victim),
    /// Every wire of a machine is cut; it runs on.
    Isolate(Victim),
    /// The wire between a host and its parent of that moment is cut.
    CutParent(Victim),
    /// An agent does nothing for so many milliseconds.
    Freeze(Victim, u64),
    /// The user ends the job by this signal.
    Interrupt(i32),
    /// The agent of a host is started only now.
    Start(HostIndex),
    /// Agents that have died are started again.
    Restart,
}

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// This host.
    Host(HostIndex),
    /// The host with most hosts below it at that moment.
    Inner,
    /// The child of the first one that has most hosts below it, if it has any children.
    InnerChild,
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So many microseconds after the start.
    At(u64),
    /// When so many hosts have joined.
    Joined(u32),
    /// When the last rank runs.
    Running,
    /// When this fence is over.
    Fence(u64),
    /// When the job is being ended.
    Ending,
    /// When the first rank has returned.
    FirstReturn,
    /// When the job is over.
    Over,
}

/// A fault and its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub moment: Moment,
    /// How long after that, in microseconds.
    pub delay_us: u64,
    /// What.
    pub fault: Fault,
}

impl World {
    /// A fault strikes.
    pub(crate) fn strike(&mut self, fault: Fault) {
        let host = match fault {
            Fault::Crash(v) | Fault::Off(v) | Fault::Isolate(v) | Fault::CutParent(v) | Fault::Freeze(v, _) => {
                self.victim(v)
            }
            Fault::Interrupt(signal) => {
                let now_ms = self.clock_ms(ROOT);
                self.root.job.end_signal(signal, now_ms);
                Some(HostIndex(0))
            }
            Fault::Start(host) => Some(host),
            Fault::Restart => self.restart(),
        };
        let Some(host) = host else { return };
        self.struck.push((self.now_us, fault, host));
        let node = node_of(host);
        match fault {
            Fault::Crash(_) => {
                for conn in self.wires.open_at(node) {
                    self.close(node, conn);
                }
                self.die(node, Power::Crashed);
            }
            Fault::Off(_) => {
                self.wires.isolate(node);
                self.time_out(node, None);
                self.die(node, Power::Off);
            }
            Fault::Isolate(_) => {
                self.wires.isolate(node);
                self.time_out(node, None);
            }
            Fault::CutParent(_) => {
                if let Some(parent) = self.parent_of(node) {
                    self.wires.cut(parent, node);
                    self.time_out(node, Some(parent));
                }
            }
            Fault::Freeze(_, ms) => {
                let until_us = self.now_us + ms * 1_000;
                if let Some(agent) = self.agent_mut(node) {
                    agent.frozen_until_us = agent.frozen_until_us.max(until_us);
                }
            }
            Fault::Start(_) => {
                if let Some(agent) = self.agent_mut(node).filter(|a| a.power == Power::NotYet) {
                    agent.power = Power::On;
                }
            }
            Fault::Interrupt(_) | Fault::Restart => {}
        }
    }

    /// Starts every agent that has died. Names the first one.
    fn restart(&mut self) -> Option<HostIndex> {
        let mut first = None;
        for (i, agent) in self.agents.iter_mut().enumerate().filter(|(_, a)| a.power == Power::Crashed) {
            agent.power = Power::On;
            first.get_or_insert(HostIndex(i as u32));
        }
        first
    }

    /// The kernels at both ends give up connections whose wire is cut, in their own time.
    fn time_out(&mut self, node: Node, with: Option<Node>) {
        for id in self.wires.open_at(node) {
            let other = self.wires.conns[&id].other(node);
            if with.is_none_or(|with| with == other) {
                self.queue.push(self.now_us + USER_TIMEOUT_US, node, What::Closed(id));
                self.queue.push(self.now_us + USER_TIMEOUT_US, other, What::Closed(id));
            }
        }
    }

    fn die(&mut self, node: Node, power: Power) {
        if let Some(agent) = self.agent_mut(node) {
            agent.power = power;
            agent.job = None;
        }
    }

    /// A host's parent at this moment.
    pub fn parent_of(&self, node: Node) -> Option<Node> {
        let (conn, _) = self.agent(node)?.job.as_ref()?.parent?;
        self.wires.conns.get(&conn).map(|c| c.parent)
    }

    /// Children of a node, with the number of hosts at and below each.
    pub fn children_of(&self, node: Node) -> Vec<(Node, usize)> {
        let below =
            |child: Node| 1 + self.agent(child).and_then(|a| a.job.as_ref()).map_or(0, |j| j.tree.joined_below().len());
        let conns = self.wires.children_of(node);
        conns.iter().map(|id| self.wires.conns[id].child).map(|child| (child, below(child))).collect()
    }

    fn victim(&self, victim: Victim) -> Option<HostIndex> {
        let largest = |node: Node| {
            let living = |c: &Node| self.agent(*c).is_some_and(|a| a.power == Power::On);
            self.children_of(node).into_iter().filter(|(c, _)| living(c)).max_by_key(|(_, n)| *n).map(|(c, _)| c)
        };
        match victim {
            Victim::Host(host) => Some(host),
            Victim::Inner => largest(ROOT).map(host_of),
            Victim::InnerChild => largest(ROOT).and_then(largest).map(host_of),
        }
    }
}
