//! What is killed or cut off while ranks run: the exit status, the message, and that nothing is left anywhere.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use muster_cluster::{Cluster, Host, Output, PATIENCE, Proc, cluster_or_skip, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every rank says "up" and becomes `sleep 1000<rank>`, so that it can be told from others by its command line.
const SLEEP: &str = "echo up; exec sleep 1000$MUSTER_RANK";

/// Starts sleeping ranks and waits until all of them run.
fn sleeping_job(cluster: &Cluster, slots: usize, options: &[&str]) -> Proc {
    let cmd = cluster.muster(&cluster.host_list(slots)).expect("built").args(options).args(["sh", "-c", SLEEP]);
    let job = cluster.launcher().spawn(cmd).expect("spawn");
    job.wait_for_count("up", cluster.len() * slots).expect("all ranks run");
    eventually(
        || (0..cluster.len()).map(|i| sleepers(&cluster.host(i))).sum::<usize>(),
        |n| *n == cluster.len() * slots,
    )
    .expect("all ranks sleep");
    job
}

fn sleepers(host: &Host) -> usize {
    host.ranks().expect("processes").iter().filter(|p| p.command.starts_with("sleep 1000")).count()
}

/// The agents, still the same processes, run another job without an error.
fn assert_serves_the_next_job(cluster: &Cluster, agents: &[&Proc]) {
    let cmd = cluster.muster(&cluster.host_list(1)).expect("built").args(["-l", "hostname"]);
    let output = cluster.launcher().run(cmd).and_then(Output::ok).expect("the next job runs");
    let mut lines: Vec<_> = output.stdout_text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, (0..cluster.len()).map(|i| format!("[{i}] h{i}")).collect::<Vec<_>>());
    for agent in agents {
        assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
    }
}

fn assert_all_idle(cluster: &Cluster) {
    for index in 0..cluster.len() {
        cluster.host(index).wait_until_idle().expect("no rank is left");
    }
}

#[test]
fn c13_a_killed_rank_ends_the_job_and_is_named() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 2, &[]);
    let victims = cluster.host(1).ranks().expect("processes");
    let victim = victims.iter().find(|p| p.command == "sleep 10003").expect("rank 3");
    kill(Pid::from_raw(victim.pid), Signal::SIGKILL).expect("kill");

    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.verdict(), "muster: rank 3 on h1 was killed by SIGKILL (signal 9)");
    assert_eq!(output.status.code(), Some(137));
    // Not "soon": when the launcher says that the job is over, it is.
    for index in 0..2 {
        assert_eq!(cluster.host(index).ranks().expect("processes"), []);
    }
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn c13_a_killed_agent_ends_the_job_and_takes_its_ranks_along() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let mut agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 2, &[]);
    agents[1].kill();
    // The kernel ends the ranks with it: nobody else could.
    cluster.host(1).wait_until_idle().expect("ranks end with their agent");

    let output = job.finish(PATIENCE).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("muster: host h1 was lost: "), "{stderr}");
    assert_eq!(output.status.code(), Some(241), "{stderr}");
    assert_all_idle(&cluster);

    agents[1] = cluster.start_agent(1, &[]).expect("a new agent");
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn c13_a_cut_host_is_lost_its_ranks_die_by_the_lease_and_its_agent_lives() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 2, &[]);
    cluster.cut(1).expect("cut");

    let output = job.finish(PATIENCE).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("muster: host h1 was lost: "), "{stderr}");
    assert_eq!(output.status.code(), Some(241), "{stderr}");
    assert_eq!(cluster.host(0).ranks().expect("processes"), []);

    // Nothing reaches it: that its ranks end is its own doing.
    cluster.host(1).wait_until_idle().expect("ranks end with their lease");
    cluster.heal(1).expect("heal");
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn c13_ranks_of_a_killed_launcher_end_with_their_lease() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 2, &[]);
    job.kill();
    assert_eq!(job.wait(PATIENCE).expect("status").signal(), Some(9));
    // A lease spares them for a while: a launcher's connection may come back.
    assert_eq!(sleepers(&cluster.host(0)) + sleepers(&cluster.host(1)), 4);
    assert_all_idle(&cluster);
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn ranks_of_a_launcher_that_is_killed_while_suspended_end_with_an_ordinary_lease() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let agents = cluster.start_agents(&[]).expect("agents");
    // Radix 2: one host hears of everything through another one.
    let job = sleeping_job(&cluster, 1, &["--radix", "2"]);
    job.signal(Signal::SIGTSTP).expect("suspend");
    let states = |host: &Host| host.ranks().expect("processes").iter().map(|p| p.state).collect::<Vec<_>>();
    eventually(|| (0..3).map(|i| states(&cluster.host(i))).collect::<Vec<_>>(), |seen| *seen == [['T'], ['T'], ['T']])
        .expect("all ranks stop");
    eventually(|| muster_cluster::process_state(job.pid()), |state| *state == Some('T')).expect("it stops");
    job.kill();
    // Suspended, they would have had a day.
    assert_all_idle(&cluster);
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn the_next_launcher_ends_the_ranks_of_a_killed_one() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 2, &[]);
    job.kill();
    // A lease takes 13 s: who connects within 8 s has not waited for it.
    let program = "ps -e -o args= | grep -c '[s]leep 1000' || true";
    let next =
        cluster.muster(&cluster.host_list(1)).expect("built").args(["--connect-timeout", "8s", "sh", "-c", program]);
    let output = cluster.launcher().run(next).and_then(Output::ok).expect("the next job runs");
    assert_eq!(output.stdout_text(), "0\n0\n", "no old rank is there any more when the new ones start");
    assert_all_idle(&cluster);
}

