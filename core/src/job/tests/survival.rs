//! Jobs that go on when ranks or hosts die.

use muster_protocol::message::{Answer, CallAnswer, Dead, DeadRank};

use super::*;

/// Two ranks on each of so many hosts, dealt one by one, all of which have initialised.
fn tolerant(hosts: u32) -> Bench {
    let mut bench = Bench::with(hosts, 2 * hosts, Bootstrap::Pmix, OnFailure::Continue).all_joined();
    bench.started();
    for host in 0..hosts {
        bench.init(host);
    }
    bench
}

fn dead(ranks: &[(u32, bool)], hosts: &[u32]) -> Dead {
    let rank = |(rank, violent): &(u32, bool)| DeadRank { rank: Rank(*rank), violent: *violent };
    Dead {
        group: Group(0),
        ranks: ranks.iter().map(rank).collect(),
        hosts: hosts.iter().map(|h| HostIndex(*h)).collect(),
    }
}

fn told_all(bench: &Bench) -> Vec<Dead> {
    bench.down::<Dead>().into_iter().filter(|(to, _)| *to == EVERY_HOST).map(|(_, m)| m).collect()
}

fn over(bench: &Bench) -> Option<(Outcome, Option<String>)> {
    bench.acts.iter().find_map(|act| match act {
        JobAct::Over { outcome, cause } => Some((*outcome, cause.as_ref().map(Cause::to_string))),
        _ => None,
    })
}

#[test]
fn the_others_are_told_of_a_rank_that_died_and_end_the_job_well() {
    let mut bench = tolerant(2);
    bench.exit(1, ProcEnd::Signaled { signal: 9, core: false, memory: None }, Phase::Initialised);
    assert_eq!(told_all(&bench), [dead(&[(1, true)], &[])]);
    assert!(bench.kills().is_empty());
    let went_on =
        bench.events().into_iter().any(|e| matches!(e, Event::WentOn { cause } if cause.contains("rank 1 on h1")));
    assert!(went_on);
    // The last rank of that host; it left without a word, and without a signal.
    bench.exit(3, ProcEnd::Exited(0), Phase::Initialised);
    assert_eq!(told_all(&bench)[1], dead(&[(1, true), (3, false)], &[1]));
    for rank in [0, 2] {
        bench.returns(rank, 0);
    }
    bench.ended(0).ended(1);
    assert_eq!(over(&bench), Some((Outcome::Success, None)));
}

#[test]
fn a_lost_host_is_out_of_the_fences_and_nobody_waits_for_its_confirmation() {
    let mut bench = tolerant(3);
    bench.returns(1, 0);
    bench.lose(1);
    assert_eq!(told_all(&bench), [dead(&[(4, true)], &[1])], "the other one had come to its end");
    // Who joins again has perhaps missed it.
    bench.join(&[2]);
    assert_eq!(bench.down::<Dead>().last(), Some(&(HostIndex(2), dead(&[(4, true)], &[1]))));
    for rank in [0, 2, 3, 5] {
        bench.returns(rank, 0);
    }
    bench.ended(0).ended(2);
    assert_eq!(over(&bench), Some((Outcome::Success, None)));
}

#[test]
fn survivors_give_the_status_and_without_any_the_first_failure_does() {
    let mut bench = tolerant(1);
    bench.exit(0, ProcEnd::Exited(9), Phase::Initialised);
    bench.returns(1, 4).ended(0);
    assert_eq!(over(&bench), Some(told(Outcome::Rank(4), "rank 1 on h0 exited with status 4")));

    let mut bench = tolerant(1);
    bench.exit(1, ProcEnd::Signaled { signal: 11, core: false, memory: None }, Phase::Initialised);
    bench.exit(0, ProcEnd::Signaled { signal: 6, core: false, memory: None }, Phase::Initialised).ended(0);
    let (outcome, cause) = over(&bench).unwrap();
    assert_eq!((outcome.code(), cause.as_deref()), (139, Some("rank 1 on h0 was killed by SIGSEGV (signal 11)")));
}

#[test]
fn an_abort_ends_this_job_too() {
    let mut bench = tolerant(2);
    let cause = muster_protocol::message::AbortCause::Asked { code: 7, message: String::new() };
    bench.tell(0, &muster_protocol::message::Abort { proc: ProcId(0), cause });
    assert_eq!(bench.kills().len(), 1);
}

#[test]
fn a_rank_that_never_comes_is_dead_when_others_wait_for_it() {
    let mut bench = Bench::with(2, 2, Bootstrap::Pmix, OnFailure::Continue).all_joined();
    bench.started();
    bench.exit(1, ProcEnd::Exited(0), Phase::Untouched);
    assert_eq!(told_all(&bench), [], "nobody waits yet");
    bench.init(0);
    assert_eq!(told_all(&bench), [dead(&[(1, false)], &[1])]);
}

#[test]
fn ranks_are_spawned_on_hosts_that_live() {
    let mut bench = tolerant(3);
    bench.lose(1);
    bench.tell(0, &call(0, 1, Ask::Spawn { apps: vec![app(5, &[])], preput: vec![] }));
    let hosts: Vec<u32> = bench.job.table.groups[&Group(1)].procs.iter().map(|p| p.host.0).collect();
    assert!(hosts.iter().all(|host| *host != 1), "{hosts:?}");
    bench.tell(0, &call(0, 2, Ask::Spawn { apps: vec![app(1, &[("host", "h1")])], preput: vec![] }));
    let answers = bench.down::<CallAnswer>();
    let why = "host \"h1\" of the spawn request is lost".to_owned();
    assert_eq!(answers.last().unwrap().1.answer, Answer::Denied { why });
}

#[test]
fn an_abort_from_a_host_that_was_given_up_concerns_nobody() {
    let mut bench = tolerant(2);
    bench.lose(1);
    let cause = muster_protocol::message::AbortCause::Asked { code: 7, message: String::new() };
    bench.tell(1, &muster_protocol::message::Abort { proc: ProcId(1), cause });
    assert!(bench.kills().is_empty());
}

#[test]
fn a_host_whose_library_waits_for_a_rank_that_never_came_cannot_go_on() {
    let mut bench = tolerant(2);
    // Rank 2 lives beside it, and its library counts on both.
    bench.exit(0, ProcEnd::Signaled { signal: 11, core: false, memory: None }, Phase::Untouched);
    assert_eq!(bench.kills().len(), 1);
}

#[test]
fn a_program_that_cannot_start_is_the_cause_when_nobody_is_left() {
    let mut bench = Bench::with(2, 2, Bootstrap::Pmix, OnFailure::Continue).all_joined();
    for rank in 0..2 {
        let what = "program \"typo\" not found".to_owned();
        let end = ProcEnd::NotStarted { stage: muster_protocol::message::StartStage::Exec, errno: 2, what };
        bench.exit(rank, end, Phase::Untouched);
    }
    bench.ended(0).ended(1);
    assert_eq!(over(&bench).unwrap().0.code(), 127);
}
