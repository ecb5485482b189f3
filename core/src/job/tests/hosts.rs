//! Hosts that join, late or again, or never.

use muster_protocol::message::{End, Missing, Obstacle, Release, Share, Signal, Wanted};

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
fn a_host_that_is_lost_before_the_job_begins_is_missing_again() {
    let mut bench = Bench::new(3, 3, Bootstrap::Pmi);
    bench.join(&[0, 1]).lose(1);
    assert!(bench.job.connecting() && bench.kills().is_empty());
    assert_eq!(bench.acts.last(), Some(&JobAct::Redial(HostIndex(1))));
    assert_eq!(bench.job.missing_hosts(), [("h1", Some("connected, then lost: closed")), ("h2", None)]);
    assert!(!bench.events().iter().any(|e| matches!(e, Event::HostLost { .. })));
    bench.join(&[2]);
    assert!(bench.job.connecting(), "it is awaited");
    // It may be told again by another node that has given it up.
    bench.lose(1);
    assert_eq!(bench.acts.iter().filter(|a| matches!(a, JobAct::Redial(_))).count(), 2);
    bench.join(&[1]);
    assert!(bench.job.running());
    assert_eq!(bench.down::<Share>().len(), 3);
    bench.lose(1);
    assert_eq!(bench.finish(), told(Outcome::HostLost, "host h1 was lost: closed"));

    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    bench.join(&[0]).lose(0);
    bench.job.connect_deadline();
    bench.collect();
    let text = "2 hosts could not be connected: h0: connected, then lost: closed; h1: no answer yet";
    assert_eq!(bench.finish(), told(Outcome::HostUnreachable, text));
}

#[test]
fn a_host_that_another_launcher_wants_first_is_let_go_before_the_start_and_never_after_it() {
    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    let wanted = Wanted { job: "b".into(), launcher: "l-2".into() };
    bench.join(&[0]).tell(0, &wanted).tell(0, &wanted);
    let released: Vec<_> = bench.down::<Release>().into_iter().map(|(to, _)| to.0).collect();
    assert_eq!(released, [0, 0]);
    let why = "left to job \"b\" of l-2, which was started first";
    assert_eq!(bench.job.missing_hosts(), [("h0", Some(why)), ("h1", None)]);
    bench.join(&[1]);
    assert!(bench.job.connecting(), "it is awaited again");
    bench.lose(0);
    assert_eq!(bench.acts.last(), Some(&JobAct::Redial(HostIndex(0))));
    assert_eq!(bench.job.missing_hosts(), [("h0", Some(why))]);
    assert_eq!(bench.events().iter().filter(|e| matches!(e, Event::HostMissing { .. })).count(), 1);
    bench.join(&[0]);
    assert!(bench.job.running());
    bench.tell(0, &wanted);
    assert_eq!(bench.down::<Release>().len(), 2, "its ranks are being started");
}

#[test]
fn a_host_that_joins_again_gets_its_share_again_until_something_is_heard_of_its_ranks() {
    let mut bench = Bench::new(2, 4, Bootstrap::Pmi).all_joined();
    let shares = |bench: &Bench, host: u32| bench.down::<Share>().iter().filter(|(h, _)| h.0 == host).count();
    bench.join(&[1]);
    assert_eq!((shares(&bench, 0), shares(&bench, 1)), (1, 2));
    bench.tell(1, &Started { procs: vec![ProcStarted { proc: ProcId(1), pid: 7 }] }).join(&[0, 1]);
    assert_eq!((shares(&bench, 0), shares(&bench, 1)), (2, 2));
    // Its way may have changed without a word to the root.
    assert_eq!(bench.job.next_due_ms(), Some(0), "the next tick starts the clock");
    for (now_ms, next_ms, sent) in
        [(1_000, 3_000, 2), (3_000, 7_000, 3), (7_000, 15_000, 4), (15_000, 31_000, 5), (31_000, 47_000, 6)]
    {
        bench.job.tick(now_ms);
        bench.collect();
        assert_eq!((bench.job.next_due_ms(), shares(&bench, 0)), (Some(next_ms), sent));
    }
    bench.exit(0, ProcEnd::Exited(0), Phase::Finalised).join(&[0, 1]);
    assert_eq!((shares(&bench, 0), shares(&bench, 1), bench.job.next_due_ms()), (6, 2, None));
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
