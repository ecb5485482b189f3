//! One node of the tree.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use muster_protocol::frame::{EVERY_HOST, Frame, Kind};
use muster_protocol::limits::{HOSTS_MAX, SILENCE_DEAD_MS, SILENCE_PROBE_MS, TREE_RADIX_DEFAULT};
use muster_protocol::message::{
    Adopt, Alive, Dead, Forget, HostEntry, Joined, Lost, Message, Missing, Obstacle, Resync, Spec, Stamp,
};
use muster_protocol::{Group, HostIndex, HostSet};

use super::branch::Branch;
use super::chunks::{self, Chunks};
use super::fences::Fences;
use super::losses::Orphan;
use super::reports::Reports;

/// A connection to a child, as the shell numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(pub u64);

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Dial a host; answer with `dialled` or `dial_failed`.
    Dial(HostEntry),
    /// Send a frame to a child.
    ToChild(EdgeId, Frame),
    /// Drop a connection.
    Close(EdgeId),
    /// Send a frame to the parent; at the root: hand it to the job.
    Up(Frame),
    /// A frame for this host itself.
    Local(Frame),
    /// A child wants to send output.
    OpenBulk(EdgeId, HostEntry),
    /// A child is silent: try it by a new connection; answer with `probed`.
    Probe(EdgeId, HostEntry),
    /// A child said something it must not; it is being dropped.
    Offence(EdgeId, String),
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) entry: HostEntry,
    /// The child and everything below it that has joined.
    pub(super) subtree: HostSet,
    /// Hosts handed to it to connect.
    pub(super) handed: Vec<HostEntry>,
    pub(super) chunks: Chunks,
    pub(super) heard_ms: u64,
    pub(super) probe: Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Idle,
    Running,
    Failed,
}

/// One node of the tree; see the module above.
#[derive(Debug)]
pub struct TreeNode {
    /// `None` at the root.
    pub(super) me: Option<HostIndex>,
    pub(super) stamp: Stamp,
    pub(super) radix: u32,
    pub(super) branches: Vec<Branch>,
    pub(super) children: BTreeMap<EdgeId, Child>,
    pub(super) routes: HashMap<HostIndex, EdgeId>,
    pub(super) obstacles: HashMap<HostIndex, (Obstacle, String)>,
    pub(super) orphans: BTreeMap<HostIndex, Orphan>,
    pub(super) fences: Fences,
    pub(super) reports: Reports,
    /// The last heartbeat, for children that come before the next one: no rank may live without a lease.
    beat: Option<Frame>,
    /// When the parent was heard.
    heard_ms: Option<u64>,
    /// When a parent was heard again after a long silence.
    regained_ms: Option<u64>,
    /// The parent has been silent for so long that this node dials nobody.
    muted: bool,
    /// Where the frame stands in `acts` that tells the parent of hosts that joined since `take_acts`, and which they are.
    joining: Option<(usize, HostSet)>,
    pub(super) acts: Vec<Act>,
    /// When it last looked at the clock.
    pub(super) ticked_ms: Option<u64>,
}

impl TreeNode {
    /// A node without children.
    pub fn new(me: Option<HostIndex>, stamp: Stamp) -> Self {
        Self {
            ticked_ms: None,
            me,
            stamp,
            radix: TREE_RADIX_DEFAULT,
            branches: Vec::new(),
            children: BTreeMap::new(),
            routes: HashMap::new(),
            obstacles: HashMap::new(),
            orphans: BTreeMap::new(),
            fences: Fences::new(me, stamp),
            reports: Reports::default(),
            beat: None,
            heard_ms: None,
            regained_ms: None,
            muted: false,
            joining: None,
            acts: Vec::new(),
        }
    }

    /// What there is to do since the last call.
    pub fn take_acts(&mut self) -> Vec<Act> {
        self.send_urgent_reports();
        self.joining = None;
        std::mem::take(&mut self.acts)
    }

    /// Connects these hosts below this node.
    pub fn adopt(&mut self, order: Adopt, now_ms: u64) {
        self.radix = order.radix;
        self.take_in(order.hosts, now_ms);
    }

    pub(super) fn take_in(&mut self, hosts: Vec<HostEntry>, now_ms: u64) {
        let known =
            |h: &HostEntry| self.routes.contains_key(&h.index) || self.branches.iter().any(|b| b.contains(h.index));
        let wanted = |h: &HostEntry| h.index.0 < HOSTS_MAX && Some(h.index) != self.me && !known(h);
        let fresh: Vec<HostEntry> = hosts.into_iter().filter(wanted).collect();
        self.branches.extend(Branch::split(fresh, self.radix));
        self.dial_due(now_ms);
    }

