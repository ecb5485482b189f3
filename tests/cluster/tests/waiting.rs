//! Hosts that cannot be used yet: they are tried again, the user is told why, and the job begins when they are there.

use std::io::Write;

use muster_cluster::{Cluster, Cmd, Output, PATIENCE, cluster_or_skip, workspace};
use nix::sys::signal::Signal;

#[test]
fn a_name_that_comes_late_is_waited_for() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let _agent = cluster.start_agent(0, &[]).expect("agent");
    let cmd = cluster.muster("late").expect("built").args(["sh", "-c", "echo $MUSTER_HOST is $(hostname)"]);
    let job = cluster.launcher().spawn(cmd).expect("spawn");
    let unresolved = "muster: waiting for 1 host: late: no address for \"late\": it is not in /etc/hosts, and \
                      /etc/resolv.conf names no DNS server (io error: no nameservers found in config)\n";
    job.wait_for(unresolved, PATIENCE).expect("the launcher says that it has no address");
    // Into the file itself, as it is mounted on all hosts.
    let table = cluster.shared_dir().join("hosts");
    let mut table = std::fs::OpenOptions::new().append(true).open(table).expect("open");
    writeln!(table, "{} late", cluster.host(0).address()).expect("write");
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("the job runs");
    assert_eq!((output.stdout_text().as_str(), output.said().as_str()), ("late is h0\n", ""));
}

#[test]
fn the_progress_line_names_who_is_missing_and_why() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let other = cluster.shared_dir().join("other.key");
    std::fs::write(&other, "a secret that the launcher does not have").expect("write");
    let wrong_key = Cmd::new(workspace::program("muster-agent").expect("built")).arg("--key-file").arg(&other);
    let wrong_key = cluster.host(0).spawn(wrong_key).expect("spawn");
    wrong_key.wait_for("agent is ready", PATIENCE).expect("ready");
    let _wrong_job = cluster.start_agent(1, &["--job", "old"]).expect("agent");
    let cmd = cluster.muster("h0,h1,h2,nowhere").expect("built").args(["--job", "new", "true"]);
    let job = cluster.launcher().spawn(cmd).expect("spawn");
    let told = "muster: waiting for 4 hosts: \
                h0: connected, but its agent has another job key; do both sides read the same key file?; \
                h1: connected, but its agent serves job \"old\" (this is job \"new\"); is an old pod still terminating?; \
                h2: connection refused by 10.77.0.3:2222; is the agent running there, and on this port?; \
                nowhere: no address for \"nowhere\": it is not in /etc/hosts, and /etc/resolv.conf names no DNS server \
                (io error: no nameservers found in config)\n";
    job.wait_for(told, PATIENCE).expect("one line with all of them");
    job.signal(Signal::SIGINT).expect("it waits");
    assert_eq!(job.finish(PATIENCE).expect("it ends").status.code(), Some(130));
}
