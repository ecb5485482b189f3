//! What operators and clusters do to a job beside starting it: names that do not resolve, users without rights, ports that are
//! taken, statuses that decide about another try, lists of hosts that are not there.

use muster_cluster::pods::{OPEN_MPI, Pods, ranks, under_muster};
use muster_cluster::{Cluster, Cmd, Family, Output, PATIENCE, cluster_or_skip, workspace};
use nix::sys::signal::Signal;

const FAMILIES: [Family; 5] = [Family::OpenMpi4, Family::OpenMpi5, Family::Mpich4, Family::Mpich5, Family::Intel];
/// As in every pod.
const POD: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("K_MPI_JOB_ROLE", "launcher")];

fn built(program: &str) -> String {
    workspace::program(program).expect("built").display().to_string()
}

#[test]
fn c12_workers_that_find_no_address_for_the_launcher_work_under_muster_exec_with_every_mpi() {
    for family in FAMILIES {
        let pods =
            Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3))).with_a_launcher_that_nobody_finds();
        pods.write_hostfile_for(family);
        pods.route();
        pods.assert_all_ranks(pods.run(&under_muster("", &ranks(6, "init_allreduce", family)), &POD, family));
        // getent's status for what it does not find is 2.
        for (name, status) in [("pi-launcher", 2), ("pi-launcher.pi.tenant.svc", 2), (pods.workers[1].as_str(), 0)] {
            let asks = pods.in_pod(&pods.workers[0], &format!("getent hosts {name}"));
            let asks = pods.cluster.host(0).run(asks).expect("it ends");
            assert_eq!(asks.status.code(), Some(status), "{name}: {}", asks.stderr_text());
        }
    }
}

#[test]
fn c12_workers_that_find_no_address_for_the_launcher_work_with_open_mpi_and_another_ssh() {
    for family in [Family::OpenMpi4, Family::OpenMpi5] {
        let pods =
            Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3))).with_a_launcher_that_nobody_finds();
        pods.write_hostfile_for(family);
        let hosts = [("PRTE_MCA_prte_default_hostfile", "/etc/mpi/hostfile")];
        let settings: Vec<_> = OPEN_MPI.into_iter().chain(hosts).collect();
        pods.assert_all_ranks(pods.run(&ranks(6, "init_allreduce", family), &settings, family));
    }
}

#[test]
fn c12_workers_that_find_no_address_for_the_launcher_work_under_muster_run() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3))).with_a_launcher_that_nobody_finds();
    for family in [Family::OpenMpi4, Family::Mpich5] {
        pods.write_hostfile_for(family);
        let program = family.program("init_allreduce").expect("built");
        let run = format!("exec {} run {}", built("muster"), program.display());
        pods.assert_all_ranks(pods.run(&run, &POD, family));
    }
}

#[test]
fn c15_workers_complete_by_themselves_when_the_launchers_job_has_succeeded() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(2)));
    pods.write_hostfile(|name| format!("{name} slots=2"));
    let agent = format!("exec {} --exit-with-job", built("muster-agent"));
    let workers: Vec<_> = (0..2).map(|i| pods.start_worker(i, &agent)).collect();
    let job = |script: &str| {
        let run = format!("exec {} run sh -c \"{script}\"", built("muster"));
        pods.start_launcher(&run, &POD, Family::Mpich5).finish(PATIENCE).expect("it ends")
    };
    // A launcher whose job fails is started again, and needs them then.
    let failed = job("exit 3");
    assert_eq!(failed.status.code(), Some(3), "{}", failed.stderr_text());
    assert!(workers.iter().all(|worker| worker.try_wait().expect("status").is_none()));
    let succeeded = job("exit 0");
    assert_eq!(succeeded.status.code(), Some(0), "{}", succeeded.stderr_text());
    for worker in &workers {
        assert_eq!(worker.wait(PATIENCE).expect("it completes").code(), Some(0), "{}", worker.stderr_so_far());
    }
}