    fn dial_due(&mut self, now_ms: u64) {
        // Hosts below have not heard from the root either and would take this node for a parent, though it leads nowhere.
        self.muted = self.is_cut_off(now_ms);
        if self.muted {
            return;
        }
        for branch in &mut self.branches {
            self.acts.extend(branch.due(now_ms).into_iter().map(Act::Dial));
        }
    }

    fn is_cut_off(&self, now_ms: u64) -> bool {
        self.heard_ms.is_some_and(|heard| now_ms.saturating_sub(heard) >= SILENCE_PROBE_MS)
    }

    /// Whether hosts below may have looked for another parent because this node had none.
    pub(super) fn was_cut_off(&self, now_ms: u64) -> bool {
        self.is_cut_off(now_ms) || self.regained_ms.is_some_and(|at| now_ms.saturating_sub(at) < SILENCE_DEAD_MS)
    }

    /// The parent was heard, so this node is part of the tree.
    fn heard_parent(&mut self, now_ms: u64) {
        if self.is_cut_off(now_ms) {
            self.regained_ms = Some(now_ms);
        }
        self.heard_ms = self.me.map(|_| now_ms);
        if self.muted {
            self.orphans.values_mut().for_each(Orphan::seen);
            self.dial_due(now_ms);
        }
    }

    /// A host is about to connect by itself: it is taken in without being dialled.
    pub fn expect(&mut self, entry: HostEntry, now_ms: u64) {
        let host: HostSet = [entry.index].into_iter().collect();
        self.branches.retain_mut(|b| b.remove(&host));
        if self.routes.contains_key(&entry.index) {
            return;
        }
        let mut branch = Branch::new(vec![entry]);
        // Nothing is dialled for it: the shell has the connection already.
        branch.due(now_ms);
        self.branches.push(branch);
    }

    /// A dial succeeded. The edge is closed again when its host is no longer wanted here.
    pub fn dialled(&mut self, host: HostIndex, edge: EdgeId, now_ms: u64) {
        let Some(at) = self.branches.iter().position(|b| b.contains(host)) else {
            self.acts.push(Act::Close(edge));
            return;
        };
        let branch = self.branches.swap_remove(at);
        let entry = branch.entry(host).clone();
        let handed = branch.into_rest(host);
        self.acts.extend(self.beat.clone().map(|beat| Act::ToChild(edge, beat)));
        if !handed.is_empty() {
            let order = Adopt { hosts: handed.clone(), radix: self.radix };
            self.acts.push(Act::ToChild(edge, self.stamp.frame(host, &order)));
        }
        let subtree: HostSet = [host].into_iter().collect();
        let child = Child {
            entry,
            subtree: HostSet::new(),
            handed,
            chunks: Chunks::default(),
            heard_ms: now_ms,
            probe: Probe::Idle,
        };
        self.children.insert(edge, child);
        if let Some(forget) = self.fences.forgotten().all() {
            self.acts.push(Act::ToChild(edge, self.stamp.to_all(&forget)));
        }
        for frame in self.fences.specs() {
            self.acts.push(Act::ToChild(edge, frame));
        }
        self.joined(edge, subtree);
    }

    /// A dial failed.
    pub fn dial_failed(&mut self, host: HostIndex, why: Obstacle, text: String, now_ms: u64) {
        let Some(branch) = self.branches.iter_mut().find(|b| b.contains(host)) else { return };
        branch.failed(host, now_ms);
        if why == Obstacle::Waiting
            && let Some(orphan) = self.orphans.get_mut(&host)
        {
            orphan.seen();
        }
        let story = (why, text);
        if self.obstacles.get(&host) != Some(&story) {
            let missing = Missing { host, why: story.0, text: story.1.clone() };
            self.acts.push(Act::Up(self.stamp.frame(host, &missing)));
            self.obstacles.insert(host, story);
        }
        self.dial_due(now_ms);
    }

    fn joined(&mut self, edge: EdgeId, mut hosts: HostSet) {
        if !self.children.contains_key(&edge) {
            return;
        }
        if let Some(me) = self.me {
            // A former parent of this host may not have heard yet that it has come in below it.
            hosts.remove(me);
        }
        for host in hosts.iter() {
            if let Some(before) = self.routes.insert(host, edge)
                && before != edge
            {
                self.moved(host, before, edge);
            }
            self.orphans.remove(&host);
            self.obstacles.remove(&host);
        }
        if let Some(child) = self.children.get_mut(&edge) {
            child.subtree.union_with(&hosts);
        }
        self.branches.retain_mut(|b| b.remove(&hosts));
        self.tell_joined(&hosts);
        self.refresh_fences();
    }

