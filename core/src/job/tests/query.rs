//! Who waits for whom.

use muster_protocol::message::{FenceState, Missing, Obstacle, Report};

use super::*;

#[test]
fn a_question_names_ranks_that_have_not_arrived_and_hosts_that_do_not_answer() {
    let mut bench = Bench::new(3, 6, Bootstrap::Pmi).all_joined();
    bench.started().init(0);
    bench.job.query(Some(Cause::Timeout { limit_ms: 2_000 }), 100);
    let state = FenceState { group: Group(0), seq: 4, arrived: vec![Rank(0)], absent: vec![Rank(3)] };
    // Host 1 has no rank in the fence, so it reports nothing of it; host 2 is silent.
    bench.tell(0, &Report { fences: vec![state] }).tell(1, &Report { fences: vec![] });
    assert!(bench.job.running());
    assert_eq!(bench.job.next_due_ms(), Some(1_100));
    bench.job.tick(1_100);
    bench.collect();
    let waiting = bench.events().into_iter().find(|e| matches!(e, Event::FenceWaiting { .. })).unwrap();
    let at = |rank, host: &str| (Rank(rank), host.to_owned());
    let absent = vec![at(1, "h1"), at(3, "h0"), at(4, "h1")];
    assert_eq!(
        *waiting,
        Event::FenceWaiting { group: Group(0), seq: 4, arrived: 1, absent, silent_hosts: vec!["h2".into()] }
    );
    assert_eq!(bench.finish().0, Outcome::Timeout);
}

#[test]
fn a_question_is_over_when_all_have_answered_and_without_a_fence_it_says_nothing() {
    let mut bench = Bench::running(2);
    bench.started();
    bench.job.query(None, 100);
    bench.tell(0, &Report { fences: vec![] }).tell(1, &Report { fences: vec![] });
    assert_eq!(bench.job.next_due_ms(), None);
    assert!(!bench.events().iter().any(|e| matches!(e, Event::FenceWaiting { .. })));
    bench.lose(0);
    bench.job.query(Some(Cause::Timeout { limit_ms: 1 }), 200);
    assert_eq!(bench.collect().finish().0, Outcome::HostLost, "it was ending already");
}

#[test]
fn a_time_limit_that_is_over_while_hosts_are_missing_names_them() {
    let mut bench = Bench::new(3, 3, Bootstrap::Pmi);
    let missing = Missing { host: HostIndex(1), why: Obstacle::Refused, text: "connection refused".into() };
    bench.join(&[0]).tell(1, &missing);
    bench.job.query(Some(Cause::Timeout { limit_ms: 2_500 }), 100);
    let says = "the job did not begin within its time limit of 2.500 s: 2 hosts were not connected: h1: connection refused; h2: no answer yet";
    assert_eq!(bench.collect().finish(), told(Outcome::Timeout, says));
    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    bench.join(&[0]);
    bench.job.query(Some(Cause::Timeout { limit_ms: 1_000 }), 100);
    let says = "the job did not begin within its time limit of 1 s: 1 host was not connected: h1: no answer yet";
    assert_eq!(bench.collect().finish(), told(Outcome::Timeout, says));
}
