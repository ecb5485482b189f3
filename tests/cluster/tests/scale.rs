//! Many hosts, many agents, large fences.

use std::time::Duration;

use muster_cluster::{Cluster, LiteCluster, Memory, Output, cluster_or_skip, workspace};

/// Ranks of an MPI never sleep while they wait: hundreds of them on a few cores take their time.
const LONG: Duration = Duration::from_secs(240);

#[test]
fn large_64_hosts_with_128_ranks_reduce() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(64));
    let agents = cluster.start_agents(&[]).expect("agents");
    let program = workspace::test_program("mpich5", "init_allreduce").expect("built");
    let cmd = cluster.muster(&cluster.host_list(2)).expect("built").arg(program).timeout(LONG);
    let output = cluster.launcher().run(cmd).and_then(Output::ok).expect("the job runs");
    let text = output.stdout_text();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let mut wanted: Vec<_> = (0..128).map(|rank| format!("rank {rank} of 128 on h{}", rank / 2)).collect();
    wanted.push("allreduce of 128 ranks: ok".to_owned());
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
    for (index, agent) in agents.iter().enumerate() {
        assert_eq!(cluster.host(index).ranks().expect("processes"), []);
        assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
    }
}

#[test]
fn large_1000_agents_run_one_rank_each() {
    const AGENTS: usize = 1000;
    let cluster = cluster_or_skip!(LiteCluster::builder(AGENTS));
    let agents = cluster.start_agents(&[]).expect("agents");
    let output = cluster.host().run(cluster.muster().expect("built").arg("true").timeout(LONG)).expect("it ends");
    assert_eq!((output.status.code(), output.verdict().as_str()), (Some(0), ""));

    let cmd =
        cluster.muster().expect("built").args(["-l", "sh", "-c", "echo $MUSTER_WORLD_SIZE $MUSTER_HOST"]).timeout(LONG);
    let output = cluster.host().run(cmd).and_then(Output::ok).expect("the job runs");
    let text = output.stdout_text();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let mut wanted: Vec<_> = (0..AGENTS).map(|i| format!("[{i}] 1000 n{i}")).collect();
    lines.sort();
    wanted.sort();
    assert_eq!(lines, wanted);

    // Of all agents the one that uses most: inner ones have more to do than others.
    let peak = agents.iter().map(|a| Memory::of(a.pid()).expect("it runs").peak_kib).max();
    assert!(peak.is_some_and(|kib| kib <= 16 * 1024), "an agent took {peak:?} KiB");
    assert_eq!(cluster.host().ranks().expect("processes"), []);
}

#[test]
fn fences_with_large_values_reach_32_hosts() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(32));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let program = workspace::test_program("plain", "fence_bench").expect("built");
    for radix in ["32", "3"] {
        let job = cluster.muster(&cluster.host_list(2)).expect("built").args(["--radix", radix]).arg(&program);
        // Every rank checks every value of every other one.
        let output = cluster.launcher().run(job.args(["10", "1000", "3"])).and_then(Output::ok).expect("the job runs");
        assert_eq!(
            output.stdout_text().matches(" ranks 64 keys 10 bytes 1000 ").count(),
            3,
            "{}",
            output.stdout_text()
        );
    }
}