    /// A host has changed its place below this node: its address goes to the new child's, so that it is found again when that
    /// child dies. The old one still claims the host until it notices.
    pub(super) fn moved(&mut self, host: HostIndex, from: EdgeId, to: EdgeId) {
        let Some(old) = self.children.get_mut(&from) else { return };
        let entry = old.handed.iter().position(|h| h.index == host).map(|at| old.handed.swap_remove(at));
        if let (Some(entry), Some(new)) = (entry, self.children.get_mut(&to))
            && new.entry.index != host
        {
            new.handed.push(entry);
        }
    }

    /// One frame tells of all hosts that join between two calls of `take_acts`.
    fn tell_joined(&mut self, hosts: &HostSet) {
        let origin = self.me.unwrap_or(EVERY_HOST);
        let (at, mut all) = self.joining.take().unwrap_or_else(|| (self.acts.len(), HostSet::new()));
        all.union_with(hosts);
        let act = Act::Up(self.stamp.frame(origin, &Joined { hosts: all.clone() }));
        match self.acts.get_mut(at) {
            Some(earlier) => *earlier = act,
            None => self.acts.push(act),
        }
        self.joining = Some((at, all));
    }

    /// Tells the parent that a host is not connected, or no longer; what joins later is told later.
    pub(super) fn tell_missing(&mut self, frame: Frame) {
        self.joining = None;
        self.acts.push(Act::Up(frame));
    }

    /// Tells the parent that a host is lost; what joins later is told later.
    pub(super) fn tell_lost(&mut self, lost: Lost) {
        // What is known of the ends of its ranks counts only before it.
        self.send_reports();
        self.joining = None;
        self.acts.push(Act::Up(self.stamp.frame(lost.host, &lost)));
    }

    pub(super) fn refresh_fences(&mut self) {
        let mut below = HostSet::new();
        for child in self.children.values() {
            below.union_with(&child.subtree);
        }
        self.fences.set_below(&below);
        self.drain_fences();
    }

    fn drain_fences(&mut self) {
        let acts = self.fences.take();
        for act in acts {
            match act {
                super::fences::FenceAct::Up(frame) => self.acts.push(Act::Up(frame)),
                super::fences::FenceAct::Done(frame) => self.down(frame),
            }
        }
    }

    /// A frame came from a child.
    pub fn from_child(&mut self, edge: EdgeId, frame: Frame, now_ms: u64) {
        let Some(child) = self.children.get_mut(&edge) else { return };
        child.heard_ms = now_ms;
        child.probe = Probe::Idle;
        let result = match frame.header.kind {
            Kind::Alive => Ok(()),
            Kind::WantBulk => {
                let entry = child.entry.clone();
                self.acts.push(Act::OpenBulk(edge, entry));
                Ok(())
            }
            Kind::Joined => Joined::read(&frame).map(|m| self.joined(edge, m.hosts)).map_err(|e| e.to_string()),
            Kind::Lost => self.lost_below(edge, &frame).map_err(|e| e.to_string()),
            Kind::Missing => self.missing_below(edge, frame).map_err(|e| e.to_string()),
            Kind::FenceUp => self.fence_from_child(edge, &frame),
            _ => self.report(&frame, now_ms).map_err(|e| e.to_string()),
        };
        if let Err(why) = result {
            self.acts.push(Act::Offence(edge, why.clone()));
            self.acts.push(Act::Close(edge));
            self.child_closed(edge, why, now_ms);
        }
    }

    fn fence_from_child(&mut self, edge: EdgeId, frame: &Frame) -> Result<(), String> {
        let Some(child) = self.children.get_mut(&edge) else { return Ok(()) };
        let Some(whole) = child.chunks.push(frame).map_err(|e| e.to_string())? else { return Ok(()) };
        let (group, seq) = (frame.header.group(), frame.header.seq);
        let (hosts, blob) = chunks::open_up(group, seq, whole).map_err(|e| e.to_string())?;
        self.contribute(group, seq, hosts, blob)
    }

    /// This host's own contribution to a fence.
    pub fn own_fence(&mut self, group: Group, seq: u64, blob: Bytes) -> Result<(), String> {
        let hosts = self.me.into_iter().collect();
        self.contribute(group, seq, hosts, blob)
    }

    fn contribute(&mut self, group: Group, seq: u64, hosts: HostSet, blob: Bytes) -> Result<(), String> {
        self.fences.contribute(group, seq, hosts, blob)?;
        self.drain_fences();
        Ok(())
    }

