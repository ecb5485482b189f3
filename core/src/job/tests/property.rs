//! Random events in random order.

use muster_protocol::message::{Abort, AbortCause, Missing, Obstacle, ProcStarted, Started};
use proptest::prelude::*;

use super::*;

/// One thing that may happen at any time.
#[derive(Debug, Clone)]
enum Step {
    Join(Vec<u32>),
    Missing(u32),
    Started(u32),
    Init(u32),
    Exit(u32, u8, u8),
    Crash(u32),
    Abort(u32),
    Lose(u32),
    Ended(u32),
    Spawn(u32, u32),
    Signal,
    Query,
    Fail,
    Deadline,
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0u32..5;
    let proc = 0u32..9;
    prop_oneof![
        3 => proptest::collection::vec(0u32..5, 1..5).prop_map(Step::Join),
        1 => host.clone().prop_map(Step::Missing),
        2 => proc.clone().prop_map(Step::Started),
        2 => proc.clone().prop_map(Step::Init),
        6 => (proc.clone(), 0u8..3, 0u8..3).prop_map(|(p, c, f)| Step::Exit(p, c, f)),
        1 => proc.clone().prop_map(Step::Crash),
        1 => proc.clone().prop_map(Step::Abort),
        1 => host.clone().prop_map(Step::Lose),
        4 => host.prop_map(Step::Ended),
        1 => (proc, 0u32..3).prop_map(|(p, n)| Step::Spawn(p, n)),
        1 => Just(Step::Signal),
        1 => Just(Step::Query),
        1 => Just(Step::Fail),
        1 => Just(Step::Deadline),
        2 => (0u64..20_000).prop_map(Step::Tick),
    ]
}

fn exits(proc: u32, end: ProcEnd, phase: Phase) -> Exits {
    Exits { procs: vec![ProcExit { proc: ProcId(proc), end, phase, maxrss_kib: 0, killed: false }] }
}

fn apply(bench: &mut Bench, step: &Step, now_ms: &mut u64) {
    match step {
        Step::Join(hosts) => {
            bench.join(hosts);
        }
        Step::Missing(h) => {
            bench.tell(*h, &Missing { host: HostIndex(*h), why: Obstacle::Refused, text: "no".into() });
        }
        Step::Started(p) => {
            bench.tell(0, &Started { procs: vec![ProcStarted { proc: ProcId(*p), pid: 1 }] });
        }
        Step::Init(p) => {
            bench.tell(0, &Initialised { group: Group(p / 5), rank: Rank(p % 5) });
        }
        Step::Exit(p, code, phase) => {
            let phase = [Phase::Untouched, Phase::Initialised, Phase::Finalised][*phase as usize];
            bench.tell(0, &exits(*p, ProcEnd::Exited(*code), phase));
        }
        Step::Crash(p) => {
            bench.tell(0, &exits(*p, ProcEnd::Signaled { signal: 9, core: false, memory: None }, Phase::Initialised));
        }
        Step::Abort(p) => {
            bench.tell(0, &Abort { proc: ProcId(*p), cause: AbortCause::Departed });
        }
        Step::Lose(h) => {
            bench.lose(*h);
        }
        Step::Ended(h) => {
            bench.ended(*h);
        }
        Step::Spawn(p, n) => {
            let token = bench.acts.len() as u64;
            bench.tell(0, &call(*p, token, Ask::Spawn { apps: vec![app(*n, &[])], preput: vec![] }));
        }
        Step::Signal => bench.job.end_signal(2, *now_ms),
        Step::Query => bench.job.query(None, *now_ms),
        Step::Fail => bench.job.fail(Cause::Timeout { limit_ms: 1 }),
        Step::Deadline => bench.job.connect_deadline(),
        Step::Tick(ms) => {
            *now_ms += ms;
            bench.job.tick(*now_ms);
        }
    }
    bench.collect();
}

proptest! {
    #[test]
    fn whatever_happens_the_job_is_over_once_and_not_before_every_host_has_confirmed(
        steps in proptest::collection::vec(step(), 0..60)
    ) {
        let mut bench = Bench::new(4, 5, Bootstrap::Pmi);
        let mut now_ms = 0;
        let mut over = false;
        for step in &steps {
            apply(&mut bench, step, &mut now_ms);
            let acts = std::mem::take(&mut bench.acts);
            prop_assert!(!over || acts.iter().all(|a| matches!(a, JobAct::Down(_) | JobAct::OutputLost(_) | JobAct::Emit(Event::SignalForwarded { .. }))), "after the end: {acts:?}");
            for act in &acts {
                if matches!(act, JobAct::Over { .. }) {
                    prop_assert!(!over);
                    over = true;
                    prop_assert!(bench.job.table.hosts.iter().all(|h| !h.joined || h.lost || h.ended));
                    prop_assert_eq!(bench.job.table.alive, 0);
                }
            }
            let alive = bench.job.table.procs().filter(|p| p.ended.is_none() && !p.lost).count();
            prop_assert_eq!(alive, bench.job.table.alive);
        }
        // However far it came, it ends as soon as it must and every host confirms.
        bench.job.fail(Cause::Timeout { limit_ms: 1 });
        bench.job.tick(now_ms);
        bench.job.tick(now_ms + GRACE_MS + 10_000);
        for host in 0..4 {
            bench.ended(host);
        }
        let overs = bench.acts.iter().filter(|a| matches!(a, JobAct::Over { .. })).count();
        prop_assert_eq!(overs + usize::from(over), 1);
    }
}
