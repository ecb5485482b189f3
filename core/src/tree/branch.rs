//! One branch below a node: hosts of which the first to answer becomes the head.

use std::collections::{BTreeMap, VecDeque};

use muster_protocol::limits::BRANCH_DIALS_MAX;
use muster_protocol::message::HostEntry;
use muster_protocol::{HostIndex, HostSet};

/// A candidate that has not answered for this long gets company, in milliseconds.
const STAGGER_MS: u64 = 300;
/// First pause after a failed dial, in milliseconds; it doubles up to the last.
const RETRY_FIRST_MS: u64 = 50;
/// Longest pause after a failed dial, in milliseconds.
const RETRY_LAST_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Dialling { since_ms: u64 },
    Resting { until_ms: u64 },
}

/// Hosts that are to be connected through one edge.
#[derive(Debug)]
pub struct Branch {
    hosts: Vec<HostEntry>,
    tried: BTreeMap<HostIndex, (Candidate, u32)>,
    untried: VecDeque<HostIndex>,
}

impl Branch {
    /// A branch of these hosts, not empty.
    pub fn new(hosts: Vec<HostEntry>) -> Self {
        let untried = hosts.iter().map(|h| h.index).collect();
        Self { hosts, tried: BTreeMap::new(), untried }
    }

    /// Splits hosts into at most `radix` branches of neighbours, sizes differing by one at most.
    pub fn split(hosts: Vec<HostEntry>, radix: u32) -> Vec<Self> {
        let count = hosts.len().min(radix.max(1) as usize);
        let mut rest = hosts.into_iter();
        let total = rest.len();
        (0..count)
            .map(|i| {
                let size = total / count + usize::from(i < total % count);
                Self::new(rest.by_ref().take(size).collect())
            })
            .collect()
    }

    /// The hosts to dial now.
    pub fn due(&mut self, now_ms: u64) -> Vec<HostEntry> {
        let mut due = Vec::new();
        for (host, (candidate, _)) in &mut self.tried {
            if matches!(candidate, Candidate::Resting { until_ms } if *until_ms <= now_ms) {
                *candidate = Candidate::Dialling { since_ms: now_ms };
                due.push(*host);
            }
        }
        while self.wants_another(now_ms) {
            let Some(host) = self.untried.pop_front() else { break };
            self.tried.insert(host, (Candidate::Dialling { since_ms: now_ms }, 0));
            due.push(host);
        }
        self.hosts.iter().filter(|h| due.contains(&h.index)).cloned().collect()
    }

    fn wants_another(&self, now_ms: u64) -> bool {
        let dialling = self.tried.values().filter(|(c, _)| matches!(c, Candidate::Dialling { .. })).count();
        let hopeful = self
            .tried
            .values()
            .any(|(c, _)| matches!(c, Candidate::Dialling { since_ms } if now_ms < since_ms + STAGGER_MS));
        !hopeful && dialling < BRANCH_DIALS_MAX
    }

    /// A dial failed; it is tried again later.
    pub fn failed(&mut self, host: HostIndex, now_ms: u64) {
        if let Some((candidate, failures)) = self.tried.get_mut(&host) {
            let pause = (RETRY_FIRST_MS << (*failures).min(8)).min(RETRY_LAST_MS);
            *failures += 1;
            *candidate = Candidate::Resting { until_ms: now_ms + pause };
        }
    }

    /// When [`Branch::due`] may have something new, in milliseconds. Right after a call of it, that is later.
    pub fn next_due_ms(&self) -> Option<u64> {
        let resting = self.tried.values().filter_map(|(c, _)| match c {
            Candidate::Resting { until_ms } => Some(*until_ms),
            Candidate::Dialling { .. } => None,
        });
        resting.chain(self.company_due_ms()).min()
    }

    /// When another candidate is to be tried beside those that are being dialled. The newest dial counts: as long as there is
    /// hope for it, the older ones need no more company.
    fn company_due_ms(&self) -> Option<u64> {
        let dialling = self.tried.values().filter_map(|(c, _)| match c {
            Candidate::Dialling { since_ms } => Some(*since_ms),
            Candidate::Resting { .. } => None,
        });
        let wanted = !self.untried.is_empty() && dialling.clone().count() < BRANCH_DIALS_MAX;
        // With none being dialled it is due at once.
        wanted.then(|| dialling.max().map_or(0, |newest| newest + STAGGER_MS))
    }

    /// Whether the host belongs to this branch.
    pub fn contains(&self, host: HostIndex) -> bool {
        self.hosts.iter().any(|h| h.index == host)
    }

