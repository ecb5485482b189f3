//! What spawned groups get, and what is left of them.

use muster_protocol::limits::{OUTPUT_BUDGET_BYTES, STREAM_WINDOW_BYTES_MAX, STREAM_WINDOW_BYTES_MIN};
use muster_protocol::message::{Answer, CallAnswer, Share, StreamEnd};
use muster_protocol::{Stream, limits};

use super::super::credit;
use super::*;

fn spawn(bench: &mut Bench, by: u32, token: u64, count: u32) {
    bench.tell(0, &call(by, token, Ask::Spawn { apps: vec![app(count, &[])], preput: vec![] }));
}

fn specs(bench: &Bench) -> Vec<Spec> {
    bench.down::<Spec>().into_iter().map(|(_, spec)| spec).collect()
}

/// A job whose first group has the windows that the launcher gives it.
fn with_windows(hosts: u32, ranks: u32) -> Bench {
    let mut bench = Bench::new(hosts, ranks, Bootstrap::Pmi);
    bench.job.setup.worlds[0].spec.window_bytes = credit::of_first(ranks);
    bench.all_joined()
}

#[test]
fn a_child_that_ends_without_initialising_ends_the_job_since_its_parents_wait() {
    for (code, status) in [(0, 1), (5, 5)] {
        let mut bench = Bench::running(2);
        bench.init(0);
        spawn(&mut bench, 0, 1, 2);
        bench.exit(2, ProcEnd::Exited(code), Phase::Untouched);
        assert_eq!(bench.kills(), [GRACE_MS]);
        let says = format!(
            "rank 0 of spawned group 1 on h0 exited with status {code} before initialising MPI, while other ranks wait for it"
        );
        assert_eq!(bench.finish(), told(Outcome::Rank(status), &says));
    }
}

#[test]
fn all_windows_together_stay_within_the_budget_while_each_is_larger_than_the_smallest() {
    assert_eq!(credit::of_first(1), STREAM_WINDOW_BYTES_MAX);
    assert_eq!(credit::of_first(24), 512 << 10);
    assert_eq!(credit::of_first(4_000), STREAM_WINDOW_BYTES_MIN);
    for (ranks, rounds) in [(2, 6), (4, 9), (12, 3), (700, 2)] {
        let mut bench = with_windows(4, ranks);
        bench.init(0);
        for round in 0..rounds {
            spawn(&mut bench, 0, round, 1 + 2 * round as u32);
        }
        let specs = specs(&bench);
        assert_eq!(specs.len() as u64, 1 + rounds);
        let bytes = |s: &Spec| 2 * u64::from(s.size) * u64::from(s.window_bytes);
        // A stream without a window would stop its rank, so the smallest one is given even when nothing is left.
        let floor: u64 = specs.iter().filter(|s| s.window_bytes == STREAM_WINDOW_BYTES_MIN).map(bytes).sum();
        let all: u64 = specs.iter().map(bytes).sum();
        assert!(all - floor <= OUTPUT_BUDGET_BYTES, "{ranks} ranks: {all} bytes, {floor} of them in smallest windows");
        assert!(specs.iter().all(|s| s.window_bytes >= STREAM_WINDOW_BYTES_MIN));
    }
    let mut bench = with_windows(2, 2);
    bench.init(0);
    spawn(&mut bench, 0, 1, 10);
    assert_eq!(specs(&bench)[1].window_bytes, 512 << 10, "half of the 20 MiB that are left");
}

#[test]
fn children_inherit_from_the_program_of_the_rank_that_spawns_them() {
    let mut bench = Bench::new(2, 4, Bootstrap::Pmi);
    let program = |name: &str| App {
        argv: vec![name.into()],
        wdir: Some(format!("/{name}")),
        env: vec![EnvVar { name: "WHO".into(), value: Some(name.into()) }],
    };
    bench.job.setup.worlds[0].spec.apps = vec![program("ocean"), program("ice")];
    bench.job.setup.worlds[0].spec.env = vec![EnvVar { name: "ALL".into(), value: None }];
    for (rank, placed) in bench.job.setup.worlds[0].placed.iter_mut().enumerate() {
        placed.app = u32::from(rank >= 2);
    }
    let mut bench = bench.all_joined();
    bench.init(0);
    spawn(&mut bench, 1, 1, 1);
    spawn(&mut bench, 3, 1, 1);
    // A child's own children inherit from it.
    spawn(&mut bench, 5, 1, 1);
    let inherited: Vec<_> = specs(&bench)
        .into_iter()
        .skip(1)
        .map(|s| {
            assert_eq!(s.env[0].name, "ALL");
            (s.apps[0].wdir.clone().unwrap(), s.env[1].value.clone().unwrap(), s.env.len() + s.apps[0].env.len())
        })
        .collect();
    let of = |name: &str| (format!("/{name}"), name.to_owned(), 2);
    assert_eq!(inherited, [of("ocean"), of("ice"), of("ice")]);
    let info = Ask::Spawn { apps: vec![app(1, &[("wdir", "/else")])], preput: vec![] };
    bench.tell(0, &call(3, 2, info));
    assert_eq!(specs(&bench)[4].apps[0].wdir.as_deref(), Some("/else"));
}

