//! The cluster carries a real MPI job of a peer: what Muster is compared with works here as on real hosts.

use muster_cluster::{Cluster, Cmd, Output, cluster_or_skip, workspace};

#[test]
fn hydra_runs_ranks_on_all_hosts_over_ssh() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(4));
    let ssh = cluster.start_sshd().expect("servers");
    assert_eq!(ssh.servers(), 4);
    // Not MPICH 4.0.2: over TCP its UCX 1.13 often hangs in MPI_Finalize, whoever starts it.
    let program = workspace::test_program("mpich5", "init_allreduce").expect("built");
    let job = Cmd::new(workspace::mpi_prefix("mpich").join("bin/mpiexec.hydra"))
        .args(["-launcher", "ssh", "-launcher-exec"])
        .arg(&ssh.client)
        .args(["-hosts", "h0,h1,h2,h3", "-n", "8", "-ppn", "2"])
        .arg(program);
    let output = cluster.launcher().run(job).and_then(Output::ok).expect("the job runs");
    let text = output.stdout_text();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let ranks = (0..8).map(|rank| format!("rank {rank} of 8 on h{}", rank / 2));
    assert_eq!(lines, ["allreduce of 8 ranks: ok".to_owned()].into_iter().chain(ranks).collect::<Vec<_>>());
}