    /// A frame came from the parent; at the root: from the job.
    pub fn from_parent(&mut self, frame: Frame, now_ms: u64) {
        self.heard_parent(now_ms);
        match frame.header.kind {
            Kind::Adopt if Some(frame.header.host) == self.me => {
                if let Ok(order) = Adopt::read(&frame) {
                    self.adopt(order, now_ms);
                }
            }
            Kind::Heartbeat => {
                let alive = self.stamp.frame(self.me.unwrap_or(EVERY_HOST), &Alive {});
                if self.me.is_some() {
                    self.acts.push(Act::Up(alive));
                }
                self.beat = Some(frame.clone());
                self.down(frame);
                self.check_silence(now_ms);
            }
            Kind::Resync => {
                self.resync();
                self.down(frame);
            }
            _ => self.down(frame),
        }
    }

    /// The way to the root is cut off, and with it the lease becomes shorter: this host and those below hear it as a heartbeat.
    pub fn shorten_lease(&mut self, beat: Frame) {
        self.beat = Some(beat.clone());
        self.down(beat);
    }

    /// Passes a frame to where its header says.
    fn down(&mut self, frame: Frame) {
        self.reports.ordered(frame.header.kind);
        if frame.header.kind == Kind::Dead
            && let Ok(dead) = Dead::read(&frame)
        {
            self.fences.leave(dead.group, &dead.hosts);
            self.drain_fences();
        }
        if frame.header.host != EVERY_HOST {
            self.unicast(frame);
            return;
        }
        if frame.header.kind == Kind::Forget
            && let Ok(forget) = Forget::read(&frame)
        {
            self.fences.forget(&forget);
            self.reports.forget(self.fences.forgotten());
        }
        if frame.header.kind == Kind::Spec
            && let Ok(spec) = Spec::read(&frame)
        {
            self.fences.open(spec, frame.clone());
        }
        if frame.header.kind == Kind::FenceDown {
            let Some(news) = self.fences.pass(frame.header.group(), frame.header.seq, frame.header.flags) else {
                return;
            };
            if news && self.me.is_none() {
                self.acts.push(Act::Up(frame.clone()));
            }
        }
        let edges = self.children.keys().copied();
        self.acts.extend(edges.map(|edge| Act::ToChild(edge, frame.clone())));
        if self.me.is_some() {
            self.acts.push(Act::Local(frame));
        }
        self.drain_fences();
    }

    fn unicast(&mut self, frame: Frame) {
        if Some(frame.header.host) == self.me {
            self.reports.pleas.heard(&frame);
            self.acts.push(Act::Local(frame));
        } else if let Some(edge) = self.routes.get(&frame.header.host) {
            self.acts.push(Act::ToChild(*edge, frame));
        }
    }

    /// A new parent: everything this node knows about the tree below is told again, and the nodes below do the same.
    pub fn reparented(&mut self) {
        self.fences.new_parent();
        self.resync();
        self.down(self.stamp.to_all(&Resync {}));
    }

    fn resync(&mut self) {
        let mut below = HostSet::new();
        for child in self.children.values() {
            below.union_with(&child.subtree);
        }
        if !below.is_empty() {
            self.tell_joined(&below);
        }
        self.tell_pleas();
        for (host, (why, text)) in &self.obstacles {
            let missing = Missing { host: *host, why: *why, text: text.clone() };
            self.acts.push(Act::Up(self.stamp.frame(*host, &missing)));
        }
        self.fences.resend();
        self.drain_fences();
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.notice_absence(now_ms);
        self.check_silence(now_ms);
        self.check_orphans(now_ms);
        // Last of all that concerns branches: hosts that have just been given up make room for others.
        self.dial_due(now_ms);
        self.send_due_reports(now_ms);
    }

    /// When [`TreeNode::tick`] is due next, in milliseconds. Silence begins to count with heartbeats, which look at it themselves.
    pub fn next_due_ms(&self) -> Option<u64> {
        let dials = self.branches.iter().filter(|_| !self.muted).filter_map(Branch::next_due_ms);
        let losses = self.orphans.values().map(Orphan::due_ms).chain(self.next_death_ms());
        dials.chain(losses).chain(self.reports.due_ms()).min()
    }

    /// Hosts below this node that have joined.
    pub fn joined_below(&self) -> HostSet {
        self.routes.keys().copied().collect()
    }

    /// The edge that leads to a host.
    pub fn route(&self, host: HostIndex) -> Option<EdgeId> {
        self.routes.get(&host).copied()
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
