//! The tree with real agents: deep, with a head that comes late, and with inner agents that die.

use muster_cluster::{Cluster, Cmd, Host, Output, PATIENCE, Proc, cluster_or_skip, eventually, workspace};

const HOSTS: usize = 9;
/// The agents' port as `/proc/net/tcp` writes it.
const AGENT_PORT_HEX: &str = ":08AE";

fn narrow(cluster: &Cluster) -> Cmd {
    cluster.muster(&cluster.host_list(1)).expect("built").args(["--radix", "2", "--connect-timeout", "60s"])
}

fn ranks_of(output: &Output) -> Vec<String> {
    let mut lines: Vec<_> = output.stdout_text().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn every_rank() -> Vec<String> {
    (0..HOSTS).map(|i| format!("[{i}] h{i}")).collect()
}

/// How many agents a host is connected to as the side that dialled, control and bulk connections alike.
fn agents_dialled(host: &Host) -> usize {
    let to_agent =
        |line: &&String| line.split_whitespace().nth(2).is_some_and(|remote| remote.ends_with(AGENT_PORT_HEX));
    host.connections().iter().filter(to_agent).count()
}

/// Starts ranks that sleep, and returns the job and the hosts whose agents are parents of others.
fn sleeping_tree(cluster: &Cluster) -> (Proc, Vec<usize>) {
    let job = cluster.launcher().spawn(narrow(cluster).args(["sh", "-c", "echo up; exec sleep 1000"])).expect("spawn");
    job.wait_for_count("up", HOSTS).expect("all ranks run");
    let inner: Vec<_> = (0..HOSTS).filter(|i| agents_dialled(&cluster.host(*i)) > 0).collect();
    (job, inner)
}

fn assert_serves(cluster: &Cluster) {
    let output =
        cluster.launcher().run(narrow(cluster).args(["-l", "hostname"])).and_then(Output::ok).expect("a job runs");
    assert_eq!(ranks_of(&output), every_rank());
}

#[test]
fn radix_2_over_9_hosts_makes_a_deep_tree_that_works() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(HOSTS));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let (job, inner) = sleeping_tree(&cluster);
    // Two branches of four and five hosts; each head has at most two branches again.
    let of_launcher = agents_dialled(&cluster.launcher());
    assert!((2..=4).contains(&of_launcher), "the launcher holds {of_launcher} connections to agents");
    assert!(inner.len() >= 4, "9 hosts with 2 children at most need 4 parents or more: {inner:?}");
    for index in &inner {
        let children = agents_dialled(&cluster.host(*index));
        assert!(children <= 4, "h{index} holds {children} connections to agents below it");
    }
    job.signal(nix::sys::signal::Signal::SIGTERM).expect("signal");
    assert_eq!(job.finish(PATIENCE).expect("it ends").status.code(), Some(143));
    assert_serves(&cluster);

    let fences = workspace::test_program("plain", "fence_bench").expect("built");
    let output = cluster.launcher().run(narrow(&cluster).arg(fences).args(["5", "300", "4"])).and_then(Output::ok);
    assert_eq!(output.expect("fences").stdout_text().matches("round ").count(), 4);

    // Output of every host takes its way through the tree.
    let writer = workspace::test_program("plain", "writer").expect("built");
    let output =
        cluster.launcher().run(narrow(&cluster).arg(writer).arg("1280000")).and_then(Output::ok).expect("output");
    for rank in 0..HOSTS {
        let wanted = format!("{rank} ");
        let text = output.stdout_text();
        let numbers: Vec<usize> =
            text.lines().filter_map(|l| l.strip_prefix(&wanted)?.split(' ').next()?.parse().ok()).collect();
        assert_eq!(numbers, (0..10_000).collect::<Vec<_>>(), "lines of rank {rank}");
    }
}

#[test]
fn an_agent_that_comes_late_holds_up_nobody_else_and_gets_its_ranks() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(HOSTS));
    // The first host of the first branch would be everybody's parent there.
    let early: Vec<_> = (1..HOSTS).map(|i| cluster.start_agent(i, &[]).expect("agent")).collect();
    let job = cluster.launcher().spawn(narrow(&cluster).args(["-l", "hostname"])).expect("spawn");
    job.wait_for("muster: waiting for 1 host: h0: ", PATIENCE).expect("all others are there and h0 is named");
    let late = cluster.start_agent(0, &[]).expect("agent");
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("the job runs");
    assert_eq!(ranks_of(&output), every_rank());
    assert_serves(&cluster);
    for agent in early.iter().chain([&late]) {
        assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
    }
}

#[test]
fn a_slow_parent_does_not_cost_the_job() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(HOSTS));
    let agents = cluster.start_agents(&[]).expect("agents");
    let (job, inner) = sleeping_tree(&cluster);
    let slow = inner[0];
    // Shorter than the silence that kills, longer than anything that is not silence.
    agents[slow].signal(nix::sys::signal::Signal::SIGSTOP).expect("stop");
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    agents[slow].signal(nix::sys::signal::Signal::SIGCONT).expect("continue");
    job.signal(nix::sys::signal::Signal::SIGTERM).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!((output.status.code(), output.verdict().as_str()), (Some(143), "muster: ended by SIGTERM (signal 15)"));
    assert_serves(&cluster);
}

#[test]
fn the_death_of_an_inner_agent_ends_the_job_and_leaves_no_orphan() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(HOSTS));
    let mut agents = cluster.start_agents(&[]).expect("agents");
    let (job, inner) = sleeping_tree(&cluster);
    // The one with most below it: a head of the launcher's own branches.
    let victim = *inner.iter().max_by_key(|i| agents_dialled(&cluster.host(**i))).expect("a deep tree has parents");
    agents[victim].kill();
    let output = job.finish(PATIENCE).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains(&format!("muster: host h{victim} was lost: ")), "{stderr}");
    assert_eq!(output.status.code(), Some(241), "{stderr}");
    // Whoever is not called lost has confirmed that nothing is left, orphans too.
    for index in (0..HOSTS).filter(|i| !stderr.contains(&format!("host h{i} is lost"))) {
        assert_eq!(cluster.host(index).ranks().expect("processes"), [], "h{index}: {stderr}");
    }
    for index in 0..HOSTS {
        cluster.host(index).wait_until_idle().expect("no rank is left");
    }
    agents[victim] = cluster.start_agent(victim, &[]).expect("a new agent");
    assert_serves(&cluster);
}

#[test]
fn an_inner_agent_that_dies_while_hosts_are_missing_is_missing_too_until_it_is_back() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(HOSTS));
    let mut agents: Vec<_> = (0..HOSTS - 1).map(|i| cluster.start_agent(i, &[]).expect("agent")).collect();
    let job = cluster.launcher().spawn(narrow(&cluster).args(["-l", "hostname"])).expect("spawn");
    job.wait_for("muster: waiting for 1 host: h8: ", PATIENCE).expect("the others have joined");
    let parents = || (0..HOSTS - 1).filter(|i| agents_dialled(&cluster.host(*i)) > 0).collect::<Vec<_>>();
    let victim = eventually(parents, |found| !found.is_empty()).expect("a deep tree has parents")[0];
    agents[victim].kill();
    // Nothing runs yet, so nothing is lost with it: it is waited for like the one that has never come.
    job.wait_for("muster: waiting for 2 hosts: ", PATIENCE).expect("both are named");
    agents[victim] = cluster.start_agent(victim, &[]).expect("a new agent");
    agents.push(cluster.start_agent(HOSTS - 1, &[]).expect("the missing one"));
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("the job runs");
    assert_eq!(ranks_of(&output), every_rank());
    assert_serves(&cluster);
}
