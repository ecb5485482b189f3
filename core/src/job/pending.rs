//! Calls whose answer has to wait for others.

use std::collections::BTreeMap;

use muster_protocol::limits::PENDING_REQUESTS_MAX;
use muster_protocol::{Group, HostIndex, ProcId};

/// A call, as its host numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Caller {
    /// Who asks, or in whose name its host does.
    pub(super) proc: ProcId,
    /// Its host's number for the call.
    pub(super) token: u64,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    /// The host.
    pub(super) host: HostIndex,
    /// The process group that the host asked for.
    pub(super) group: Group,
    /// Whether the whole host waits for it, and not just the process.
    pub(super) of_host: bool,
}

/// See the module above. A host that gets a new parent sends them again, and that changes nothing.
#[derive(Debug, Default)]
pub(super) struct Pending {
    calls: BTreeMap<Caller, Address>,
}

impl Pending {
    pub(super) fn contains(&self, caller: Caller) -> bool {
        self.calls.contains_key(&caller)
    }

    /// Remembers one; false when there are as many as there may be.
    pub(super) fn add(&mut self, caller: Caller, address: Address) -> bool {
        if self.calls.len() >= PENDING_REQUESTS_MAX {
            return false;
        }
        self.calls.insert(caller, address);
        true
    }

    /// It is answered; none when nobody waits for it.
    pub(super) fn remove(&mut self, caller: Caller) -> Option<Address> {
        self.calls.remove(&caller)
    }

    /// A process that has ended waits for nothing; its host may wait on.
    pub(super) fn forget(&mut self, proc: ProcId) {
        let of = |token| Caller { proc, token };
        let own = self.calls.range(of(0)..=of(u64::MAX)).filter(|(_, address)| !address.of_host);
        let gone: Vec<Caller> = own.map(|(caller, _)| *caller).collect();
        for caller in gone {
            self.calls.remove(&caller);
        }
    }

    /// Whether a call in the name of one of these processes is open.
    pub(super) fn any_of(&self, first: ProcId, last: ProcId) -> bool {
        let of = |proc, token| Caller { proc, token };
        self.calls.range(of(first, 0)..=of(last, u64::MAX)).next().is_some()
    }

    /// A host that is lost waits for nothing.
    pub(super) fn forget_host(&mut self, host: HostIndex) {
        self.calls.retain(|_, address| address.host != host);
    }
}
