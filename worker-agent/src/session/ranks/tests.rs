//! The ranks of one host without processes and sockets.

use muster_protocol::frame::FLAG_FIRST;
use muster_protocol::message::{Abort, AbortCause, App, Bootstrap, PmixPlan, ProcShare, StdinTo, Stretch};
use muster_protocol::pmix::{FromPmix, Proc};
use muster_protocol::{Epoch, Generation, HostSet};

use super::*;

const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };
const ME: HostIndex = HostIndex(0);

/// A group of one rank, here.
fn open(ranks: &mut Ranks, group: u32, bootstrap: Bootstrap) {
    let spec = Spec {
        group: Group(group),
        size: 1,
        first_proc: ProcId(group),
        members: HostSet::first(1),
        apps: vec![App { argv: vec!["program".into()], wdir: None, env: Vec::new() }],
        bootstrap,
        kvsname: "kvs".into(),
        mapping: None,
        universe_size: -1,
        preput: Vec::new(),
        stdin: StdinTo::Nobody,
        umask: None,
        rlimits: Vec::new(),
        window_bytes: 1 << 16,
        job: "j".into(),
        env: Vec::new(),
        pmix: (bootstrap == Bootstrap::Pmix).then(PmixPlan::default),
        spawned_by: None,
    };
    let share = Share {
        group: Group(group),
        procs: vec![ProcShare { rank: Rank(0), app: 0, cpus: Vec::new() }],
        node_rank: 0,
        nodes: 1,
        host_name: "h0".into(),
        reachable_as: "h0".into(),
    };
    for frame in [STAMP.to_all(&spec), STAMP.frame(ME, &share)] {
        ranks.frame(&frame, 0).unwrap();
    }
}

/// Such a group whose rank has entered its first fence.
fn in_a_fence() -> Ranks {
    let mut ranks = Ranks::new(ME, STAMP, Vec::new(), PmixSite::default());
    open(&mut ranks, 0, Bootstrap::Pmi);
    ranks.pmi_input(ProcId(0), b"cmd=init pmi_version=1 pmi_subversion=1\ncmd=barrier_in\n");
    let acts = ranks.take_acts();
    assert!(acts.iter().any(|act| matches!(act, RankAct::Fence(Group(0), 0, _))), "{acts:?}");
    ranks
}

fn fence_down(ranks: &mut Ranks, seq: u64, blob: &'static [u8]) {
    let frame = STAMP.raw(Kind::FenceDown, muster_protocol::frame::EVERY_HOST, blob.into()).with(FLAG_FIRST, 0, seq);
    ranks.frame(&frame, 1).unwrap();
}

/// Why the ranks asked for the end of the job.
fn aborts(ranks: &mut Ranks) -> Vec<String> {
    let why = |act| match act {
        RankAct::Up(frame) if frame.header.kind == Kind::Abort => match Abort::read(&frame).unwrap().cause {
            AbortCause::Protocol { message } => Some(message),
            other => panic!("{other:?}"),
        },
        _ => None,
    };
    ranks.take_acts().into_iter().filter_map(why).collect()
}

#[test]
fn a_fence_whose_result_cannot_be_taken_in_ends_the_job_and_says_why() {
    let mut ranks = in_a_fence();
    fence_down(&mut ranks, 0, b"\0\x03\0\0\0\x09abc");
    let told = aborts(&mut ranks);
    assert_eq!(
        told,
        ["group 0: result of fence 0 cannot be taken in: \
          key-value blob is cut off at byte 0 of 9: entry needs 9 bytes more"]
    );
}

#[test]
fn a_result_that_nobody_waits_for_harms_nobody() {
    let mut ranks = in_a_fence();
    fence_down(&mut ranks, 5, b"");
    assert!(aborts(&mut ranks).is_empty());
}

#[test]
fn a_rank_that_had_ended_before_the_order_was_not_killed_by_it() {
    let mut ranks = in_a_fence();
    let (_, socket) = muster_sys::pipe::socketpair().unwrap();
    let pipe = || muster_sys::pipe::socketpair().unwrap().0;
    let spawned =
        Report::Spawned { proc: ProcId(0), pid: 7, stdin: None, stdout: pipe(), stderr: pipe(), pmi: Some(socket) };
    ranks.report(spawned, 1);
    let status = ExitStatus::Signaled { signal: 11, core: false };
    ranks.report(Report::Exited { proc: ProcId(0), status, maxrss_kib: 1, memory: None }, 2);
    let kill = STAMP.to_all(&muster_protocol::message::Kill { grace_ms: 0 });
    ranks.frame(&kill, 3).unwrap();
    ranks.pmi_closed(ProcId(0), 4);
    let exits = ranks.take_acts().into_iter().filter_map(|act| match act {
        RankAct::Up(frame) if frame.header.kind == Kind::Exits => Some(Exits::read(&frame).unwrap().procs),
        _ => None,
    });
    let exits: Vec<_> = exits.flatten().collect();
    assert_eq!(exits.iter().map(|e| e.killed).collect::<Vec<_>>(), [false]);
}