#[test]
fn c15_workers_complete_by_themselves_when_somebody_elses_launcher_has_succeeded_under_muster_exec() {
    for family in [Family::OpenMpi4, Family::Mpich5] {
        let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(2)));
        pods.write_hostfile_for(family);
        pods.route();
        let agent = format!("exec {} --exit-with-job", built("muster-agent"));
        let workers: Vec<_> = (0..2).map(|i| pods.start_worker(i, &agent)).collect();
        let launch = |command: &str, settings: &[(&str, &str)]| {
            pods.start_launcher(command, settings, family).finish(PATIENCE).expect("it ends")
        };
        let works = ranks(4, "init_allreduce", family);
        let fails = format!("exec {} -n 4 sh -c \"exit 3\"", family.launcher().display());
        // A command that fails, and one that nobody but its own launcher knows of: other ranks may need the hosts.
        let failed = launch(&under_muster("", &fails), &POD);
        assert_eq!(failed.status.code(), Some(3), "{}", failed.stderr_text());
        let hosts = if family.is_open_mpi() { "OMPI_MCA_orte_default_hostfile" } else { "HYDRA_HOST_FILE" };
        pods.assert_all_ranks(launch(&works, &[POD[1], (hosts, "/etc/mpi/hostfile")]));
        assert!(workers.iter().all(|worker| worker.try_wait().expect("status").is_none()));
        pods.assert_all_ranks(launch(&under_muster("", &works), &POD));
        for worker in &workers {
            assert_eq!(worker.wait(PATIENCE).expect("it completes").code(), Some(0), "{}", worker.stderr_so_far());
        }
    }
}

#[test]
fn c15_a_worker_completes_when_the_remote_shells_of_others_have_ended_as_well() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(1)));
    pods.write_hostfile(|name| format!("{name} slots=2"));
    pods.route();
    let worker = pods.start_worker(0, &format!("exec {} --exit-with-job", built("muster-agent")));
    let (host, end) = (&pods.workers[0], pods.dir().join("end"));
    let waits = format!("echo here; until test -e {}; do sleep 0.1; done; echo whole", end.display());
    let launch = |command: &str| pods.start_launcher(&under_muster("", command), &POD, Family::Mpich5);
    let other = launch(&format!("exec ssh {host} \"{waits}\""));
    other.wait_for("here", PATIENCE).expect("it runs");
    let first = launch(&format!("exec ssh {host} true")).finish(PATIENCE).expect("it ends");
    assert_eq!(first.status.code(), Some(0), "{}", first.stderr_text());
    worker.wait_for("a command has succeeded", PATIENCE).expect("it is told");
    std::fs::write(end, "").expect("write");
    let other = other.finish(PATIENCE).expect("it ends");
    assert_eq!(
        (other.stdout_text().as_str(), other.status.code()),
        ("here\nwhole\n", Some(0)),
        "{}",
        other.stderr_text()
    );
    assert_eq!(worker.wait(PATIENCE).expect("it completes").code(), Some(0), "{}", worker.stderr_so_far());
}

#[test]
fn c18_a_user_without_name_and_rights_runs_a_job_on_a_root_file_system_that_cannot_be_written() {
    let shown = "exec sh -c \"id -u; id -G; grep -c ^CapBnd:.0000000000000000 /proc/self/status; \
                 getent passwd 1000660000 || echo nameless; touch /root-file 2>&1 | grep -o Read-only\"";
    for family in FAMILIES {
        let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(2))).with_nobodys_rights();
        pods.write_hostfile_for(family);
        pods.route();
        let seen = pods.cluster.launcher().run(pods.in_pod(&pods.launcher, shown)).expect("it ends");
        assert_eq!(seen.stdout_text(), "1000660000\n0 2000\n1\nnameless\nRead-only\n", "{}", seen.stderr_text());
        pods.assert_all_ranks(pods.run(&under_muster("", &ranks(4, "init_allreduce", family)), &POD, family));
        let program = family.program("init_allreduce").expect("built");
        let run = format!("exec {} run {}", built("muster"), program.display());
        pods.assert_all_ranks(pods.run(&run, &POD, family));
    }
}

