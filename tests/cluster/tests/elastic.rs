//! An elastic launcher of somebody else that follows Muster's agents: its script for the hosts is `muster hosts`.

use std::os::unix::fs::PermissionsExt;

use muster_cluster::pods::Pods;
use muster_cluster::{Cluster, Family, Output, PATIENCE, cluster_or_skip, eventually, workspace};

const SCRIPT: &str = "#!/bin/sh\nhosts=$(MUSTER hosts) || exit\necho \"$hosts\" > DIR/hosts.new && mv DIR/hosts.new DIR/hosts\necho \"$hosts\"\n";

#[test]
fn c17_an_elastic_horovodrun_waits_for_hosts_loses_one_and_takes_another_in_its_place() {
    let pods = Pods::of_mpi_operator(cluster_or_skip!(Cluster::builder().hosts(3)));
    pods.write_hostfile(|name| format!("{name} slots=1"));
    let dir = pods.dir().join("elastic");
    std::fs::create_dir(&dir).expect("folder");
    // The pods' user writes there.
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).expect("mode");
    let muster = workspace::program("muster").expect("built").display().to_string();
    let script = dir.join("discover_hosts.sh");
    let text = SCRIPT.replace("MUSTER", &muster).replace("DIR", &dir.display().to_string());
    std::fs::write(&script, text).expect("write");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("mode");
    let found = |hosts: &[usize]| {
        let want: String = hosts.iter().map(|i| format!("{}:1\n", pods.workers[*i])).collect();
        let look = || std::fs::read_to_string(dir.join("hosts")).unwrap_or_default();
        eventually(look, |seen| *seen == want).expect("the launcher sees who is there");
    };
    let sshd = format!("exec sshd -De -f {}/.sshd_config", pods.home().display());
    let worker = |index| pods.start_worker(index, &sshd);

    let [python, horovodrun] = workspace::horovodrun().expect("installed");
    let rank = workspace::root().join("tests/programs/elastic_rank.py");
    let command = format!(
        "exec {} {} --gloo -np 2 --min-np 2 --max-np 2 --network-interface eth0 --host-discovery-script {} \
         python3 {} {}",
        python.display(),
        horovodrun.display(),
        script.display(),
        rank.display(),
        dir.display()
    );
    let _w0 = worker(0);
    let job = pods.start_launcher(&command, &[("K_MPI_JOB_ROLE", "launcher")], Family::OpenMpi4);
    let says = |what: &str, rank: u32, index: usize| {
        let line = format!("{what}: rank {rank} of 2 on {}\n", pods.workers[index]);
        job.wait_for_count(&line, 1).expect("a rank says who it is");
    };
    // One host is too few, until there are two.
    found(&[0]);
    let w1 = worker(1);
    says("first", 0, 0);
    says("first", 1, 1);
    // One goes, another one comes, and the rank that is left meets a new one there.
    w1.kill();
    found(&[0]);
    let _w2 = worker(2);
    found(&[0, 2]);
    std::fs::write(dir.join("again"), "").expect("write");
    says("again", 0, 0);
    says("later", 1, 2);
    std::fs::write(dir.join("done"), "").expect("write");
    job.finish(PATIENCE).and_then(Output::ok).expect("it succeeds");
}
