//! Agents that join their launcher instead of waiting to be dialled: nobody listens but the launcher.

use muster_cluster::{Cluster, Cmd, Output, PATIENCE, Proc, cluster_or_skip, workspace};

const LISTEN: [&str; 2] = ["--listen", "10.77.255.1:4001"];
const LAUNCHER: &str = "launcher:4001";

fn joiner(cluster: &Cluster, index: usize, key: &std::path::Path) -> Proc {
    let agent = Cmd::new(workspace::program("muster-agent").expect("built")).args(["--join", LAUNCHER, "--key-file"]);
    cluster.host(index).spawn(agent.arg(key).own_session()).expect("spawn")
}

fn sorted(output: &Output) -> Vec<String> {
    let mut lines: Vec<_> = output.stdout_text().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn agents_join_a_launcher_that_starts_after_or_before_them() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(4));
    let join = |index| joiner(&cluster, index, cluster.key_file());
    let mut agents = vec![join(0), join(1)];
    for agent in &agents {
        agent.wait_for("the launcher is not joined yet", PATIENCE).expect("it tries, and says why it does not succeed");
    }
    let program = workspace::test_program("mpich4", "init_allreduce").expect("built");
    let muster = || cluster.muster("h0:2,h1:2,h2:2,h3:2").expect("built").args(LISTEN);
    let job = cluster.launcher().spawn(muster().arg(&program)).expect("spawn");
    job.wait_for("muster: waiting for 2 hosts: h2: ", PATIENCE).expect("the first two are in");
    agents.extend([join(2), join(3)]);
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("the job runs");
    let ranks = (0..8).map(|rank| format!("rank {rank} of 8 on h{}", rank / 2));
    assert_eq!(sorted(&output), ["allreduce of 8 ranks: ok".to_owned()].into_iter().chain(ranks).collect::<Vec<_>>());
    assert_eq!(output.said(), "");

    // They stay, and join the next launcher on that port by themselves; a failure is told as ever.
    let failing =
        cluster.launcher().run(muster().args(["sh", "-c", "[ $MUSTER_RANK != 5 ] || exit 6; exec sleep 1000"]));
    let failing = failing.expect("it ends");
    assert_eq!(failing.verdict(), "muster: rank 5 on h2 exited with status 6");
    assert_eq!(failing.status.code(), Some(6));
    for (index, agent) in agents.iter().enumerate() {
        assert_eq!(cluster.host(index).ranks().expect("processes"), []);
        assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
    }
}

#[test]
fn an_agent_that_joins_with_another_key_is_refused() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let other = cluster.shared_dir().join("other.key");
    std::fs::write(&other, "a secret that the launcher does not have").expect("write");
    let _right = joiner(&cluster, 0, cluster.key_file());
    let wrong = joiner(&cluster, 1, &other);
    let mark = cluster.shared_dir().join("mark");
    let cmd = cluster.muster("h0,h1").expect("built").args(LISTEN).arg("touch").arg(&mark);
    let job = cluster.launcher().spawn(cmd).expect("spawn");
    wrong.wait_for("job key", PATIENCE).expect("it is told");
    job.wait_for("muster: waiting for 1 host: h1: ", PATIENCE).expect("the launcher still waits for the right one");
    assert!(!mark.exists(), "nothing was started");
    wrong.kill();
    let _second = joiner(&cluster, 1, cluster.key_file());
    job.finish(PATIENCE).and_then(Output::ok).expect("with the right key the job runs");
    assert!(mark.exists());
}

#[test]
fn an_agent_that_is_not_in_the_list_or_comes_second_is_told_so() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let key = cluster.key_file();
    let job = cluster.launcher().spawn(cluster.muster("h0,h1").expect("built").args(LISTEN).arg("hostname"));
    let job = job.expect("spawn");
    let stranger = joiner(&cluster, 2, key);
    stranger.wait_for("is not in the launcher's host list", PATIENCE).expect("the stranger is told");
    let _first = joiner(&cluster, 0, key);
    job.wait_for("muster: waiting for 1 host: h1: ", PATIENCE).expect("the first is in");
    let agent = Cmd::new(workspace::program("muster-agent").expect("built"));
    let agent = agent.args(["--join", LAUNCHER, "--name", "h0", "--key-file"]).arg(key).own_session();
    let double = cluster.host(1).spawn(agent).expect("spawn");
    double.wait_for("has been joined already by the agent on h0", PATIENCE).expect("the double is told");
    let _second = joiner(&cluster, 1, key);
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("the job runs with the right two");
    assert_eq!(sorted(&output), ["h0", "h1"]);
}
