//! One node alone: what it decides about every event, without a network.

use muster_protocol::frame::EVERY_HOST;
use muster_protocol::limits::FENCE_LEASE_MS;
use muster_protocol::message::{App, Bootstrap, Heartbeat, Initialised, Spec, StdinTo, Stretch};
use muster_protocol::{Epoch, Generation, ProcId, Rank};

use super::*;

const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };

fn entry(i: u32) -> HostEntry {
    HostEntry { index: HostIndex(i), name: format!("h{i}"), port: 2222, address: None }
}

fn set(hosts: &[u32]) -> HostSet {
    hosts.iter().map(|h| HostIndex(*h)).collect()
}

fn adopt(hosts: std::ops::Range<u32>, radix: u32) -> Adopt {
    Adopt { hosts: hosts.map(entry).collect(), radix }
}

fn root(hosts: u32, radix: u32) -> TreeNode {
    let mut node = TreeNode::new(None, STAMP);
    node.adopt(adopt(0..hosts, radix), 0);
    node
}

fn dials(acts: &[Act]) -> Vec<u32> {
    acts.iter().filter_map(|a| if let Act::Dial(e) = a { Some(e.index.0) } else { None }).collect()
}

fn ups<M: Message>(acts: &[Act]) -> Vec<M> {
    let up = |a: &Act| match a {
        Act::Up(f) if f.header.kind == M::KIND => Some(M::read(f).unwrap()),
        _ => None,
    };
    acts.iter().filter_map(up).collect()
}

fn joined(acts: &[Act]) -> Vec<HostSet> {
    ups::<Joined>(acts).into_iter().map(|m| m.hosts).collect()
}

fn lost(acts: &[Act]) -> Vec<u32> {
    ups::<Lost>(acts).into_iter().map(|m| m.host.0).collect()
}

/// Kinds of the frames that go to a child.
fn sent(acts: &[Act], edge: u64) -> Vec<Kind> {
    let kind = |a: &Act| match a {
        Act::ToChild(e, f) if e.0 == edge => Some(f.header.kind),
        _ => None,
    };
    acts.iter().filter_map(kind).collect()
}

fn handed(acts: &[Act], edge: u64) -> Vec<u32> {
    let order = acts.iter().find_map(|a| match a {
        Act::ToChild(e, f) if e.0 == edge && f.header.kind == Kind::Adopt => Some(Adopt::read(f).unwrap()),
        _ => None,
    });
    order.map_or_else(Vec::new, |o| o.hosts.iter().map(|h| h.index.0).collect())
}

fn tell<M: Message>(node: &mut TreeNode, edge: u64, from: u32, message: &M, now_ms: u64) {
    node.from_child(EdgeId(edge), STAMP.frame(HostIndex(from), message), now_ms);
}

fn beat(sent_ms: u64) -> Frame {
    STAMP.to_all(&Heartbeat { sent_ms, lease_ms: FENCE_LEASE_MS })
}

fn spec(members: &[u32]) -> Frame {
    STAMP.to_all(&Spec {
        group: Group(0),
        size: members.len() as u32,
        first_proc: ProcId(0),
        members: set(members),
        apps: vec![App { argv: vec!["p".into()], wdir: None, env: vec![] }],
        bootstrap: Bootstrap::Pmi,
        kvsname: "kvs".into(),
        mapping: None,
        universe_size: -1,
        preput: vec![],
        stdin: StdinTo::Nobody,
        umask: None,
        rlimits: vec![],
        window_bytes: 0,
        job: "j".into(),
        env: Vec::new(),
        pmix: None,
        spawned_by: None,
    })
}

/// Sends a host set's part of a fence from a child.
fn fence_up(node: &mut TreeNode, edge: u64, seq: u64, hosts: &[u32], blob: &'static [u8], now_ms: u64) {
    for frame in chunks::up(STAMP, HostIndex(hosts[0]), Group(0), seq, &set(hosts), &[Bytes::from_static(blob)]) {
        node.from_child(EdgeId(edge), frame, now_ms);
    }
}