#[test]
fn c13_a_killed_host_is_lost_and_serves_again_when_it_is_back() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let mut agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 1, &[]);
    cluster.kill_host(2);
    let output = job.finish(PATIENCE).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("muster: host h2 was lost: "), "{stderr}");
    assert_eq!(output.status.code(), Some(241), "{stderr}");
    assert_all_idle(&cluster);

    drop(agents.pop());
    cluster.restart_host(2).expect("restart");
    agents.push(cluster.start_agent(2, &[]).expect("a new agent"));
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn a_host_that_loses_power_is_lost_without_a_word() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 1, &[]);
    cluster.power_off(1).expect("power off");
    let output = job.finish(PATIENCE).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("muster: host h1 was lost: "), "{stderr}");
    assert_eq!(output.status.code(), Some(241), "{stderr}");
    cluster.host(0).wait_until_idle().expect("no rank is left");
}

#[test]
fn a_host_that_is_only_slow_is_not_lost() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 1, &[]);
    // TCP tries again ever more seldom: after this the connection stays silent beyond the time at which a probe is sent.
    cluster.cut(1).expect("cut");
    std::thread::sleep(Duration::from_millis(2_500));
    cluster.heal(1).expect("heal");
    let victims = cluster.host(1).ranks().expect("processes");
    kill(Pid::from_raw(victims.first().expect("the rank still runs").pid), Signal::SIGKILL).expect("kill");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.verdict(), "muster: rank 1 on h1 was killed by SIGKILL (signal 9)");
    assert_eq!(output.status.code(), Some(137));
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn a_stopped_agent_is_lost_and_recovers() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let job = sleeping_job(&cluster, 1, &[]);
    agents[1].signal(Signal::SIGSTOP).expect("stop");
    let output = job.finish(PATIENCE).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("muster: host h1 was lost: "), "{stderr}");
    assert_eq!(output.status.code(), Some(241), "{stderr}");
    agents[1].signal(Signal::SIGCONT).expect("continue");
    cluster.host(1).wait_until_idle().expect("its ranks end now");
    assert_serves_the_next_job(&cluster, &agents.iter().collect::<Vec<_>>());
}

#[test]
fn a_launcher_that_is_stopped_too_long_has_no_ranks_left() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let agent = cluster.start_agent(0, &[]).expect("agent");
    let job = sleeping_job(&cluster, 2, &[]);
    job.signal(Signal::SIGSTOP).expect("stop");
    cluster.host(0).wait_until_idle().expect("ranks end with their lease");
    job.signal(Signal::SIGCONT).expect("continue");
    let output = job.finish(PATIENCE).expect("it ends");
    assert!(!output.status.success() && !output.stderr_text().is_empty(), "{output:?}");
    assert_serves_the_next_job(&cluster, &[&agent]);
}
