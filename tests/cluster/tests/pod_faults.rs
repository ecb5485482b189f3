//! Pods of an operator's job that die: with `muster exec` in the launcher, and with nothing of Muster's there but `ssh`.

use muster_cluster::pods::{OPEN_MPI, Pods, ranks, under_muster};
use muster_cluster::{Cluster, Family, Output, PATIENCE, Proc, cluster_or_skip, eventually, workspace};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// As in every pod.
const POD: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("K_MPI_JOB_ROLE", "launcher")];
const FAMILIES: [Family; 5] = [Family::OpenMpi4, Family::OpenMpi5, Family::Mpich4, Family::Mpich5, Family::Intel];
const WORKER_1: &str = "pi-worker-1.pi.tenant.svc";

/// What befalls worker 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Its agent is killed, with all that depends on it.
    Killed,
    /// Its pod is told to go.
    Evicted,
    /// Nothing is heard of its node any more.
    CutOff,
}

/// Three workers with six ranks that are up and wait.
struct Rig {
    job: Proc,
    workers: Vec<Proc>,
    pods: Pods,
}

impl Rig {
    fn start(pods: Pods, family: Family, command: &str, settings: &[(&str, &str)]) -> Self {
        pods.write_hostfile_for(family);
        pods.route();
        let workers = pods.start_workers();
        let job = pods.start_launcher(command, settings, family);
        job.wait_for("all 6 ranks are up", PATIENCE).expect("it runs");
        Self { job, workers, pods }
    }

    /// A launcher of this family for which `ssh` and `sshd` are other programs, as in an image that has them in their place.
    fn of_image(pods: Pods, family: Family) -> Self {
        let hosts = match family {
            Family::OpenMpi4 => None,
            Family::OpenMpi5 => Some(("PRTE_MCA_prte_default_hostfile", "/etc/mpi/hostfile")),
            Family::Mpich4 | Family::Mpich5 => Some(("HYDRA_HOST_FILE", "/etc/mpi/hostfile")),
            Family::Intel => Some(("I_MPI_HYDRA_HOST_FILE", "/etc/mpi/hostfile")),
        };
        let settings: Vec<_> = if family.is_open_mpi() { &OPEN_MPI[..] } else { &OPEN_MPI[..1] }.to_vec();
        let settings: Vec<_> = settings.into_iter().chain(hosts).collect();
        Self::start(pods, family, &ranks(6, "init_pause", family), &settings)
    }

    fn befall(&self, fault: Fault) {
        match fault {
            Fault::Killed => self.workers[1].signal(Signal::SIGKILL).expect("signal"),
            Fault::Evicted => self.workers[1].signal(Signal::SIGTERM).expect("signal"),
            Fault::CutOff => self.pods.cluster.cut(1).expect("cut"),
        }
    }

    /// Waits for the launcher's end. Then nothing is left but agents, and those are the ones that were there.
    fn ends(self, fault: Option<Fault>) -> Output {
        let Self { job, workers, pods } = self;
        let output = job.finish(PATIENCE).expect("it ends");
        pods.wait_until_launcher_is_idle();
        for (index, worker) in workers.iter().enumerate() {
            let ended = index == 1 && matches!(fault, Some(Fault::Killed | Fault::Evicted));
            if ended {
                worker.wait(PATIENCE).expect("its agent ends");
            }
            pods.wait_until_idle(index, (!ended).then_some(worker));
            assert_eq!(
                worker.try_wait().expect("status").is_some(),
                ended,
                "worker {index}: {}",
                worker.stderr_so_far()
            );
        }
        output
    }
}

#[test]
fn c13_the_first_cause_with_its_host_is_in_the_termination_message_and_no_process_is_left() {
    for family in [Family::OpenMpi4, Family::Mpich5] {
        for fault in [Fault::Killed, Fault::Evicted, Fault::CutOff] {
            let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3)));
            let message = pods.home().join("termination-log");
            let path = message.display().to_string();
            let settings = [POD[0], POD[1], ("MUSTER_OPT_TERMINATION_MESSAGE", &path)];
            let rig = Rig::start(pods, family, &under_muster("", &ranks(6, "init_pause", family)), &settings);
            rig.befall(fault);
            // Its folder goes with the pods.
            let written = || std::fs::read_to_string(&message).unwrap_or_default();
            let text = eventually(written, |text| text.ends_with('}')).expect("a message");
            let output = rig.ends(Some(fault));
            assert_eq!(output.status.code(), Some(241), "{family:?} {fault:?}: {}", output.stderr_text());
            let message: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let cause = message["cause"].as_str().expect("a cause");
            assert!(cause.starts_with(&format!("host {WORKER_1} was lost: ")), "{family:?} {fault:?}: {text}");
            assert!(output.verdict().contains(cause), "{}", output.verdict());
            assert_eq!((&message["status"], &message["lost_hosts"]), (&241.into(), &serde_json::json!([WORKER_1])));
        }
    }
}

