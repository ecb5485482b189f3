#![forbid(unsafe_code)]
//! dbg
use muster_cluster::{Cluster, Cmd, workspace};
use std::time::Duration;
fn main() {
    for (name, envs, ppn, mpi) in [
        ("plain", vec![], "2", "mpich4"),
        ("ppn1", vec![], "1", "mpich4"),
        ("tls tcp", vec![("UCX_TLS", "tcp,self")], "2", "mpich4"),
        ("max_eager", vec![("UCX_TLS", "tcp"), ("UCX_MAX_EAGER_LANES","1"), ("UCX_MAX_RNDV_LANES", "1")], "2", "mpich4"),
        ("keepalive", vec![("UCX_KEEPALIVE_INTERVAL", "inf")], "2", "mpich4"),
        ("netdev", vec![("UCX_NET_DEVICES", "eth0")], "2", "mpich4"),
        ("mpich5", vec![], "2", "mpich5"),
    ] {
        let mut hangs = 0; let mut bad = String::new();
        for _ in 0..10 {
            let cluster = Cluster::builder().hosts(4).start().unwrap();
            let ssh = cluster.start_sshd().unwrap();
            let program = workspace::test_program(mpi, "init_allreduce").unwrap();
            let hydra = if mpi == "mpich5" { workspace::root().join(".cache/mpi/mpich/bin/mpiexec.hydra") } else { "mpiexec.hydra".into() };
            let n = if ppn == "2" { "8" } else { "4" };
            let mut job = Cmd::new(hydra).args(["-launcher", "ssh", "-launcher-exec"]).arg(&ssh.client)
                .args(["-hosts", "h0,h1,h2,h3", "-n", n, "-ppn", ppn]).arg(program);
            for (k, v) in &envs { job = job.env(k, v); }
            let p = cluster.launcher().spawn(job).unwrap();
            match p.wait(Duration::from_secs(6)) { Err(_) => hangs += 1, Ok(s) if !s.success() => bad = p.stderr_so_far(), _ => {} }
        }
        println!("{name}: {hangs} of 10 hang {bad}");
    }
}
