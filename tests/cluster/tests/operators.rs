//! Launchers and workers as operators arrange them: names, files, mounts, variables and users. Only `ssh` and `sshd` are
//! Muster's; nobody says a word about it.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use muster_cluster::{Cluster, Cmd, Family, Output, PATIENCE, Proc, cluster_or_skip, link_as, workspace};

/// A private key as operators make it: P-521, SEC1. Its bytes are the job key; it opens nothing else.
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nbm90IGEga2V5IG9mIGFueSBjdXJ2ZSwgb25seSB0aGUgZm9ybSBvZiBvbmU=\n\
                   -----END EC PRIVATE KEY-----\n";
/// The configuration that the operators' images have for users other than root.
const SSHD_CONFIG: &str = "PidFile HOME/sshd.pid\nHostKey HOME/.ssh/id_rsa\nStrictModes no\nPort 2222\n";

/// Makes the first interface with an address the one of the default route, as it is in pods, and says which.
const ROUTE: &str = "set -- $(ip -o -4 addr show scope global | head -n 1); ip route replace default dev $2; echo $2";
/// Domains that pods of a worker search.
const SEARCH: &str =
    "tenant.svc.cluster.local svc.cluster.local cluster.local pi.tenant.svc.cluster.local job.tenant.svc.cluster.local";

/// A job's pods: hosts of a cluster under an operator's names.
struct Pods {
    cluster: Cluster,
    launcher: String,
    workers: Vec<String>,
    /// The launcher is a worker as well.
    launcher_works: bool,
}

impl Pods {
    /// As kubeflow's mpi-operator v2 names them: `<job>-worker-<i>.<job>.<namespace>.svc`.
    fn of_mpi_operator(cluster: Cluster) -> Self {
        let workers = (0..cluster.len()).map(|i| format!("pi-worker-{i}.pi.tenant.svc")).collect();
        let pods = Self { cluster, launcher: "pi-launcher.pi.tenant.svc".into(), workers, launcher_works: false };
        pods.furnish();
        pods
    }

    /// As Trainer v2 names them, the launcher being a node, too: short names without a namespace.
    fn of_trainer(cluster: Cluster) -> Self {
        let workers = (0..cluster.len()).map(|i| format!("job-node-0-{i}.job")).collect();
        let pods = Self { cluster, launcher: "job-launcher-0-0.job".into(), workers, launcher_works: true };
        pods.furnish();
        pods
    }

    fn dir(&self) -> &Path {
        self.cluster.shared_dir()
    }

    /// The user's home with the mounted key, the image's programs, the names of all pods.
    fn furnish(&self) {
        let home = self.home();
        std::fs::create_dir_all(home.join(".ssh")).expect("folder");
        let write = |path: PathBuf, text: &str, mode: u32| {
            std::fs::write(&path, text).expect("write");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
        };
        // Through a link, as secrets are mounted, and readable by a group, which an ssh client would refuse.
        write(home.join(".ssh/ssh-privatekey"), KEY, 0o644);
        std::os::unix::fs::symlink("ssh-privatekey", home.join(".ssh/id_rsa")).expect("link");
        write(home.join(".sshd_config"), &SSHD_CONFIG.replace("HOME", &home.to_string_lossy()), 0o644);
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o777)).expect("mode");
        let agent = workspace::program("muster-agent").expect("built");
        link_as(&agent, &self.bin(), &["ssh", "rsh", "sshd", "kubexec.sh"]).expect("links");
        let mut names = String::new();
        for (pod, address) in self.pods() {
            let short = pod.split('.').next().unwrap_or_default();
            writeln!(names, "{address} {pod} {short}").expect("text");
        }
        write(self.dir().join("pods"), &names, 0o644);
        // The kubelet's list and the entry that the operator adds; nobody answers there, since all names are in the file above.
        write(
            self.dir().join("resolv.conf"),
            &format!("nameserver 127.0.0.1\nsearch {SEARCH}\noptions ndots:5\n"),
            0o644,
        );
        std::fs::create_dir_all(self.dir().join("mpi")).expect("folder");
    }

    fn pods(&self) -> Vec<(&str, String)> {
        let workers = self.workers.iter().enumerate();
        let workers = workers.map(|(i, name)| (name.as_str(), self.cluster.host(i).address().to_string()));
        workers.chain([(self.launcher.as_str(), self.cluster.launcher().address().to_string())]).collect()
    }

    fn home(&self) -> PathBuf {
        self.dir().join("mpiuser")
    }

    fn bin(&self) -> PathBuf {
        self.dir().join("bin")
    }

    /// The operator's host file, one line for each pod with ranks.
    fn write_hostfile(&self, line: impl Fn(&str) -> String) {
        let first = self.launcher_works.then_some(&self.launcher);
        let text: String = first.into_iter().chain(&self.workers).map(|name| line(name) + "\n").collect();
        std::fs::write(self.dir().join("mpi/hostfile"), text).expect("write");
    }

    /// A command in a pod: its host name, `/etc/hosts` and `/etc/mpi` are the pod's, its user is the image's.
    fn in_pod(&self, name: &str, script: &str) -> Cmd {
        let short = name.split('.').next().unwrap_or_default();
        let dir = self.dir().display();
        let pod = format!(
            "set -e; hostname {short}; mkdir -p /tmp/pod; cp -a /etc /tmp/pod/; cat {dir}/pods >> /tmp/pod/etc/hosts; \
             rm -f /tmp/pod/etc/resolv.conf; cp {dir}/resolv.conf /tmp/pod/etc/; \
             cp -r {dir}/mpi /tmp/pod/etc/; mount --bind /tmp/pod/etc /etc; chmod 1777 /tmp /dev/shm; \
             exec setpriv --reuid 1000 --regid 1000 --clear-groups env HOME={home} USER=mpiuser \
             PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin sh -c '{script}'",
            home = self.home().display(),
            bin = self.bin().display(),
        );
        Cmd::new("unshare").args(["--uts", "--mount", "sh", "-c", &pod]).own_session().timeout(PATIENCE)
    }

    /// The workers, with the command of the operators' examples.
    fn start_workers(&self) -> Vec<Proc> {
        let start = |(i, name): (usize, &String)| {
            let sshd = format!("exec sshd -De -f {}/.sshd_config", self.home().display());
            self.cluster.host(i).spawn(self.in_pod(name, &sshd)).expect("spawn")
        };
        self.workers.iter().enumerate().map(start).collect()
    }

    /// Starts the launcher before the workers, and gives what it came to when both have done their work.
    fn run(&self, script: &str, settings: &[(&str, &str)], family: Family) -> Output {
        let cmd = settings.iter().fold(self.in_pod(&self.launcher, script), |cmd, (name, value)| cmd.env(name, value));
        let job = self.cluster.launcher().spawn(family.environment(cmd)).expect("spawn");
        // So long ssh would not have waited for a name or a port.
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        let workers = self.start_workers();
        let output = job.finish(PATIENCE).expect("it ends");
        for worker in &workers {
            assert!(worker.try_wait().expect("status").is_none(), "{}", worker.stderr_so_far());
        }
        output
    }

    /// Ranks where the host file says, two on each pod.
    fn assert_all_ranks(&self, output: Output) {
        let output = output.ok().expect("it succeeds");
        let works = self.launcher_works.then_some(&self.launcher);
        let pods: Vec<&str> =
            works.into_iter().chain(&self.workers).map(|n| n.split('.').next().unwrap_or_default()).collect();
        let size = 2 * pods.len();
        let text = output.stdout_text();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        let mut wanted: Vec<_> = (0..size).map(|rank| format!("rank {rank} of {size} on {}", pods[rank / 2])).collect();
        wanted.push(format!("allreduce of {size} ranks: ok"));
        wanted.sort();
        assert_eq!(lines, wanted, "{}", output.stderr_text());
    }
}

