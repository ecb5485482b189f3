//! Where ranks of several groups, or some ranks of one, meet: fences that are not of one whole group, connect, PMIx groups.
//!
//! They are rare and small, so the root does it alone: every host says once that all participants there have come, and hears when
//! those elsewhere have. A meeting is known by its purpose, its name and its participants; who comes again has left it before.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use muster_protocol::limits::CONTROL_PAYLOAD_BYTES_MAX;
use muster_protocol::message::{Part, Purpose};
use muster_protocol::{HostIndex, HostSet};

use super::pending::Caller;

/// What makes two hosts mean the same meeting.
pub(super) type Key = (Purpose, String, Vec<Part>);

/// Room that an answer's frame needs beside its data.
const ANSWER_ROOM_BYTES: usize = 64 << 10;
/// Numbers that libraries give to groups themselves are small.
const FIRST_CONTEXT: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Meeting {
    hosts: HostSet,
    callers: Vec<Caller>,
    brought: Vec<Bytes>,
    context: bool,
}

/// A meeting for which nobody is missing any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complete {
    /// Who waits for it.
    pub(super) callers: Vec<Caller>,
    /// What was brought, one behind the other; none when it is more than an answer takes.
    pub(super) data: Option<Bytes>,
    /// Its number, if one was asked for.
    pub(super) context: Option<u64>,
}

/// See the module above.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    open: BTreeMap<Key, Meeting>,
    contexts: u64,
}

impl Meetings {
    /// The participants on a host have come.
    pub(super) fn come(&mut self, key: Key, host: HostIndex, caller: Caller, data: Bytes, context: bool) {
        let meeting = self.open.entry(key).or_default();
        if meeting.hosts.insert(host) {
            meeting.callers.push(caller);
            meeting.brought.push(data);
        }
        meeting.context |= context;
    }

    /// The meetings that need nobody else, given where the living participants of one are.
    pub(super) fn complete(&mut self, hosts_of: impl Fn(&[Part]) -> HostSet) -> Vec<Complete> {
        let whole: Vec<Key> = self
            .open
            .iter()
            .filter(|(key, m)| hosts_of(&key.2).is_subset(&m.hosts))
            .map(|(key, _)| key.clone())
            .collect();
        let mut out = Vec::new();
        for key in whole {
            let Some(meeting) = self.open.remove(&key) else { continue };
            let bytes = meeting.brought.iter().map(Bytes::len).sum::<usize>();
            let data = (bytes + ANSWER_ROOM_BYTES <= CONTROL_PAYLOAD_BYTES_MAX as usize).then(|| {
                let mut data = BytesMut::with_capacity(bytes);
                for part in &meeting.brought {
                    data.extend_from_slice(part);
                }
                data.freeze()
            });
            let context = meeting.context.then(|| {
                self.contexts += 1;
                FIRST_CONTEXT + self.contexts
            });
            out.push(Complete { callers: meeting.callers, data, context });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::{Group, ProcId, Rank};

    use super::*;

    fn key(name: &str) -> Key {
        (Purpose::Construct, name.to_owned(), vec![Part { group: Group(0), rank: Some(Rank(0)) }])
    }

    fn caller(proc: u32) -> Caller {
        Caller { proc: ProcId(proc), token: u64::from(proc) }
    }

    #[test]
    fn a_meeting_is_over_when_every_host_with_a_living_participant_has_come_and_then_it_begins_anew() {
        let mut meetings = Meetings::default();
        let all = |_: &[Part]| HostSet::first(2);
        meetings.come(key("g"), HostIndex(1), caller(1), Bytes::from("b"), false);
        meetings.come(key("other"), HostIndex(0), caller(7), Bytes::new(), false);
        // Heard twice, since its host has a new parent.
        meetings.come(key("g"), HostIndex(1), caller(1), Bytes::from("b"), false);
        assert_eq!(meetings.complete(all), []);
        meetings.come(key("g"), HostIndex(0), caller(0), Bytes::from("a"), true);
        let callers = vec![caller(1), caller(0)];
        let context = Some(FIRST_CONTEXT + 1);
        assert_eq!(meetings.complete(all), [Complete { callers, data: Some(Bytes::from("ba")), context }]);
        meetings.come(key("g"), HostIndex(1), caller(1), Bytes::new(), true);
        assert_eq!(meetings.complete(all), [], "the same again is another meeting");
        // The host of the one that is missing dies.
        let complete = meetings.complete(|_| [HostIndex(1)].into_iter().collect());
        assert_eq!((complete.len(), complete[0].context), (1, Some(FIRST_CONTEXT + 2)), "{complete:?}");
    }

    #[test]
    fn more_than_an_answer_takes_is_no_answer() {
        let mut meetings = Meetings::default();
        let half = Bytes::from(vec![0; CONTROL_PAYLOAD_BYTES_MAX as usize / 2]);
        for host in 0..2 {
            meetings.come(key("g"), HostIndex(host), caller(host), half.clone(), false);
        }
        let complete = meetings.complete(|_| HostSet::first(2));
        assert_eq!((complete[0].callers.len(), &complete[0].data), (2, &None));
    }
}
