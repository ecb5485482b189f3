//! Children that are gone or silent, and the hosts they leave behind.

use muster_protocol::frame::Frame;
use muster_protocol::limits::{FENCE_LEASE_MS, SILENCE_DEAD_MS, SILENCE_PROBE_MS};
use muster_protocol::message::{BadPayload, Lost, Message, Missing, Obstacle};
use muster_protocol::{HostIndex, HostSet};

use super::node::{Act, EdgeId, Probe, TreeNode};

/// A host whose parent died.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orphan {
    due_ms: u64,
    last_ms: u64,
}

impl Orphan {
    fn new(now_ms: u64) -> Self {
        Self { due_ms: now_ms + SILENCE_DEAD_MS, last_ms: now_ms + FENCE_LEASE_MS }
    }

    /// When it counts as lost itself.
    pub(super) fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Its agent answered that it still waits for its dead parent: it lives, and will take another one. Its ranks end with their
    /// lease at last, so that is where patience ends.
    pub(super) fn seen(&mut self) {
        self.due_ms = self.last_ms;
    }
}

impl TreeNode {
    /// The root ticks with every heartbeat. When it has not for a while, it was stopped itself, and its children have had nothing
    /// to answer: their silence is counted afresh.
    pub(super) fn notice_absence(&mut self, now_ms: u64) {
        let last = self.ticked_ms.replace(now_ms);
        if self.me.is_none() && last.is_some_and(|last| now_ms.saturating_sub(last) >= SILENCE_PROBE_MS) {
            for child in self.children.values_mut() {
                child.heard_ms = now_ms;
                child.probe = Probe::Idle;
            }
        }
    }

    /// A child no longer has a host below it. Says whether the host is below this node all the same: it may have found another
    /// place, and been heard of from there, before its former parent noticed.
    fn release(&mut self, edge: EdgeId, host: HostIndex) -> bool {
        if let Some(child) = self.children.get_mut(&edge) {
            child.subtree.remove(host);
        }
        if self.routes.get(&host).is_some_and(|now| *now != edge) {
            return true;
        }
        let claim = self
            .children
            .iter()
            .find(|(other, c)| **other != edge && c.subtree.contains(host))
            .map(|(other, _)| *other);
        match claim {
            Some(other) => {
                self.routes.insert(host, other);
                self.moved(host, edge, other);
                true
            }
            None => {
                self.routes.remove(&host);
                false
            }
        }
    }

    pub(super) fn lost_below(&mut self, edge: EdgeId, frame: &Frame) -> Result<(), BadPayload> {
        let lost = Lost::read(frame)?;
        if Some(lost.host) != self.me && !self.release(edge, lost.host) {
            self.tell_lost(lost);
        }
        self.refresh_fences();
        Ok(())
    }

    pub(super) fn missing_below(&mut self, edge: EdgeId, frame: Frame) -> Result<(), BadPayload> {
        let missing = Missing::read(&frame)?;
        if missing.why == Obstacle::Waiting
            && let Some(orphan) = self.orphans.get_mut(&missing.host)
        {
            orphan.seen();
        }
        let joined = self.routes.contains_key(&missing.host);
        if Some(missing.host) != self.me && !self.release(edge, missing.host) {
            self.tell_missing(frame);
        }
        if joined {
            self.refresh_fences();
        }
        Ok(())
    }

    /// A child's connection is gone. Its host is lost; the hosts below it are connected again from here. After a time without
    /// a parent it may just have found one before this node did: then it is looked for like the hosts below it.
    pub fn child_closed(&mut self, edge: EdgeId, why: String, now_ms: u64) {
        let Some(mut child) = self.children.remove(&edge) else { return };
        let host = child.entry.index;
        let cut_off = self.was_cut_off(now_ms);
        child.subtree.remove(host);
        let mut orphans: Vec<HostIndex> = child.subtree.iter().filter(|h| !self.release(edge, *h)).collect();
        if !self.release(edge, host) {
            if cut_off {
                orphans.push(host);
                child.handed.push(child.entry);
            } else {
                self.tell_lost(Lost { host, why });
            }
        }
        for host in orphans {
            self.orphans.insert(host, Orphan::new(now_ms));
            if cut_off {
                // They may be below another node by now: whoever looks for them here shall look there.
                let text = "its parent in the tree was cut off".to_owned();
                let missing = Missing { host, why: Obstacle::Waiting, text };
                self.tell_missing(self.stamp.frame(host, &missing));
            }
        }
        self.refresh_fences();
        for entry in child.handed.extract_if(.., |h| self.routes.contains_key(&h.index)) {
            let edge = self.routes[&entry.index];
            if let Some(other) = self.children.get_mut(&edge).filter(|c| c.entry.index != entry.index) {
                other.handed.push(entry);
            }
        }
        self.take_in(child.handed, now_ms);
    }

    /// Answer to [`Act::Probe`].
    pub fn probed(&mut self, edge: EdgeId, alive: bool, now_ms: u64) {
        // A child that was heard meanwhile has answered better.
        let Some(child) = self.children.get_mut(&edge).filter(|c| c.probe == Probe::Running) else { return };
        if alive {
            // Starved, not dead: it answered a new connection, so its silence is counted afresh.
            child.heard_ms = now_ms;
            child.probe = Probe::Idle;
        } else {
            child.probe = Probe::Failed;
        }
        self.check_silence(now_ms);
    }

    pub(super) fn check_silence(&mut self, now_ms: u64) {
        let mut dead = Vec::new();
        for (edge, child) in &mut self.children {
            let silence = now_ms.saturating_sub(child.heard_ms);
            if child.probe == Probe::Idle && silence >= SILENCE_PROBE_MS {
                child.probe = Probe::Running;
                self.acts.push(Act::Probe(*edge, child.entry.clone()));
            }
            if child.probe == Probe::Failed && silence >= SILENCE_DEAD_MS {
                dead.push((*edge, silence));
            }
        }
        for (edge, silence) in dead {
            self.acts.push(Act::Close(edge));
            let why = format!("silent for {:.1} s and does not answer a new connection", silence as f64 / 1000.0);
            self.child_closed(edge, why, now_ms);
        }
    }

    /// When the first child whose probe failed has been silent for too long.
    pub(super) fn next_death_ms(&self) -> Option<u64> {
        let failed = self.children.values().filter(|c| c.probe == Probe::Failed);
        failed.map(|c| c.heard_ms + SILENCE_DEAD_MS).min()
    }

    pub(super) fn check_orphans(&mut self, now_ms: u64) {
        let late: HostSet = self.orphans.iter().filter(|(_, o)| o.due_ms <= now_ms).map(|(h, _)| *h).collect();
        if late.is_empty() {
            return;
        }
        self.branches.retain_mut(|b| b.remove(&late));
        for host in late.iter() {
            self.orphans.remove(&host);
            let last = self.obstacles.get(&host).map(|(_, text)| format!(" ({text})")).unwrap_or_default();
            let why = format!("its parent in the tree died and it could not be reached again{last}");
            self.tell_lost(Lost { host, why });
        }
    }
}
