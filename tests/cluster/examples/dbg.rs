#![forbid(unsafe_code)]
//! dbg
use muster_cluster::{Cluster, Cmd, workspace};
use std::time::Duration;
fn main() {
    for (name, envs, ppn, mpi) in [
        ("plain", Vec::<(&str, &str)>::new(), "2", "mpich4"),
        ("plainnet", vec![("UCX_NET_DEVICES", "eth0"), ("UCX_TLS", "tcp,self")], "1", "mpich4"),
        ("ppn1", vec![], "1", "mpich4"),
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