#[test]
fn c18_another_ssh_serves_a_user_without_name_and_rights() {
    for (family, hosts) in [
        (Family::OpenMpi4, ("OMPI_MCA_orte_default_hostfile", "/etc/mpi/hostfile")),
        (Family::Mpich5, ("HYDRA_HOST_FILE", "/etc/mpi/hostfile")),
    ] {
        let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(2))).with_nobodys_rights();
        pods.write_hostfile_for(family);
        pods.assert_all_ranks(pods.run(&ranks(4, "init_allreduce", family), &[POD[1], hosts], family));
    }
}

#[test]
fn c19_a_port_that_is_taken_is_named_and_another_one_or_none_at_all_serves() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(2)));
    // What a node's own service does to a pod on the node's network.
    let taken = pods.cluster.host(0).call(|| std::net::TcpListener::bind(("0.0.0.0", 2222))).expect("call");
    let _taken = taken.expect("the port is free");
    let sshd = format!("exec sshd -De -f {}/.sshd_config", pods.home().display());
    let refused = pods.start_worker(0, &sshd).finish(PATIENCE).expect("it ends");
    assert_eq!(refused.status.code(), Some(242));
    let told = "cannot listen on 0.0.0.0:2222: Address already in use (os error 98)";
    assert!(refused.stderr_text().contains(told), "{}", refused.stderr_text());

    // Another port, which the host file names.
    let other = pods.start_worker(0, "exec sshd -De -p 2223");
    let plain = pods.start_worker(1, &sshd);
    for (worker, port) in [(&other, 2223), (&plain, 2222)] {
        worker.wait_for(&format!("listening=\"0.0.0.0:{port}\""), PATIENCE).expect("it listens");
    }
    pods.write_hostfile(|name| format!("{name} slots=2{}", if name.contains("worker-0") { " port=2223" } else { "" }));
    let family = Family::OpenMpi4;
    let exec = under_muster("", &ranks(4, "init_allreduce", family));
    pods.assert_all_ranks(pods.start_launcher(&exec, &POD, family).finish(PATIENCE).expect("it ends"));
    drop((other, plain));

    // None at all: whoever joins the launcher tells it where it is.
    let join = format!("exec {} --join {}:4001", built("muster-agent"), pods.cluster.launcher().address());
    let _joined: Vec<_> = (0..2).map(|i| pods.start_worker(i, &join)).collect();
    pods.write_hostfile(|name| format!("{name} slots=2"));
    let program = family.program("init_allreduce").expect("built");
    let run = format!("exec {} run --listen :4001 {}", built("muster"), program.display());
    pods.assert_all_ranks(pods.start_launcher(&run, &POD, family).finish(PATIENCE).expect("it ends"));
}

