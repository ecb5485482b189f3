//! Fences of all process groups at one node.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use muster_protocol::frame::{FLAG_FIRST, FLAG_MORE, Frame};
use muster_protocol::message::{Forget, Spec, Stamp};
use muster_protocol::{Group, HostIndex, HostSet, ProcId};

use super::chunks;
use crate::fence::{Contribution, FenceMerge, Offered};
use crate::forgotten::Forgotten;

/// What a fence asks of its node.
#[derive(Debug)]
pub(super) enum FenceAct {
    /// To the parent.
    Up(Frame),
    /// Complete: to every host below, and to this one.
    Done(Frame),
}

#[derive(Debug)]
struct Entry {
    merge: FenceMerge,
    /// Its processes.
    procs: Range<u32>,
    /// The group's spec, for children that join after it was sent.
    spec: Frame,
    /// Ranks have spawned it, and wait for its own.
    spawned: bool,
    /// Number and result of the last completed fence as it went out, kept where fences are completed, for hosts that missed it.
    last: Option<(u64, Vec<Frame>)>,
}

impl Entry {
    /// Nobody arrives at a fence before the one before it is over. If this node does not know yet, it has come into the tree
    /// since, or has another place there. Gives others who have arrived at the earlier one here: they wait for its result.
    fn catch_up(&mut self, seq: u64, arriving: &HostSet) -> Option<Contribution> {
        let earlier = (seq > self.merge.current()).then(|| self.merge.arrived()).flatten();
        self.merge.catch_up(seq);
        earlier.filter(|e| !e.hosts.is_subset(arriving))
    }
}

#[derive(Debug)]
pub(super) struct Fences {
    me: Option<HostIndex>,
    stamp: Stamp,
    below: HostSet,
    entries: BTreeMap<Group, Entry>,
    /// Fences whose results are passing: the beginning has been here, the end has not.
    passing: BTreeMap<Group, u64>,
    /// Groups that are over. Who has not heard it yet may still say something of them.
    forgotten: Forgotten,
    acts: Vec<FenceAct>,
}

impl Fences {
    pub(super) fn new(me: Option<HostIndex>, stamp: Stamp) -> Self {
        Self {
            me,
            stamp,
            below: me.into_iter().collect(),
            entries: BTreeMap::new(),
            passing: BTreeMap::new(),
            forgotten: Forgotten::default(),
            acts: Vec::new(),
        }
    }

    pub(super) fn take(&mut self) -> Vec<FenceAct> {
        std::mem::take(&mut self.acts)
    }

    /// Specs of every open group.
    pub(super) fn specs(&self) -> Vec<Frame> {
        self.entries.values().map(|e| e.spec.clone()).collect()
    }

    /// This node, if it is a host, and every host below it.
    pub(super) fn below(&self) -> &HostSet {
        &self.below
    }

    /// The group of a process.
    pub(super) fn group_of(&self, proc: ProcId) -> Option<Group> {
        self.entries.iter().find(|(_, e)| e.procs.contains(&proc.0)).map(|(group, _)| *group)
    }

    /// Whether there are spawned ranks.
    pub(super) fn knows_spawned(&self) -> bool {
        self.entries.values().any(|e| e.spawned)
    }

    pub(super) fn open(&mut self, spec: Spec, frame: Frame) {
        let (group, members, spawned) = (spec.group, spec.members, spec.spawned_by.is_some());
        if self.entries.contains_key(&group) || self.forgotten.contains(group) {
            return;
        }
        let mut merge = FenceMerge::new(group, members);
        if self.me.is_some() {
            merge.set_subtree(&self.below);
        }
        let procs = spec.first_proc.0..spec.first_proc.0.saturating_add(spec.size);
        self.entries.insert(group, Entry { merge, procs, spec: frame, spawned, last: None });
    }

    /// Groups are over.
    pub(super) fn forget(&mut self, forget: &Forget) {
        self.forgotten.add(forget);
        self.entries.retain(|group, _| !self.forgotten.contains(*group));
        self.passing.retain(|group, _| !self.forgotten.contains(*group));
    }

    /// All groups that are over.
    pub(super) fn forgotten(&self) -> &Forgotten {
        &self.forgotten
    }

    pub(super) fn set_below(&mut self, below: &HostSet) {
        self.below = below.clone();
        self.below.union_with(&self.me.into_iter().collect());
        let groups: Vec<Group> = self.entries.keys().copied().collect();
        for group in groups {
            if self.me.is_some()
                && let Some(entry) = self.entries.get_mut(&group)
            {
                entry.merge.set_subtree(&self.below);
            }
            self.poll(group);
        }
    }