/// A root over hosts 0 to 8 in two branches, whose heads 0 and 5 are connected by edges 10 and 20 and have told of the rest.
fn complete() -> TreeNode {
    let mut node = root(9, 2);
    node.dialled(HostIndex(0), EdgeId(10), 1);
    node.dialled(HostIndex(5), EdgeId(20), 1);
    tell(&mut node, 10, 0, &Joined { hosts: set(&[1, 2, 3, 4]) }, 2);
    tell(&mut node, 20, 5, &Joined { hosts: set(&[6, 7, 8]) }, 2);
    node.take_acts();
    node
}

#[test]
fn the_first_host_to_answer_heads_its_branch_and_is_handed_the_others() {
    let mut node = root(9, 2);
    assert_eq!(dials(&node.take_acts()), [0, 5]);
    node.tick(300);
    assert_eq!(dials(&node.take_acts()), [1, 6], "the first ones are slow, the next ones are tried beside them");
    node.dialled(HostIndex(1), EdgeId(10), 310);
    let acts = node.take_acts();
    assert_eq!(handed(&acts, 10), [2, 3, 4, 0]);
    assert_eq!(joined(&acts), [set(&[1])]);
    // The slow one answers at last, but it is the head's business now.
    node.dialled(HostIndex(0), EdgeId(11), 320);
    assert_eq!(node.take_acts(), [Act::Close(EdgeId(11))]);
    tell(&mut node, 10, 1, &Joined { hosts: set(&[0]) }, 330);
    assert_eq!(joined(&node.take_acts()), [set(&[0])]);
    assert_eq!((node.joined_below(), node.children.len()), (set(&[0, 1]), 1));
    assert_eq!(node.route(HostIndex(0)), Some(EdgeId(10)));
}

#[test]
fn hosts_that_join_together_are_told_in_one_frame_and_losses_keep_their_place() {
    let mut node = root(4, 4);
    for i in 0..3 {
        node.dialled(HostIndex(i), EdgeId(u64::from(i)), 1);
    }
    assert_eq!(joined(&node.take_acts()), [set(&[0, 1, 2])]);
    node.dialled(HostIndex(3), EdgeId(3), 2);
    node.child_closed(EdgeId(3), "gone".into(), 2);
    let acts = node.take_acts();
    let kinds: Vec<Kind> =
        acts.iter().filter_map(|a| if let Act::Up(f) = a { Some(f.header.kind) } else { None }).collect();
    assert_eq!(kinds, [Kind::Joined, Kind::Lost]);
}

#[test]
fn a_child_gets_the_last_heartbeat_its_hosts_and_the_open_groups_in_this_order() {
    let mut node = root(4, 2);
    node.from_parent(beat(7), 7);
    node.from_parent(spec(&[0, 1]), 8);
    node.take_acts();
    node.dialled(HostIndex(0), EdgeId(1), 9);
    assert_eq!(sent(&node.take_acts(), 1), [Kind::Heartbeat, Kind::Adopt, Kind::Spec]);
}

#[test]
fn what_is_over_is_passed_on_and_told_to_who_comes_later() {
    let forget = Forget { groups: vec![Stretch { first: Group(1), count: 2 }] };
    let mut node = TreeNode::new(Some(HostIndex(0)), STAMP);
    node.adopt(adopt(1..3, 2), 0);
    node.dialled(HostIndex(1), EdgeId(1), 1);
    tell(&mut node, 1, 1, &Initialised { group: Group(2), rank: Rank(0) }, 2);
    node.take_acts();
    node.from_parent(STAMP.to_all(&forget), 3);
    let acts = node.take_acts();
    assert_eq!(sent(&acts, 1), [Kind::Forget]);
    assert!(acts.contains(&Act::Local(STAMP.to_all(&forget))));
    node.from_parent(spec(&[0, 1]), 4);
    node.take_acts();
    node.dialled(HostIndex(2), EdgeId(2), 5);
    let acts = node.take_acts();
    assert_eq!(sent(&acts, 2), [Kind::Forget, Kind::Spec]);
    assert!(acts.contains(&Act::ToChild(EdgeId(2), STAMP.to_all(&forget))));
    // A host that has not heard it yet says again what its ranks have done; a new parent hears nothing of it.
    tell(&mut node, 1, 1, &Initialised { group: Group(2), rank: Rank(0) }, 6);
    node.reparented();
    assert_eq!(ups::<Initialised>(&node.take_acts()), []);
}