    /// Hosts that have joined through somebody else are no longer dialled; says whether any are left.
    pub fn remove(&mut self, joined: &HostSet) -> bool {
        self.hosts.retain(|h| !joined.contains(h.index));
        self.tried.retain(|h, _| !joined.contains(*h));
        self.untried.retain(|h| !joined.contains(*h));
        !self.hosts.is_empty()
    }

    /// The host with this index.
    ///
    /// # Panics
    /// When the host is not in this branch.
    pub fn entry(&self, host: HostIndex) -> &HostEntry {
        self.hosts.iter().find(|h| h.index == host).expect("the host is in this branch")
    }

    /// The head has answered: the hosts it is to connect below itself. Those that were tried and have not answered come last,
    /// so that the head does not wait for them as well before it tries others.
    pub fn into_rest(self, head: HostIndex) -> Vec<HostEntry> {
        let rest = self.hosts.into_iter().filter(|h| h.index != head);
        let (tried, mut others): (Vec<_>, Vec<_>) = rest.partition(|h| self.tried.contains_key(&h.index));
        others.extend(tried);
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(n: u32) -> Vec<HostEntry> {
        (0..n).map(|i| HostEntry { index: HostIndex(i), name: format!("h{i}"), port: 2222, address: None }).collect()
    }

    fn indices(hosts: &[HostEntry]) -> Vec<u32> {
        hosts.iter().map(|h| h.index.0).collect()
    }

    #[test]
    fn hosts_are_split_evenly_and_in_order() {
        for (hosts, radix, sizes) in
            [(9, 2, vec![5, 4]), (33, 32, [vec![2], vec![1; 31]].concat()), (3, 32, vec![1; 3])]
        {
            let branches = Branch::split(entries(hosts), radix);
            assert_eq!(branches.iter().map(|b| b.hosts.len()).collect::<Vec<_>>(), sizes);
            let all: Vec<u32> = branches.iter().flat_map(|b| indices(&b.hosts)).collect();
            assert_eq!(all, (0..hosts).collect::<Vec<_>>());
        }
        assert!(Branch::split(Vec::new(), 4).is_empty());
    }

    #[test]
    fn a_silent_candidate_gets_company_and_a_failed_one_is_replaced_at_once() {
        let mut branch = Branch::new(entries(5));
        assert_eq!(indices(&branch.due(0)), [0]);
        assert!(branch.due(STAGGER_MS - 1).is_empty());
        assert_eq!(branch.next_due_ms(), Some(STAGGER_MS));
        assert_eq!(indices(&branch.due(STAGGER_MS)), [1]);
        branch.failed(HostIndex(1), STAGGER_MS + 1);
        assert_eq!(indices(&branch.due(STAGGER_MS + 1)), [2]);
        let joined: HostSet = (0..4).map(HostIndex).collect();
        assert!(branch.remove(&joined));
        assert_eq!(indices(&branch.due(2 * STAGGER_MS)), [4]);
        assert!(!branch.remove(&[HostIndex(4)].into_iter().collect()));
    }

    #[test]
    fn the_newest_dial_decides_when_another_one_is_due() {
        let mut branch = Branch::new(entries(5));
        branch.due(0);
        branch.due(STAGGER_MS);
        assert_eq!(branch.next_due_ms(), Some(2 * STAGGER_MS), "not the first dial's time, which is over");
        branch.due(2 * STAGGER_MS);
        assert_eq!(branch.next_due_ms(), None, "three are being dialled, nothing happens until one of them ends");
        branch.failed(HostIndex(0), 2 * STAGGER_MS + 1);
        assert_eq!(branch.next_due_ms(), Some(2 * STAGGER_MS + 1 + RETRY_FIRST_MS));
    }

    #[test]
    fn failures_are_retried_with_growing_pauses_up_to_a_limit() {
        let mut branch = Branch::new(entries(1));
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(branch.due(now).len(), 1);
            branch.failed(HostIndex(0), now);
            let next = branch.next_due_ms().unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
    }

    #[test]
    fn the_head_gets_everyone_else() {
        let branch = Branch::new(entries(4));
        assert_eq!(indices(&branch.into_rest(HostIndex(2))), [0, 1, 3]);
        let mut branch = Branch::new(entries(4));
        branch.due(0);
        branch.due(STAGGER_MS);
        assert_eq!(indices(&branch.into_rest(HostIndex(1))), [2, 3, 0]);
    }
}
