//! Names and spawned ranks.

use muster_protocol::message::{Answer, CallAnswer, Share};

use super::*;

#[test]
fn names_are_published_found_and_taken_back() {
    let mut bench = Bench::running(2);
    let publish = || Ask::Publish { name: "ocean".into(), port: "port1".into() };
    let lookup = || Ask::Lookup { name: "ocean".into() };
    let unpublish = || Ask::Unpublish { name: "ocean".into() };
    for (token, ask) in
        [lookup(), publish(), publish(), lookup(), unpublish(), unpublish(), lookup()].into_iter().enumerate()
    {
        bench.tell(1, &call(1, token as u64, ask));
    }
    let answers = bench.down::<CallAnswer>();
    assert!(answers.iter().all(|(h, a)| *h == HostIndex(1) && a.group == Group(0)));
    let short: Vec<String> = answers
        .iter()
        .map(|(_, a)| match &a.answer {
            Answer::Denied { .. } => format!("{} no", a.token),
            Answer::Found { port } => format!("{} {port}", a.token),
            _ => format!("{} yes", a.token),
        })
        .collect();
    assert_eq!(short, ["0 no", "1 yes", "2 no", "3 port1", "4 yes", "5 no", "6 no"]);
}

/// The hosts of the ranks that a request starts on three hosts with two slots, of which the first four are taken.
fn spawned(apps: Vec<SpawnApp>) -> Result<Vec<u32>, String> {
    let mut bench = Bench::new(3, 4, Bootstrap::Pmi).all_joined();
    bench.tell(0, &call(0, 5, Ask::Spawn { apps, preput: vec![] }));
    match &bench.down::<CallAnswer>()[0].1.answer {
        Answer::Denied { why } => Err(why.clone()),
        Answer::Spawned { kvsname, .. } => {
            assert_eq!(kvsname, "kvs_1");
            Ok(bench.job.table.procs().skip(4).map(|p| p.host.0).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn spawned_ranks_go_to_free_slots_first_or_where_they_are_sent() {
    assert_eq!(spawned(vec![app(2, &[])]), Ok(vec![1, 2]));
    assert_eq!(spawned(vec![app(1, &[]), app(1, &[])]), Ok(vec![1, 2]));
    assert_eq!(spawned(vec![app(3, &[("host", "h2,h0")])]), Ok(vec![2, 0, 2]));
    assert_eq!(spawned(vec![app(3, &[("hosts", "h2:2,h0")])]), Ok(vec![2, 2, 0]));
    assert_eq!(spawned(vec![app(2, &[("host", "h0:4000000000")])]), Ok(vec![0, 0]));
    for (app, says) in [
        (app(1, &[("host", "mars")]), "host \"mars\" of the spawn request is not a host of this job"),
        (app(1, &[("host", " , ")]), "the spawn request names no host"),
        (
            app(1, &[("hostfile", "/etc/hosts")]),
            "the info key \"hostfile\" (\"/etc/hosts\") of a spawn request is not supported; name the hosts with \"host\"",
        ),
        (app(0, &[("host", "h0")]), "the spawn request asks for 0 ranks of a program"),
        (app(4_097, &[("host", "h0")]), "h0 would run more than 4096 ranks; spawn fewer or on more hosts"),
        (app(u32::MAX, &[]), "a job has at most 4194304 processes in 65536 groups"),
    ] {
        assert_eq!(spawned(vec![app]), Err(says.to_owned()));
    }
    assert!(spawned(vec![app(0, &[])]).is_err() && spawned(vec![]).is_err());
}

#[test]
fn a_spawned_rank_that_fails_is_named_with_its_group() {
    let mut bench = Bench::running(2);
    bench.init(0).init(1).tell(0, &call(0, 5, Ask::Spawn { apps: vec![app(2, &[])], preput: vec![] }));
    let share = bench.down::<Share>().into_iter().filter(|(_, s)| s.group == Group(1)).count();
    assert!(share > 0 && bench.acts.contains(&JobAct::NewGroup(Group(1), ProcId(2), 2)));
    bench.returns(0, 0).returns(1, 0);
    assert!(bench.job.running(), "the spawned ranks live on");
    bench.exit(3, ProcEnd::Signaled { signal: 11, core: false, memory: None }, Phase::Initialised);
    let (outcome, cause) = bench.finish();
    assert_eq!(outcome, Outcome::Signal(11));
    assert!(cause.unwrap().starts_with("rank 1 of spawned group 1 on h"));
}

#[test]
fn nothing_is_spawned_in_a_job_that_ends() {
    let mut bench = Bench::running(2);
    bench.lose(1).tell(0, &call(0, 1, Ask::Spawn { apps: vec![app(1, &[])], preput: vec![] }));
    assert_eq!(bench.down::<CallAnswer>()[0].1.answer, Answer::Denied { why: "the job is ending".into() });
}

#[test]
fn a_call_that_is_heard_twice_is_carried_out_once_and_answered_twice() {
    let mut bench = Bench::new(3, 4, Bootstrap::Pmi).all_joined();
    let publish = call(1, 1, Ask::Publish { name: "ocean".into(), port: "port1".into() });
    let spawn = call(0, 1, Ask::Spawn { apps: vec![app(2, &[])], preput: vec![] });
    for _ in 0..2 {
        bench.tell(1, &publish);
        bench.tell(0, &spawn);
    }
    let answers: Vec<Answer> = bench.down::<CallAnswer>().into_iter().map(|(_, a)| a.answer).collect();
    let spawned = Answer::Spawned { kvsname: "kvs_1".into(), count: 2 };
    assert_eq!(answers, [Answer::Done, spawned.clone(), Answer::Done, spawned]);
    assert_eq!(bench.job.table.procs_ever, 6);
    // Nobody waits for an answer to a rank that is gone.
    bench.returns(1, 0).tell(1, &publish);
    assert_eq!(bench.down::<CallAnswer>().len(), 4);
}