    pub(super) fn contribute(&mut self, group: Group, seq: u64, hosts: HostSet, blob: Bytes) -> Result<(), String> {
        if self.forgotten.contains(group) {
            return Ok(());
        }
        let Some(entry) = self.entries.get_mut(&group) else {
            return Err(format!("contribution to a fence of the unknown group {group}"));
        };
        let passing = self.passing.get(&group) == Some(&seq);
        let missed = if self.me.is_some() { entry.catch_up(seq, &hosts) } else { None };
        match entry.merge.contribute(seq, hosts.clone(), vec![blob.clone()]).map_err(|e| e.to_string())? {
            // The root has everybody's part, and its answer is on its way through here: who asks now missed the beginning of it.
            Offered::New | Offered::Known if passing => self.up(group, seq, &hosts, std::slice::from_ref(&blob)),
            Offered::Known => {}
            Offered::New => self.poll(group),
            Offered::Late => self.late(group, seq, &hosts, &blob),
        }
        if let Some(missed) = missed {
            // The root says its result again.
            self.up(group, missed.seq, &missed.hosts, &missed.blobs);
        }
        Ok(())
    }

    /// A host missed the result of the last fence: who completed it says it again.
    fn late(&mut self, group: Group, seq: u64, hosts: &HostSet, blob: &Bytes) {
        let Some(entry) = self.entries.get(&group) else { return };
        match &entry.last {
            Some((last, frames)) if *last == seq => self.acts.extend(frames.iter().cloned().map(FenceAct::Done)),
            _ => self.up(group, seq, hosts, std::slice::from_ref(blob)),
        }
    }

    /// Hosts take part in a group's fences no more: its ranks there are dead.
    pub(super) fn leave(&mut self, group: Group, hosts: &HostSet) {
        if let Some(entry) = self.entries.get_mut(&group) {
            entry.merge.leave(hosts);
            self.poll(group);
        }
    }

    fn up(&mut self, group: Group, seq: u64, hosts: &HostSet, blobs: &[Bytes]) {
        let Some(me) = self.me else { return };
        let frames = chunks::up(self.stamp, me, group, seq, hosts, blobs);
        self.acts.extend(frames.into_iter().map(FenceAct::Up));
    }

    fn poll(&mut self, group: Group) {
        let Some(entry) = self.entries.get_mut(&group) else { return };
        let Some(merged) = entry.merge.poll() else { return };
        let members = entry.merge.members();
        let everybody = members.is_subset(&merged.hosts);
        let only_me = self.me.is_some_and(|me| members.len() == 1 && members.contains(me));
        if !(everybody && (self.me.is_none() || only_me)) {
            self.up(group, merged.seq, &merged.hosts, &merged.blobs);
            return;
        }
        let mut result = BytesMut::with_capacity(merged.blobs.iter().map(Bytes::len).sum());
        for blob in &merged.blobs {
            result.extend_from_slice(blob);
        }
        let frames = chunks::down(self.stamp, group, merged.seq, result.freeze());
        self.acts.extend(frames.iter().cloned().map(FenceAct::Done));
        entry.last = Some((merged.seq, frames));
    }

    /// A piece of a result comes down, the last one unless its flags say otherwise. Says whether that fence was open here; `None`
    /// when the piece must not go on: its beginning has gone another way, so nobody below could do anything with it.
    pub(super) fn pass(&mut self, group: Group, seq: u64, flags: u16) -> Option<bool> {
        if flags & FLAG_FIRST != 0 {
            self.passing.insert(group, seq);
        } else if self.passing.get(&group) != Some(&seq) {
            return None;
        }
        let last = flags & FLAG_MORE == 0;
        if last {
            self.passing.remove(&group);
        }
        let Some(entry) = self.entries.get_mut(&group) else { return Some(false) };
        let open = entry.merge.current() == seq;
        if self.me.is_some() {
            entry.merge.catch_up(seq);
        }
        if last && entry.merge.done(seq) == Ok(true) {
            self.poll(group);
        }
        Some(open)
    }

    /// A new parent: what the old one had begun to say is said again from the beginning, when this node asks for it.
    pub(super) fn new_parent(&mut self) {
        self.passing.clear();
    }

    pub(super) fn resend(&mut self) {
        let groups: Vec<Group> = self.entries.keys().copied().collect();
        for group in groups {
            let Some(entry) = self.entries.get_mut(&group) else { continue };
            if let Some(merged) = entry.merge.resend() {
                self.up(group, merged.seq, &merged.hosts, &merged.blobs);
            }
        }
    }

    /// Number of a group's fence, and the members here that have not arrived at it.
    #[cfg(test)]
    pub(super) fn missing(&self, group: Group) -> Option<(u64, HostSet)> {
        let entry = self.entries.get(&group)?;
        let seq = entry.merge.current();
        Some((seq, entry.merge.missing(seq)))
    }
}

#[cfg(test)]
#[path = "fences_tests.rs"]
mod tests;
