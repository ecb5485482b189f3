//! Results that were cut in two by a change of parents, at one inner node.

use muster_protocol::message::{App, Bootstrap, Message, StdinTo, Stretch};
use muster_protocol::{Epoch, Generation};

use super::*;

const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };
const GROUP: Group = Group(0);

fn set(hosts: &[u32]) -> HostSet {
    hosts.iter().map(|h| HostIndex(*h)).collect()
}

/// Host 1, with 2 and 3 below it; all three and host 0 are in the group.
fn inner() -> Fences {
    let mut fences = Fences::new(Some(HostIndex(1)), STAMP);
    open(&mut fences, GROUP, 10, None);
    fences.set_below(&set(&[2, 3]));
    fences
}

fn open(fences: &mut Fences, group: Group, first_proc: u32, spawned_by: Option<Group>) {
    let spec = Spec {
        group,
        size: 4,
        first_proc: ProcId(first_proc),
        members: set(&[0, 1, 2, 3]),
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
        spawned_by,
    };
    let frame = STAMP.frame(HostIndex(1), &spec);
    fences.open(Spec::read(&frame).unwrap(), frame);
}

/// What a set of hosts contributes, and which contributions go up for it: number of the fence and hosts.
fn offer(fences: &mut Fences, seq: u64, hosts: &[u32]) -> Vec<(u64, HostSet)> {
    fences.contribute(GROUP, seq, set(hosts), Bytes::from_static(b"kv")).unwrap();
    ups(fences)
}

fn ups(fences: &mut Fences) -> Vec<(u64, HostSet)> {
    let up = |act| match act {
        FenceAct::Up(frame) => (frame.header.seq, chunks::open_up(GROUP, frame.header.seq, frame.payload).unwrap().0),
        FenceAct::Done(frame) => panic!("it completes nothing: {frame:?}"),
    };
    fences.take().into_iter().map(up).collect()
}

#[test]
fn the_group_of_a_process_is_known_by_its_spec() {
    let mut fences = inner();
    let groups = [9, 10, 13, 14].map(|proc| fences.group_of(ProcId(proc)));
    assert_eq!(groups, [None, Some(GROUP), Some(GROUP), None]);
    open(&mut fences, Group(1), 14, None);
    assert!(!fences.knows_spawned(), "another world of the command line is not spawned");
    open(&mut fences, Group(2), 18, Some(GROUP));
    assert!(fences.knows_spawned());
}

#[test]
fn of_a_group_that_is_over_nothing_is_kept_and_who_has_not_heard_it_does_no_harm() {
    let mut fences = inner();
    open(&mut fences, Group(1), 14, Some(GROUP));
    let contribute = |fences: &mut Fences, group| fences.contribute(group, 0, set(&[2]), Bytes::from_static(b"kv"));
    assert_eq!(contribute(&mut fences, Group(1)), Ok(()));
    fences.forget(&Forget { groups: vec![Stretch { first: Group(1), count: 1 }] });
    assert_eq!((fences.specs().len(), fences.group_of(ProcId(14)), fences.knows_spawned()), (1, None, false));
    // A child says it again, and a parent that has missed the news tells of the group once more.
    assert_eq!(contribute(&mut fences, Group(1)), Ok(()));
    open(&mut fences, Group(1), 14, Some(GROUP));
    assert_eq!((fences.specs().len(), fences.take().len()), (1, 0));
    assert!(contribute(&mut fences, Group(2)).is_err(), "nobody has ever told of this one");
}

#[test]
fn pieces_pass_from_a_beginning_on_and_after_a_change_of_parents_from_the_next_one() {
    let mut fences = inner();
    assert_eq!(fences.pass(GROUP, 0, FLAG_MORE), None, "it came into the tree too late for the beginning");
    assert_eq!(fences.pass(GROUP, 0, 0), None);
    assert_eq!(fences.pass(GROUP, 0, FLAG_FIRST | FLAG_MORE), Some(true));
    assert_eq!(fences.pass(GROUP, 0, FLAG_MORE), Some(true));
    fences.new_parent();
    assert_eq!(fences.pass(GROUP, 0, FLAG_MORE), None);
    assert_eq!(fences.pass(GROUP, 0, 0), None);
    assert_eq!(fences.missing(GROUP), Some((0, set(&[1, 2, 3]))), "the fence is not over here");
    assert_eq!(fences.pass(GROUP, 0, FLAG_FIRST | FLAG_MORE), Some(true));
    assert_eq!(fences.pass(GROUP, 0, 0), Some(true));
    assert_eq!(fences.missing(GROUP).unwrap().0, 1);
    assert_eq!(fences.pass(GROUP, 0, FLAG_FIRST), Some(false), "said again for somebody else");
}

#[test]
fn who_asks_in_the_middle_of_a_result_is_answered_by_the_root() {
    let mut fences = inner();
    assert_eq!(offer(&mut fences, 0, &[1]), []);
    assert_eq!(offer(&mut fences, 0, &[2, 3]), [(0, set(&[1, 2, 3]))]);
    assert_eq!(offer(&mut fences, 0, &[3]), [], "a new child's contribution was in its former parent's");
    fences.pass(GROUP, 0, FLAG_FIRST | FLAG_MORE);
    assert_eq!(offer(&mut fences, 0, &[3]), [(0, set(&[3]))]);
    fences.pass(GROUP, 0, 0);
    assert_eq!(offer(&mut fences, 0, &[3]), [(0, set(&[3]))]);
}

#[test]
fn who_waits_for_a_fence_that_others_have_behind_them_is_answered_by_the_root() {
    let mut fences = inner();
    assert_eq!(offer(&mut fences, 4, &[2]), []);
    assert_eq!(offer(&mut fences, 5, &[3]), [(4, set(&[2]))]);
    let mut fences = inner();
    assert_eq!(offer(&mut fences, 4, &[2, 3]), []);
    assert_eq!(offer(&mut fences, 5, &[2, 3]), [], "the same hosts wait for nothing");
}

#[test]
fn a_new_parent_hears_what_the_old_one_heard_although_others_have_come_since() {
    let mut fences = inner();
    fences.set_below(&set(&[2]));
    offer(&mut fences, 0, &[1]);
    assert_eq!(offer(&mut fences, 0, &[2]), [(0, set(&[1, 2]))]);
    fences.set_below(&set(&[2, 3]));
    fences.resend();
    assert_eq!(ups(&mut fences), [(0, set(&[1, 2]))]);
    assert_eq!(offer(&mut fences, 0, &[3]), [(0, set(&[1, 2, 3]))]);
}
