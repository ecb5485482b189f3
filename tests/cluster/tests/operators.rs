//! Launchers and workers as operators arrange them: names, files, mounts, variables and users. Only `ssh` and `sshd` are
//! Muster's; nobody says a word about it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use muster_cluster::pods::{OPEN_MPI, Pods, under_muster};
use muster_cluster::{Cluster, Cmd, Family, Output, PATIENCE, Proc, cluster_or_skip, workspace};

fn ranks(count: usize, family: Family) -> String {
    muster_cluster::pods::ranks(count, "init_allreduce", family)
}

#[test]
fn c4_c11_an_mpijob_with_open_mpi_runs_with_another_ssh_in_its_image() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(8)));
    pods.write_hostfile(|name| format!("{name} slots=2"));
    pods.assert_all_ranks(pods.run(&ranks(16, Family::OpenMpi4), &OPEN_MPI, Family::OpenMpi4));
}

#[test]
fn c4_c11_an_mpijob_with_open_mpi_5_runs_with_another_ssh_and_its_own_name_for_the_host_file_in_its_image() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(8)));
    pods.write_hostfile(|name| format!("{name} slots=2"));
    // What an image can have: no operator sets it, and without it all of the job runs on one node.
    let settings: Vec<_> =
        OPEN_MPI.into_iter().chain([("PRTE_MCA_prte_default_hostfile", "/etc/mpi/hostfile")]).collect();
    pods.assert_all_ranks(pods.run(&ranks(16, Family::OpenMpi5), &settings, Family::OpenMpi5));
}

#[test]
fn c4_c11_an_mpijob_with_intel_mpi_runs_with_another_ssh_in_its_image() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(8)));
    pods.write_hostfile(|name| format!("{name}:2"));
    let settings = [
        ("K_MPI_JOB_ROLE", "launcher"),
        ("I_MPI_HYDRA_HOST_FILE", "/etc/mpi/hostfile"),
        ("I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS", "-o ConnectionAttempts=10"),
        ("I_MPI_PERHOST", "2"),
    ];
    pods.assert_all_ranks(pods.run(&ranks(16, Family::Intel), &settings, Family::Intel));
}

#[test]
fn c4_c11_an_mpijob_with_mpich_runs_with_another_ssh_in_its_image() {
    for family in [Family::Mpich4, Family::Mpich5] {
        let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(8)));
        pods.write_hostfile(|name| format!("{name}:2"));
        let settings = [
            ("K_MPI_JOB_ROLE", "launcher"),
            ("HYDRA_HOST_FILE", "/etc/mpi/hostfile"),
            ("HYDRA_LAUNCH_EXTRA_ARGS", "-o ConnectionAttempts=10"),
        ];
        pods.assert_all_ranks(pods.run(&ranks(16, family), &settings, family));
    }
}

#[test]
fn c10_a_trainjob_whose_launcher_is_a_node_runs_with_another_ssh_in_its_image() {
    let pods = Pods::of_trainer(cluster_or_skip!(Cluster::builder().hosts(3)));
    pods.write_hostfile(|name| format!("{name} slots=2"));
    pods.assert_all_ranks(pods.run(&ranks(8, Family::OpenMpi4), &OPEN_MPI[1..], Family::OpenMpi4));
}

#[test]
fn c10_a_trainjob_whose_launcher_is_a_node_runs_under_muster_exec_with_every_mpi() {
    for family in [Family::OpenMpi4, Family::OpenMpi5, Family::Mpich5, Family::Intel] {
        let pods = Pods::of_trainer(cluster_or_skip!(Cluster::builder().hosts(3)));
        pods.write_hostfile(|name| format!("{name} slots=2"));
        let exec = under_muster("", &ranks(8, family));
        pods.assert_all_ranks(pods.run(&exec, &OPEN_MPI[1..], family));
    }
}

#[test]
fn c10_an_mpijob_whose_launcher_is_a_worker_runs_with_another_ssh_in_its_image() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3))).with_a_launcher_that_works();
    pods.write_hostfile_for(Family::OpenMpi4);
    pods.assert_all_ranks(pods.run(&ranks(4, Family::OpenMpi4), &one_slot(Family::OpenMpi4), Family::OpenMpi4));
}

/// What mpi-operator sets for `slotsPerWorker: 1`.
fn one_slot(family: Family) -> Vec<(&'static str, &'static str)> {
    if !family.is_open_mpi() {
        return OPEN_MPI[..1].to_vec();
    }
    OPEN_MPI[..4].iter().copied().chain([("OMPI_MCA_orte_set_default_slots", "1")]).collect()
}

#[test]
fn c10_an_mpijob_whose_launcher_is_a_worker_runs_under_muster_exec_with_every_mpi() {
    for family in [Family::OpenMpi4, Family::OpenMpi5, Family::Mpich4, Family::Mpich5, Family::Intel] {
        let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3))).with_a_launcher_that_works();
        pods.write_hostfile_for(family);
        let exec = under_muster("--placement strict", &ranks(4, family));
        pods.assert_all_ranks(pods.run(&exec, &one_slot(family), family));
    }
}

