//! Calls whose answer has to wait for others.

use std::collections::BTreeSet;

use muster_protocol::ProcId;
use muster_protocol::limits::PENDING_REQUESTS_MAX;

/// A call, as its host numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Caller {
    /// Who asks.
    pub(super) proc: ProcId,
    /// Its host's number for the call.
    pub(super) token: u64,
}

/// See the module above. A host that gets a new parent sends them again, and that changes nothing.
#[derive(Debug, Default)]
pub(super) struct Pending {
    calls: BTreeSet<Caller>,
}

impl Pending {
    pub(super) fn contains(&self, caller: Caller) -> bool {
        self.calls.contains(&caller)
    }

    /// Remembers one; false when there are as many as there may be.
    pub(super) fn add(&mut self, caller: Caller) -> bool {
        self.calls.len() < PENDING_REQUESTS_MAX && self.calls.insert(caller)
    }

    /// It is answered; false when nobody waits for it.
    pub(super) fn remove(&mut self, caller: Caller) -> bool {
        self.calls.remove(&caller)
    }

    /// A process that has ended waits for nothing.
    pub(super) fn forget(&mut self, proc: ProcId) {
        let of = |token| Caller { proc, token };
        let gone: Vec<Caller> = self.calls.range(of(0)..=of(u64::MAX)).copied().collect();
        for caller in gone {
            self.calls.remove(&caller);
        }
    }
}
