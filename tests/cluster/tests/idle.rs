//! What an agent costs its host while it has nothing to do, and when several launchers want it.

use std::time::Duration;

use muster_cluster::{Cluster, Memory, Output, PATIENCE, Proc, cluster_or_skip, eventually, wakeups};
use nix::sys::signal::Signal;

const RSS_MAX_KIB: u64 = 8 * 1024;
const WAKEUPS_PER_SECOND_MAX: u64 = 5;
const WINDOW: Duration = Duration::from_secs(5);

fn assert_cheap(agents: &[Proc], when: &str) {
    let count = || agents.iter().map(|a| wakeups(a.pid()).expect("it runs")).collect::<Vec<_>>();
    let before = count();
    std::thread::sleep(WINDOW);
    let after = count();
    for (agent, (before, after)) in agents.iter().zip(before.into_iter().zip(after)) {
        let allowed = WAKEUPS_PER_SECOND_MAX * WINDOW.as_secs();
        assert!(after - before <= allowed, "{when}: {} wake-ups in {WINDOW:?}", after - before);
        let memory = Memory::of(agent.pid()).expect("it runs");
        assert!(memory.now_kib <= RSS_MAX_KIB, "{when}: {memory:?}");
    }
}

#[test]
fn an_idle_agent_costs_next_to_nothing() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    assert_cheap(&agents, "before the first job");

    let cmd = cluster.muster(&cluster.host_list(2)).expect("built").args(["sh", "-c", "echo up; exec sleep 1000"]);
    let job = cluster.launcher().spawn(cmd).expect("spawn");
    job.wait_for_count("up", 4).expect("all ranks run");
    assert_cheap(&agents, "while ranks sleep");
    job.signal(Signal::SIGTERM).expect("signal");
    job.wait(PATIENCE).expect("it ends");
    assert_cheap(&agents, "after a job");
}

#[test]
fn two_launchers_at_once_do_not_disturb_each_other() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let muster = || cluster.muster(&cluster.host_list(1)).expect("built");
    let first = muster().args(["--job", "first", "sh", "-c", "echo up; exec sleep 1000"]);
    let first = cluster.launcher().spawn(first).expect("spawn");
    first.wait_for_count("up", 2).expect("all ranks run");

    let impatient = muster().args(["--job", "second", "--connect-timeout", "2s", "hostname"]);
    let output = cluster.launcher().run(impatient).expect("it ends");
    let stderr = output.stderr_text();
    for host in ["h0", "h1"] {
        assert!(
            stderr.contains(&format!("{host}: connected, but its agent is busy with job \"first\" of launcher")),
            "{stderr}"
        );
    }
    assert_eq!((output.status.code(), output.stdout_text().as_str()), (Some(240), ""), "{stderr}");

    let patient = cluster.launcher().spawn(muster().args(["--job", "second", "-l", "hostname"])).expect("spawn");
    patient.wait_for("busy with job \"first\"", PATIENCE).expect("it says what it waits for");
    assert!(first.try_wait().expect("status").is_none(), "the first job is not disturbed");
    for index in 0..2 {
        let commands: Vec<_> = cluster.host(index).ranks().expect("processes").into_iter().map(|p| p.command).collect();
        assert_eq!(commands, ["sleep 1000"]);
    }
    first.signal(Signal::SIGTERM).expect("signal");
    assert_eq!(first.wait(PATIENCE).expect("it ends").code(), Some(143));
    let output = patient.finish(PATIENCE).and_then(Output::ok).expect("its turn comes");
    assert_eq!(output.stdout_text().lines().count(), 2);
}

/// Every rank writes down which job begins and ends on its host.
const DIARY: &str = "echo $MUSTER_JOB >>\"$0\"; sleep 0.05; echo $MUSTER_JOB >>\"$0\"";

/// Each gets some of the hosts at first; neither may keep them while it waits for those of the other.
#[test]
fn of_launchers_that_start_at_once_one_waits_for_the_other() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(4));
    let agents = cluster.start_agents(&[]).expect("agents");
    for round in 0..10 {
        let diary = cluster.shared_dir().join(format!("diary{round}"));
        let start = |job: &str| {
            let cmd = cluster.muster("h0,h1,h2,h3").expect("built").args(["--job", job, "sh", "-c", DIARY]);
            cluster.launcher().spawn(cmd.arg(&diary)).expect("spawn")
        };
        let both = [start("a"), start("b")];
        for job in both {
            let output = job.finish(PATIENCE).and_then(Output::ok);
            output.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        }
        let diary = std::fs::read_to_string(&diary).expect("diary");
        let mut jobs: Vec<_> = diary.lines().collect();
        assert_eq!(jobs.len(), 16, "round {round}: {diary}");
        jobs.dedup();
        assert_eq!(jobs.len(), 2, "round {round}: ranks of both jobs ran at the same time: {diary}");
    }
    for agent in &agents {
        assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
    }
    let connections = || (0..4).flat_map(|i| cluster.host(i).connections()).collect::<Vec<_>>();
    eventually(connections, Vec::is_empty).expect("no connection is left");
}
