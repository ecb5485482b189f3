//! First cause and exit status.

use bytes::Bytes;
use muster_protocol::Kind;
use muster_protocol::message::{Abort, AbortCause, StartStage};

use super::*;

/// What happens to a job of four ranks on four hosts; what it is to say and whether the others are killed.
type Row = (&'static str, fn(&mut Bench), Outcome, Option<&'static str>, bool);

const ROWS: &[Row] = &[
    (
        "all return 0",
        |b| {
            (0..4).for_each(|r| {
                b.init(r).returns(r, 0);
            })
        },
        Outcome::Success,
        None,
        false,
    ),
    (
        "one exits 3 before finalising",
        |b| {
            b.init(0).init(2).exit(2, ProcEnd::Exited(3), Phase::Initialised);
        },
        Outcome::Rank(3),
        Some("rank 2 on h2 exited with status 3 without finalising MPI; the other ranks would have waited for it"),
        true,
    ),
    (
        "one exits 0 before finalising",
        |b| {
            b.init(0).exit(0, ProcEnd::Exited(0), Phase::Initialised);
        },
        Outcome::Rank(1),
        Some("rank 0 on h0 exited with status 0 without finalising MPI; the other ranks would have waited for it"),
        true,
    ),
    (
        "a segmentation fault",
        |b| {
            b.init(1).exit(1, ProcEnd::Signaled { signal: 11, core: true, memory: None }, Phase::Initialised);
        },
        Outcome::Signal(11),
        Some("rank 1 on h1 was killed by SIGSEGV (signal 11), core dumped"),
        true,
    ),
    (
        "one exits 0 before initialising, after another initialised",
        |b| {
            b.init(0).exit(3, ProcEnd::Exited(0), Phase::Untouched);
        },
        Outcome::Rank(1),
        Some("rank 3 on h3 exited with status 0 before initialising MPI, while other ranks wait for it"),
        true,
    ),
    (
        "one exits 0 before initialising, before another initialises",
        |b| {
            b.exit(3, ProcEnd::Exited(0), Phase::Untouched).init(0);
        },
        Outcome::Rank(1),
        Some("rank 3 on h3 exited with status 0 before initialising MPI, while other ranks wait for it"),
        true,
    ),
    (
        "one exits 4 before anybody initialises",
        |b| {
            b.exit(1, ProcEnd::Exited(4), Phase::Untouched);
        },
        Outcome::Rank(4),
        Some("rank 1 on h1 exited with status 4"),
        true,
    ),
    (
        "finalised ranks return 2, 5, 0, 0",
        |b| {
            b.init(0).returns(3, 2).returns(2, 5).returns(0, 0).returns(1, 0);
        },
        Outcome::Rank(2),
        Some("rank 3 on h3 exited with status 2"),
        false,
    ),
    (
        "a finalised rank returns 2, later another crashes",
        |b| {
            b.init(0).returns(3, 2).exit(
                0,
                ProcEnd::Signaled { signal: 6, core: false, memory: None },
                Phase::Initialised,
            );
        },
        Outcome::Rank(2),
        Some("rank 3 on h3 exited with status 2"),
        true,
    ),
    (
        "an abort, then deaths",
        |b| {
            let cause = AbortCause::Asked { code: 7, message: "no input".into() };
            b.init(0).tell(1, &Abort { proc: ProcId(1), cause });
            b.exit(1, ProcEnd::Exited(7), Phase::Initialised).exit(
                0,
                ProcEnd::Signaled { signal: 11, core: false, memory: None },
                Phase::Initialised,
            );
        },
        Outcome::Rank(7),
        Some("rank 1 on h1 aborted the job with code 7: no input"),
        true,
    ),
    (
        "a rank leaves its connection",
        |b| {
            b.init(0).tell(2, &Abort { proc: ProcId(2), cause: AbortCause::Departed });
        },
        Outcome::Rank(1),
        Some("rank 2 on h2 broke the PMI protocol: it closed its PMI connection without finalising"),
        true,
    ),
    (
        "no such program",
        |b| {
            b.exit(
                0,
                ProcEnd::NotStarted { stage: StartStage::Exec, errno: 2, what: "p: not found".into() },
                Phase::Untouched,
            );
        },
        Outcome::NotFound,
        Some("rank 0 on h0 could not be started: p: not found"),
        true,
    ),
    (
        "a program that cannot be executed",
        |b| {
            b.exit(
                0,
                ProcEnd::NotStarted { stage: StartStage::Exec, errno: 13, what: "p: denied".into() },
                Phase::Untouched,
            );
        },
        Outcome::NotExecutable,
        Some("rank 0 on h0 could not be started: p: denied"),
        true,
    ),
    (
        "a host is lost while ranks run",
        |b| {
            b.lose(2);
        },
        Outcome::HostLost,
        Some("host h2 was lost: closed"),
        true,
    ),
    (
        "a host is lost after its ranks returned",
        |b| {
            b.init(0).returns(0, 0).returns(1, 0).returns(2, 0).returns(3, 0).lose(2);
        },
        Outcome::HostLost,
        Some("host h2 was lost: closed"),
        false,
    ),
    (
        "nobody speaks PMI",
        |b| {
            (0..4).for_each(|r| {
                b.exit(r, ProcEnd::Exited(0), Phase::Untouched);
            })
        },
        Outcome::Rank(1),
        Some(
            "none of the 4 ranks spoke PMI, so each ran as a job of its own; is the program linked against an MPI of the MPICH family?",
        ),
        false,
    ),
    (
        "the user's limit",
        |b| b.job.fail(Cause::Timeout { limit_ms: 1_500 }),
        Outcome::Timeout,
        Some("the job did not end within its time limit of 1.500 s"),
        true,
    ),
];

