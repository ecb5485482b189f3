//! Real MPI programs over real hosts: MPICH 4.0.2, MPICH 5.0.2 and Intel MPI, each served by the agents alone.

use std::path::PathBuf;

use muster_cluster::rig::{Rig, said};
use muster_cluster::{Cluster, Cmd, Output, PATIENCE, cluster_or_skip, eventually, workspace};
use nix::sys::signal::Signal;

const MPIS: [&str; 3] = ["mpich4", "mpich5", "impi"];
/// The transport with which MPICH 5 and Intel MPI can connect process groups to each other.
const CAN_SPAWN: [&str; 4] = ["-genv", "MPIR_CVAR_CH4_NETMOD=ofi", "-genv", "FI_PROVIDER=tcp"];

fn program(mpi: &str, name: &str) -> PathBuf {
    workspace::test_program(mpi, name).expect("built")
}

/// What every MPI has to do with 16 ranks on 8 hosts, one job after the other on the same agents.
fn sixteen_ranks_on_eight_hosts(mpi: &str, spawns: impl Fn(&Rig, Cmd)) {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(8)));
    let hosts = rig.cluster.host_list(2);
    let mut wanted: Vec<_> = (0..16).map(|rank| format!("rank {rank} of 16 on h{}", rank / 2)).collect();
    wanted.push("allreduce of 16 ranks: ok".to_owned());
    wanted.sort();
    // Without -n all slots are used. More than one message's worth: the ranks really talk to each other.
    let job = rig.muster(&hosts, &[]).arg(program(mpi, "init_allreduce")).arg("20000");
    assert_eq!(rig.lines(job), wanted);
    let job = rig.muster(&hosts, &["--radix", "2"]).arg(program(mpi, "namepub"));
    assert_eq!(rig.lines(job), ["name publishing: ok"]);
    rig.assert_clean(&[]);

    let aborted = rig.run(rig.muster(&hosts, &[]).arg(program(mpi, "abort7")).arg("11"));
    let message = said(&aborted);
    assert_eq!(aborted.status.code(), Some(7), "{message}");
    assert!(message.starts_with("muster: rank 11 on h5 aborted the job with code 7"), "{message}");
    let killed = rig.run(rig.muster(&hosts, &[]).arg(program(mpi, "segv")).arg("13"));
    assert_eq!(killed.status.code(), Some(139), "{}", killed.stderr_text());
    assert_eq!(said(&killed), "muster: rank 13 on h6 was killed by SIGSEGV (signal 11)");

    let spawning = rig.muster(&hosts, &CAN_SPAWN).arg(program(mpi, "spawn_parent")).arg(program(mpi, "spawn_child"));
    spawns(&rig, spawning.arg("4"));
    // What an MPI that was killed leaves in shared memory is its own: nobody else can tell whose it is.
    rig.assert_clean(&["/dev/shm/"]);
}

/// Four ranks beside sixteen: no slot is free, so they share the first hosts.
fn spawns_four(rig: &Rig, job: Cmd) {
    let children = (0..4).map(|rank| format!("child {rank} on h{} among 20", rank / 2));
    assert_eq!(rig.lines(job), children.chain(["spawned 4: ok".to_owned()]).collect::<Vec<_>>());
}

#[test]
fn mpich4_runs_16_ranks_on_8_hosts() {
    sixteen_ranks_on_eight_hosts("mpich4", |rig, job| {
        // Debian's build has UCX alone, with which MPICH 4.0 cannot spawn under any launcher: it says so by an abort of its own.
        let output = rig.run(job);
        let stderr = output.stderr_text();
        assert!(stderr.contains("MPID_Comm_spawn_multiple"), "{stderr}");
        assert!(said(&output).contains(" aborted the job with code "), "{stderr}");
        // The class of the error, MPI_ERR_OTHER, is its low byte.
        assert_eq!(output.status.code(), Some(15), "{stderr}");
    });
}

#[test]
fn mpich5_runs_16_ranks_on_8_hosts() {
    sixteen_ranks_on_eight_hosts("mpich5", spawns_four);
}