#[test]
fn c9_open_mpi_5_uses_all_nodes_of_an_mpijob_under_muster_exec_and_says_so_when_it_does_not() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(4)));
    pods.write_hostfile(|name| format!("{name} slots=2"));
    let family = Family::OpenMpi5;
    let exec = under_muster("", &ranks(8, family));
    pods.assert_all_ranks(pods.run(&exec, &OPEN_MPI, family));
    // By the operator's variables alone it sees one node; the same command then says so.
    let alone = ranks(8, family).replace("-n 8", "-n 2");
    let alone = under_muster("--placement strict", &alone);
    let settings: Vec<_> = OPEN_MPI.into_iter().chain([("PRTE_MCA_prte_default_hostfile", "/dev/null")]).collect();
    let output = pods.run(&alone, &settings, family);
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr_text());
    let told = "muster: the command has started nothing on any of its hosts (pi-worker-0.pi.tenant.svc, ";
    assert!(output.verdict().starts_with(told), "{}", output.verdict());
    assert!(output.stdout_text().contains("rank 0 of 2 on pi-launcher"), "{}", output.stdout_text());
}

#[test]
fn c4_mpich_and_intel_mpi_run_under_muster_exec_in_pods_over_the_interface_of_the_pod() {
    for (family, variable) in
        [(Family::Mpich4, "HYDRA_IFACE"), (Family::Mpich5, "HYDRA_IFACE"), (Family::Intel, "I_MPI_HYDRA_IFACE")]
    {
        let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(4)));
        pods.write_hostfile(|name| format!("{name}:2"));
        let route = pods.route();
        let settings = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("K_MPI_JOB_ROLE", "launcher")];
        let shown = under_muster("", "exec env");
        let shown = pods.run(&shown, &settings, family).ok().expect("it succeeds").stdout_text();
        let wanted = format!("{variable}={route}");
        assert!(shown.lines().any(|line| line == wanted), "{wanted}:\n{shown}");
        let exec = under_muster("", &ranks(8, family));
        pods.assert_all_ranks(pods.run(&exec, &settings, family));
    }
}

#[test]
fn the_calling_form_of_the_first_operator_works() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(4)));
    // Bare pod names.
    pods.write_hostfile(|name| format!("{} slots=2", name.split('.').next().unwrap_or_default()));
    let settings = [
        ("OMPI_MCA_plm_rsh_agent", &*pods.bin().join("kubexec.sh").to_string_lossy().into_owned()),
        ("OMPI_MCA_orte_default_hostfile", "/etc/mpi/hostfile"),
    ];
    pods.assert_all_ranks(pods.run(&ranks(8, Family::OpenMpi4), &settings, Family::OpenMpi4));
}

#[test]
fn c4_the_agent_under_the_name_of_an_ssh_server_listens_where_that_would() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(1)));
    let home = pods.home().display().to_string();
    let listening = |arguments: &str| {
        let agent = pods.cluster.host(0).spawn(pods.in_pod(&pods.workers[0], &format!("exec sshd {arguments}")));
        let agent = agent.expect("spawn");
        agent.wait_for("agent is ready", PATIENCE).expect("it listens");
        let log = agent.stderr_so_far();
        let port = log.split("listening=\"0.0.0.0:").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
        assert!(std::fs::read_to_string(format!("{home}/sshd.pid")).is_ok() == arguments.contains("-f"), "{arguments}");
        agent.kill();
        agent.wait(PATIENCE).expect("it ends");
        let _ = std::fs::remove_file(format!("{home}/sshd.pid"));
        port.unwrap_or_default()
    };
    assert_eq!(listening(&format!("-De -f {home}/.sshd_config")), "2222");
    assert_eq!(listening("-De -p 2022"), "2022");
    assert_eq!(listening("-D -e -o Port=2023 -o StrictModes=no"), "2023");
    assert_eq!(listening(&format!("-De -p 2024 -f {home}/.sshd_config")), "2024");
    // With no rights, no name and nothing to write on, as on clusters that allow little.
    let host = pods.cluster.host(0);
    let bare = format!(
        "set -e; mount -o remount,bind,ro /; exec setpriv --reuid 4711 --regid 0 --clear-groups --bounding-set -all \
         --inh-caps -all --no-new-privs env HOME={home} {bin}/sshd -De -p 2025",
        bin = pods.bin().display()
    );
    let bare = Cmd::new("unshare").args(["--mount", "sh", "-c", &bare]).own_session();
    let agent = host.spawn(bare).expect("spawn");
    agent.wait_for("listening=\"0.0.0.0:2025\"", PATIENCE).expect("it listens");
    let probe = host.call(|| std::net::TcpStream::connect(("127.0.0.1", 2025)).map(drop)).expect("call");
    probe.expect("a plain probe is answered");
    let whoami = pods.in_pod(&pods.launcher, &format!("exec ssh -p 2025 {} id -u", pods.workers[0]));
    let whoami = pods.cluster.launcher().run(whoami).and_then(Output::ok).expect("it serves");
    assert_eq!(whoami.stdout_text(), "4711\n");
    assert!(agent.try_wait().expect("status").is_none(), "{}", agent.stderr_so_far());
    drop(agent);
    let wrong = host.run(pods.in_pod(&pods.workers[0], "exec sshd -De -f /no/such/file")).expect("it ends");
    assert_eq!(wrong.status.code(), Some(64));
    let said = wrong.stderr_text();
    assert_eq!(said, "sshd (muster-agent): -f /no/such/file: cannot be read: No such file or directory (os error 2)\n");
}

