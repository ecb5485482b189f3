//! `muster exec` when something dies: the command ends at once, by name, and leaves nothing anywhere.

use muster_cluster::{Cluster, Cmd, Family, Output, PATIENCE, Proc, cluster_or_skip, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const FAMILIES: [Family; 5] = [Family::OpenMpi4, Family::OpenMpi5, Family::Mpich4, Family::Mpich5, Family::Intel];

/// Three hosts with a command of six ranks that are up and wait.
struct Rig {
    job: Proc,
    agents: Vec<Proc>,
    cluster: Cluster,
}

macro_rules! rig {
    ($family:expr) => {{
        let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
        let agents = cluster.start_agents(&[]).expect("agents");
        let cmd = cluster.muster_exec($family, &cluster.host_list(2)).expect("built").arg("--");
        let cmd = cmd.arg($family.launcher()).arg($family.program("init_pause").expect("built"));
        let job = cluster.launcher().spawn(cmd).expect("spawn");
        job.wait_for("all 6 ranks are up", PATIENCE).expect("it runs");
        Rig { job, agents, cluster }
    }};
}

impl Rig {
    fn wait_until_idle(&self, hosts: &[usize]) {
        for host in hosts {
            self.cluster.host(*host).wait_until_idle().expect("nothing is left");
        }
    }

    fn processes_here(&self) -> Vec<String> {
        self.cluster.launcher().processes().expect("processes").into_iter().map(|p| p.command).collect()
    }
}

/// The end of a command whose host h1 is gone.
fn assert_lost(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(241), "{}", output.stderr_text());
    let wanted = format!("muster: host h1 was lost: {why}");
    assert!(output.verdict().lines().any(|line| line == wanted), "{}", output.stderr_text());
}

#[test]
fn c13_a_host_that_is_cut_off_ends_the_command_of_every_family() {
    for family in FAMILIES {
        let rig = rig!(family);
        rig.cluster.cut(1).expect("cut");
        let Rig { job, agents, cluster } = rig;
        assert_lost(
            &job.finish(PATIENCE).expect("it ends"),
            "no sign of life for 5 s; is the host down, or the network cut?",
        );
        // The host that was cut off ends its processes, too: its agent hears nothing more.
        for host in 0..3 {
            cluster.host(host).wait_until_idle().expect("nothing is left");
        }
        assert!(agents.iter().all(|agent| agent.try_wait().expect("status").is_none()), "{family:?}");
        eventually(|| cluster.launcher().processes().expect("processes"), Vec::is_empty).expect("nothing is left here");
    }
}

#[test]
fn a_host_whose_daemon_another_daemon_has_started_ends_the_command_as_well() {
    for family in [Family::OpenMpi4, Family::OpenMpi5, Family::Intel] {
        let cluster = cluster_or_skip!(Cluster::builder().hosts(6));
        let agents = cluster.start_agents(&[]).expect("agents");
        let cmd = family.radix_2(cluster.muster_exec(family, &cluster.host_list(2)).expect("built").arg("--"));
        let cmd = cmd.arg(family.launcher()).arg(family.program("init_pause").expect("built"));
        let job = cluster.launcher().spawn(cmd).expect("spawn");
        job.wait_for("all 12 ranks are up", PATIENCE).expect("it runs");
        let by_worker = |agent: &Proc| agent.stderr_so_far().contains("remote shell begins from=\"h");
        let deep = agents.iter().position(by_worker).expect("one was started by a worker");
        cluster.cut(deep).expect("cut");
        let output = job.finish(PATIENCE).expect("it ends");
        assert_eq!(output.status.code(), Some(241), "{family:?}: {}", output.stderr_text());
        assert!(output.verdict().contains(&format!("muster: host h{deep} was lost: ")), "{}", output.stderr_text());
        for host in 0..6 {
            cluster.host(host).wait_until_idle().expect("nothing is left");
        }
    }
}

