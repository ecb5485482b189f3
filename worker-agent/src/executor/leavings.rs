//! What ranks that were killed leave behind beside processes: shared memory of the System V kind, which has no owner's life.
//!
//! Only what is certainly a rank's is removed: it was not there before the first rank, a rank or one of its descendants made
//! it, and nobody has it in its memory any more.

use std::collections::BTreeSet;

use muster_protocol::limits::REMEMBERED_PROCESSES_MAX;
use muster_sys::sysv::{self, Segment};

/// Who has run here since the last sweep that found nobody, and what was there before.
#[derive(Debug, Default)]
pub(super) struct Leavings {
    /// Segments that were there before the first rank; none while there has been no rank.
    before: Option<BTreeSet<i32>>,
    processes: BTreeSet<i32>,
}

impl Leavings {
    /// A rank is about to start.
    pub(super) fn begin(&mut self) {
        if self.before.is_none() {
            // Where the system shows none, none are removed either.
            self.before = Some(segments().iter().map(|segment| segment.id).collect());
        }
    }

    /// A rank has started, or a descendant of one was seen.
    pub(super) fn add(&mut self, pid: i32) {
        if self.processes.len() < REMEMBERED_PROCESSES_MAX {
            self.processes.insert(pid);
        }
    }

    /// Something is about to be killed. Descendants are looked for only if some segment's creator is not known yet.
    pub(super) fn before_killing(&mut self, descendants: impl FnOnce() -> Vec<i32>) {
        if self.before.is_some() && segments().iter().any(|s| self.is_new(s) && !self.processes.contains(&s.creator)) {
            for pid in descendants() {
                self.add(pid);
            }
        }
    }

    /// Nobody is left: removes what they left.
    pub(super) fn clear(&mut self) {
        if self.before.is_some() {
            for segment in segments().iter().filter(|segment| self.is_left(segment)) {
                match sysv::remove(segment.id) {
                    Ok(()) => {
                        tracing::info!(id = segment.id, pid = segment.creator, "removed shared memory that a rank left")
                    }
                    Err(error) => {
                        tracing::warn!(id = segment.id, %error, "cannot remove shared memory that a rank left")
                    }
                }
            }
        }
        *self = Self::default();
    }

    fn is_new(&self, segment: &Segment) -> bool {
        self.before.as_ref().is_some_and(|before| !before.contains(&segment.id))
    }

    fn is_left(&self, segment: &Segment) -> bool {
        self.is_new(segment) && segment.attached == 0 && self.processes.contains(&segment.creator)
    }
}

fn segments() -> Vec<Segment> {
    sysv::segments().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_rank_made_and_nobody_uses_is_left_behind() {
        let segment = |id, creator, attached| Segment { id, creator, attached };
        let mut leavings = Leavings::default();
        leavings.add(100);
        assert!(!leavings.is_left(&segment(7, 100, 0)), "there was no rank");
        leavings.before = Some([1].into());
        assert!(leavings.is_left(&segment(7, 100, 0)));
        assert!(!leavings.is_left(&segment(1, 100, 0)), "it was there before: ids of processes come again");
        assert!(!leavings.is_left(&segment(7, 100, 1)), "somebody uses it");
        assert!(!leavings.is_left(&segment(7, 200, 0)), "somebody else made it");
        assert!(!leavings.is_left(&segment(7, 0, 0)), "it belongs to another namespace");
    }

    #[test]
    fn processes_that_are_remembered_are_bounded() {
        let mut leavings = Leavings::default();
        for pid in 0..2 * REMEMBERED_PROCESSES_MAX as i32 {
            leavings.add(pid);
        }
        assert_eq!(leavings.processes.len(), REMEMBERED_PROCESSES_MAX);
    }
}
