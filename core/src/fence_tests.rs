use bytes::BytesMut;
use muster_protocol::HostIndex;
use proptest::prelude::*;

use super::*;
use crate::kvs::{Kvs, append_entry};

const GROUP: Group = Group(3);

fn hosts(list: &[u32]) -> HostSet {
    list.iter().copied().map(HostIndex).collect()
}

fn text(t: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(t.as_bytes())]
}

#[test]
fn the_root_is_complete_when_all_members_are_in() {
    let mut root = FenceMerge::new(GROUP, hosts(&[0, 2, 5]));
    assert_eq!(root.contribute(0, hosts(&[0, 5]), text("a")), Ok(Offered::New));
    assert_eq!(root.poll(), None);
    assert_eq!(root.missing(0), hosts(&[2]));
    assert_eq!(root.contribute(0, hosts(&[2]), text("b")), Ok(Offered::New));
    let all = root.poll().unwrap();
    assert_eq!((all.seq, all.hosts, all.blobs), (0, hosts(&[0, 2, 5]), [text("a"), text("b")].concat()));
    assert_eq!(root.poll(), None);
    assert_eq!(root.done(0), Ok(true));
    assert_eq!(root.done(0), Ok(false));
    assert_eq!(root.current(), 1);
    assert_eq!(root.missing(1), hosts(&[0, 2, 5]));
}

#[test]
fn sequence_numbers_of_the_neighbours_are_told_apart() {
    let mut node = FenceMerge::new(GROUP, hosts(&[0, 1]));
    assert_eq!(node.contribute(1, hosts(&[1]), text("next")), Ok(Offered::New));
    assert!(matches!(node.contribute(2, hosts(&[1]), vec![]), Err(FenceError::Sequence { seq: 2, current: 0, .. })));
    assert!(matches!(node.done(1), Err(FenceError::Sequence { .. })));
    node.contribute(0, hosts(&[0, 1]), vec![]).unwrap();
    assert_eq!(node.done(0), Ok(true));
    assert_eq!(node.contribute(0, hosts(&[1]), text("again")), Ok(Offered::Late));
    assert_eq!(node.missing(1), hosts(&[0]));
    node.contribute(1, hosts(&[0]), vec![]).unwrap();
    assert_eq!(node.poll().unwrap().blobs, text("next"));
    node.done(1).unwrap();
    assert_eq!(node.contribute(0, hosts(&[1]), vec![]), Ok(Offered::Known), "nobody can be waiting for that one");
    assert!(matches!(node.contribute(u64::MAX, hosts(&[1]), vec![]), Err(FenceError::Sequence { .. })));
}

#[test]
fn strangers_and_nobody_are_refused() {
    let mut node = FenceMerge::new(GROUP, hosts(&[0, 1]));
    let error = node.contribute(0, hosts(&[0, 9]), vec![]).unwrap_err();
    assert_eq!(error, FenceError::NotMember { group: GROUP, seq: 0, hosts: hosts(&[9]) });
    assert!(matches!(node.contribute(0, HostSet::new(), vec![]), Err(FenceError::Nobody { .. })));
    assert_eq!(node.missing(0), hosts(&[0, 1]));
}

#[test]
fn a_subtree_contributes_without_the_rest_and_again_when_it_has_grown() {
    let mut node = FenceMerge::new(GROUP, hosts(&[0, 1, 2, 3]));
    node.set_subtree(&hosts(&[1, 2, 7]));
    node.contribute(0, hosts(&[1]), text("1")).unwrap();
    assert_eq!(node.poll(), None);
    node.contribute(0, hosts(&[2]), text("2")).unwrap();
    assert_eq!(node.poll().unwrap().hosts, hosts(&[1, 2]));
    assert_eq!(node.poll(), None);
    // Host 3 has lost its parent and comes to us.
    node.set_subtree(&hosts(&[1, 2, 3]));
    assert_eq!(node.poll(), None);
    // A new parent hears at once what the old one has heard: host 3 may be further than we know.
    assert_eq!(node.resend().unwrap().hosts, hosts(&[1, 2]));
    assert_eq!(node.poll(), None);
    node.contribute(0, hosts(&[3]), text("3")).unwrap();
    assert_eq!(node.poll().unwrap().hosts, hosts(&[1, 2, 3]));
    // Our own parent dies: the same again for the new one, until the fence is over.
    assert_eq!(node.resend().unwrap().hosts, hosts(&[1, 2, 3]));
    node.done(0).unwrap();
    assert_eq!(node.resend(), None);
}