#[test]
fn a_command_that_asks_for_a_host_that_is_gone_does_not_wait_for_it() {
    for family in FAMILIES {
        let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
        let agents = cluster.start_agents(&[]).expect("agents");
        let mark = cluster.shared_dir().join("go");
        let script = format!(
            "echo ready; while [ ! -e {} ]; do sleep 0.05; done; exec {} {}",
            mark.display(),
            family.launcher().display(),
            family.program("init_pause").expect("built").display()
        );
        let cmd = cluster.muster_exec(family, "h0:2,h1:2").expect("built").args(["--", "sh", "-c", &script]);
        let job = cluster.launcher().spawn(cmd).expect("spawn");
        job.wait_for("ready", PATIENCE).expect("it runs");
        agents[1].signal(Signal::SIGKILL).expect("signal");
        job.wait_for("muster: host h1, on which this launcher has started nothing itself, is lost: ", PATIENCE)
            .expect("it is told");
        std::fs::write(&mark, "").expect("write");
        let output = job.finish(PATIENCE).expect("it ends");
        assert_eq!(output.status.code(), Some(241), "{family:?}: {}", output.stderr_text());
        assert!(output.verdict().contains("host h1 was lost: its agent is not reached"), "{}", output.stderr_text());
    }
}

#[test]
fn c13_an_agent_that_is_killed_ends_the_command_of_every_family() {
    for family in FAMILIES {
        let rig = rig!(family);
        rig.agents[1].signal(Signal::SIGKILL).expect("signal");
        let Rig { job, agents, cluster } = rig;
        let output = job.finish(PATIENCE).expect("it ends");
        assert_eq!(output.status.code(), Some(241), "{family:?}: {}", output.stderr_text());
        assert!(output.verdict().contains("muster: host h1 was lost: "), "{family:?}: {}", output.stderr_text());
        for host in [0, 1, 2] {
            cluster.host(host).wait_until_idle().expect("nothing is left");
        }
        assert!([0, 2].iter().all(|i| agents[*i].try_wait().expect("status").is_none()));
    }
}

#[test]
fn c13_a_launcher_of_any_family_that_is_killed_leaves_nothing() {
    for family in FAMILIES {
        let rig = rig!(family);
        let name = family.launcher().file_name().expect("name").to_string_lossy().into_owned();
        let processes = rig.cluster.launcher().processes().expect("processes");
        // Open MPI 5's mpirun becomes prterun.
        let is_it = |command: &str| {
            let first = command.split(' ').next().unwrap_or_default();
            first.ends_with(&name) || first.ends_with("prterun")
        };
        let victim = processes.iter().find(|p| is_it(&p.command)).unwrap_or_else(|| panic!("{processes:?}"));
        kill(Pid::from_raw(victim.pid), Signal::SIGKILL).expect("kill");
        rig.wait_until_idle(&[0, 1, 2]);
        let Rig { job, cluster, .. } = rig;
        let output = job.finish(PATIENCE).expect("it ends");
        assert_eq!(output.status.code(), Some(137), "{family:?}: {}", output.stderr_text());
        assert_eq!(output.verdict(), "muster: the command was killed by SIGKILL (signal 9)", "{family:?}");
        eventually(|| cluster.launcher().processes().expect("processes"), Vec::is_empty).expect("nothing is left here");
    }
}

#[test]
fn daemons_that_would_leave_their_remote_shell_end_with_it() {
    for (family, variable) in
        [(Family::OpenMpi4, "OMPI_MCA_plm_rsh_no_tree_spawn"), (Family::OpenMpi5, "PRTE_MCA_plm_ssh_no_tree_spawn")]
    {
        let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
        let _agents = cluster.start_agents(&[]).expect("agents");
        let cmd = cluster.muster_exec(family, &cluster.host_list(2)).expect("built").env(variable, "1").arg("--");
        let cmd = cmd.arg(family.launcher()).arg(family.program("init_pause").expect("built"));
        let job = cluster.launcher().spawn(cmd).expect("spawn");
        job.wait_for("all 6 ranks are up", PATIENCE).expect("it runs");
        job.signal(Signal::SIGKILL).expect("signal");
        job.wait(PATIENCE).expect("it is gone");
        for host in 0..3 {
            cluster.host(host).wait_until_idle().expect("nothing is left");
        }
    }
}

