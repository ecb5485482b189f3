//! Signals, confirmations, and everything heard twice.

use muster_protocol::message::{End, ProcStarted, Signal, Started, Survivor};

use super::*;

#[test]
fn the_first_signal_is_forwarded_and_the_second_kills() {
    let mut bench = Bench::running(2);
    bench.job.end_signal(15, 1_000);
    bench.collect();
    assert_eq!((bench.down::<Signal>().len(), bench.kills()), (1, vec![]));
    bench.job.end_signal(15, 1_100);
    bench.collect();
    assert_eq!(bench.kills(), [0]);
    bench.job.tick(1_000 + GRACE_MS);
    bench.collect();
    assert_eq!(bench.kills(), [0], "once is enough");
    assert_eq!(bench.finish(), told(Outcome::Signal(15), "ended by SIGTERM (signal 15)"));
}

#[test]
fn ranks_that_ignore_the_signal_are_killed_after_their_time() {
    let mut bench = Bench::running(2);
    bench.job.end_signal(2, 1_000);
    bench.job.tick(1_000);
    bench.job.tick(999 + GRACE_MS);
    assert!(bench.collect().kills().is_empty());
    assert_eq!(bench.job.next_due_ms(), Some(1_000 + GRACE_MS));
    bench.job.tick(1_000 + GRACE_MS);
    assert_eq!(bench.collect().kills(), [0]);
}

#[test]
fn a_signal_that_does_not_end_the_job_is_only_passed_on() {
    let mut bench = Bench::running(1);
    bench.job.pass_signal(10);
    bench.collect();
    assert_eq!(bench.down::<Signal>(), [(EVERY_HOST, Signal { signal: 10 })]);
    assert!(bench.job.running());
}

#[test]
fn hosts_are_asked_to_confirm_even_when_ranks_never_tell_their_end() {
    let mut bench = Bench::running(2);
    bench.job.fail(Cause::Timeout { limit_ms: 1_000 });
    assert_eq!(bench.job.next_due_ms(), Some(0), "the next tick starts the clock");
    bench.job.tick(10_000);
    bench.dies(0);
    bench.job.tick(10_000 + GRACE_MS);
    assert!(bench.collect().down::<End>().is_empty());
    let due = bench.job.next_due_ms().unwrap();
    bench.job.tick(due);
    bench.collect().ended(0);
    assert_eq!(bench.down::<End>(), [(EVERY_HOST, End { status: 243 })]);
    let survivors = vec![Survivor { pid: 9, name: "p".into() }];
    bench.tell(1, &Ended { host: HostIndex(1), streams: vec![], survivors });
    assert!(matches!(bench.events()[..], [.., Event::HostStained { .. }, Event::JobEnded { status: 243, .. }]));
    assert_eq!((bench.job.next_due_ms(), bench.job.table.alive), (None, 0));
}

#[test]
fn a_host_that_confirms_before_it_is_asked_counts() {
    let mut bench = Bench::running(2);
    bench.ended(0);
    assert_eq!(bench.job.table.alive, 2, "not while the job runs");
    bench.lose(1).ended(0);
    assert_eq!(bench.finish(), told(Outcome::HostLost, "host h1 was lost: closed"));
}

#[test]
fn everything_may_be_heard_twice() {
    let mut bench = Bench::running(2);
    let started = Started { procs: (0..2).map(|p| ProcStarted { proc: ProcId(p), pid: 50 + p }).collect() };
    bench.tell(0, &started).tell(0, &started).init(0).init(0);
    bench
        .returns(0, 0)
        .returns(0, 0)
        .returns(1, 0)
        .returns(1, 0)
        .join(&[0, 1])
        .ended(0)
        .ended(0)
        .join(&[0, 1])
        .ended(1)
        .ended(1);
    bench.lose(1).returns(1, 3);
    bench.job.end_signal(2, 99);
    bench.job.tick(1_000_000);
    bench.collect();
    let count = |wanted: fn(&Event) -> bool| bench.events().into_iter().filter(|e| wanted(e)).count();
    assert_eq!(count(|e| matches!(e, Event::RankStarted { .. })), 2);
    assert_eq!(count(|e| matches!(e, Event::GroupRunning { .. })), 1);
    assert_eq!(count(|e| matches!(e, Event::RankEnded { .. })), 2);
    assert_eq!(count(|e| matches!(e, Event::JobEnded { status: 0, .. })), 1);
    assert!(
        matches!(bench.acts.last(), Some(JobAct::Over { outcome: Outcome::Success, cause: None })),
        "{:?}",
        bench.acts.last()
    );
}
