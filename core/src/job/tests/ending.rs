//! Signals, confirmations, and everything heard twice.

use muster_protocol::Stream;
use muster_protocol::message::{End, Signal, StreamEnd, Survivor};

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
    bench.tell(1, &Ended { hosts: [HostIndex(1)].into_iter().collect(), streams: vec![], survivors });
    assert!(matches!(bench.events()[..], [.., Event::HostStained { .. }]));
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
    assert_eq!(bench.acts.iter().filter(|act| matches!(act, JobAct::Over { .. })).count(), 1);
    let [.., JobAct::Over { outcome: Outcome::Success, cause: None }, JobAct::OutputLost(_)] = &bench.acts[..] else {
        panic!("{:?}", bench.acts.last())
    };
}

#[test]
fn output_of_a_host_that_is_lost_when_the_job_is_over_is_not_waited_for() {
    let mut bench = Bench::running(2);
    bench.init(0).returns(0, 0).returns(1, 0).ended(0);
    let streams = vec![StreamEnd { proc: ProcId(1), stream: Stream::Stdout, bytes: 9 }];
    bench.tell(1, &Ended { hosts: [HostIndex(1)].into_iter().collect(), streams, survivors: vec![] });
    assert!(matches!(bench.acts.last(), Some(JobAct::Over { cause: None, .. })));
    let before = bench.acts.len();
    bench.lose(1).lose(1);
    assert_eq!(bench.acts[before..], [JobAct::OutputLost(vec![ProcId(1)])], "once, and nothing else");
    assert_eq!(bench.job.next_due_ms(), None);

    // A host that never came has run nothing.
    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    bench.join(&[0]);
    bench.job.connect_deadline();
    bench.collect().ended(0);
    assert!(matches!(bench.acts.last(), Some(JobAct::Over { .. })));
    let before = bench.acts.len();
    bench.lose(1);
    assert_eq!(bench.acts[before..], []);
}

#[test]
fn output_that_is_lost_after_all_ranks_have_ended_well_is_a_failure_all_the_same() {
    let mut bench = Bench::running(1);
    bench.returns(0, 0).collect();
    assert_eq!(bench.down::<End>(), [(EVERY_HOST, End { status: 0 })], "only confirmations are missing");
    bench.job.lose_output(Cause::Internal { why: "disk".into() });
    bench.job.lose_output(Cause::Internal { why: "another".into() });
    bench.collect();
    assert_eq!(bench.finish(), told(Outcome::Internal, "internal fault: disk"));
}