#[test]
fn impi_runs_16_ranks_on_8_hosts() {
    sixteen_ranks_on_eight_hosts("impi", spawns_four);
}

#[test]
fn the_first_rank_that_fails_gives_the_status() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    for mpi in MPIS {
        let run = |name: &str, args: &[&str]| {
            let output = rig.run(rig.muster("h0:2,h1:2", &[]).arg(program(mpi, name)).args(args));
            (output.status.code(), said(&output))
        };
        let (code, message) = run("abort7", &["2"]);
        assert_eq!(code, Some(7), "{mpi}: {message}");
        assert!(message.starts_with("muster: rank 2 on h1 aborted the job with code 7"), "{mpi}: {message}");
        // Only the low byte fits, and a job that was aborted did not end well.
        assert_eq!(run("abort7", &["1", "512"]).0, Some(1), "{mpi}");
        let expect = |got: (Option<i32>, String), code: i32, message: &str| {
            assert_eq!(got, (Some(code), format!("muster: {message}")), "{mpi}");
        };
        expect(run("segv", &["3"]), 139, "rank 3 on h1 was killed by SIGSEGV (signal 11)");
        // Whether the others wait already is a race that the launcher may win or lose; the end of a rank with 0 is no failure
        // until they do.
        let (code, message) = run("exit_early", &["before-init", "0"]);
        assert_eq!(code, Some(5), "{mpi}: {message}");
        assert!(message.starts_with("muster: rank 0 on h0 exited with status 5"), "{mpi}: {message}");
        let early = "before initialising MPI, while other ranks wait for it";
        expect(run("exit_early", &["before-init", "3", "0"]), 1, &format!("rank 3 on h1 exited with status 0 {early}"));
        let left = "without finalising MPI; the other ranks would have waited for it";
        expect(run("exit_early", &["without-finalize", "1"]), 5, &format!("rank 1 on h0 exited with status 5 {left}"));
        expect(
            run("exit_early", &["without-finalize", "2", "0"]),
            1,
            &format!("rank 2 on h1 exited with status 0 {left}"),
        );
    }
    // What an MPI that was killed leaves in shared memory is its own: nobody else can tell whose it is.
    rig.assert_clean(&["/dev/shm/"]);
}

/// Lines of `placement` for ranks on these hosts, all of one program.
fn placed(hosts: &[usize]) -> Vec<String> {
    let on = |host: usize| hosts.iter().filter(|h| **h == host).count();
    let line = |(rank, host): (usize, &usize)| {
        let local = hosts[..rank].iter().filter(|h| *h == host).count();
        format!("rank {rank} of {} on h{host}, local {local} of {}, program 0", hosts.len(), on(*host))
    };
    hosts.iter().enumerate().map(line).collect()
}

#[test]
fn the_mpi_sees_the_placement() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(3)));
    let hostfile = rig.cluster.shared_dir().join("hostfile");
    std::fs::write(&hostfile, "h1\nh0\nh1\nh2\n").expect("write");
    let hostfile = hostfile.to_str().expect("text");
    let key = rig.cluster.key_file().to_str().expect("text");
    let all = "h0:2,h1:2,h2:2";
    for mpi in MPIS {
        let run = |hosts: &str, options: &[&str]| rig.lines(rig.muster(hosts, options).arg(program(mpi, "placement")));
        assert_eq!(run(all, &[]), placed(&[0, 0, 1, 1, 2, 2]), "{mpi} block");
        assert_eq!(run(all, &["--placement", "cyclic"]), placed(&[0, 1, 2, 0, 1, 2]), "{mpi} cyclic");
        // A last round that is cut short, and a host that is full before the others.
        assert_eq!(run(all, &["--placement", "cyclic", "-n", "5"]), placed(&[0, 1, 2, 0, 1]), "{mpi} cyclic 5");
        assert_eq!(run("h0:1,h1:3", &["--placement", "cyclic"]), placed(&[0, 1, 1, 1]), "{mpi} cyclic 1:3");
        assert_eq!(run("h0:3,h1:3", &["--placement", "cyclic"]), placed(&[0, 1, 0, 1, 0, 1]), "{mpi} 6 on 2");
        assert_eq!(run("h0:4,h1:4,h2:4", &["-ppn", "1"]), placed(&[0, 1, 2]), "{mpi} ppn");
        assert_eq!(run(all, &["-n", "3"]), placed(&[0, 0, 1]), "{mpi} -n 3");
        let seq = Cmd::new(workspace::program("muster").expect("built"))
            .args(["run", "--key-file", key, "--placement", "seq", "-f", hostfile])
            .arg(program(mpi, "placement"));
        assert_eq!(rig.lines(seq), placed(&[1, 0, 1, 2]), "{mpi} seq");
    }
    rig.assert_clean(&[]);
}