#[test]
fn c2_a_worker_tells_which_job_it_belongs_to_and_joins_under_the_name_that_the_host_file_has() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(2)));
    pods.write_hostfile(|name| format!("{name} slots=1"));
    let workspace = |name| workspace::program(name).expect("built").display().to_string();
    let agent = format!("exec {} --join {}:4001", workspace("muster-agent"), pods.cluster.launcher().address());
    let start = |(i, name): (usize, &String)| {
        let agent = pods.in_pod(name, &agent).env("K_MPI_JOB_ROLE", "worker");
        pods.cluster.host(i).spawn(agent).expect("spawn")
    };
    let workers: Vec<Proc> = pods.workers.iter().enumerate().map(start).collect();
    let run = format!("exec {} run --listen :4001 hostname", workspace("muster"));
    let output = pods.cluster.launcher().run(pods.in_pod(&pods.launcher, &run)).and_then(Output::ok).expect("it runs");
    let text = output.stdout_text();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["pi-worker-0", "pi-worker-1"]);
    for (i, worker) in workers.iter().enumerate() {
        let log = worker.stderr_so_far();
        let plane = "surroundings control_plane=\"mpi-operator v2\" reason=\"K_MPI_JOB_ROLE is set\" place=";
        let place = format!("role worker, job pi, index {i}, launcher pi-launcher");
        assert!(log.contains(plane) && log.contains(&place), "{log}");
    }
}

#[test]
fn c6_each_launcher_is_known_by_its_version_and_finds_the_variables_that_it_reads() {
    let here = muster_cluster::Here::new().expect("a folder");
    let muster = workspace::program("muster").expect("built");
    let plan_of = |mpirun: &Path| {
        let plan = Cmd::new(&muster).args(["plan", "exec", "-H", "w-0.job.ns.svc:2", "--"]).arg(mpirun);
        let plan = here.run(plan.env("OMPI_MCA_orte_keep_fqdn_hostnames", "true").env("K_MPI_JOB_ROLE", "launcher"));
        plan.and_then(Output::ok).expect("a plan").stdout_text()
    };
    let said = |version: &str| {
        let mpirun = here.dir().join("mpirun");
        std::fs::write(&mpirun, format!("#!/bin/sh\nprintf '{version}\\n'\n")).expect("write");
        std::fs::set_permissions(&mpirun, PermissionsExt::from_mode(0o755)).expect("mode");
        plan_of(&mpirun)
    };
    for family in [Family::OpenMpi4, Family::OpenMpi5, Family::Mpich4] {
        let plan = plan_of(&family.launcher());
        let told = plan.contains("\n  OMPI_MCA_btl_tcp_if_exclude\n      Open MPI: networks in");
        assert_eq!(told, family.is_open_mpi(), "{plan}");
    }
    for (version, name) in [
        ("mpirun (Open MPI) 4.1.4", "Open MPI 4.1.4"),
        ("mpirun (Open MPI) 5.0.5", "Open MPI 5.0.5"),
        ("mpirun (Open MPI) 5.0.7", "Open MPI 5.0.7"),
        ("HYDRA build details:\\n    Version:    4.0.2", "MPICH 4.0.2"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.13 Build 20240701", "Intel MPI 2021.13"),
    ] {
        let plan = said(version);
        let begin = "control plane: mpi-operator v2 (K_MPI_JOB_ROLE is set)\n";
        assert!(plan.starts_with(begin) && plan.contains(&format!("launcher: {name}\n")), "{plan}");
        for line in [
            "  OMPI_MCA_plm_rsh_agent=/",
            "  PRTE_MCA_plm_ssh_agent=/",
            "  PRTE_MCA_prte_default_hostfile=/",
            "  PRTE_MCA_prte_keep_fqdn_hostnames=true\n",
            "  HYDRA_LAUNCHER=rsh\n",
            "  HYDRA_LAUNCHER_EXEC=/",
            "  I_MPI_HYDRA_BOOTSTRAP=rsh\n",
            "  I_MPI_HYDRA_BOOTSTRAP_EXEC=/",
        ] {
            assert!(plan.contains(line), "{line:?} is missing:\n{plan}");
        }
        // What a script says of interfaces itself is not known.
        assert!(!plan.contains("_if_exclude"), "{plan}");
        assert!(
            plan.contains(
                "  OMPI_MCA_orte_keep_fqdn_hostnames=true\n      host names have dots, and cut at the first one \
                               DNS may not know them (kept: it was set already)\n"
            ),
            "{plan}"
        );
    }
}
