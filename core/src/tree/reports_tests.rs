//! What an inner node makes of its children's reports.

use muster_protocol::frame::EVERY_HOST;
use muster_protocol::message::{
    Abort, AbortCause, Adopt, Answer, App, Ask, Bootstrap, Call, CallAnswer, HostEntry, Kill, Lost, Resync, Spec,
    StdinTo, Survivor,
};
use muster_protocol::{Epoch, Generation, ProcId, Stream};

use super::super::EdgeId;
use super::*;

const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };
const ME: HostIndex = HostIndex(0);
const CHILDREN: u32 = 32;

/// The agent of host 0, with hosts 1 to 32 as its children by edges of the same numbers.
fn inner() -> TreeNode {
    let mut node = TreeNode::new(Some(ME), STAMP);
    let hosts =
        (1..=CHILDREN).map(|i| HostEntry { index: HostIndex(i), name: format!("h{i}"), port: 1, address: None });
    node.adopt(Adopt { hosts: hosts.collect(), radix: CHILDREN }, 0);
    for i in 1..=CHILDREN {
        node.dialled(HostIndex(i), EdgeId(u64::from(i)), 0);
    }
    node.take_acts();
    node
}

fn tell<M: Message>(node: &mut TreeNode, from: u32, message: &M, now_ms: u64) {
    let frame = STAMP.frame(HostIndex(from), message);
    match from {
        0 => node.from_here(frame, now_ms),
        from => node.from_child(EdgeId(u64::from(from)), frame, now_ms),
    }
}

fn ups(node: &mut TreeNode) -> Vec<Frame> {
    node.take_acts().into_iter().filter_map(|act| if let Act::Up(frame) = act { Some(frame) } else { None }).collect()
}

fn kinds(frames: &[Frame]) -> Vec<Kind> {
    frames.iter().map(|f| f.header.kind).collect()
}

fn started(host: u32) -> Started {
    Started { procs: vec![ProcStarted { proc: ProcId(host), pid: 100 + host }] }
}

fn exit(host: u32, end: ProcEnd, phase: Phase, killed: bool) -> Exits {
    Exits { procs: vec![ProcExit { proc: ProcId(host), end, phase, maxrss_kib: 0, killed }] }
}

fn returned(host: u32) -> Exits {
    exit(host, ProcEnd::Exited(0), Phase::Finalised, false)
}

fn ended(host: u32, survivors: Vec<Survivor>) -> Ended {
    let streams = vec![StreamEnd { proc: ProcId(host), stream: Stream::Stdout, bytes: 7 }];
    Ended { hosts: [HostIndex(host)].into_iter().collect(), streams, survivors }
}

fn spec(group: u32) -> Frame {
    STAMP.to_all(&Spec {
        group: Group(group),
        size: CHILDREN + 1,
        first_proc: ProcId(group * 1_000),
        members: HostSet::first(CHILDREN + 1),
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
        spawned_by: (group > 0).then_some(Group(0)),
    })
}

/// What every host reports in a job without trouble, one kind at a time, each host in a turn of its own.
#[test]
fn reports_of_32_children_are_a_frame_for_each_kind() {
    type Say = fn(&mut TreeNode, u32, u64);
    let rows: [(Kind, Say); 4] = [
        (Kind::Started, |node, host, now_ms| tell(node, host, &started(host), now_ms)),
        (Kind::Initialised, |node, host, now_ms| {
            tell(node, host, &Initialised { group: Group(0), rank: Rank(host) }, now_ms);
        }),
        (Kind::Exits, |node, host, now_ms| tell(node, host, &returned(host), now_ms)),
        (Kind::Ended, |node, host, now_ms| tell(node, host, &ended(host, vec![]), now_ms)),
    ];
    let mut node = inner();
    for (at, (kind, say)) in rows.into_iter().enumerate() {
        let now_ms = 100 * (at as u64 + 1);
        let mut frames = Vec::new();
        for host in 0..=CHILDREN {
            say(&mut node, host, now_ms);
            frames.extend(ups(&mut node));
        }
        node.tick(now_ms + HOLD_MS);
        frames.extend(ups(&mut node));
        assert_eq!(kinds(&frames), [kind]);
        assert!(frames.iter().all(|f| f.header.host == ME));
        let whole = match kind {
            Kind::Started => Started::read(&frames[0]).unwrap().procs.len(),
            Kind::Exits => Exits::read(&frames[0]).unwrap().procs.len(),
            Kind::Ended => {
                let ended = Ended::read(&frames[0]).unwrap();
                assert_eq!(ended.streams.len(), ended.hosts.len());
                ended.hosts.len()
            }
            _ => continue,
        };
        assert_eq!(whole, CHILDREN as usize + 1, "{kind:?}");
    }
}