#[test]
fn groups_that_have_ended_altogether_are_forgotten() {
    let mut bench = with_windows(2, 2);
    bench.init(0);
    for round in 0..1_000u32 {
        spawn(&mut bench, round % 2, u64::from(round), 3);
        let first = 2 + 3 * round;
        bench.tell(0, &Initialised { group: Group(round + 1), rank: Rank(0) });
        for proc in first..first + 3 {
            assert_eq!(bench.job.table.groups.len(), 2, "while one of it lives");
            bench.returns(proc, 0);
        }
        bench.returns(first, 1);
    }
    let table = &bench.job.table;
    assert_eq!((table.groups.len(), table.firsts.len(), table.procs().count(), table.alive), (1, 1, 2, 2));
    assert_eq!((table.groups_ever, table.procs_ever, bench.job.unheard.len()), (1_001, 3_002, 2));
    assert!(
        specs(&bench).iter().all(|s| s.window_bytes == STREAM_WINDOW_BYTES_MAX),
        "and their windows are free again"
    );
    spawn(&mut bench, 0, 5_000, 1);
    let last = specs(&bench).pop().unwrap();
    assert_eq!((last.group, last.first_proc, last.kvsname.as_str()), (Group(1_001), ProcId(3_002), "kvs_1001"));
    bench.returns(3_002, 0).returns(0, 0).returns(1, 0);
    assert_eq!(bench.finish(), (Outcome::Success, None));
}

#[test]
fn output_of_forgotten_ranks_is_not_waited_for_when_their_host_is_lost() {
    let mut bench = Bench::running(2);
    bench.init(0);
    for round in 0..4 {
        spawn(&mut bench, 0, round, 2);
        bench.returns(2 + 2 * round as u32, 0).returns(3 + 2 * round as u32, 0);
    }
    let of_h1: Vec<ProcId> = bench
        .down::<Share>()
        .into_iter()
        .filter(|(h, _)| h.0 == 1)
        .flat_map(|(_, s)| {
            let first = if s.group.0 == 0 { 0 } else { 2 * s.group.0 };
            s.procs.into_iter().map(move |p| ProcId(first + p.rank.0))
        })
        .collect();
    assert_eq!(of_h1.len(), 5);
    assert!(bench.job.table.hosts.iter().all(|h| h.forgotten.len() <= 4));
    bench.returns(0, 0).returns(1, 0);
    let streams = vec![StreamEnd { proc: of_h1[1], stream: Stream::Stdout, bytes: 9 }];
    bench.tell(1, &Ended { hosts: [HostIndex(1)].into_iter().collect(), streams, survivors: vec![] });
    bench.lose(1);
    let lost: Vec<_> =
        bench.acts.iter().filter_map(|a| if let JobAct::OutputLost(p) = a { Some(p.clone()) } else { None }).collect();
    let mut lost = lost.concat();
    lost.sort();
    assert_eq!(lost, of_h1);
    assert_eq!(bench.job.host_of(of_h1[1]), "h1");
}

#[test]
fn the_limits_of_a_job_count_what_is_forgotten() {
    let mut bench = Bench::running(1);
    bench.init(0);
    bench.job.table.groups_ever = limits::GROUPS_MAX - 1;
    spawn(&mut bench, 0, 1, 1);
    bench.returns(1, 0);
    spawn(&mut bench, 0, 2, 1);
    assert_eq!(specs(&bench).len(), 2);
}

#[test]
fn a_group_that_no_frame_takes_is_refused_and_the_job_goes_on() {
    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    // The variables that all programs inherit count once.
    let value = Some("v".repeat(limits::CONTROL_PAYLOAD_BYTES_MAX as usize / 2));
    bench.job.setup.worlds[0].spec.apps[0].env = vec![EnvVar { name: "LARGE".into(), value }];
    assert_eq!(bench.job.setup.check(), Ok(()));
    let mut bench = bench.all_joined();
    bench.init(0);
    let ask = |bytes: usize| {
        let mut large = app(1, &[]);
        large.argv.push("a".repeat(bytes));
        Ask::Spawn { apps: vec![app(1, &[]), large, app(1, &[])], preput: vec![] }
    };
    bench.tell(0, &call(0, 1, ask(1 << 20)));
    assert_eq!(specs(&bench).len(), 2);
    bench.tell(0, &call(0, 2, ask(2 << 20)));
    assert_eq!(specs(&bench).len(), 2);
    let answers = bench.down::<CallAnswer>();
    let [(_, first), (_, second)] = &answers[..] else { panic!("{answers:?}") };
    assert!(matches!(first.answer, Answer::Spawned { .. }));
    let Answer::Denied { why } = &second.answer else { panic!("{second:?}") };
    assert!(why.starts_with("the programs with their arguments and variables take 41"), "{why}");
    assert!(bench.job.running());
    let mut bench = Bench::new(2, 2, Bootstrap::Pmi);
    bench.job.setup.worlds[0].spec.apps[0].argv = vec!["a".repeat(5_000_000)];
    assert!(bench.job.setup.check().is_err());
}