fn ranks(count: usize, family: Family) -> String {
    let program = family.program("init_allreduce").expect("built");
    format!("exec {} -n {count} {}", family.launcher().display(), program.display())
}

/// What mpi-operator v2 sets on the launcher of an Open MPI job with two slots for each worker.
const OPEN_MPI: [(&str, &str); 5] = [
    ("K_MPI_JOB_ROLE", "launcher"),
    ("OMPI_MCA_orte_keep_fqdn_hostnames", "true"),
    ("OMPI_MCA_orte_default_hostfile", "/etc/mpi/hostfile"),
    ("OMPI_MCA_plm_rsh_args", "-o ConnectionAttempts=10"),
    ("OMPI_MCA_orte_set_default_slots", "2"),
];

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
        let muster = workspace::program("muster").expect("built");
        let exec = ranks(8, family).replace("exec ", &format!("exec {} exec -- ", muster.display()));
        pods.assert_all_ranks(pods.run(&exec, &OPEN_MPI[1..], family));
    }
}

#[test]
fn c9_open_mpi_5_uses_all_nodes_of_an_mpijob_under_muster_exec_and_says_so_when_it_does_not() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(4)));
    pods.write_hostfile(|name| format!("{name} slots=2"));
    let family = Family::OpenMpi5;
    let muster = workspace::program("muster").expect("built");
    let exec = ranks(8, family).replace("exec ", &format!("exec {} exec -- ", muster.display()));
    pods.assert_all_ranks(pods.run(&exec, &OPEN_MPI, family));
    // By the operator's variables alone it sees one node; the same command then says so.
    let alone = ranks(8, family).replace("-n 8", "-n 2");
    let alone = alone.replace("exec ", &format!("exec {} exec --placement strict -- ", muster.display()));
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
        let muster = workspace::program("muster").expect("built");
        // As in every pod, there is a default route.
        let route =
            pods.cluster.launcher().run(Cmd::new("sh").args(["-c", ROUTE])).and_then(Output::ok).expect("a route");
        let settings = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("K_MPI_JOB_ROLE", "launcher")];
        let shown = format!("exec {} exec -- env", muster.display());
        let shown = pods.run(&shown, &settings, family).ok().expect("it succeeds").stdout_text();
        let wanted = format!("{variable}={}", route.stdout_text().trim());
        assert!(shown.lines().any(|line| line == wanted), "{wanted}:\n{shown}");
        let exec = ranks(8, family).replace("exec ", &format!("exec {} exec -- ", muster.display()));
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
    let said = |version: &str| {
        let mpirun = here.dir().join("mpirun");
        std::fs::write(&mpirun, format!("#!/bin/sh\nprintf '{version}\\n'\n")).expect("write");
        std::fs::set_permissions(&mpirun, PermissionsExt::from_mode(0o755)).expect("mode");
        let plan = Cmd::new(&muster).args(["plan", "exec", "-H", "w-0.job.ns.svc:2", "--"]).arg(&mpirun);
        let plan = here.run(plan.env("OMPI_MCA_orte_keep_fqdn_hostnames", "true").env("K_MPI_JOB_ROLE", "launcher"));
        plan.and_then(Output::ok).expect("a plan").stdout_text()
    };
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
        assert!(
            plan.contains(
                "  OMPI_MCA_orte_keep_fqdn_hostnames=true\n      host names have dots, and cut at the first one \
                               DNS may not know them (kept: it was set already)\n"
            ),
            "{plan}"
        );
    }
}
