//! Hosts that join, late or again, or never.

use muster_protocol::message::{End, Missing, Obstacle, Share, Signal};

use super::*;

#[test]
fn the_job_starts_when_the_last_host_has_joined() {
    let mut bench = Bench::new(2, 3, Bootstrap::Pmi);
    bench.join(&[1]);
    assert!(bench.down::<Spec>().is_empty() && bench.job.connecting());
    assert_eq!(bench.job.missing_hosts(), [("h0", None)]);
    bench.join(&[0]);
    let [(to, spec)] = &bench.down::<Spec>()[..] else { panic!() };
    assert_eq!((*to, spec.members.len(), spec.mapping.is_some()), (EVERY_HOST, 2, true));
    let shares: Vec<_> =
        bench.down::<Share>().into_iter().map(|(h, s)| (h.0, s.procs.len(), s.node_rank, s.nodes)).collect();
    assert_eq!(shares, [(0, 2, 0, 2), (1, 1, 1, 2)]);
    bench.join(&[0, 1]);
    assert_eq!(bench.down::<Spec>().len(), 1);
}

#[test]
fn the_connect_deadline_names_every_missing_host_and_a_wrong_key_is_its_own_status() {
    let missing = |host, why, text: &str| Missing { host: HostIndex(host), why, text: text.into() };
    let mut bench = Bench::new(3, 3, Bootstrap::Pmi);
    bench.join(&[0]).tell(1, &missing(1, Obstacle::Refused, "nothing listens"));
    bench.tell(0, &missing(0, Obstacle::Refused, "too late, it has joined"));
    bench.job.connect_deadline();
    bench.collect();
    assert!(!bench.job.connecting() && !bench.job.running());
    let text = "2 hosts could not be connected: h1: nothing listens; h2: no answer yet";
    assert_eq!(bench.finish(), told(Outcome::HostUnreachable, text));
    let missed = bench.events().iter().filter(|e| matches!(e, Event::HostMissing { .. })).count();
    assert_eq!(missed, 1);

    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    bench.join(&[0]).tell(1, &missing(1, Obstacle::WrongKey, "another key"));
    bench.job.connect_deadline();
    assert_eq!(
        bench.collect().finish(),
        told(Outcome::NotAuthorised, "1 host could not be connected: h1: another key")
    );

    let mut bench = Bench::running(1);
    bench.job.connect_deadline();
    assert!(bench.job.running());
}

#[test]
fn a_host_that_joins_while_the_job_ends_is_told_and_must_confirm() {
    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    bench.join(&[0]);
    bench.job.connect_deadline();
    bench.join(&[1]);
    bench.ended(0);
    let ends: Vec<HostIndex> = bench.down::<End>().into_iter().map(|(h, _)| h).collect();
    assert_eq!(ends, [EVERY_HOST, HostIndex(1)]);
    assert!(!bench.acts.iter().any(|a| matches!(a, JobAct::Over { .. })));
    bench.finish();
}

#[test]
fn a_host_that_comes_back_while_ranks_are_ended_hears_the_order() {
    let mut bench = Bench::running(3);
    bench.lose(0).join(&[2]);
    assert_eq!(bench.down::<Kill>()[1], (HostIndex(2), Kill { grace_ms: GRACE_MS }));
    let mut bench = Bench::running(3);
    bench.job.end_signal(2, 10);
    bench.collect().join(&[2]);
    assert_eq!(bench.down::<Signal>()[1], (HostIndex(2), Signal { signal: 2 }));
    // Nothing is said to hosts that join while all is well.
    let mut bench = Bench::running(3);
    bench.join(&[2]);
    assert!(bench.down::<Kill>().is_empty() && bench.down::<End>().is_empty());
}