#[test]
fn several_programs_form_one_world() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    for mpi in MPIS {
        let placement = program(mpi, "placement");
        let job = rig.muster("h0:2,h1:2", &["-n", "1"]).arg(&placement).args([":", "-n", "2"]).arg(&placement);
        let job = job.args([":", "-n", "1"]).arg(&placement);
        let wanted: Vec<_> = placed(&[0, 0, 1, 1])
            .iter()
            .zip([0, 1, 1, 2])
            .map(|(line, app)| line.replace("program 0", &format!("program {app}")))
            .collect();
        assert_eq!(rig.lines(job), wanted, "{mpi}");
        // Programs of one job need not be alike: the second one fails while the first one waits for it.
        let job = rig.muster("h0:2,h1:2", &["-n", "3"]).arg(&placement).args([":", "-n", "1", "sh", "-c", "exit 9"]);
        let output = rig.run(job);
        assert_eq!(output.status.code(), Some(9), "{mpi}: {}", output.stderr_text());
    }
    rig.assert_clean(&["/dev/shm/"]);
}

#[test]
fn mpich5_spawns_more_ranks() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(3)));
    let (parent, child) = (program("mpich5", "spawn_parent"), program("mpich5", "spawn_child"));
    let job = |options: &[&str]| rig.muster("h0:2,h1:2,h2:2", &CAN_SPAWN).args(options).arg(&parent);
    // Free slots first.
    let lines = rig.lines(job(&["-n", "3"]).arg(&child).arg("3"));
    assert_eq!(lines, ["child 0 on h1 among 6", "child 1 on h2 among 6", "child 2 on h2 among 6", "spawned 3: ok"]);
    let lines = rig.lines(job(&["-n", "4"]).arg(&child).args(["2", "multiple"]));
    assert_eq!(lines, ["child 0 on h2 among 6", "child 1 on h2 among 6", "spawned 2: ok"]);
    // No slot is free: spawned ranks share the hosts with the others.
    let lines = rig.lines(job(&[]).arg(&child).args(["2"]));
    assert_eq!(lines.len(), 3, "{lines:?}");
    // Where the program itself says, whatever is free.
    let told = ["-n", "2", "-genv", "SPAWN_HOST=h2,h0", "-genv", "SPAWN_WDIR=/proc"];
    let lines = rig.lines(job(&told).arg(&child).arg("3"));
    assert_eq!(lines, ["child 0 on h2 among 5", "child 1 on h0 among 5", "child 2 on h2 among 5", "spawned 3: ok"]);
    rig.assert_clean(&[]);
}

#[test]
fn a_spawned_rank_that_fails_ends_the_job() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let run = |child: PathBuf| {
        let options = ["-n", "2", "-genv", "CHILD_DIES=1"];
        let job = rig.muster("h0:2,h1:2", &CAN_SPAWN).args(options).arg(program("mpich5", "spawn_parent")).arg(child);
        let output = rig.run(job);
        (output.status.code(), said(&output))
    };
    let (code, message) = run(program("mpich5", "spawn_child"));
    assert_eq!(
        (code, message.as_str()),
        (Some(139), "muster: rank 0 of spawned group 1 on h1 was killed by SIGSEGV (signal 11)")
    );
    assert_eq!(run("/bin/false".into()).0, Some(1));
    let (code, message) = run("/no/such/program".into());
    assert_eq!(code, Some(127), "{message}");
    assert!(message.contains("/no/such/program"), "{message}");
    rig.assert_clean(&["/dev/shm/"]);
}

