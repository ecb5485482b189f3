//! Failures that arrive in another order than they happened.

use muster_protocol::message::{Abort, AbortCause};

use super::super::collect::COLLECT_MS;
use super::*;

const SEGV: ProcEnd = ProcEnd::Signaled { signal: 11, core: false, memory: None };
const KILL: ProcEnd = ProcEnd::Signaled { signal: 9, core: false, memory: None };

/// A job of four ranks on four hosts that have all initialised.
fn bench() -> Bench {
    let mut bench = Bench::running(4);
    bench.init(0);
    bench
}

/// The rank's end came before any order to end it had reached its host.
fn unasked(bench: &mut Bench, proc: u32, end: ProcEnd) {
    bench.told_exit(proc, end, Phase::Initialised, false);
}

fn abort(bench: &mut Bench, proc: u32, code: i32) {
    bench.tell(proc, &Abort { proc: ProcId(proc), cause: AbortCause::Asked { code, message: String::new() } });
}

/// What is told in this order, and what it comes to.
type Row = (&'static str, fn(&mut Bench), Outcome, &'static str);

const ROWS: &[Row] = &[
    (
        "a peer's fault arrives before the rank that left",
        |b| {
            unasked(b, 1, SEGV);
            unasked(b, 0, ProcEnd::Exited(0));
        },
        Outcome::Rank(1),
        "rank 0 on h0 exited with status 0 without finalising MPI; the other ranks would have waited for it",
    ),
    (
        "a peer's fault arrives before the rank that exited with a status",
        |b| {
            unasked(b, 1, SEGV);
            unasked(b, 2, ProcEnd::Signaled { signal: 6, core: false, memory: None });
            unasked(b, 0, ProcEnd::Exited(3));
        },
        Outcome::Rank(3),
        "rank 0 on h0 exited with status 3 without finalising MPI; the other ranks would have waited for it",
    ),
    (
        "a library's abort and a fault arrive before the rank that was killed",
        |b| {
            abort(b, 1, 15);
            unasked(b, 2, SEGV);
            unasked(b, 0, KILL);
        },
        Outcome::Signal(9),
        "rank 0 on h0 was killed by SIGKILL (signal 9)",
    ),
    (
        "a fault arrives before the host is known to be lost",
        |b| {
            unasked(b, 1, SEGV);
            b.lose(0);
        },
        Outcome::HostLost,
        "host h0 was lost: closed",
    ),
    (
        "a fault is followed by another one and by a library's abort",
        |b| {
            unasked(b, 0, SEGV);
            unasked(b, 1, SEGV);
            abort(b, 2, 15);
            unasked(b, 2, ProcEnd::Exited(15));
        },
        Outcome::Signal(11),
        "rank 0 on h0 was killed by SIGSEGV (signal 11)",
    ),
    (
        "an abort is followed by its own exit, by a fault and by the abort of another",
        |b| {
            abort(b, 0, 7);
            unasked(b, 1, SEGV);
            unasked(b, 0, ProcEnd::Exited(0));
            abort(b, 2, 9);
            unasked(b, 2, ProcEnd::Exited(0));
        },
        Outcome::Rank(7),
        "rank 0 on h0 aborted the job with code 7",
    ),
    (
        "a rank that left is followed by whatever",
        |b| {
            unasked(b, 0, ProcEnd::Exited(0));
            unasked(b, 1, KILL);
            b.lose(2);
        },
        Outcome::Rank(1),
        "rank 0 on h0 exited with status 0 without finalising MPI; the other ranks would have waited for it",
    ),
    (
        "what was ordered explains nothing",
        |b| {
            unasked(b, 1, SEGV);
            b.told_exit(0, ProcEnd::Exited(0), Phase::Initialised, true);
            b.told_exit(2, KILL, Phase::Initialised, true);
        },
        Outcome::Signal(11),
        "rank 1 on h1 was killed by SIGSEGV (signal 11)",
    ),
    (
        "who has no connections explains nothing",
        |b| {
            unasked(b, 1, SEGV);
            b.told_exit(0, ProcEnd::Exited(2), Phase::Finalised, false);
            b.told_exit(2, ProcEnd::Exited(2), Phase::Untouched, false);
        },
        Outcome::Signal(11),
        "rank 1 on h1 was killed by SIGSEGV (signal 11)",
    ),
    (
        "the user is not second-guessed",
        |b| {
            b.job.end_signal(2, 10);
            unasked(b, 0, ProcEnd::Exited(0));
            b.lose(1);
        },
        Outcome::Signal(2),
        "ended by SIGINT (signal 2)",
    ),
];

#[test]
fn a_failure_that_explains_the_first_one_takes_its_place() {
    for (what, happens, outcome, cause) in ROWS {
        let mut bench = bench();
        happens(&mut bench);
        assert_eq!(bench.collect().finish(), told(*outcome, cause), "{what}");
    }
}

#[test]
fn ranks_are_ordered_to_end_at_once_and_the_verdict_waits_for_nobody() {
    let mut bench = bench();
    unasked(&mut bench, 1, SEGV);
    assert_eq!(bench.kills(), [GRACE_MS], "before anything is collected");
    for proc in [0, 2, 3] {
        bench.told_exit(proc, SEGV, Phase::Initialised, true);
    }
    assert_eq!(bench.job.stage, Stage::Closing, "no tick was needed");
    assert_eq!(bench.kills().len(), 1);
}

#[test]
fn what_comes_after_the_while_explains_nothing() {
    for (after_ms, outcome) in [(COLLECT_MS - 1, Outcome::Rank(1)), (COLLECT_MS, Outcome::Signal(11))] {
        let mut bench = bench();
        unasked(&mut bench, 1, SEGV);
        assert_eq!(bench.job.next_due_ms(), Some(0), "the next tick starts the clock");
        bench.job.tick(5_000);
        assert_eq!(bench.job.next_due_ms(), Some(5_000 + COLLECT_MS));
        bench.job.tick(5_000 + after_ms);
        unasked(&mut bench, 0, ProcEnd::Exited(0));
        assert_eq!(bench.finish().0, outcome, "after {after_ms} ms");
    }
}

#[test]
fn what_open_mpi_says_when_a_socket_closes_is_explained_by_a_crash_and_counts_without_one() {
    let aborts = |code| Abort { proc: ProcId(0), cause: AbortCause::Asked { code, message: String::new() } };
    let crash = ProcEnd::Signaled { signal: 11, core: false, memory: None };
    for (code, crashes, want) in [(14, true, 139), (14, false, 14), (7, true, 7)] {
        let mut bench = Bench::new(2, 2, Bootstrap::Pmix).all_joined();
        bench.started().init(0).init(1).tell(0, &aborts(code));
        if crashes {
            bench.told_exit(1, crash.clone(), Phase::Initialised, false);
        }
        assert_eq!(bench.finish().0.code(), want, "{code}");
    }
}
