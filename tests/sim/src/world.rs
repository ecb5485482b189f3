//! The world: machines, network and time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_core::tree::{Act, EdgeId};
use muster_protocol::event::Event;
use muster_protocol::limits::{FENCE_LEASE_MS, HEARTBEAT_PERIOD_MS};
use muster_protocol::message::{Heartbeat, Obstacle};
use muster_protocol::{Frame, HostIndex};

use crate::agent::{Agent, AgentJob, Deed, Power};
use crate::faults::{Fault, Moment, Planned};
use crate::queue::{Node, Queue, What};
use crate::ranks::RankAct;
use crate::rng::Rng;
use crate::root::{Root, STAMP};
use crate::scenario::Scenario;
use crate::wires::{ConnId, Wires};

/// Time for one attempt to connect.
const DIAL_LIMIT_US: u64 = 5_000_000;
/// Time for a probe.
const PROBE_LIMIT_US: u64 = 1_500_000;
/// Time between the end of the job and the launcher's last close.
const FAREWELL_US: u64 = 10_000;
/// More things than this never happen in a run that gets anywhere.
const EVENTS_MAX: u64 = 5_000_000;

/// The launcher's place among the nodes.
pub const ROOT: Node = 0;

/// A probe that has not been answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probing {
    from: Node,
    to: Node,
    edge: EdgeId,
}

/// The world; see the module above.
#[derive(Debug)]
pub struct World {
    /// What it was made for.
    pub scenario: Scenario,
    /// Simulated time, in microseconds.
    pub now_us: u64,
    /// The launcher.
    pub root: Root,
    /// The agents, in the order of their hosts.
    pub agents: Vec<Agent>,
    /// What must not have happened.
    pub wrong: Vec<String>,
    /// When a fault struck whom.
    pub struck: Vec<(u64, Fault, HostIndex)>,
    /// Ranks on hosts that the job counts on, at the moment it said that it is over.
    pub ranks_at_over: Vec<(HostIndex, usize)>,
    /// Fences that each host has been through.
    pub fences_seen: BTreeMap<HostIndex, u64>,
    pub(crate) wires: Wires,
    pub(crate) queue: Queue,
    rng: Rng,
    ticks: HashMap<Node, u64>,
    probes: BTreeMap<u64, Probing>,
    next_probe: u64,
    planned: Vec<Planned>,
    joined: BTreeSet<HostIndex>,
    /// The launcher has all output, or will never have it.
    leaving: bool,
}

/// The node of a host's agent.
pub fn node_of(host: HostIndex) -> Node {
    host.0 as usize + 1
}