#[test]
fn c13_a_rank_that_is_killed_is_in_the_termination_message_with_host_and_signal() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3)));
    let (family, message) = (Family::Mpich5, pods.home().join("termination-log"));
    let path = message.display().to_string();
    let settings = [POD[0], POD[1], ("MUSTER_OPT_TERMINATION_MESSAGE", &path)];
    let muster = workspace::program("muster").expect("built");
    let run = format!("exec {} run {}", muster.display(), family.program("init_pause").expect("built").display());
    let rig = Rig::start(pods, family, &run, &settings);
    let all = rig.pods.cluster.host(1).processes().expect("processes");
    let rank = all.iter().find(|process| process.command.ends_with("init_pause")).expect("a rank");
    kill(Pid::from_raw(rank.pid), Signal::SIGKILL).expect("kill");
    let text = eventually(|| std::fs::read_to_string(&message).unwrap_or_default(), |text| text.ends_with('}'));
    let output = rig.ends(None);
    assert_eq!(output.status.code(), Some(137), "{}", output.stderr_text());
    let message: serde_json::Value = serde_json::from_str(&text.expect("a message")).expect("JSON");
    let told = [2, 3].map(|rank| format!("rank {rank} on {WORKER_1} was killed by SIGKILL (signal 9)"));
    let cause = message["cause"].as_str().expect("a cause");
    assert!(told.iter().any(|told| told == cause), "{message}");
    assert_eq!(output.verdict(), format!("muster: {cause}"));
}

/// What a launcher says with its own remote shells only, when worker 1 is gone: its daemons' shells name the host.
fn ends_by_its_shell(family: Family, fault: Fault) {
    let rig = Rig::of_image(Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3))), family);
    rig.befall(fault);
    let output = rig.ends(Some(fault));
    assert_ne!(output.status.code(), Some(0), "{family:?} {fault:?}: {}", output.stderr_text());
    assert!(output.stderr_text().contains(WORKER_1), "{family:?} {fault:?}: {}", output.stderr_text());
}

#[test]
fn with_another_ssh_only_a_worker_that_is_killed_ends_the_command_of_every_family() {
    for family in FAMILIES {
        ends_by_its_shell(family, Fault::Killed);
    }
}

#[test]
fn with_another_ssh_only_a_worker_that_is_cut_off_ends_open_mpis_command() {
    for family in [Family::OpenMpi4, Family::OpenMpi5] {
        ends_by_its_shell(family, Fault::CutOff);
    }
}

/// Left to themselves these launchers wait for ever.
#[test]
fn with_another_ssh_only_a_worker_that_is_cut_off_ends_the_command_of_hydras_family() {
    for family in [Family::Mpich4, Family::Mpich5, Family::Intel] {
        ends_by_its_shell(family, Fault::CutOff);
    }
}

/// MPICH 4.0 waits for ever for a proxy that has never called back.
#[test]
fn with_another_ssh_only_a_worker_that_never_comes_up_ends_the_command_of_hydras_family() {
    for family in [Family::Mpich4, Family::Mpich5] {
        let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3)));
        pods.write_hostfile_for(family);
        pods.route();
        let sshd = format!("exec sshd -De -f {}/.sshd_config", pods.home().display());
        let _workers = [0, 2].map(|index| pods.start_worker(index, &sshd));
        let settings = [
            OPEN_MPI[0],
            ("HYDRA_HOST_FILE", "/etc/mpi/hostfile"),
            ("HYDRA_LAUNCHER_EXTRA_ARGS", "-o ConnectTimeout=1"),
        ];
        let job = pods.start_launcher(&ranks(6, "init_pause", family), &settings, family);
        let output = job.finish(PATIENCE).expect("it ends");
        assert_ne!(output.status.code(), Some(0), "{family:?}: {}", output.stderr_text());
        assert!(output.stderr_text().contains(WORKER_1), "{family:?}: {}", output.stderr_text());
    }
}

#[test]
fn with_another_ssh_only_a_launcher_that_is_killed_leaves_nothing_on_any_host() {
    for family in FAMILIES {
        let rig = Rig::of_image(Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3))), family);
        // The shell has become it.
        rig.job.signal(Signal::SIGKILL).expect("signal");
        let output = rig.ends(None);
        assert_eq!(output.status.code(), None, "{family:?}: {}", output.stderr_text());
    }
}
