//! Readers that are slow or gone, disks that are full: memory stays bounded, ends stay prompt.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use muster_cluster::{Cluster, Cmd, Memory, Output, PATIENCE, cluster_or_skip, eventually, workspace};
use nix::sys::signal::Signal;

const GIB: &str = "1073741824";
const BOUND_KIB: u64 = 64 * 1024;

fn writer() -> std::path::PathBuf {
    workspace::test_program("plain", "writer").expect("built")
}

#[test]
fn a_slow_reader_costs_neither_memory_nor_control() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&[]).expect("agents");
    let cmd = cluster.muster(&cluster.host_list(2)).expect("built").arg(writer()).arg(GIB).raw_stdout();
    let mut job = cluster.launcher().spawn(cmd).expect("spawn");
    let mut reader = BufReader::with_capacity(64 * 1024, job.take_stdout().expect("a pipe"));

    // 1 MB/s, as a terminal; every line arrives whole and each rank's in order.
    let mut next = [0usize; 4];
    let mut line = String::new();
    let begun = Instant::now();
    for chunk in 0..80u32 {
        let mut read = 0;
        while read < 125_000 {
            line.clear();
            read += reader.read_line(&mut line).expect("a line");
            assert_eq!(line.len(), 128, "{line:?}");
            let mut words = line.split(' ').map(str::parse::<usize>);
            let (Some(Ok(rank)), Some(Ok(number))) = (words.next(), words.next()) else { panic!("torn: {line:?}") };
            assert_eq!(number, next[rank], "rank {rank}");
            next[rank] += 1;
        }
        std::thread::sleep((Duration::from_millis(125) * (chunk + 1)).saturating_sub(begun.elapsed()));
    }
    assert!(next.iter().all(|lines| *lines > 0), "no rank is starved by the others: {next:?}");
    for pid in agents.iter().map(|a| a.pid()).chain([job.pid()]) {
        let memory = Memory::of(pid).expect("it runs");
        assert!(memory.peak_kib <= BOUND_KIB, "process {pid}: {memory:?}");
    }

    // Nobody reads any more, and the ranks can be ended all the same.
    job.signal(Signal::SIGINT).expect("signal");
    for index in 0..2 {
        cluster.host(index).wait_until_idle().expect("ranks end though nobody reads");
    }
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).expect("the rest");
    assert!(rest.len() <= 24 << 20, "no more than the budget was on its way: {}", rest.len());
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!((output.status.code(), output.verdict().as_str()), (Some(130), "muster: ended by SIGINT (signal 2)"));
}

#[test]
fn a_reader_that_never_reads_does_not_hold_the_launcher() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let agent = cluster.start_agent(0, &[]).expect("agent");
    let cmd = cluster.muster("h0").expect("built").arg(writer()).arg(GIB).raw_stdout();
    let mut job = cluster.launcher().spawn(cmd).expect("spawn");
    let pipe = job.take_stdout().expect("a pipe");
    let full = || std::fs::read_to_string(format!("/proc/{}/io", agent.pid())).unwrap_or_default();
    // Everything on the way is full when the agent reads no more.
    let mut last = String::new();
    eventually(full, |now| !now.contains("rchar: 0\n")).expect("the agent reads");
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = full().lines().find(|l| l.starts_with("rchar")).unwrap_or_default().to_owned();
        // Heartbeats go on; they are far from a stream's speed.
        let bytes = |l: &str| l.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        if !last.is_empty() && bytes(&now) - bytes(&last) < 65_536 {
            break;
        }
        last = now;
    }
    // One asks, and ends the ranks. Signals that come together count as one, so it may take more than three.
    let _ = job.signal(Signal::SIGTERM);
    cluster.host(0).wait_until_idle().expect("the rank ends");
    let insist = || job.try_wait().expect("status").is_some() || job.signal(Signal::SIGTERM).is_err();
    eventually(insist, |ended| *ended).expect("it ends though nobody has read a byte");
    let status = job.wait(PATIENCE).expect("status");
    assert_eq!(status.code(), Some(143));
    drop(pipe);
    assert!(Memory::of(agent.pid()).expect("it runs").peak_kib <= BOUND_KIB);
}

#[test]
fn a_reader_that_leaves_ends_the_job() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let launch = cluster.muster(&cluster.host_list(1)).expect("built").arg(writer()).arg(GIB).to_string();
    let script = format!("{launch} | head -n 1 | wc -c; echo ${{PIPESTATUS[0]}}");
    let output = cluster.launcher().run(Cmd::new("bash").args(["-c", &script]).timeout(PATIENCE)).expect("it ends");
    assert_eq!(output.stdout_text(), "128\n141\n", "{}", output.stderr_text());
    for index in 0..2 {
        assert_eq!(cluster.host(index).ranks().expect("processes"), []);
    }
}

#[test]
fn a_full_disk_under_the_output_folder_is_an_error_with_a_name() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let mount = "mkdir /tmp/small && mount -t tmpfs -o size=256k none /tmp/small";
    cluster.launcher().run(Cmd::sh(mount)).and_then(Output::ok).expect("a small disk");
    let cmd = cluster.muster(&cluster.host_list(1)).expect("built").args(["--output-dir", "/tmp/small"]);
    let output = cluster.launcher().run(cmd.arg(writer()).arg("50000000")).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("No space left on device") && stderr.contains("/tmp/small/"), "{stderr}");
    assert_eq!(output.status.code(), Some(242), "{stderr}");
    for index in 0..2 {
        assert_eq!(cluster.host(index).ranks().expect("processes"), []);
    }
}