#[test]
fn the_end_of_ranks_beside_a_world_of_pmix_is_told_without_its_server() {
    let mut ranks = Ranks::new(ME, STAMP, Vec::new(), PmixSite::default());
    for (group, bootstrap) in [(0, Bootstrap::Pmix), (1, Bootstrap::None), (2, Bootstrap::Pmi)] {
        open(&mut ranks, group, bootstrap);
    }
    for proc in [1, 2] {
        ranks.report(
            Report::Exited { proc: ProcId(proc), status: ExitStatus::Exited(0), maxrss_kib: 0, memory: None },
            1,
        );
    }
    let told = |act: RankAct| match act {
        RankAct::Up(frame) if frame.header.kind == Kind::Exits => Exits::read(&frame).unwrap().procs,
        _ => Vec::new(),
    };
    let told: Vec<ProcId> = ranks.take_acts().into_iter().flat_map(told).map(|exit| exit.proc).collect();
    assert_eq!(told, [ProcId(1), ProcId(2)]);
}

#[test]
fn of_a_group_that_is_over_nothing_is_kept_nor_begun_anew() {
    let mut ranks = Ranks::new(ME, STAMP, Vec::new(), PmixSite::default());
    let forget = |first, count| STAMP.to_all(&Forget { groups: vec![Stretch { first: Group(first), count }] });
    open(&mut ranks, 0, Bootstrap::None);
    for group in 1..4 {
        open(&mut ranks, group, Bootstrap::None);
        ranks.report(
            Report::Exited { proc: ProcId(group), status: ExitStatus::Exited(0), maxrss_kib: 0, memory: None },
            1,
        );
    }
    open(&mut ranks, 4, Bootstrap::None);
    ranks.frame(&forget(1, 4), 2).unwrap();
    // What runs here whatever the root believes is kept.
    let known = |ranks: &Ranks| {
        let (specs, groups) = (ranks.specs.keys().map(|g| g.0), ranks.groups.keys().map(|g| g.0));
        let procs: Vec<u32> = ranks.procs.keys().map(|p| p.0).collect();
        (specs.collect::<Vec<_>>(), groups.collect::<Vec<_>>(), procs)
    };
    assert_eq!(known(&ranks), (vec![0, 4], vec![0, 4], vec![0, 4]));
    // A host with a new parent hears old things once more.
    ranks.take_acts();
    open(&mut ranks, 2, Bootstrap::None);
    assert!(ranks.take_acts().is_empty());
    assert_eq!(known(&ranks).0, [0, 4]);
}

#[test]
fn a_host_that_has_forgotten_all_its_ranks_still_ends_with_its_lease() {
    let mut ranks = Ranks::new(ME, STAMP, Vec::new(), PmixSite::default());
    assert_eq!(ranks.next_due_ms(), None);
    open(&mut ranks, 1, Bootstrap::None);
    ranks.report(Report::Exited { proc: ProcId(1), status: ExitStatus::Exited(0), maxrss_kib: 0, memory: None }, 1);
    let stretch = Stretch { first: Group(1), count: 1 };
    ranks.frame(&STAMP.to_all(&Forget { groups: vec![stretch] }), 2).unwrap();
    assert!(ranks.procs.is_empty());
    let due = ranks.next_due_ms().expect("what they have left is to be swept");
    ranks.take_acts();
    ranks.tick(due);
    assert!(ranks.take_acts().iter().any(|act| matches!(act, RankAct::Order(Order::Sweep))));
}

#[test]
fn a_crash_beside_pmix_is_told_at_once_and_what_may_follow_from_an_abort_is_not() {
    let signal = |signal| ExitStatus::Signaled { signal, core: false };
    for (status, at_once) in [(signal(11), true), (signal(9), true), (signal(6), false), (ExitStatus::Exited(1), false)]
    {
        let mut ranks = Ranks::new(ME, STAMP, Vec::new(), PmixSite::default());
        open(&mut ranks, 0, Bootstrap::Pmix);
        ranks
            .with_pmix(|server, out| server.input(FromPmix::Ready { version: "5.0".into(), library: "l".into() }, out));
        ranks.take_acts();
        ranks.report(Report::Exited { proc: ProcId(0), status, maxrss_kib: 0, memory: None }, 1);
        let told = |act: &RankAct| matches!(act, RankAct::Up(frame) if frame.header.kind == Kind::Exits);
        assert_eq!(ranks.take_acts().iter().any(told), at_once, "{status:?}");
        ranks.with_pmix(|server, out| {
            let proc = Proc { namespace: "kvs".into(), rank: 0 };
            server.input(FromPmix::Drained { proc }, out);
        });
        assert_eq!(ranks.take_acts().iter().any(told), !at_once, "{status:?}: once");
    }
}
