//! What the ranks of this host ask of the root, or tell it once: calls that have no answer yet, and aborts.
//!
//! They pass through other nodes, any of which may die with them. So they are kept here and sent again to a new parent. The root
//! knows a call by process and number and carries it out once.

use std::collections::BTreeMap;

use muster_protocol::frame::{Frame, Kind};
use muster_protocol::message::{Abort, Call, CallAnswer, Message};
use muster_protocol::{Group, ProcId};

use crate::forgotten::Forgotten;

/// See the module above.
#[derive(Debug, Default)]
pub(super) struct Pleas {
    /// The first one of each process: the job ends by it, and a second one changes nothing.
    aborts: BTreeMap<ProcId, Frame>,
    calls: BTreeMap<(Group, u64), Frame>,
}

impl Pleas {
    /// A frame of this host is on its way up.
    pub(super) fn keep(&mut self, frame: &Frame, group_of: impl Fn(ProcId) -> Option<Group>) {
        match frame.header.kind {
            Kind::Abort => {
                if let Ok(abort) = Abort::read(frame) {
                    self.aborts.entry(abort.proc).or_insert_with(|| frame.clone());
                }
            }
            Kind::Call => {
                if let Ok(call) = Call::read(frame)
                    && let Some(group) = group_of(call.proc)
                {
                    self.calls.insert((group, call.token), frame.clone());
                }
            }
            _ => {}
        }
    }

    /// A frame of the root has reached this host.
    pub(super) fn heard(&mut self, frame: &Frame) {
        if frame.header.kind == Kind::CallAnswer
            && let Ok(answer) = CallAnswer::read(frame)
        {
            self.calls.remove(&(answer.group, answer.token));
        }
    }

    /// Nobody waits for answers to ranks of these groups.
    pub(super) fn forget(&mut self, forgotten: &Forgotten) {
        self.calls.retain(|(group, _), _| !forgotten.contains(*group));
    }

    /// What a new parent must hear.
    pub(super) fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.aborts.values().chain(self.calls.values())
    }
}