#[test]
fn frames_go_where_their_header_says() {
    let mut node = complete();
    let to = |host| STAMP.frame(host, &Resync {});
    node.from_parent(to(HostIndex(3)), 3);
    node.from_parent(to(HostIndex(7)), 3);
    node.from_parent(to(HostIndex(77)), 3);
    let acts = node.take_acts();
    let to_children: Vec<u64> =
        acts.iter().filter_map(|a| if let Act::ToChild(e, _) = a { Some(e.0) } else { None }).collect();
    assert_eq!(to_children, [10, 20], "each of the known hosts by its edge, nothing for the unknown one: {acts:?}");
    node.from_parent(to(EVERY_HOST), 3);
    let acts = node.take_acts();
    assert_eq!((sent(&acts, 10), sent(&acts, 20)), (vec![Kind::Resync], vec![Kind::Resync]));
}

#[test]
fn an_agent_hears_what_is_for_it_and_what_is_for_everyone() {
    let mut agent = TreeNode::new(Some(HostIndex(4)), STAMP);
    agent.from_parent(STAMP.frame(HostIndex(4), &Resync {}), 1);
    agent.from_parent(beat(1), 1);
    let acts = agent.take_acts();
    let kinds: Vec<Kind> =
        acts.iter().filter_map(|a| if let Act::Local(f) = a { Some(f.header.kind) } else { None }).collect();
    assert_eq!(kinds, [Kind::Resync, Kind::Heartbeat]);
    assert_eq!(ups::<Alive>(&acts).len(), 1, "a heartbeat is answered");
}

#[test]
fn an_obstacle_is_told_when_it_changes_and_never_for_a_host_that_has_joined() {
    let mut node = root(1, 2);
    let mut tell_failed = |why, text: &str, now_ms| {
        node.dial_failed(HostIndex(0), why, text.to_owned(), now_ms);
        ups::<Missing>(&node.take_acts()).into_iter().map(|m| m.text).collect::<Vec<_>>()
    };
    assert_eq!(tell_failed(Obstacle::Refused, "refused", 1), ["refused"]);
    assert!(tell_failed(Obstacle::Refused, "refused", 100).is_empty());
    assert_eq!(tell_failed(Obstacle::WrongKey, "wrong key", 300), ["wrong key"]);
    node.dialled(HostIndex(0), EdgeId(1), 400);
    node.take_acts();
    node.reparented();
    assert!(ups::<Missing>(&node.take_acts()).is_empty());
}

#[test]
fn a_refusal_because_of_another_parent_blocks_nobody() {
    let mut node = root(3, 1);
    node.take_acts();
    node.dial_failed(HostIndex(0), Obstacle::Waiting, "it has a parent".into(), 1);
    assert_eq!(dials(&node.take_acts()), [1]);
    node.dialled(HostIndex(1), EdgeId(1), 2);
    assert_eq!(handed(&node.take_acts(), 1), [2, 0]);
}