#[test]
fn the_first_cause_and_its_status_are_told() {
    for (what, happens, outcome, cause, killed) in ROWS {
        let mut bench = Bench::running(4);
        happens(&mut bench);
        bench.collect();
        assert_eq!(!bench.kills().is_empty(), *killed, "{what}: {:?}", bench.kills());
        assert_eq!(bench.finish(), (*outcome, cause.map(str::to_owned)), "{what}");
    }
}

#[test]
fn programs_without_a_bootstrap_end_by_their_status() {
    let mut bench = Bench::new(2, 2, Bootstrap::None).all_joined();
    bench.exit(0, ProcEnd::Exited(0), Phase::Untouched);
    assert!(bench.kills().is_empty());
    bench.exit(1, ProcEnd::Exited(9), Phase::Untouched);
    assert_eq!(bench.finish(), told(Outcome::Rank(9), "rank 1 on h1 exited with status 9"));
}

#[test]
fn an_abort_gives_little_time_and_everything_else_what_the_user_said() {
    let mut bench = Bench::running(2);
    bench.tell(0, &Abort { proc: ProcId(0), cause: AbortCause::Asked { code: 1, message: String::new() } });
    assert_eq!(bench.kills(), [200]);
    let mut bench = Bench::running(2);
    bench.lose(0);
    assert_eq!(bench.kills(), [GRACE_MS]);
}

#[test]
fn a_frame_that_cannot_be_read_is_our_own_fault_and_names_the_host() {
    let mut bench = Bench::running(2);
    bench.job.frame(&STAMP.raw(Kind::Exits, HostIndex(1), Bytes::from_static(b"\xff")));
    let (outcome, cause) = bench.collect().finish();
    assert_eq!(outcome, Outcome::Internal);
    assert!(cause.unwrap().starts_with("internal fault: h1: Exits frame with a bad payload"));
}

#[test]
fn a_start_that_was_called_off_and_ranks_that_an_agent_ends_by_itself_are_their_hosts_end() {
    let called_off =
        || ProcEnd::NotStarted { stage: StartStage::Setup, errno: 125, what: "its rank was to end".into() };
    let why = "host h1 was lost: its agent has ended its ranks: it had not heard from the launcher for as long as they may live";
    for (end, killed) in [
        (called_off(), false),
        (called_off(), true),
        (ProcEnd::Signaled { signal: 9, core: false, memory: None }, true),
    ] {
        let mut bench = Bench::running(2);
        bench.told_exit(1, end, Phase::Untouched, killed);
        assert_eq!(bench.finish(), told(Outcome::HostLost, why));
    }
    // While a first failure is looked into, it explains nothing.
    let mut bench = Bench::running(2);
    bench.init(0).exit(0, ProcEnd::Signaled { signal: 11, core: false, memory: None }, Phase::Initialised);
    bench.told_exit(1, called_off(), Phase::Untouched, false);
    assert_eq!(bench.finish().0, Outcome::Signal(11));
    // A start that failed for a reason of its own is still our fault.
    let mut bench = Bench::running(2);
    bench.exit(1, ProcEnd::NotStarted { stage: StartStage::Setup, errno: 11, what: "fork".into() }, Phase::Untouched);
    assert_eq!(bench.finish().0, Outcome::Internal);
}
