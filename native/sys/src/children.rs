//! Which of this process's children somebody waits for.
//!
//! As subreaper or PID 1 the process inherits orphans that it must reap, and a sweep kills what ranks left behind. Both
//! must leave alone the children that another part of the process started and waits for. So whoever starts a child
//! claims it here, under the same lock under which it is started, reaped and swept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A part of the process that starts children: an executor, a helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(u64);

impl Owner {
    /// An owner different from all others.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::new()
    }
}

static CLAIMED: Mutex<BTreeMap<i32, Owner>> = Mutex::new(BTreeMap::new());

/// The table of claimed children, locked: while it lives no child is reaped or swept by others.
///
/// Start a process by other means than [`crate::spawn`] while holding this, claim it, then let go; disclaim it after
/// waiting for it.
#[derive(Debug)]
pub struct Hold(MutexGuard<'static, BTreeMap<i32, Owner>>);

/// Locks the table of claimed children.
pub fn hold() -> Hold {
    // The map is consistent between any two of its operations, so a panic elsewhere does not spoil it.
    Hold(CLAIMED.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Hold {
    /// Says that `owner` waits for this child.
    pub fn claim(&mut self, pid: i32, owner: Owner) {
        self.0.insert(pid, owner);
    }

    /// Says that nobody waits for this child any more.
    pub fn disclaim(&mut self, pid: i32) {
        self.0.remove(&pid);
    }

    /// Whether somebody waits for this child.
    pub fn is_claimed(&self, pid: i32) -> bool {
        self.0.contains_key(&pid)
    }

    /// The children that others than `owner` wait for: a sweep of `owner` spares them and all that descends from them.
    pub fn others(&self, owner: Owner) -> BTreeSet<i32> {
        self.0.iter().filter(|(_, o)| **o != owner).map(|(pid, _)| *pid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_belong_to_their_owners() {
        let (a, b) = (Owner::new(), Owner::new());
        // Numbers that no process of this machine can have.
        let (p, q) = (i32::MAX - 1, i32::MAX - 2);
        let mut hold = hold();
        hold.claim(p, a);
        hold.claim(q, b);
        assert!(hold.is_claimed(p));
        assert!(hold.others(a).contains(&q) && !hold.others(a).contains(&p));
        hold.disclaim(p);
        hold.disclaim(q);
        assert!(!hold.is_claimed(p) && !hold.is_claimed(q));
    }
}