#[test]
fn c23_a_master_that_starts_before_its_workers_have_names_waits_for_them_and_says_for_whom() {
    let pods = Pods::of_volcano(cluster_or_skip!(Cluster::builder().hosts(3)));
    let _workers = pods.start_workers();
    // Its service publishes no pod that is not ready: one of them has no name yet.
    let names = std::fs::read_to_string(pods.dir().join("pods")).expect("read");
    let (late, known): (Vec<&str>, Vec<&str>) = names.lines().partition(|line| line.contains("sim-worker-2."));
    std::fs::write(pods.dir().join("pods"), known.join("\n") + "\n").expect("write");
    std::fs::write(pods.dir().join("resolv.conf"), "").expect("write");
    let settings = [("VC_TASK_INDEX", "0")];
    let told = "sim-worker-2.sim: no address for \"sim-worker-2.sim\"";
    for family in [Family::OpenMpi4, Family::Mpich5] {
        let command = ranks(3, "init_allreduce", family);
        let start = |options: &str| {
            let exec = under_muster(&format!("{options} -f /etc/volcano/worker.host"), &command);
            pods.start_launcher(&exec, &settings, family)
        };
        let never = start("--connect-timeout 2s").finish(PATIENCE).expect("it does not wait for ever");
        assert_eq!(never.status.code(), Some(240), "{}", never.stderr_text());
        assert!(never.verdict().contains(told), "{}", never.verdict());

        let job = start("");
        job.wait_for(&format!("muster: waiting for 1 host: {told}"), PATIENCE).expect("it says for whom");
        let publish = format!("echo {} >> /tmp/pod/etc/hosts", late.join(" "));
        pods.cluster.launcher().run(Cmd::sh(&publish)).and_then(Output::ok).expect("it has a name now");
        let output = job.finish(PATIENCE).and_then(Output::ok).expect("it runs");
        assert!(output.stdout_text().contains("allreduce of 3 ranks: ok"), "{}", output.stdout_text());
    }
    // And without a launcher of ours: the remote shell gives up by itself.
    let waits = [settings[0], ("OMPI_MCA_plm_rsh_args", "-o ConnectTimeout=2")];
    let family = Family::OpenMpi4;
    let alone = ranks(3, "init_allreduce", family).replace(" -n ", " --hostfile /etc/volcano/worker.host -n ");
    let never = pods.start_launcher(&alone, &waits, family).finish(PATIENCE).expect("it does not wait for ever");
    assert_ne!(never.status.code(), Some(0));
    // By the part of the name that this launcher uses.
    let told = "muster-rsh: sim-worker-2: no address for \"sim-worker-2\"";
    assert!(never.stderr_text().contains(told), "{}", never.stderr_text());
}

#[test]
fn c23_a_master_without_workers_runs_alone_where_nobody_names_hosts_and_names_the_list_that_is_missing() {
    let pods = Pods::of_volcano(cluster_or_skip!(Cluster::builder().hosts(0)));
    std::fs::remove_file(pods.dir().join("etc/volcano/worker.host")).expect("remove");
    let settings = [("VC_TASK_INDEX", "0"), ("MPI_HOST", "")];
    let run = |arguments: &str| {
        let run = format!("exec {} {arguments}", built("muster"));
        pods.start_launcher(&run, &settings, Family::Mpich5).finish(PATIENCE).expect("it ends")
    };
    let alone = run("run -n 1 hostname").ok().expect("it runs");
    assert_eq!((alone.stdout_text().as_str(), alone.verdict().as_str()), ("sim-master-0\n", ""));
    let plan = run("plan -n 1 hostname").ok().expect("a plan");
    assert!(
        plan.stdout_text().starts_with("control plane: Volcano (VC_TASK_INDEX is set)\n"),
        "{}",
        plan.stdout_text()
    );
    let listed = run("exec -f /etc/volcano/worker.host -- hostname");
    let told = "muster: -f: host file /etc/volcano/worker.host: cannot be read: No such file or directory (os error 2); name a \
                readable file, or hosts with -H";
    assert_eq!((listed.status.code(), listed.verdict().as_str()), (Some(64), told));
}

