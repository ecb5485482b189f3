//! Which process groups are over and forgotten.
//!
//! Groups are numbered as they come, and most of them are forgotten one day: neighbours are kept as one stretch, so that a job may
//! spawn for as long as it runs.

use std::collections::BTreeMap;

use muster_protocol::Group;
use muster_protocol::message::{Forget, Stretch};

/// See the module above.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// First numbers of stretches, and the numbers behind their last ones.
    stretches: BTreeMap<u32, u32>,
}

impl Forgotten {
    /// These are forgotten, too.
    pub fn add(&mut self, forget: &Forget) {
        for Stretch { first, count } in &forget.groups {
            let (mut from, mut to) = (first.0, first.0.saturating_add(*count));
            if from == to {
                continue;
            }
            // Whatever overlaps or touches it becomes a part of it.
            while let Some((start, end)) = self.stretches.range(..=to).next_back().filter(|(_, end)| **end >= from) {
                let start = *start;
                (from, to) = (from.min(start), to.max(*end));
                self.stretches.remove(&start);
            }
            self.stretches.insert(from, to);
        }
    }

    /// Whether this one is.
    pub fn contains(&self, group: Group) -> bool {
        self.stretches.range(..=group.0).next_back().is_some_and(|(_, end)| group.0 < *end)
    }

    /// All of them, for somebody who may have heard of none.
    pub fn all(&self) -> Option<Forget> {
        let stretch = |(start, end): (&u32, &u32)| Stretch { first: Group(*start), count: end - start };
        let groups: Vec<Stretch> = self.stretches.iter().map(stretch).collect();
        (!groups.is_empty()).then_some(Forget { groups })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stretches_are_the_set_of_their_groups_and_neighbours_are_one(
            told in proptest::collection::vec((0u32..60, 0u32..6), 0..40)) {
            let (mut forgotten, mut set) = (Forgotten::default(), BTreeSet::new());
            for (first, count) in told {
                forgotten.add(&Forget { groups: vec![Stretch { first: Group(first), count }] });
                set.extend(first..first + count);
            }
            let contained: BTreeSet<u32> = (0..70).filter(|group| forgotten.contains(Group(*group))).collect();
            prop_assert_eq!(&contained, &set);
            let begins = set.iter().filter(|group| **group == 0 || !set.contains(&(**group - 1))).count();
            let all = forgotten.all();
            prop_assert_eq!(all.as_ref().map_or(0, |all| all.groups.len()), begins);
            // Somebody who hears it all at once knows the same.
            let mut other = Forgotten::default();
            if let Some(all) = all {
                other.add(&all);
            }
            prop_assert_eq!(other, forgotten);
        }
    }
}