#[test]
fn news_waits_for_a_moment_only_and_the_last_host_that_is_done_for_nobody() {
    let mut node = inner();
    tell(&mut node, 1, &started(1), 50);
    assert!(ups(&mut node).is_empty());
    assert_eq!(node.next_due_ms(), Some(50 + HOLD_MS));
    tell(&mut node, 2, &started(2), 50 + HOLD_MS - 1);
    node.tick(50 + HOLD_MS);
    assert_eq!(kinds(&ups(&mut node)), [Kind::Started]);
    assert_eq!(node.next_due_ms(), None);
    tell(&mut node, 1, &returned(1), 60);
    tell(&mut node, 2, &returned(2), 60 + HOLD_MS);
    let frames = ups(&mut node);
    assert_eq!(kinds(&frames), [Kind::Exits], "without a tick, when there is more to say");
    assert_eq!(Exits::read(&frames[0]).unwrap().procs.len(), 1);
    node.tick(60 + 2 * HOLD_MS);
    assert_eq!(kinds(&ups(&mut node)), [Kind::Exits]);
    for host in 0..CHILDREN {
        tell(&mut node, host, &ended(host, vec![]), 70);
        assert!(ups(&mut node).is_empty());
    }
    tell(&mut node, CHILDREN, &ended(CHILDREN, vec![]), 70);
    assert_eq!(kinds(&ups(&mut node)), [Kind::Ended]);
}

#[test]
fn a_node_without_children_sends_at_once() {
    let mut node = TreeNode::new(Some(ME), STAMP);
    tell(&mut node, 0, &started(0), 1);
    assert_eq!(kinds(&ups(&mut node)), [Kind::Started]);
    tell(&mut node, 0, &returned(0), 2);
    tell(&mut node, 0, &ended(0, vec![]), 2);
    assert_eq!(kinds(&ups(&mut node)), [Kind::Exits, Kind::Ended]);
}