#[test]
fn c13_muster_itself_killed_leaves_nothing_on_any_host() {
    for family in FAMILIES {
        let rig = rig!(family);
        rig.job.signal(Signal::SIGKILL).expect("signal");
        rig.job.wait(PATIENCE).expect("it is gone");
        rig.wait_until_idle(&[0, 1, 2]);
        eventually(|| rig.processes_here(), Vec::is_empty).expect("nothing is left here");
        assert!(rig.agents.iter().all(|agent| agent.try_wait().expect("status").is_none()), "{family:?}");
    }
}

#[test]
fn the_first_signal_is_the_commands_and_the_second_ends_everything() {
    for (family, signal) in [(Family::OpenMpi4, Signal::SIGINT), (Family::Mpich5, Signal::SIGTERM)] {
        // One is enough for a launcher that passes it on.
        let rig = rig!(family);
        rig.job.signal(signal).expect("signal");
        rig.wait_until_idle(&[0, 1, 2]);
        let output = rig.job.finish(PATIENCE).expect("it ends");
        assert_eq!(output.status.code(), Some(128 + signal as i32), "{}", output.stderr_text());

        let rig = rig!(family);
        rig.job.signal(signal).expect("signal");
        rig.job.signal(signal).expect("signal");
        rig.wait_until_idle(&[0, 1, 2]);
        let output = rig.job.finish(PATIENCE).expect("it ends");
        assert_eq!(output.status.code(), Some(128 + signal as i32), "{}", output.stderr_text());
        assert!(output.verdict().starts_with("muster: ended by "), "{}", output.verdict());
    }
}

/// A command that runs until its time is over, or its second attempt does.
#[test]
fn a_command_is_started_again_on_the_hosts_that_are_left() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let agents = cluster.start_agents(&[]).expect("agents");
    let family = Family::Mpich5;
    let exec = |hosts: &str, ranks: &str, options: &[&str], script: &str| {
        let cmd = cluster.muster_exec(family, hosts).expect("built").args(options).arg("--");
        let cmd = cmd.arg(family.launcher()).args(["-n", ranks]);
        cmd.args(["sh", "-c", script])
    };
    let mark = cluster.shared_dir().join("mark");
    let script = format!("echo up; [ -e {} ] || exec sleep 1000", mark.display());
    let job: Cmd = exec("h0:2,h1:2,h2:2", "4", &["--max-restarts", "2"], &script);
    let job = cluster.launcher().spawn(job).expect("spawn");
    job.wait_for_count("up\n", 4).expect("it runs");
    std::fs::write(&mark, "").expect("write");
    // One on which it runs: with its two neighbours there is room for four ranks.
    cluster.cut(1).expect("cut");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr_text());
    let told = "muster: host h1 was lost: no sign of life for 5 s; is the host down, or the network cut?; starting the command \
                again on 2 hosts (restart 1 of 2)";
    assert!(output.verdict().lines().any(|line| line == told), "{}", output.stderr_text());
    assert_eq!(output.stdout_text().matches("up\n").count(), 8, "four ranks, twice");

    // With what is left now, six ranks cannot be.
    cluster.heal(1).expect("heal");
    std::fs::remove_file(&mark).expect("remove");
    let job = cluster.launcher().spawn(exec("h0:2,h1:2,h2:2", "6", &["--max-restarts", "2"], &script)).expect("spawn");
    job.wait_for_count("up\n", 6).expect("it runs");
    agents[2].signal(Signal::SIGKILL).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(241), "{}", output.stderr_text());
    assert!(output.verdict().contains("the hosts that are left are not enough"), "{}", output.verdict());

    // A command that fails by itself is started again as often as was said.
    let failing = exec("h0:2,h1:2", "2", &["--max-restarts", "2"], "echo up; exit 3");
    let output = cluster.launcher().run(failing).expect("it ends");
    assert_eq!(output.stdout_text().matches("up\n").count(), 6, "{}", output.stderr_text());
    assert_ne!(output.status.code(), Some(0));
}
