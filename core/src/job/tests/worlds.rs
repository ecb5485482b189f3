//! Several worlds on one command line.

use super::*;

/// Two hosts: a world of PMIx and one of PMI with a rank on each, and a program without a bootstrap on the second.
fn three(on_failure: OnFailure) -> Bench {
    let mut bench = Bench::with(2, 2, Bootstrap::Pmix, on_failure);
    let first = &mut bench.job.setup.worlds[0];
    first.insists = true;
    let mut spec = first.spec.clone();
    (spec.group, spec.first_proc, spec.bootstrap, spec.kvsname) = (Group(1), ProcId(2), Bootstrap::Pmi, "kvs_1".into());
    let placed = first.placed.clone();
    let second = World { spec: spec.clone(), placed: placed.clone(), insists: true };
    (spec.group, spec.first_proc, spec.bootstrap, spec.size) = (Group(2), ProcId(4), Bootstrap::None, 1);
    let third = World { spec, placed: placed[1..].to_vec(), insists: false };
    bench.job.setup.worlds.extend([second, third]);
    // The command begins when it is known what it starts.
    bench.job = Job::new(bench.job.setup.clone());
    bench.all_joined()
}

fn speaks(bench: &mut Bench, group: u32, rank: u32) {
    bench.tell(rank, &Initialised { group: Group(group), rank: Rank(rank) });
}

#[test]
fn each_world_is_a_group_with_its_own_ranks_and_all_of_them_are_the_job() {
    let mut bench = three(OnFailure::End);
    let specs: Vec<Spec> = bench.down::<Spec>().into_iter().map(|(_, spec)| spec).collect();
    let shape: Vec<_> = specs.iter().map(|s| (s.group.0, s.first_proc.0, s.size, s.bootstrap, s.spawned_by)).collect();
    let want = [(0, 0, 2, Bootstrap::Pmix, None), (1, 2, 2, Bootstrap::Pmi, None), (2, 4, 1, Bootstrap::None, None)];
    assert_eq!(shape, want);
    assert!(matches!(bench.events()[0], Event::JobStarting { hosts: 2, ranks: 5, worlds: 3, .. }));
    for (group, first, size) in [(0, 0, 2), (1, 2, 2), (2, 4, 1)] {
        assert!(bench.acts.contains(&JobAct::NewGroup(Group(group), ProcId(first), size)));
    }
    bench.started();
    speaks(&mut bench, 0, 0);
    speaks(&mut bench, 1, 1);
    // The first world comes to its end, and the others live on.
    bench.returns(0, 0).returns(1, 0);
    assert!(bench.job.running());
    bench.returns(2, 0).returns(3, 0);
    assert!(bench.job.running());
    bench.exit(4, ProcEnd::Exited(0), Phase::Untouched);
    bench.ended(0).ended(1);
    assert!(matches!(bench.acts.last(), Some(JobAct::Over { outcome: Outcome::Success, cause: None })));
}

#[test]
fn nobody_waits_for_a_rank_of_another_world() {
    let mut bench = three(OnFailure::End);
    bench.started();
    speaks(&mut bench, 0, 0);
    speaks(&mut bench, 1, 0);
    bench.exit(4, ProcEnd::Exited(0), Phase::Untouched);
    assert!(bench.job.running(), "a program without a bootstrap is missed by nobody");
    bench.exit(3, ProcEnd::Exited(0), Phase::Untouched);
    assert!(!bench.job.running(), "its own world waits for it");
    let why = "rank 1 of world 1 on h1 exited with status 0 before initialising MPI, while other ranks wait for it";
    assert_eq!(bench.finish(), told(Outcome::Rank(1), why));
}

#[test]
fn the_failure_in_one_world_ends_them_all() {
    let mut bench = three(OnFailure::End);
    bench.started();
    speaks(&mut bench, 1, 1);
    bench.exit(3, ProcEnd::Signaled { signal: 9, core: false, memory: None }, Phase::Initialised);
    assert_eq!(bench.kills(), [GRACE_MS]);
    let want = told(Outcome::Signal(9), "rank 1 of world 1 on h1 was killed by SIGKILL (signal 9)");
    assert_eq!(bench.finish(), want);
}

#[test]
fn a_world_of_which_nobody_was_heard_is_a_failure_whatever_the_others_did() {
    let mut bench = three(OnFailure::End);
    bench.started();
    speaks(&mut bench, 0, 0);
    bench.returns(0, 0).returns(1, 0);
    for proc in 2..5 {
        bench.exit(proc, ProcEnd::Exited(0), Phase::Untouched);
    }
    let (outcome, cause) = bench.finish();
    assert_eq!(outcome, Outcome::Rank(1));
    assert!(cause.as_ref().unwrap().starts_with("none of the 2 ranks of world 1 spoke PMI, "), "{cause:?}");
}

#[test]
fn what_a_rank_spawns_is_of_its_own_world() {
    let mut bench = three(OnFailure::End);
    bench.started();
    speaks(&mut bench, 1, 0);
    bench.tell(0, &call(2, 1, Ask::Spawn { apps: vec![app(1, &[])], preput: vec![] }));
    let spec = bench.down::<Spec>().pop().unwrap().1;
    let got = (spec.group, spec.first_proc, spec.bootstrap, spec.kvsname.as_str(), spec.spawned_by);
    assert_eq!(got, (Group(3), ProcId(5), Bootstrap::Pmi, "kvs_3", Some(Group(1))));
    let child = bench.job.table.place(ProcId(5)).rank;
    assert_eq!(child, "rank 0 of spawned group 3");
}

#[test]
fn only_ranks_of_the_same_world_are_told_of_a_death_and_the_others_go_on_too() {
    let mut bench = three(OnFailure::Continue);
    bench.started();
    speaks(&mut bench, 0, 0);
    bench.dies(1);
    assert!(bench.job.running());
    let dead = bench.down::<muster_protocol::message::Dead>();
    assert_eq!(dead.iter().map(|(_, d)| (d.group, d.ranks.len())).collect::<Vec<_>>(), [(Group(0), 1)]);
}
