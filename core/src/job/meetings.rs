//! Where ranks of several groups, or some ranks of one, meet: fences that are not of one whole group, connect, PMIx groups.
//!
//! They are rare and small, so the root does it alone: every host says once that all participants there have come, and hears when
//! those elsewhere have. A meeting is known by its purpose, its name and its participants; who comes again has left it before.
//!
//! A meeting that is not complete waits for somebody: a living participant on a host that has not come. One of them, the first, is
//! enough to know that, so only the end of that one makes it look for another. Neither do the dead come back nor do hosts that have
//! come, so it looks from there on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use muster_protocol::limits::CONTROL_PAYLOAD_BYTES_MAX;
use muster_protocol::message::{Part, Purpose};
use muster_protocol::{Group, HostIndex, HostSet, Rank};

use super::pending::Caller;

/// What makes two hosts mean the same meeting.
pub(super) type Key = (Purpose, String, Vec<Part>);

/// Room that an answer's frame needs beside its data.
const ANSWER_ROOM_BYTES: usize = 64 << 10;
/// Numbers that libraries give to groups themselves are small.
const FIRST_CONTEXT: u64 = 1 << 20;

#[derive(Debug)]
struct Meeting {
    key: Arc<Key>,
    hosts: HostSet,
    callers: Vec<Caller>,
    brought: Vec<Bytes>,
    context: bool,
    /// Whom it waits for: the place of its part among the participants, and its rank. Nobody before it is waited for.
    at: (usize, Rank),
}

/// A meeting for which nobody is missing any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complete {
    /// Which.
    pub(super) key: Arc<Key>,
    /// Who waits for it.
    pub(super) callers: Vec<Caller>,
    /// What was brought, one behind the other; none when it is more than an answer takes.
    pub(super) data: Option<Bytes>,
    /// Its number, if one was asked for.
    pub(super) context: Option<u64>,
}

/// What the participants of a host say when they have come.
#[derive(Debug)]
pub(super) struct Coming {
    /// The host.
    pub(super) host: HostIndex,
    /// Whom it is to be answered to.
    pub(super) caller: Caller,
    /// What they bring.
    pub(super) data: Bytes,
    /// Whether they want a number.
    pub(super) context: bool,
}

/// See the module above. Callers say who is missing: of a part of the participants, the first living rank from one on that is on none
/// of the hosts that have come.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    numbers: BTreeMap<Arc<Key>, u64>,
    open: BTreeMap<u64, Meeting>,
    /// Who is waited for, and by which meetings.
    awaited: BTreeMap<(Group, Rank), BTreeSet<u64>>,
    /// How many of them name a group.
    naming: BTreeMap<Group, usize>,
    ever: u64,
    contexts: u64,
}

impl Meetings {
    /// The participants on a host have come; gives the meeting if nobody else is missing.
    pub(super) fn come(
        &mut self,
        key: Key,
        coming: Coming,
        missing: impl Fn(Part, Rank, &HostSet) -> Option<Rank>,
    ) -> Option<Complete> {
        let number = self.numbers.get(&key).copied().unwrap_or_else(|| self.begin(key));
        let meeting = self.open.get_mut(&number)?;
        if meeting.hosts.insert(coming.host) {
            meeting.callers.push(coming.caller);
            meeting.brought.push(coming.data);
        }
        meeting.context |= coming.context;
        self.look(number, missing)
    }

    fn begin(&mut self, key: Key) -> u64 {
        let (key, number) = (Arc::new(key), self.ever);
        self.ever += 1;
        self.numbers.insert(Arc::clone(&key), number);
        for group in groups(&key) {
            *self.naming.entry(group).or_default() += 1;
        }
        let meeting = Meeting {
            key,
            hosts: HostSet::new(),
            callers: Vec::new(),
            brought: Vec::new(),
            context: false,
            at: (0, Rank(0)),
        };
        self.open.insert(number, meeting);
        number
    }

    /// A rank has ended: gives the meetings that have waited for nobody else.
    pub(super) fn ended(
        &mut self,
        group: Group,
        rank: Rank,
        missing: impl Fn(Part, Rank, &HostSet) -> Option<Rank>,
    ) -> Vec<Complete> {
        let waiting = self.awaited.remove(&(group, rank)).unwrap_or_default();
        waiting.into_iter().filter_map(|number| self.look(number, &missing)).collect()
    }

    /// Whether one that is not complete names a group.
    pub(super) fn name(&self, group: Group) -> bool {
        self.naming.contains_key(&group)
    }

    /// Looks for somebody to wait for.
    fn look(&mut self, number: u64, missing: impl Fn(Part, Rank, &HostSet) -> Option<Rank>) -> Option<Complete> {
        let meeting = self.open.get_mut(&number)?;
        let parts = &meeting.key.2;
        if let Some(part) = parts.get(meeting.at.0)
            && let Some(waiting) = self.awaited.get_mut(&(part.group, meeting.at.1))
        {
            waiting.remove(&number);
            if waiting.is_empty() {
                self.awaited.remove(&(part.group, meeting.at.1));
            }
        }
        while let Some(part) = parts.get(meeting.at.0) {
            if let Some(rank) = missing(*part, meeting.at.1, &meeting.hosts) {
                meeting.at.1 = rank;
                self.awaited.entry((part.group, rank)).or_default().insert(number);
                return None;
            }
            meeting.at = (meeting.at.0 + 1, Rank(0));
        }
        self.end(number)
    }

    fn end(&mut self, number: u64) -> Option<Complete> {
        let Meeting { key, callers, brought, context, .. } = self.open.remove(&number)?;
        self.numbers.remove(&key);
        for group in groups(&key) {
            if let Some(count) = self.naming.get_mut(&group) {
                *count -= 1;
                if *count == 0 {
                    self.naming.remove(&group);
                }
            }
        }
        let bytes = brought.iter().map(Bytes::len).sum::<usize>();
        let data = (bytes + ANSWER_ROOM_BYTES <= CONTROL_PAYLOAD_BYTES_MAX as usize).then(|| {
            let mut data = BytesMut::with_capacity(bytes);
            for part in &brought {
                data.extend_from_slice(part);
            }
            data.freeze()
        });
        let context = context.then(|| {
            self.contexts += 1;
            FIRST_CONTEXT + self.contexts
        });
        Some(Complete { key, callers, data, context })
    }
}

/// The groups that a meeting names, once each.
pub(super) fn groups(key: &Key) -> BTreeSet<Group> {
    key.2.iter().map(|part| part.group).collect()
}

#[cfg(test)]
#[path = "meetings_tests.rs"]
mod tests;
