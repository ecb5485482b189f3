//! Which of this process's children somebody waits for.
//!
//! As subreaper or PID 1 the process inherits orphans that it must reap, and a sweep kills what ranks left behind. Both
//! must leave alone the children that another part of the process started and waits for. So whoever starts a child
//! claims it here, under the same lock under which it is reaped and swept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

#[derive(Debug)]
struct Table {
    claimed: BTreeMap<i32, Owner>,
    starting: Vec<Start>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { claimed: BTreeMap::new(), starting: Vec::new() });

/// A start that is under way. It may take long, so the table is not locked meanwhile; the kernel tells the id of the new
/// process before that process does anything, 0 until then.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pid: Arc<AtomicI32>,
    owner: Owner,
}

impl Start {
    /// Where the kernel writes the id.
    pub(crate) fn pid_cell(&self) -> *mut i32 {
        self.pid.as_ptr()
    }

    fn pid(&self) -> Option<i32> {
        Some(self.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }
}

/// The table of claimed children, locked: while it lives no child is reaped or swept by others, and no start begins.
///
/// Start a process by other means than [`crate::spawn`] while holding this, claim it, then let go; disclaim it after
/// waiting for it.
#[derive(Debug)]
pub struct Hold(MutexGuard<'static, Table>);

/// Locks the table of claimed children.
pub fn hold() -> Hold {
    // The table is consistent between any two of its operations, so a panic elsewhere does not spoil it.
    Hold(TABLE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Locks the table when the children of all others than `owner` are known: a start that has begun but has no process yet is
/// waited for. That is a matter of microseconds.
pub(crate) fn hold_knowing_others(owner: Owner) -> Hold {
    loop {
        let hold = hold();
        if !hold.0.starting.iter().any(|start| start.owner != owner && start.pid().is_none()) {
            return hold;
        }
        drop(hold);
        std::thread::yield_now();
    }
}

impl Hold {
    /// Says that `owner` waits for this child.
    pub fn claim(&mut self, pid: i32, owner: Owner) {
        self.0.claimed.insert(pid, owner);
    }

    /// Says that nobody waits for this child any more.
    pub fn disclaim(&mut self, pid: i32) {
        self.0.claimed.remove(&pid);
    }

    /// Whether somebody waits for this child.
    pub fn is_claimed(&self, pid: i32) -> bool {
        self.0.claimed.contains_key(&pid) || self.0.starting.iter().any(|start| start.pid() == Some(pid))
    }

    /// The children that others than `owner` wait for: a sweep of `owner` spares them and all that descends from them.
    pub fn others(&self, owner: Owner) -> BTreeSet<i32> {
        let claimed = self.0.claimed.iter().filter(|(_, o)| **o != owner).map(|(pid, _)| *pid);
        let starting = self.0.starting.iter().filter(|start| start.owner != owner).filter_map(Start::pid);
        claimed.chain(starting).collect()
    }

    /// A start begins. Its process counts as claimed as soon as there is one.
    pub(crate) fn begin(&mut self, owner: Owner) -> Start {
        let start = Start { pid: Arc::default(), owner };
        self.0.starting.push(start.clone());
        start
    }

    /// A start is over: with a process, which is claimed from now on, or without.
    pub(crate) fn end(&mut self, start: &Start, pid: Option<i32>) {
        if let Some(pid) = pid {
            self.claim(pid, start.owner);
        }
        self.0.starting.retain(|other| !Arc::ptr_eq(&other.pid, &start.pid));
    }

    /// Processes of `owner` that do not run their program yet. None of their ids passes to another while this is held.
    pub(crate) fn starting(&self, owner: Owner) -> Vec<i32> {
        self.0.starting.iter().filter(|start| start.owner == owner).filter_map(Start::pid).collect()
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

    #[test]
    fn a_start_under_way_is_claimed_from_the_moment_its_process_has_an_id() {
        let (a, b) = (Owner::new(), Owner::new());
        let p = i32::MAX - 3;
        let mut hold = hold();
        let start = hold.begin(a);
        assert!(hold.starting(a).is_empty());
        // As the kernel does.
        start.pid.store(p, Ordering::Release);
        assert!(hold.is_claimed(p) && hold.others(b).contains(&p) && !hold.others(a).contains(&p));
        assert_eq!((hold.starting(a), hold.starting(b)), (vec![p], vec![]));
        hold.end(&start, Some(p));
        assert!(hold.is_claimed(p) && hold.starting(a).is_empty());
        hold.disclaim(p);
        assert!(!hold.is_claimed(p));
    }
}
