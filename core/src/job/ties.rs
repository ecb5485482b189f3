//! Process groups that have connected and have not left each other. Their ranks may still name the other group to their library, as
//! when they leave, even when all of its ranks have ended; so its hosts must not forget it.
//!
//! What ranks of one host do among themselves their library does alone, and nothing of it is heard here. There it makes no difference
//! whether a group whose ranks have ended is still known: they are missing in either case.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::Group;

/// See the module above.
#[derive(Debug, Default)]
pub(super) struct Ties {
    /// How often groups have connected and not left.
    open: BTreeMap<BTreeSet<Group>, u32>,
    /// The connections of each group.
    of: BTreeMap<Group, BTreeSet<BTreeSet<Group>>>,
}

impl Ties {
    /// Ranks of these groups have connected.
    pub(super) fn connected(&mut self, groups: BTreeSet<Group>) {
        if groups.len() < 2 {
            return;
        }
        for group in &groups {
            self.of.entry(*group).or_default().insert(groups.clone());
        }
        *self.open.entry(groups).or_default() += 1;
    }

    /// They have left each other; says whether that was the last connection between them.
    pub(super) fn left(&mut self, groups: &BTreeSet<Group>) -> bool {
        match self.open.get_mut(groups) {
            None => false,
            Some(times) if *times > 1 => {
                *times -= 1;
                false
            }
            Some(_) => {
                self.cut(groups);
                true
            }
        }
    }

    fn cut(&mut self, groups: &BTreeSet<Group>) {
        self.open.remove(groups);
        for group in groups {
            let Some(ties) = self.of.get_mut(group) else { continue };
            ties.remove(groups);
            if ties.is_empty() {
                self.of.remove(group);
            }
        }
    }

    /// Whether a group is connected to one that lives.
    pub(super) fn hold(&self, group: Group, lives: impl Fn(Group) -> bool) -> bool {
        let mut others = self.of.get(&group).into_iter().flatten().flatten();
        others.any(|other| *other != group && lives(*other))
    }

    /// The groups that a group is connected to.
    pub(super) fn tied_to(&self, group: Group) -> BTreeSet<Group> {
        self.of.get(&group).into_iter().flatten().flatten().copied().filter(|other| *other != group).collect()
    }

    /// A group is forgotten, and its connections with it.
    pub(super) fn forget(&mut self, group: Group) {
        for groups in self.of.get(&group).cloned().unwrap_or_default() {
            self.cut(&groups);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.of.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(groups: &[u32]) -> BTreeSet<Group> {
        groups.iter().map(|group| Group(*group)).collect()
    }

    #[test]
    fn a_group_is_held_by_the_living_that_have_not_left_it() {
        let mut ties = Ties::default();
        ties.connected(groups(&[0]));
        assert!(ties.is_empty(), "ranks of one group are always connected");
        ties.connected(groups(&[0, 1]));
        ties.connected(groups(&[0, 1]));
        ties.connected(groups(&[0, 1, 2]));
        assert!(ties.hold(Group(1), |group| group == Group(0)) && !ties.hold(Group(1), |group| group == Group(1)));
        assert_eq!(ties.tied_to(Group(2)), groups(&[0, 1]));
        assert!(!ties.left(&groups(&[0, 2])), "these have never connected");
        assert!(!ties.left(&groups(&[0, 1])), "twice connected");
        assert!(ties.left(&groups(&[0, 1])) && ties.hold(Group(1), |group| group == Group(0)));
        ties.forget(Group(2));
        assert!(ties.is_empty());
    }
}
