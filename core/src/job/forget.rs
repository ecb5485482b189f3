//! Spawned groups that are over: a job may spawn and disconnect again and again.
//!
//! A group is over when all of its ranks have ended and nobody who lives is connected to it. Then the root forgets it and tells the
//! hosts, which release what they know of it, and so do their PMIx servers. Those of the command line stay, for what is said of the
//! whole job at its end; so does what ranks have published, which is no part of their group.

use muster_protocol::message::{Forget, Stretch};
use muster_protocol::{Group, ProcId};

use super::machine::{Job, Stage};

impl Job {
    /// Something has happened after which a group may be over, or those that it was connected to.
    pub(super) fn forget_if_over(&mut self, group: Group) {
        if self.table.is_alive(group) {
            return;
        }
        let mut groups = self.exchange.ties.tied_to(group);
        groups.insert(group);
        for group in groups {
            if self.is_over(group) {
                self.forget(group);
            }
        }
    }

    /// All groups that have lost their last ranks with a host.
    pub(super) fn forget_what_is_over(&mut self) {
        let ended: Vec<Group> = self.table.groups.keys().copied().filter(|g| !self.table.is_alive(*g)).collect();
        for group in ended {
            self.forget_if_over(group);
        }
    }

    fn is_over(&self, group: Group) -> bool {
        let Some(state) = self.table.groups.get(&group).filter(|g| g.alive == 0 && g.spec.spawned_by.is_some()) else {
            return false;
        };
        let first = state.spec.first_proc;
        let last = ProcId(first.0 + state.spec.size.saturating_sub(1));
        let held = self.exchange.ties.hold(group, |other| self.table.is_alive(other));
        // A job that ends forgets everything anyway.
        self.stage != Stage::Running
            || !(held || self.exchange.meetings.name(group) || self.exchange.pending.any_of(first, last))
    }

    fn forget(&mut self, group: Group) {
        self.give_up_fetches(|_, of, _| of == group);
        let Some(state) = self.table.forget(group) else { return };
        for rank in 0..state.spec.size {
            self.answers.forget(ProcId(state.spec.first_proc.0 + rank));
        }
        self.exchange.ties.forget(group);
        self.survival.forget(group);
        if self.stage == Stage::Running {
            self.broadcast(&Forget { groups: vec![Stretch { first: group, count: 1 }] });
        }
    }
}