#[test]
fn silence_is_probed_and_kills_only_when_the_probe_fails() {
    let mut node = complete();
    for now_ms in [1_000, 2_000, 2_900] {
        node.from_parent(beat(now_ms), now_ms);
        tell(&mut node, 20, 5, &Alive {}, now_ms);
    }
    assert!(!node.take_acts().iter().any(|a| matches!(a, Act::Probe(..))));
    node.from_parent(beat(3_100), 3_100);
    let probes = |acts: &[Act]| acts.iter().filter(|a| matches!(a, Act::Probe(EdgeId(10), _))).count();
    assert_eq!(probes(&node.take_acts()), 1);
    // Starved: the probe is answered, so its silence counts afresh.
    node.probed(EdgeId(10), true, 3_200);
    tell(&mut node, 20, 5, &Alive {}, 6_000);
    node.tick(6_100);
    assert_eq!(probes(&node.take_acts()), 0);
    tell(&mut node, 20, 5, &Alive {}, 6_250);
    node.tick(6_250);
    assert_eq!(probes(&node.take_acts()), 1);
    node.probed(EdgeId(10), false, 7_000);
    assert!(lost(&node.take_acts()).is_empty(), "not before the silence is long enough");
    assert_eq!(node.next_due_ms(), Some(8_200));
    tell(&mut node, 20, 5, &Alive {}, 8_100);
    node.tick(8_200);
    let acts = node.take_acts();
    assert!(acts.contains(&Act::Close(EdgeId(10))), "{acts:?}");
    assert_eq!(lost(&acts), [0]);
    assert_eq!(dials(&acts), [1, 3], "the hosts below it are connected from here");
}

#[test]
fn an_old_probes_failure_does_not_count_against_a_child_that_was_heard_since() {
    let mut node = complete();
    node.tick(3_500);
    tell(&mut node, 10, 0, &Alive {}, 3_600);
    node.probed(EdgeId(10), false, 5_000);
    node.probed(EdgeId(20), true, 5_000);
    node.tick(6_500);
    assert!(lost(&node.take_acts()).is_empty());
}

#[test]
fn a_childs_death_costs_its_host_and_orphans_are_found_again_or_lost_in_time() {
    let mut node = complete();
    node.child_closed(EdgeId(10), "closed".into(), 1_000);
    let acts = node.take_acts();
    assert_eq!((lost(&acts), dials(&acts)), (vec![0], vec![1, 3]));
    assert_eq!(node.joined_below(), set(&[5, 6, 7, 8]));
    node.dialled(HostIndex(1), EdgeId(30), 1_100);
    assert_eq!(handed(&node.take_acts(), 30), [2]);
    node.dial_failed(HostIndex(3), Obstacle::Refused, "refused".into(), 1_100);
    node.tick(5_900);
    assert!(lost(&node.take_acts()).is_empty());
    node.tick(6_000);
    assert_eq!(lost(&node.take_acts()), [2, 3, 4]);
    node.tick(60_000);
    assert!(dials(&node.take_acts()).is_empty(), "lost hosts are not dialled any more");
}

#[test]
fn an_orphan_that_answers_is_given_its_whole_lease() {
    let mut node = complete();
    node.child_closed(EdgeId(10), "closed".into(), 1_000);
    node.dial_failed(HostIndex(1), Obstacle::Waiting, "it has a parent".into(), 1_010);
    // The head of the other branch met one as well.
    node.dialled(HostIndex(3), EdgeId(30), 1_020);
    let missing = Missing { host: HostIndex(4), why: Obstacle::Waiting, text: "it has a parent".into() };
    tell(&mut node, 30, 4, &missing, 1_030);
    node.take_acts();
    node.tick(6_000);
    assert_eq!(lost(&node.take_acts()), [2]);
    node.tick(1_000 + FENCE_LEASE_MS);
    assert_eq!(lost(&node.take_acts()), [1, 4]);
}

#[test]
fn a_loss_told_by_a_former_parent_is_not_one() {
    let mut node = complete();
    tell(&mut node, 20, 5, &Joined { hosts: set(&[4]) }, 10);
    node.take_acts();
    tell(&mut node, 10, 0, &Lost { host: HostIndex(4), why: "closed".into() }, 11);
    assert!(lost(&node.take_acts()).is_empty());
    assert_eq!(node.route(HostIndex(4)), Some(EdgeId(20)));
    tell(&mut node, 20, 5, &Lost { host: HostIndex(4), why: "closed".into() }, 12);
    assert_eq!((lost(&node.take_acts()), node.route(HostIndex(4))), (vec![4], None));
}