#[test]
fn a_subtree_without_members_contributes_nothing() {
    let mut node = FenceMerge::new(GROUP, hosts(&[0]));
    node.set_subtree(&hosts(&[4, 5]));
    assert_eq!(node.poll(), None);
    assert!(!node.is_complete());
    assert!(node.missing(0).is_empty());
}

#[test]
fn a_larger_contribution_replaces_what_it_contains() {
    let mut node = FenceMerge::new(GROUP, hosts(&[0, 1, 2]));
    node.contribute(0, hosts(&[1]), text("one")).unwrap();
    node.contribute(0, hosts(&[1, 2]), text("one and two")).unwrap();
    assert_eq!(node.contribute(0, hosts(&[2]), text("two")), Ok(Offered::Known));
    node.contribute(0, hosts(&[0]), vec![Bytes::new()]).unwrap();
    assert_eq!(node.poll().unwrap().blobs, text("one and two"));
}

#[test]
fn all_key_values_together_are_bounded() {
    let mut node = FenceMerge::new(GROUP, hosts(&[0, 1]));
    let half = Bytes::from(vec![0; FENCE_BYTES_MAX / 2 + 1]);
    node.contribute(0, hosts(&[0]), vec![half.clone()]).unwrap();
    let error = node.contribute(0, hosts(&[1]), vec![half]).unwrap_err();
    assert!(matches!(error, FenceError::TooLarge { bytes, .. } if bytes > FENCE_BYTES_MAX));
    assert_eq!(node.missing(0), hosts(&[1]));
}

/// A tree of agents with contributions on their way; host 0 is the root and every parent has a smaller index.
struct Net {
    parents: Vec<u32>,
    dead: Vec<bool>,
    nodes: Vec<FenceMerge>,
    on_the_way: Vec<(u32, Contribution)>,
    complete: Vec<Contribution>,
}

impl Net {
    fn new(parents: Vec<u32>, members: &HostSet) -> Self {
        let nodes = (0..parents.len()).map(|_| FenceMerge::new(GROUP, members.clone())).collect();
        let dead = vec![false; parents.len()];
        let mut net = Self { parents, dead, nodes, on_the_way: Vec::new(), complete: Vec::new() };
        net.tell_subtrees();
        net
    }

    fn subtree(&self, top: u32) -> HostSet {
        let under = |mut host: u32| {
            while host > top {
                host = self.parents[host as usize];
            }
            host == top
        };
        (0..self.parents.len() as u32).filter(|h| !self.dead[*h as usize] && under(*h)).map(HostIndex).collect()
    }

    fn tell_subtrees(&mut self) {
        for host in 1..self.parents.len() {
            let subtree = self.subtree(host as u32);
            self.nodes[host].set_subtree(&subtree);
        }
    }

    fn pump(&mut self, host: u32, again: bool) {
        if self.dead[host as usize] {
            return;
        }
        let node = &mut self.nodes[host as usize];
        let ready = if again { node.resend() } else { node.poll() };
        match ready {
            Some(all) if host == 0 => self.complete.push(all),
            Some(all) => self.on_the_way.push((self.parents[host as usize], all)),
            None => {}
        }
    }

    /// An inner agent that carries no rank dies; its children go to its parent and say again what they have said.
    fn kill(&mut self, host: u32) {
        self.dead[host as usize] = true;
        self.on_the_way.retain(|(to, _)| *to != host);
        let heir = self.parents[host as usize];
        let orphans: Vec<u32> =
            (0..self.parents.len() as u32).filter(|h| *h != 0 && self.parents[*h as usize] == host).collect();
        for orphan in &orphans {
            self.parents[*orphan as usize] = heir;
        }
        self.tell_subtrees();
        for host in 0..self.parents.len() as u32 {
            self.pump(host, orphans.contains(&host));
        }
    }

