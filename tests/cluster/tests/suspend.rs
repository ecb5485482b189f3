//! Jobs that their operator suspends and resumes: all pods are deleted, and later there are new ones with the same names.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use muster_cluster::pods::{OPEN_MPI, Pods};
use muster_cluster::{Cluster, Family, PATIENCE, Proc, cluster_or_skip, eventually, workspace};
use nix::sys::signal::Signal;

/// As in every pod.
const POD: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("K_MPI_JOB_ROLE", "launcher")];
/// A pod's termination grace period, with little patience.
const GRACE: Duration = Duration::from_secs(6);

/// Which of the new pods the operator makes first.
#[derive(Debug, Clone, Copy)]
enum Order {
    LauncherFirst,
    /// `WaitForWorkersReady`: the launcher, once the readiness probe has reached every worker.
    WorkersReady,
}

/// A job that waits for ever until it has been suspended; then it works to its end. What it is told does not change.
fn ranks(pods: &Pods, family: Family) -> String {
    let program = |name: &str| family.program(name).expect("built").display().to_string();
    let script = pods.dir().join("ranks.sh");
    let text = format!(
        "#!/bin/sh\n[ -e {}/resumed ] && exec {}\nexec {}\n",
        pods.dir().display(),
        program("init_allreduce"),
        program("init_pause")
    );
    std::fs::write(&script, text).expect("write");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("mode");
    script.display().to_string()
}

/// As a kubelet ends a pod's container.
fn delete(pods: &[&Proc]) {
    for pod in pods {
        pod.signal(Signal::SIGTERM).expect("signal");
    }
    let deadline = Instant::now() + GRACE;
    for pod in pods {
        while pod.try_wait().expect("status").is_none() {
            if Instant::now() > deadline {
                pod.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs a job, suspends it in the middle and resumes it.
fn suspended_and_resumed(pods: &Pods, family: Family, command: &str, settings: &[(&str, &str)], order: Order) {
    pods.write_hostfile_for(family);
    pods.route();
    let launch = || pods.start_launcher(command, settings, family);
    let workers = pods.start_workers();
    let job = launch();
    job.wait_for("all 6 ranks are up", PATIENCE).expect("it runs");
    delete(&workers.iter().chain([&job]).collect::<Vec<_>>());
    pods.wait_until_launcher_is_idle();
    for index in 0..3 {
        pods.wait_until_idle(index, None);
    }
    let status = job.finish(PATIENCE).expect("it has ended").status;
    assert!(!status.success(), "a suspended job has not succeeded: {status}");

    std::fs::write(pods.dir().join("resumed"), "").expect("write");
    let output = match order {
        Order::LauncherFirst => pods.run(command, settings, family),
        Order::WorkersReady => {
            let workers = pods.start_workers();
            for (index, worker) in workers.iter().enumerate() {
                let address = std::net::SocketAddr::from((pods.cluster.host(index).address(), 2222));
                let probe = || {
                    let connect =
                        move || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
                    pods.cluster.launcher().call(connect).expect("call")
                };
                eventually(probe, |ready| *ready).expect("the probe reaches it");
                assert!(worker.try_wait().expect("status").is_none(), "{}", worker.stderr_so_far());
            }
            launch().finish(PATIENCE).expect("it ends")
        }
    };
    pods.assert_all_ranks(output);
}

fn three_workers(test: impl Fn(Pods, Order)) {
    for order in [Order::LauncherFirst, Order::WorkersReady] {
        let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
        test(Pods::of_mpi_operator(cluster), order);
    }
}

#[test]
fn c16_a_job_of_muster_run_is_suspended_and_runs_from_its_beginning_when_it_is_resumed() {
    three_workers(|pods, order| {
        let muster = workspace::program("muster").expect("built");
        let run = format!("exec {} run --bootstrap pmi {}", muster.display(), ranks(&pods, Family::Mpich5));
        suspended_and_resumed(&pods, Family::Mpich5, &run, &POD, order);
    });
}

#[test]
fn c16_an_mpirun_with_another_ssh_is_suspended_and_runs_from_its_beginning_when_it_is_resumed() {
    three_workers(|pods, order| {
        let family = Family::OpenMpi4;
        let mpirun = format!("exec {} -n 6 {}", family.launcher().display(), ranks(&pods, family));
        suspended_and_resumed(&pods, family, &mpirun, &OPEN_MPI, order);
    });
}

#[test]
fn c16_an_mpirun_under_muster_exec_is_suspended_and_runs_from_its_beginning_when_it_is_resumed() {
    three_workers(|pods, order| {
        let (family, muster) = (Family::Mpich5, workspace::program("muster").expect("built"));
        let (launcher, ranks) = (family.launcher(), ranks(&pods, family));
        let exec = format!("exec {} exec -- {} -n 6 {ranks}", muster.display(), launcher.display());
        suspended_and_resumed(&pods, family, &exec, &POD, order);
    });
}