/// What must not wait, and what it takes along.
#[test]
fn a_failure_waits_for_nothing_and_overtakes_nothing() {
    let spoke = |node: &mut TreeNode| tell(node, 9, &Initialised { group: Group(0), rank: Rank(9) }, 1);
    let spawned = |node: &mut TreeNode| node.from_parent(spec(1), 1);
    let killed = |node: &mut TreeNode| node.from_parent(STAMP.to_all(&Kill { grace_ms: 0 }), 1);
    let nothing = |_: &mut TreeNode| {};
    let crash =
        |killed| exit(3, ProcEnd::Signaled { signal: 9, core: false, memory: None }, Phase::Initialised, killed);
    let code = |code, phase| exit(3, ProcEnd::Exited(code), phase, false);
    type Before<'a> = &'a dyn Fn(&mut TreeNode);
    let rows: [(&str, Before<'_>, Exits, bool); 10] = [
        ("a crash", &nothing, crash(false), true),
        ("killed by its agent alone", &nothing, crash(true), true),
        ("killed on order", &killed, crash(true), false),
        ("a status", &nothing, code(1, Phase::Finalised), true),
        ("left early", &nothing, code(0, Phase::Initialised), true),
        ("as it should", &spoke, code(0, Phase::Finalised), false),
        ("not a program for MPI", &nothing, code(0, Phase::Untouched), false),
        ("never came, others did", &spoke, code(0, Phase::Untouched), true),
        ("never came, its parents wait", &spawned, code(0, Phase::Untouched), true),
        ("a status without MPI", &nothing, code(2, Phase::Untouched), true),
    ];
    for (what, before, exits, urgent) in rows {
        let mut node = inner();
        before(&mut node);
        node.take_acts();
        tell(&mut node, 3, &started(3), 1);
        tell(&mut node, 4, &returned(4), 1);
        assert!(ups(&mut node).is_empty(), "{what}");
        tell(&mut node, 3, &exits, 1);
        let frames = ups(&mut node);
        let want: &[Kind] = if urgent { &[Kind::Started, Kind::Exits] } else { &[] };
        assert_eq!(kinds(&frames), want, "{what}");
        if let Some(last) = frames.last() {
            let procs: Vec<u32> = Exits::read(last).unwrap().procs.iter().map(|p| p.proc.0).collect();
            assert_eq!(procs, [4, 3], "{what}");
        }
    }
}

#[test]
fn what_is_not_merged_goes_at_once_behind_what_waits() {
    let stain = vec![Survivor { pid: 1, name: "p".into() }];
    let abort = Abort { proc: ProcId(3), cause: AbortCause::Departed };
    let call = Call { proc: ProcId(3), token: 1, ask: Ask::Lookup { name: "n".into() } };
    let lost = Lost { host: HostIndex(3), why: "closed".into() };
    let rows = [
        STAMP.frame(HostIndex(3), &abort),
        STAMP.frame(HostIndex(3), &call),
        STAMP.frame(HostIndex(3), &lost),
        STAMP.frame(HostIndex(3), &ended(3, stain)),
    ];
    for frame in rows {
        let mut node = inner();
        tell(&mut node, 3, &returned(3), 1);
        node.from_child(EdgeId(3), frame.clone(), 1);
        let frames = ups(&mut node);
        assert_eq!(kinds(&frames), [Kind::Exits, frame.header.kind]);
        assert_eq!(frames[1].payload, frame.payload);
    }
}

#[test]
fn no_more_than_a_limit_waits_in_a_node() {
    let mut node = inner();
    let streams =
        |n: u32| (0..n).map(|i| StreamEnd { proc: ProcId(i), stream: Stream::Stdout, bytes: u64::MAX }).collect();
    let mut frames = Vec::new();
    for host in 1..=CHILDREN {
        let message =
            Ended { hosts: [HostIndex(host)].into_iter().collect(), streams: streams(8_000), survivors: vec![] };
        tell(&mut node, host, &message, 1);
        frames.extend(ups(&mut node));
    }
    node.tick(1 + HOLD_MS);
    frames.extend(ups(&mut node));
    assert!(frames.len() > 1);
    assert!(frames.iter().all(|f| f.payload.len() <= HELD_REPORTS_BYTES_MAX + 64));
    let streams: usize = frames.iter().map(|f| Ended::read(f).unwrap().streams.len()).sum();
    assert_eq!(streams, 8_000 * CHILDREN as usize);
}

#[test]
fn a_report_that_cannot_be_read_is_an_offence() {
    let mut node = inner();
    let bad = STAMP.raw(Kind::Started, HostIndex(3), bytes::Bytes::from_static(b"\xff"));
    node.from_child(EdgeId(3), bad, 1);
    assert!(matches!(node.take_acts().first(), Some(Act::Offence(EdgeId(3), _))));
}

#[test]
fn a_new_parent_hears_aborts_and_open_calls_again_until_they_are_answered() {
    let call = |token| Call { proc: ProcId(5), token, ask: Ask::Lookup { name: "n".into() } };
    let mut node = inner();
    node.from_parent(spec(0), 1);
    for token in [1, 2] {
        tell(&mut node, 0, &call(token), 1);
    }
    for _ in 0..2 {
        tell(&mut node, 0, &Abort { proc: ProcId(5), cause: AbortCause::Departed }, 1);
    }
    tell(&mut node, 0, &Initialised { group: Group(0), rank: Rank(5) }, 1);
    // What others ask is kept where they are.
    tell(&mut node, 7, &call(9), 1);
    let answer = CallAnswer { group: Group(0), token: 1, answer: Answer::Done };
    node.from_parent(STAMP.frame(ME, &answer), 2);
    node.take_acts();
    let want = [Kind::Abort, Kind::Call, Kind::Initialised];
    node.reparented();
    // The one that hears it from its parent does the same.
    for resync in [false, true] {
        if resync {
            node.from_parent(STAMP.frame(EVERY_HOST, &Resync {}), 3);
        }
        let frames = ups(&mut node);
        let told: Vec<&Frame> = frames.iter().filter(|f| f.header.kind != Kind::Joined).collect();
        assert_eq!(told.iter().map(|f| f.header.kind).collect::<Vec<_>>(), want);
        assert_eq!(Call::read(told[1]).unwrap().token, 2);
    }
    node.from_parent(STAMP.frame(ME, &CallAnswer { token: 2, ..answer }), 4);
    node.take_acts();
    node.reparented();
    assert!(!kinds(&ups(&mut node)).contains(&Kind::Call));
}
