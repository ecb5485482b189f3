//! Fences of all process groups at one node.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use muster_protocol::frame::{FLAG_MORE, Frame};
use muster_protocol::message::Stamp;
use muster_protocol::{Group, HostIndex, HostSet};

use super::chunks;
use crate::fence::{FenceMerge, Offered};

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
    members: HostSet,
    /// The group's spec, for children that join after it was sent.
    spec: Frame,
    /// Number and result of the last completed fence, kept where fences are completed, for hosts that missed it.
    last: Option<(u64, Bytes)>,
}

#[derive(Debug)]
pub(super) struct Fences {
    me: Option<HostIndex>,
    stamp: Stamp,
    below: HostSet,
    entries: BTreeMap<Group, Entry>,
    acts: Vec<FenceAct>,
}

impl Fences {
    pub(super) fn new(me: Option<HostIndex>, stamp: Stamp) -> Self {
        Self { me, stamp, below: me.into_iter().collect(), entries: BTreeMap::new(), acts: Vec::new() }
    }

    pub(super) fn take(&mut self) -> Vec<FenceAct> {
        std::mem::take(&mut self.acts)
    }

    /// Specs of every open group.
    pub(super) fn specs(&self) -> Vec<Frame> {
        self.entries.values().map(|e| e.spec.clone()).collect()
    }

    pub(super) fn open(&mut self, group: Group, members: HostSet, spec: Frame) {
        if self.entries.contains_key(&group) {
            return;
        }
        let mut merge = FenceMerge::new(group, members.clone());
        if self.me.is_some() {
            merge.set_subtree(&self.below);
        }
        self.entries.insert(group, Entry { merge, members, spec, last: None });
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
        let Some(entry) = self.entries.get_mut(&group) else {
            return Err(format!("contribution to a fence of the unknown group {group}"));
        };
        if self.me.is_some() {
            // Nobody arrives at a fence before the one before it is over. This node may have come into the tree since.
            entry.merge.catch_up(seq);
        }
        match entry.merge.contribute(seq, hosts.clone(), vec![blob.clone()]).map_err(|e| e.to_string())? {
            Offered::Known => {}
            Offered::New => self.poll(group),
            Offered::Late => self.late(group, seq, &hosts, &blob),
        }
        Ok(())
    }

    /// A host missed the result of the last fence: who completed it says it again.
    fn late(&mut self, group: Group, seq: u64, hosts: &HostSet, blob: &Bytes) {
        let Some(entry) = self.entries.get(&group) else { return };
        match &entry.last {
            Some((last, result)) if *last == seq => {
                let frames = chunks::down(self.stamp, group, seq, result.clone());
                self.acts.extend(frames.into_iter().map(FenceAct::Done));
            }
            _ => self.up(group, seq, hosts, std::slice::from_ref(blob)),
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
        let everybody = entry.members.is_subset(&merged.hosts);
        let only_me = self.me.is_some_and(|me| entry.members.len() == 1 && entry.members.contains(me));
        if !(everybody && (self.me.is_none() || only_me)) {
            self.up(group, merged.seq, &merged.hosts, &merged.blobs);
            return;
        }
        let mut result = BytesMut::with_capacity(merged.blobs.iter().map(Bytes::len).sum());
        for blob in &merged.blobs {
            result.extend_from_slice(blob);
        }
        let result = result.freeze();
        entry.last = Some((merged.seq, result.clone()));
        let frames = chunks::down(self.stamp, group, merged.seq, result);
        self.acts.extend(frames.into_iter().map(FenceAct::Done));
    }

    /// A piece of a result is passing down, the last one unless its flags say otherwise. Says whether that fence was open here.
    pub(super) fn completed(&mut self, group: Group, seq: u64, flags: u16) -> bool {
        let Some(entry) = self.entries.get_mut(&group) else { return false };
        let open = entry.merge.current() == seq;
        if self.me.is_some() {
            entry.merge.catch_up(seq);
        }
        if flags & FLAG_MORE == 0 && entry.merge.done(seq) == Ok(true) {
            self.poll(group);
        }
        open
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

    pub(super) fn missing(&self, group: Group) -> Option<(u64, HostSet)> {
        let entry = self.entries.get(&group)?;
        let seq = entry.merge.current();
        Some((seq, entry.merge.missing(seq)))
    }
}