/// The host whose agent a node is.
pub fn host_of(node: Node) -> HostIndex {
    HostIndex(node as u32 - 1)
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(scenario: Scenario) -> Self {
        let mut rng = Rng::new(scenario.seed);
        let late: BTreeSet<HostIndex> = scenario
            .faults
            .iter()
            .filter_map(|p| if let Fault::Start(host) = p.fault { Some(host) } else { None })
            .collect();
        let agents = (0..scenario.hosts).map(|i| {
            let power = if late.contains(&HostIndex(i)) { Power::NotYet } else { Power::On };
            Agent::new(power, scenario.accept_us(i), rng.range(0, 1_000_000))
        });
        let agents = agents.collect();
        let mut world = Self {
            now_us: 0,
            root: Root::new(&scenario),
            agents,
            wrong: Vec::new(),
            struck: Vec::new(),
            ranks_at_over: Vec::new(),
            fences_seen: BTreeMap::new(),
            wires: Wires::new(scenario.latency_us, Rng::new(rng.bits())),
            queue: Queue::default(),
            rng,
            ticks: HashMap::new(),
            probes: BTreeMap::new(),
            next_probe: 0,
            planned: scenario.faults.clone(),
            joined: BTreeSet::new(),
            leaving: false,
            scenario,
        };
        world.queue.push(0, ROOT, What::Heartbeat);
        world.queue.push(world.scenario.connect_ms * 1_000, ROOT, What::ConnectDeadline);
        world.moment(|m| if let Moment::At(at_us) = m { Some(*at_us) } else { None });
        world
    }

    /// Runs until nothing happens any more, which must be so before `limit_us`.
    pub fn run(&mut self, limit_us: u64) {
        self.run_until(limit_us);
        if let Some(what) = self.queue.next() {
            let seconds = limit_us / 1_000_000;
            self.wrong.push(format!("still going on after {seconds} s of simulated time: {what:?}"));
        }
    }

    /// Runs until this time at most.
    pub fn run_until(&mut self, until_us: u64) {
        let mut count = 0;
        while let Some((at_us, number, node, what)) = self.queue.pop_until(until_us) {
            self.now_us = at_us;
            if let Some(until_us) = self.frozen(node, &what) {
                self.queue.put_back(until_us, number, node, what);
                continue;
            }
            self.happen(node, what);
            self.settle(node);
            count += 1;
            if count > EVENTS_MAX {
                self.wrong.push("no end of events: something runs in circles".to_owned());
                return;
            }
            if count.is_multiple_of(4_096) {
                self.wires.forget_closed();
            }
        }
    }

    fn frozen(&self, node: Node, what: &What) -> Option<u64> {
        let until_us = self.agent(node)?.frozen_until_us;
        (self.now_us < until_us && !matches!(what, What::Fault(_) | What::Probed(..))).then_some(until_us)
    }

    pub(crate) fn agent(&self, node: Node) -> Option<&Agent> {
        self.agents.get(node.checked_sub(1)?)
    }

    pub(crate) fn agent_mut(&mut self, node: Node) -> Option<&mut Agent> {
        self.agents.get_mut(node.checked_sub(1)?)
    }

    /// A node's own clock.
    pub(crate) fn clock_ms(&self, node: Node) -> u64 {
        self.now_us / 1_000 + self.agent(node).map_or(0, |a| a.clock_ms)
    }

    /// The number of a node's job; the launcher has one only.
    fn job_number(&self, node: Node) -> u32 {
        self.agent(node).map_or(0, |a| a.job.as_ref().map_or(0, |j| j.number))
    }

    fn happen(&mut self, node: Node, what: What) {
        match what {
            What::Frame(conn, frame) => self.frame(node, conn, frame),
            What::Closed(conn) => self.closed(node, conn),
            What::Dial(conn) => self.answer_dial(node, conn),
            What::Accepted(conn) => self.accepted(node, conn),
            What::Refused(conn, why) => self.refused(node, conn, why),
            What::Probe(probe) => {
                if self.agent(node).is_some_and(|a| a.power == Power::On)
                    && let Some(asked) = self.probes.get(&probe).copied()
                {
                    let back = self.wires.latency_us();
                    self.queue.push(self.now_us + back, asked.from, What::Probed(probe, true));
                }
            }
            What::Probed(probe, alive) => self.probed(node, probe, alive),
            What::Tick => self.tick(node),
            What::Heartbeat => self.beat(),
            What::Rank(job, event) => {
                if let Some(j) = self.agent_mut(node).and_then(|a| a.job.as_mut()).filter(|j| j.number == job) {
                    j.ranks.event(event);
                }
            }
            What::Fault(fault) => self.strike(fault),
            What::ConnectDeadline => self.root.job.connect_deadline(),
            What::Farewell => {
                self.root.gone = true;
                for conn in self.wires.open_at(ROOT) {
                    self.close(ROOT, conn);
                }
            }
        }
    }

    fn beat(&mut self) {
        if self.root.gone {
            return;
        }
        let now_ms = self.clock_ms(ROOT);
        let beat = Heartbeat { sent_ms: now_ms, lease_ms: FENCE_LEASE_MS };
        self.root.tree.from_parent(STAMP.to_all(&beat), now_ms);
        self.root.tree.tick(now_ms);
        self.root.job.tick(now_ms);
        self.queue.push(self.now_us + HEARTBEAT_PERIOD_MS * 1_000, ROOT, What::Heartbeat);
    }

    fn tick(&mut self, node: Node) {
        if self.ticks.get(&node).is_some_and(|at| *at <= self.now_us) {
            self.ticks.remove(&node);
        }
        let now_ms = self.clock_ms(node);
        if node == ROOT && !self.root.gone {
            self.root.tree.tick(now_ms);
            self.root.job.tick(now_ms);
        } else if let Some(job) = self.agent_mut(node).and_then(|a| a.job.as_mut()) {
            job.tree.tick(now_ms);
            job.ranks.tick(now_ms);
        }
    }

    fn frame(&mut self, node: Node, id: ConnId, frame: Frame) {
        let Some(conn) = self.wires.conns.get(&id).filter(|c| c.is_open_at(node)) else { return };
        let above = conn.parent == node;
        let now_ms = self.clock_ms(node);
        if node == ROOT {
            self.root.tree.from_child(EdgeId(id), frame, now_ms);
        } else if let Some(job) = self.agent_mut(node).and_then(|a| a.job.as_mut()) {
            if above {
                job.tree.from_child(EdgeId(id), frame, now_ms);
            } else {
                job.from_parent(id, frame, now_ms);
            }
        }
    }

    fn closed(&mut self, node: Node, id: ConnId) {
        let Some(conn) = self.wires.conns.get_mut(&id).filter(|c| c.is_open_at(node)) else { return };
        conn.close_at(node);
        let above = conn.parent == node;
        let (now_ms, why) = (self.clock_ms(node), "its agent closed the connection".to_owned());
        if node == ROOT {
            self.root.tree.child_closed(EdgeId(id), why, now_ms);
        } else if let Some(job) = self.agent_mut(node).and_then(|a| a.job.as_mut()) {
            if above {
                job.tree.child_closed(EdgeId(id), why, now_ms);
            } else if job.parent.is_some_and(|(parent, _)| parent == id) {
                job.parent = None;
            }
        }
    }

    fn dial(&mut self, from: Node, host: HostIndex) {
        let (to, job) = (node_of(host), self.job_number(from));
        let id = self.wires.dial(from, job, to);
        self.queue.push(self.now_us + DIAL_LIMIT_US, from, What::Refused(id, Obstacle::Unreachable));
        let slow_us = self.agent(to).map_or(0, |a| a.accept_us);
        if self.agent(to).is_some_and(|a| a.power != Power::Off)
            && let Some(at_us) = self.wires.arrival_us(id, from, self.now_us)
        {
            self.queue.push(at_us + slow_us, to, What::Dial(id));
        }
    }

    fn answer_dial(&mut self, node: Node, id: ConnId) {
        let Some(conn) = self.wires.conns.get(&id).filter(|c| c.dialling) else { return };
        let (from, now_ms) = (conn.parent, self.clock_ms(node));
        let Some(power) = self.agent(node).map(|a| a.power) else { return };
        let answer = match power {
            Power::Off => return,
            Power::NotYet | Power::Crashed => Some(Obstacle::Refused),
            Power::On if self.agent(node).is_some_and(|a| a.has_parent(now_ms)) => Some(Obstacle::Waiting),
            Power::On => None,
        };
        let Some(at_us) = self.wires.arrival_us(id, node, self.now_us) else { return };
        if let Some(why) = answer {
            self.queue.push(at_us, from, What::Refused(id, why));
            return;
        }
        if let Some(conn) = self.wires.conns.get_mut(&id) {
            conn.open_below = true;
        }
        self.queue.push(at_us, from, What::Accepted(id));
        let (program, rng) = (self.scenario.program.clone(), Rng::new(self.rng.bits()));
        let Some(agent) = self.agent_mut(node) else { return };
        let new_job = |number| AgentJob::new(number, host_of(node), STAMP, program, rng);
        if let Some(old) = agent.take_parent(id, new_job, now_ms) {
            self.close(node, old);
        }
    }

    fn accepted(&mut self, node: Node, id: ConnId) {
        let job = self.job_number(node);
        let Some(conn) = self.wires.conns.get_mut(&id) else { return };
        let (wanted, child) = (conn.dialling && conn.parent_job == job, conn.child);
        conn.dialling = false;
        conn.open_above = true;
        let now_ms = self.clock_ms(node);
        if !wanted || (node == ROOT && self.root.gone) {
            self.close(node, id);
        } else if node == ROOT {
            self.root.tree.dialled(host_of(child), EdgeId(id), now_ms);
        } else if let Some(job) = self.agent_mut(node).and_then(|a| a.job.as_mut()) {
            job.tree.dialled(host_of(child), EdgeId(id), now_ms);
        } else {
            self.close(node, id);
        }
    }

    fn refused(&mut self, node: Node, id: ConnId, why: Obstacle) {
        let job = self.job_number(node);
        let Some(conn) = self.wires.conns.get_mut(&id).filter(|c| c.dialling) else { return };
        let (host, wanted) = (host_of(conn.child), conn.parent_job == job);
        conn.dialling = false;
        let now_ms = self.clock_ms(node);
        let text = format!("{why:?}");
        if !wanted {
        } else if node == ROOT {
            self.root.tree.dial_failed(host, why, text, now_ms);
        } else if let Some(job) = self.agent_mut(node).and_then(|a| a.job.as_mut()) {
            job.tree.dial_failed(host, why, text, now_ms);
        }
    }

    fn probe(&mut self, from: Node, edge: EdgeId, host: HostIndex) {
        let (to, probe) = (node_of(host), self.next_probe);
        self.next_probe += 1;
        self.probes.insert(probe, Probing { from, to, edge });
        self.queue.push(self.now_us + PROBE_LIMIT_US, from, What::Probed(probe, false));
        if !self.wires.is_cut(from, to) {
            let latency_us = self.wires.latency_us();
            self.queue.push(self.now_us + latency_us, to, What::Probe(probe));
        }
    }

    fn probed(&mut self, node: Node, probe: u64, alive: bool) {
        let Some(asked) = self.probes.remove(&probe) else { return };
        let alive = alive && !self.wires.is_cut(asked.from, asked.to);
        let now_ms = self.clock_ms(node);
        if node == ROOT {
            self.root.tree.probed(asked.edge, alive, now_ms);
        } else if let Some(job) = self.agent_mut(node).and_then(|a| a.job.as_mut()) {
            job.tree.probed(asked.edge, alive, now_ms);
        }
    }

    /// Closes a connection at a node's side; the other side hears of it unless the wire is cut.
    pub(crate) fn close(&mut self, node: Node, id: ConnId) {
        let Some(conn) = self.wires.conns.get_mut(&id).filter(|c| c.is_open_at(node)) else { return };
        conn.close_at(node);
        let other = conn.other(node);
        if let Some(at_us) = self.wires.arrival_us(id, node, self.now_us) {
            self.queue.push(at_us, other, What::Closed(id));
        }
    }

    fn send(&mut self, node: Node, id: ConnId, frame: Frame) {
        let Some(conn) = self.wires.conns.get(&id).filter(|c| c.is_open_at(node)) else { return };
        let other = conn.other(node);
        if let Some(at_us) = self.wires.arrival_us(id, node, self.now_us) {
            self.queue.push(at_us, other, What::Frame(id, frame));
        }
    }

    fn settle(&mut self, node: Node) {
        if node == ROOT {
            self.settle_root();
        } else {
            self.settle_agent(node);
        }
        self.wind_up(node);
    }

    fn settle_root(&mut self) {
        let mut acts = Vec::new();
        let was_over = !self.root.over.is_empty();
        let news = self.root.settle(self.now_us, &mut acts);
        for act in acts {
            self.tree_act(ROOT, act);
        }
        if !was_over && !self.root.over.is_empty() {
            let alive = |(i, a): (usize, &Agent)| {
                let ranks = a.job.as_ref().map_or(0, |j| j.ranks.alive());
                (ranks > 0).then_some((HostIndex(i as u32), ranks))
            };
            self.ranks_at_over = self.agents.iter().enumerate().filter_map(alive).collect();
            let now_us = self.now_us;
            self.moment(|m| (*m == Moment::Over).then_some(now_us));
        }
        if !self.leaving && !self.root.over.is_empty() && self.root.owed.is_empty() {
            self.leaving = true;
            self.queue.push(self.now_us + FAREWELL_US, ROOT, What::Farewell);
        }
        for event in news {
            self.news(&event);
        }
    }

    fn settle_agent(&mut self, node: Node) {
        let (now_ms, host) = (self.clock_ms(node), host_of(node));
        let Some(job) = self.agent_mut(node).and_then(|a| a.job.as_mut()) else { return };
        let mut deeds = Vec::new();
        job.settle(now_ms, &mut deeds);
        let (number, over, fences) = (job.number, job.is_over(), job.ranks.fences_done());
        for deed in deeds {
            match deed {
                Deed::Tree(act) => self.tree_act(node, act),
                Deed::ToParent(conn, frame) => self.send(node, conn, frame),
                Deed::Rank(RankAct::Later(after_us, event)) => {
                    self.queue.push(self.now_us + after_us, node, What::Rank(number, event));
                }
                Deed::Rank(other) => self.wrong.push(format!("at {} us: {other:?}", self.now_us)),
            }
        }
        if let Some(fences) = fences {
            self.fences_seen.insert(host, fences);
        }
        if over {
            for conn in self.wires.open_at(node) {
                self.close(node, conn);
            }
            if let Some(agent) = self.agent_mut(node) {
                agent.job = None;
            }
        }
    }

    fn tree_act(&mut self, node: Node, act: Act) {
        match act {
            Act::Dial(entry) => self.dial(node, entry.index),
            Act::ToChild(edge, frame) => self.send(node, edge.0, frame),
            Act::Close(edge) => self.close(node, edge.0),
            Act::Probe(edge, entry) => self.probe(node, edge, entry.index),
            Act::Offence(_, why) => self.wrong.push(format!("node {node} calls it an offence: {why}")),
            Act::Up(_) | Act::Local(_) | Act::OpenBulk(..) => {}
        }
    }

    /// Sees to it that the node is ticked when it wants to be.
    fn wind_up(&mut self, node: Node) {
        let due_ms = if node == ROOT {
            let due = self.root.tree.next_due_ms().into_iter().chain(self.root.job.next_due_ms()).min();
            due.filter(|_| !self.root.gone)
        } else {
            self.agent(node).and_then(|a| a.job.as_ref()?.next_due_ms())
        };
        let Some(due_ms) = due_ms else { return };
        let offset_ms = self.agent(node).map_or(0, |a| a.clock_ms);
        let at_us = (due_ms.saturating_sub(offset_ms) * 1_000).max(self.now_us + 1_000);
        if self.ticks.get(&node).is_none_or(|known| *known > at_us) {
            self.ticks.insert(node, at_us);
            self.queue.push(at_us, node, What::Tick);
        }
    }

    fn news(&mut self, event: &Event) {
        let now_us = self.now_us;
        match event {
            Event::HostJoined { index, .. } => {
                self.joined.insert(*index);
                let joined = self.joined.len() as u32;
                self.moment(|m| (*m == Moment::Joined(joined)).then_some(now_us));
            }
            Event::GroupRunning { .. } => self.moment(|m| (*m == Moment::Running).then_some(now_us)),
            Event::FenceDone { seq, .. } => self.moment(|m| (*m == Moment::Fence(*seq)).then_some(now_us)),
            Event::Ending { .. } => self.moment(|m| (*m == Moment::Ending).then_some(now_us)),
            Event::RankEnded { .. } => self.moment(|m| (*m == Moment::FirstReturn).then_some(now_us)),
            _ => {}
        }
    }

    /// Faults whose moment has come strike soon.
    fn moment(&mut self, when: impl Fn(&Moment) -> Option<u64>) {
        let planned = std::mem::take(&mut self.planned);
        for one in planned {
            match when(&one.moment) {
                Some(at_us) => self.queue.push(at_us + one.delay_us, ROOT, What::Fault(one.fault)),
                None => self.planned.push(one),
            }
        }
    }
}