#[test]
fn a_stale_claim_is_withdrawn_and_the_host_found_where_it_is() {
    let mut node = complete();
    // Host 4 went below host 5, and host 0 tells what it had below it before it noticed.
    tell(&mut node, 20, 5, &Joined { hosts: set(&[4]) }, 10);
    tell(&mut node, 10, 0, &Joined { hosts: set(&[4]) }, 11);
    assert_eq!(node.route(HostIndex(4)), Some(EdgeId(10)));
    node.take_acts();
    let gone = Missing { host: HostIndex(4), why: Obstacle::Waiting, text: "cut off".into() };
    tell(&mut node, 10, 0, &gone, 12);
    assert_eq!(node.route(HostIndex(4)), Some(EdgeId(20)));
    assert!(ups::<Missing>(&node.take_acts()).is_empty(), "above, nothing has changed");
    // It dies with its real parent and is dialled from here.
    node.child_closed(EdgeId(20), "closed".into(), 20);
    let acts = node.take_acts();
    node.tick(320);
    node.tick(620);
    let dialled: Vec<u32> = [dials(&acts), dials(&node.take_acts())].concat();
    assert!(dialled.contains(&4), "{dialled:?}");
}

#[test]
fn a_node_that_was_cut_off_dials_nobody_and_does_not_call_a_child_that_left_lost() {
    let mut agent = TreeNode::new(Some(HostIndex(0)), STAMP);
    agent.from_parent(STAMP.frame(HostIndex(0), &adopt(1..4, 2)), 0);
    agent.dialled(HostIndex(1), EdgeId(1), 5);
    tell(&mut agent, 1, 1, &Joined { hosts: set(&[2]) }, 6);
    agent.take_acts();
    agent.tick(3_100);
    assert!(dials(&agent.take_acts()).is_empty(), "no word from the parent for 3 s");
    agent.child_closed(EdgeId(1), "closed".into(), 5_100);
    let acts = agent.take_acts();
    assert!(lost(&acts).is_empty());
    assert!(dials(&acts).is_empty());
    let mut withdrawn: Vec<u32> = ups::<Missing>(&acts).iter().map(|m| m.host.0).collect();
    withdrawn.sort_unstable();
    assert_eq!(withdrawn, [1, 2]);
    // A parent again: everybody below is looked for.
    agent.from_parent(beat(5_200), 5_200);
    let first = dials(&agent.take_acts());
    agent.tick(5_600);
    let all = [first, dials(&agent.take_acts())].concat();
    assert!(all.contains(&1) && all.contains(&2), "{all:?}");
}

#[test]
fn a_fence_goes_up_merged_and_comes_down_once() {
    let mut agent = TreeNode::new(Some(HostIndex(0)), STAMP);
    agent.from_parent(STAMP.frame(HostIndex(0), &adopt(1..3, 2)), 0);
    agent.dialled(HostIndex(1), EdgeId(1), 1);
    agent.dialled(HostIndex(2), EdgeId(2), 1);
    agent.from_parent(spec(&[0, 1, 2, 9]), 2);
    agent.take_acts();
    agent.own_fence(Group(0), 0, Bytes::from_static(b"a")).unwrap();
    fence_up(&mut agent, 1, 0, &[1], b"b", 3);
    assert_eq!(agent.fences.missing(Group(0)), Some((0, set(&[2]))));
    assert!(agent.take_acts().is_empty());
    fence_up(&mut agent, 2, 0, &[2], b"c", 4);
    let ups: Vec<Frame> =
        agent.take_acts().into_iter().filter_map(|a| if let Act::Up(f) = a { Some(f) } else { None }).collect();
    let [up] = ups.as_slice() else { panic!("{ups:?}") };
    let (hosts, blob) = chunks::open_up(Group(0), 0, up.payload.clone()).unwrap();
    assert_eq!((hosts, blob.len()), (set(&[0, 1, 2]), 3));
    for frame in chunks::down(STAMP, Group(0), 0, Bytes::from_static(b"abcd")) {
        agent.from_parent(frame, 5);
    }
    let acts = agent.take_acts();
    assert_eq!((sent(&acts, 1), sent(&acts, 2)), (vec![Kind::FenceDown], vec![Kind::FenceDown]));
    assert_eq!(agent.fences.missing(Group(0)), Some((1, set(&[0, 1, 2]))));
}