/// As a container runtime sees it.
fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn c20_statuses_below_128_are_the_programs_and_those_from_128_on_tell_of_signals_and_hosts() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let run = |script: &str| cluster.muster("h0:1,h1:1").expect("built").args(["sh", "-c", script]);
    let exec = |script: &str| {
        let cmd = cluster.muster_exec(Family::OpenMpi4, "h0:1,h1:1").expect("built").arg("--");
        cmd.arg(Family::OpenMpi4.launcher()).args(["-n", "2", "sh", "-c", script])
    };
    let ends = |cmd: Cmd| cluster.launcher().run(cmd.timeout(PATIENCE)).expect("it ends");
    // Another try does not help: the program's own word, or a word about the program.
    for status in [0, 1, 2, 42, 127] {
        let script = format!("exit {status}");
        let (own, somebody_elses) = (ends(run(&script)), ends(exec(&script)));
        assert_eq!(code(&own), Some(status), "{}", own.stderr_text());
        assert_eq!(code(&somebody_elses), Some(status), "{}", somebody_elses.stderr_text());
    }
    assert_eq!(code(&ends(cluster.muster("h0,h1").expect("built").arg("no-such-program"))), Some(127));
    assert_eq!(code(&ends(cluster.muster("h0,h1").expect("built").arg("/etc/passwd"))), Some(126));
    assert_eq!(code(&ends(cluster.muster("h0,h1").expect("built").args(["--no-such-option", "true"]))), Some(64));
    // It may: a signal that came from somewhere, a host that is gone.
    for (name, number) in [("KILL", 9), ("TERM", 15)] {
        let script = format!("kill -{name} $$");
        let (own, somebody_elses) = (ends(run(&script)), ends(exec(&script)));
        assert_eq!(code(&own), Some(128 + number), "{}", own.stderr_text());
        assert_eq!(code(&somebody_elses), Some(128 + number), "{}", somebody_elses.stderr_text());
    }
    for cmd in [run("echo up; exec sleep 1000"), exec("echo up; exec sleep 1000")] {
        let job = cluster.launcher().spawn(cmd).expect("spawn");
        job.wait_for_count("up\n", 2).expect("it runs");
        job.signal(Signal::SIGTERM).expect("signal");
        assert_eq!(code(&job.finish(PATIENCE).expect("it ends")), Some(143));
    }
    let unreached = cluster.muster("h0,h9").expect("built").args(["--connect-timeout", "1s", "true"]);
    assert_eq!(code(&ends(unreached)), Some(240));
    let unreached = cluster.muster_exec(Family::OpenMpi4, "h0,h9").expect("built");
    assert_eq!(code(&ends(unreached.args(["--connect-timeout", "1s", "--", "true"]))), Some(240));
    let job = cluster.launcher().spawn(exec("echo up; exec sleep 1000")).expect("spawn");
    job.wait_for_count("up\n", 2).expect("it runs");
    agents[1].kill();
    assert_eq!(code(&job.finish(PATIENCE).expect("it ends")), Some(241));
}

#[test]
fn c21_jobs_start_under_as_many_open_files_as_the_machine_allows_and_ranks_have_what_their_pod_has() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let most = cluster.launcher().run(Cmd::sh("ulimit -Hn")).and_then(Output::ok).expect("it ends");
    let most = most.stdout_text().trim().to_owned();
    // Launchers of others close every descriptor that there could be, one by one, where they do not look which are open.
    let unlimited = |cmd: Cmd| Cmd::new("prlimit").arg(format!("--nofile={most}:{most}")).args(cmd.words());
    let agents: Vec<_> = (0..2)
        .map(|index| {
            let agent = Cmd::new(workspace::program("muster-agent").expect("built")).arg("--key-file");
            let agent = unlimited(agent.arg(cluster.key_file())).own_session();
            cluster.host(index).spawn(agent).expect("spawn")
        })
        .collect();
    for agent in &agents {
        agent.wait_for("agent is ready", PATIENCE).expect("it listens");
    }
    for family in FAMILIES {
        let job = cluster.muster_exec(family, "h0:1,h1:1").expect("built").arg("--").arg(family.launcher());
        let job = job.args(["-n", "2", "sh", "-c", "ulimit -Sn; ulimit -Hn"]);
        let job = family.environment(unlimited(job)).timeout(PATIENCE).own_session();
        let output = cluster.launcher().run(job).and_then(Output::ok).expect("it runs");
        assert_eq!(output.stdout_text(), format!("{most}\n").repeat(4), "{family:?}: {}", output.stderr_text());
    }
    let run = unlimited(cluster.muster("h0:2,h1:2").expect("built").args(["sh", "-c", "ulimit -Sn"]));
    let output = cluster.launcher().run(run.timeout(PATIENCE).own_session()).and_then(Output::ok).expect("it runs");
    assert_eq!(output.stdout_text(), format!("{most}\n").repeat(4), "{}", output.stderr_text());
}