#[test]
fn a_client_of_pmi2_finds_everything() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let client = workspace::test_program("pmi2", "pmi2_client").expect("built");
    let job = rig.muster("h0:2,h1:2", &["--bootstrap", "pmi"]).arg(&client);
    assert_eq!(rig.lines(job), (0..4).map(|rank| format!("rank {rank} of 4: ok")).collect::<Vec<_>>());
    let aborted = rig.run(rig.muster("h0:2,h1:2", &[]).arg(&client).arg("abort"));
    let said = said(&aborted);
    assert_eq!(aborted.status.code(), Some(1), "{said}");
    assert!(said.starts_with("muster: rank 1 on h0 aborted the job with code "), "{said}");
    assert!(said.contains("rank 1 has had enough"), "{said}");
    rig.assert_clean(&[]);
}

#[test]
fn a_stuck_fence_names_the_ranks_that_have_not_arrived() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(3)));
    let hosts = "h0:2,h1:2,h2:2";
    let stuck = |options: &[&str]| {
        // Not one of the ranks of h0 or h2, so that the answer comes from below.
        rig.muster(hosts, options).arg(program("mpich4", "exit_early")).args(["sleep", "3"])
    };
    let report = "5 ranks wait, 1 have not arrived: rank 3 on h1";

    let events = rig.cluster.shared_dir().join("events");
    let job = stuck(&["--events", events.to_str().expect("text")]);
    let job = rig.cluster.launcher().spawn(job).expect("spawn");
    let started = || std::fs::read_to_string(&events).unwrap_or_default().matches("rank_started").count();
    eventually(started, |count| *count == 6).expect("all ranks start");
    // They take their time to arrive: the question is asked again until the answer is whole.
    eventually(
        || {
            job.signal(Signal::SIGQUIT).expect("it runs");
            std::thread::sleep(std::time::Duration::from_millis(200));
            job.stderr_so_far()
        },
        |said| said.contains(report),
    )
    .expect("the report");
    job.signal(Signal::SIGTERM).expect("it still runs");
    assert_eq!(job.finish(PATIENCE).expect("it ends").status.code(), Some(143));

    let output = rig.run(stuck(&["--timeout", "5"]));
    assert_eq!(output.status.code(), Some(243), "{}", output.stderr_text());
    assert!(said(&output).contains(report), "{}", output.stderr_text());
    assert!(said(&output).contains("the job did not end within its time limit of 5 s"), "{}", output.stderr_text());
    rig.assert_clean(&["/dev/shm/"]);
}

#[test]
fn agents_need_not_be_root() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents: Vec<_> = (0..2)
        .map(|index| {
            let host = cluster.host(index);
            // Copies, since the workspace's folder may not be open to others.
            let prepare = format!(
                "install -m 755 {} {} /tmp && install -m 600 -o 12345 {} /tmp/key && install -d -o 12345 /tmp/home",
                workspace::program("muster-agent").expect("built").display(),
                program("mpich4", "placement").display(),
                cluster.key_file().display()
            );
            host.run(Cmd::sh(&prepare)).and_then(Output::ok).expect("copies");
            let agent =
                Cmd::new("setpriv").args(["--reuid=12345", "--regid=12345", "--clear-groups", "/tmp/muster-agent"]);
            let agent = host.spawn(agent.args(["--key-file", "/tmp/key"]).env("HOME", "/tmp/home")).expect("spawn");
            agent.wait_for("agent is ready", PATIENCE).expect("ready");
            agent
        })
        .collect();
    let rig = Rig { cluster, agents };
    assert_eq!(rig.lines(rig.muster("h0:2,h1:2", &["/tmp/placement"])), placed(&[0, 0, 1, 1]));
    assert_eq!(rig.lines(rig.muster("h0:1,h1:1", &["sh", "-c", "id -u; id -g"])), ["12345"; 4]);
    rig.assert_clean(&["/tmp/"]);
}
