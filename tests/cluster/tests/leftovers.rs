//! Nothing of a job stays behind: processes, sockets, files.

use muster_cluster::{Cluster, Leftover, PATIENCE, Proc, cluster_or_skip, eventually, workspace};
use nix::sys::signal::Signal;

/// What can stay behind on the hosts and at the launcher.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: Vec<String>,
    leftovers: Vec<Leftover>,
    connections: Vec<String>,
    agent_descriptors: Vec<usize>,
}

fn traces(cluster: &Cluster, agents: &[Proc]) -> Traces {
    let hosts: Vec<_> = (0..cluster.len()).map(|i| cluster.host(i)).chain([cluster.launcher()]).collect();
    let descriptors = |agent: &Proc| std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).map_or(0, Iterator::count);
    Traces {
        processes: hosts.iter().flat_map(|h| h.processes().expect("processes")).map(|p| p.command).collect(),
        leftovers: hosts.iter().flat_map(|h| h.leftovers().expect("leftovers")).collect(),
        connections: hosts.iter().flat_map(|h| h.connections()).collect(),
        agent_descriptors: agents.iter().map(descriptors).collect(),
    }
}

/// Waits until there is no trace of the job. Processes must be gone at once, connections may take a moment to close.
fn assert_without_traces(cluster: &Cluster, agents: &[Proc], before: &Traces, what: &str) {
    assert_eq!(traces(cluster, agents).processes, before.processes, "{what}: processes are left");
    let seen = eventually(|| traces(cluster, agents), |now| now == before);
    seen.unwrap_or_else(|error| panic!("{what}: {error}\nbefore: {before:#?}"));
}

fn plain(name: &str) -> std::path::PathBuf {
    workspace::test_program("plain", name).expect("built")
}

#[test]
fn nothing_stays_behind_whatever_a_job_does() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let agents = cluster.start_agents(&[]).expect("agents");
    let muster = || cluster.muster(&cluster.host_list(2)).expect("built").args(["--radix", "2"]);
    let run =
        |what: &str, job: muster_cluster::Cmd| cluster.launcher().run(job).unwrap_or_else(|e| panic!("{what}: {e:#}"));
    // The first job makes the agents do once what they do only once.
    run("warm-up", muster().arg("true")).ok().expect("it runs");
    let before = eventually(|| traces(&cluster, &agents), |now| now.connections.is_empty()).expect("connections close");
    assert_eq!(before.leftovers, []);

    let fences = run("fences", muster().arg(plain("fence_bench")).args(["4", "100", "3"]));
    fences.ok().expect("fences");
    assert_without_traces(&cluster, &agents, &before, "fences");

    let failed =
        run("failure", muster().args(["sh", "-c", "sleep 1000 & [ $MUSTER_RANK != 4 ] || exit 9; exec sleep 1000"]));
    assert_eq!(failed.status.code(), Some(9));
    assert_without_traces(&cluster, &agents, &before, "failure");

    let daemons = run("daemons", muster().arg(plain("double_fork")).arg("leave")).ok().expect("daemons");
    assert_eq!(daemons.stdout_text().matches("daemon ").count(), 6);
    assert_without_traces(&cluster, &agents, &before, "daemons of ranks that have ended");

    let output = run("output", muster().arg(plain("writer")).arg("3000000")).ok().expect("output");
    assert_eq!(output.stdout.len(), 18_000_000);
    assert_without_traces(&cluster, &agents, &before, "output");

    let missing = run("missing", muster().arg("/no/such/program"));
    assert_eq!(missing.status.code(), Some(127));
    assert_without_traces(&cluster, &agents, &before, "a missing program");

    let mpi = workspace::test_program("mpich4", "init_allreduce").expect("built");
    let aborted = workspace::test_program("mpich4", "abort7").expect("built");
    run("mpi", muster().arg(mpi)).ok().expect("mpi");
    assert_eq!(run("abort", muster().arg(aborted)).status.code(), Some(7));
    assert_eq!(traces(&cluster, &agents).processes, before.processes, "after MPI jobs processes are left");

    for agent in &agents {
        assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
    }
}

#[test]
fn descendants_that_resist_are_killed_hard() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let before = traces(&cluster, &agents).processes;
    let muster = || cluster.muster(&cluster.host_list(2)).expect("built").args(["--grace", "500ms"]);

    // Daemons of ranks that live: forked twice, in sessions of their own, ignoring SIGTERM.
    let job = cluster.launcher().spawn(muster().arg(plain("double_fork")).arg("stay")).expect("spawn");
    job.wait_for_count("daemon ", 4).expect("all daemons are there");
    let alive: Vec<_> = (0..2).map(|i| cluster.host(i).ranks().expect("processes").len()).collect();
    assert_eq!(alive, [4, 4], "two ranks and two daemons on each host");
    job.signal(Signal::SIGTERM).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!((output.status.code(), output.verdict().as_str()), (Some(143), "muster: ended by SIGTERM (signal 15)"));
    assert_eq!(traces(&cluster, &agents).processes, before);

    // Ranks that ignore SIGTERM: the grace is over, then they are killed.
    let job = cluster.launcher().spawn(muster().arg(plain("sleeper"))).expect("spawn");
    job.wait_for_count("ready", 4).expect("all ranks run");
    job.signal(Signal::SIGTERM).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(143), "{}", output.stderr_text());
    assert_eq!(traces(&cluster, &agents).processes, before);

    // Ranks that end politely with a status of their own do not change the first cause.
    let job = cluster.launcher().spawn(muster().arg(plain("sleeper")).arg("3")).expect("spawn");
    job.wait_for_count("ready", 4).expect("all ranks run");
    job.signal(Signal::SIGTERM).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(143), "{}", output.stderr_text());
    assert_eq!(traces(&cluster, &agents).processes, before);
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let before = traces(&cluster, &agents).processes;
    // An hour of grace: only the second signal can end this.
    let cmd = cluster.muster(&cluster.host_list(2)).expect("built").args(["--grace", "1h"]).arg(plain("sleeper"));
    let job = cluster.launcher().spawn(cmd).expect("spawn");
    job.wait_for_count("ready", 4).expect("all ranks run");
    job.signal(Signal::SIGINT).expect("signal");
    // A signal that is still pending is one with the first.
    eventually(|| pending(job.pid()), |mask| *mask == 0).expect("the launcher takes the first signal");
    job.signal(Signal::SIGINT).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", output.stderr_text());
    assert_eq!(traces(&cluster, &agents).processes, before);
}

/// Signals that a process has been sent and has not yet taken.
fn pending(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