    fn deliver(&mut self, at: usize, twice: bool) {
        let (to, what) = self.on_the_way.swap_remove(at % self.on_the_way.len());
        if twice {
            self.on_the_way.push((to, what.clone()));
        }
        self.nodes[to as usize].contribute(what.seq, what.hosts, what.blobs).unwrap();
        self.pump(to, false);
    }
}

fn entry(host: u32, seq: u64) -> Bytes {
    let mut blob = BytesMut::new();
    append_entry(&mut blob, format!("h{host}-s{seq}").as_bytes(), b"card").unwrap();
    blob.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_order_repetition_and_death_of_inner_agents_gives_the_union(
        shape in proptest::collection::vec(any::<u32>(), 1..24),
        without_ranks in proptest::collection::vec(any::<bool>(), 24),
        steps in proptest::collection::vec((any::<usize>(), 0u8..10), 400),
    ) {
        let n = shape.len() as u32 + 1;
        let parents: Vec<u32> = std::iter::once(0).chain((1..n).map(|h| shape[h as usize - 1] % h)).collect();
        let members: HostSet = (0..n).filter(|h| *h == n - 1 || !without_ranks[*h as usize]).map(HostIndex).collect();
        let mut net = Net::new(parents, &members);
        let mut steps = steps.into_iter().cycle().take(20_000);
        for seq in 0..2u64 {
            let mut silent: Vec<u32> = members.iter().map(|h| h.0).collect();
            while !(silent.is_empty() && net.on_the_way.is_empty()) {
                let (pick, kind) = steps.next().expect("it comes to an end");
                let mortal = (1..n).find(|h| !net.dead[*h as usize] && !members.contains(HostIndex(*h)));
                match (kind, mortal) {
                    (0, Some(host)) => net.kill(host),
                    (0..=4, _) if !silent.is_empty() => {
                        let host = silent.swap_remove(pick % silent.len());
                        let own = [HostIndex(host)].into_iter().collect();
                        net.nodes[host as usize].contribute(seq, own, vec![entry(host, seq)]).unwrap();
                        net.pump(host, false);
                    }
                    _ if !net.on_the_way.is_empty() => net.deliver(pick, kind == 9),
                    _ => {}
                }
                prop_assert!(net.complete.is_empty() || silent.is_empty());
            }
            prop_assert_eq!(net.complete.len(), 1);
            let all = net.complete.pop().unwrap();
            prop_assert_eq!(&all.hosts, &members);
            let mut kvs = Kvs::new();
            kvs.load(&all.blobs).unwrap();
            prop_assert_eq!(kvs.len(), members.len());
            for host in members.iter() {
                let key = format!("h{host}-s{seq}");
                prop_assert!(kvs.get(key.as_bytes()).is_some());
            }
            for node in &mut net.nodes { node.done(seq).unwrap(); }
        }
    }
}

#[test]
fn nobody_waits_for_a_host_that_has_left_and_what_it_still_brings_is_dropped() {
    let mut merge = FenceMerge::new(Group(0), HostSet::first(3));
    merge.contribute(0, [HostIndex(0)].into_iter().collect(), vec![Bytes::from("a")]).unwrap();
    merge.contribute(0, [HostIndex(1)].into_iter().collect(), vec![Bytes::from("b")]).unwrap();
    assert_eq!(merge.poll(), None);
    merge.leave(&[HostIndex(2)].into_iter().collect());
    assert_eq!(merge.poll().map(|c| c.hosts), Some(HostSet::first(2)));
    let late = merge.contribute(0, [HostIndex(2)].into_iter().collect(), vec![Bytes::from("c")]);
    assert_eq!(late, Ok(Offered::Known));
    merge.done(0).unwrap();
    // One that has left comes with others, from a node that does not know.
    merge.contribute(1, HostSet::first(3), vec![Bytes::from("abc")]).unwrap();
    assert_eq!(merge.poll().map(|c| c.hosts), Some(HostSet::first(2)));
}