#[test]
fn the_root_completes_a_fence_and_says_it_again_to_who_missed_it_but_to_the_job_only_once() {
    let mut node = complete();
    node.from_parent(spec(&[0, 1, 5]), 3);
    node.take_acts();
    fence_up(&mut node, 10, 0, &[0, 1], b"xy", 4);
    assert!(node.take_acts().is_empty());
    fence_up(&mut node, 20, 0, &[5], b"z", 4);
    let told_job =
        |acts: &[Act]| acts.iter().filter(|a| matches!(a, Act::Up(f) if f.header.kind == Kind::FenceDown)).count();
    let acts = node.take_acts();
    assert_eq!((told_job(&acts), sent(&acts, 10), sent(&acts, 20)), (1, vec![Kind::FenceDown], vec![Kind::FenceDown]));
    fence_up(&mut node, 20, 0, &[5], b"z", 9);
    let acts = node.take_acts();
    assert_eq!((told_job(&acts), sent(&acts, 20)), (0, vec![Kind::FenceDown]));
}

#[test]
fn a_new_parent_is_told_what_is_below_and_the_fence_that_is_complete_here() {
    let mut agent = TreeNode::new(Some(HostIndex(0)), STAMP);
    agent.from_parent(STAMP.frame(HostIndex(0), &adopt(1..3, 2)), 0);
    agent.dialled(HostIndex(1), EdgeId(1), 1);
    agent.dial_failed(HostIndex(2), Obstacle::Refused, "refused".into(), 1);
    agent.from_parent(spec(&[0, 1, 9]), 2);
    agent.own_fence(Group(0), 0, Bytes::from_static(b"a")).unwrap();
    fence_up(&mut agent, 1, 0, &[1], b"b", 3);
    agent.take_acts();
    agent.reparented();
    let acts = agent.take_acts();
    assert_eq!(joined(&acts), [set(&[1])]);
    assert_eq!(ups::<Missing>(&acts).len(), 1);
    assert_eq!(acts.iter().filter(|a| matches!(a, Act::Up(f) if f.header.kind == Kind::FenceUp)).count(), 1);
    assert_eq!(sent(&acts, 1), [Kind::Resync]);
    assert!(acts.iter().any(|a| matches!(a, Act::Local(f) if f.header.kind == Kind::Resync)));
}

#[test]
fn an_inner_node_that_comes_in_later_lets_later_fences_through() {
    let mut agent = TreeNode::new(Some(HostIndex(0)), STAMP);
    agent.from_parent(STAMP.frame(HostIndex(0), &adopt(1..2, 2)), 0);
    agent.dialled(HostIndex(1), EdgeId(1), 1);
    agent.from_parent(spec(&[1, 9]), 2);
    agent.take_acts();
    for seq in [7, 8] {
        fence_up(&mut agent, 1, seq, &[1], b"b", 3);
        let ups = agent.take_acts();
        assert!(matches!(ups.as_slice(), [Act::Up(f)] if f.header.seq == seq), "{ups:?}");
    }
}

#[test]
fn a_child_that_breaks_the_rules_is_dropped() {
    let mut node = complete();
    node.from_parent(spec(&[0, 5]), 3);
    node.take_acts();
    fence_up(&mut node, 10, 4, &[0], b"x", 4);
    let acts = node.take_acts();
    assert!(
        matches!(acts.first(), Some(Act::Offence(EdgeId(10), why)) if why.contains("fence 4 does not fit")),
        "{acts:?}"
    );
    assert!(acts.contains(&Act::Close(EdgeId(10))));
    assert_eq!(lost(&acts), [0]);
}

#[test]
fn a_host_index_over_the_limit_is_not_taken_in() {
    let mut agent = TreeNode::new(Some(HostIndex(0)), STAMP);
    let order = Adopt { hosts: vec![entry(HOSTS_MAX), entry(1)], radix: 2 };
    agent.from_parent(STAMP.frame(HostIndex(0), &order), 0);
    assert_eq!(dials(&agent.take_acts()), [1]);
}
