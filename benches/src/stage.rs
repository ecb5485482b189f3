//! A cluster with agents, and the commands that are compared on it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_cluster::{Cluster, Proc, Ssh, workspace};

use crate::lobby::{Lobby, command};

/// How hydra reaches its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    /// By OpenSSH.
    Ssh,
    /// By a program that only enters the host's namespaces.
    Enter,
}

/// Hosts with everything that a row needs.
pub(crate) struct Stage {
    // Dropped before the cluster whose hosts they use.
    pub(crate) lobby: Lobby,
    _agents: Vec<Proc>,
    ssh: Ssh,
    enter: PathBuf,
    pid_table: PathBuf,
    muster: PathBuf,
    pub(crate) cluster: Cluster,
}

impl Stage {
    pub(crate) fn start(hosts: usize) -> Result<Self> {
        let cluster = Cluster::builder().hosts(hosts).start()?;
        let agents = cluster.start_agents(&[])?;
        let ssh = cluster.start_sshd()?;
        let mut table = String::new();
        for index in 0..hosts {
            let host = cluster.host(index);
            writeln!(table, "{} {}", host.name(), host.init_pid())?;
        }
        let pid_table = cluster.shared_dir().join("pids");
        std::fs::write(&pid_table, table).context("cannot write the table of hosts")?;
        let enter = workspace::root().join("target/bench/enter");
        ensure!(enter.is_file(), "{} does not exist; scripts/bench.sh makes it", enter.display());
        let lobby = Lobby::enter(cluster.launcher().init_pid(), &cluster.shared_dir().join("hosts"))?;
        Ok(Self { lobby, _agents: agents, ssh, enter, pid_table, muster: workspace::program("muster")?, cluster })
    }

    fn host_list(&self) -> String {
        (0..self.cluster.len()).map(|i| format!("h{i}")).collect::<Vec<_>>().join(",")
    }

    /// `muster run` with one rank on each host; options and the program are to follow.
    pub(crate) fn muster(&self) -> Command {
        let mut run = command(&self.muster);
        run.arg("run").arg("--key-file").arg(self.cluster.key_file()).args(["-H", &self.host_list()]);
        run
    }

    /// `mpiexec` with one rank on each host; options and the program are to follow.
    pub(crate) fn hydra(&self, shell: Shell) -> Command {
        let mut run = command("mpiexec.hydra");
        let client = if shell == Shell::Ssh { &self.ssh.client } else { &self.enter };
        run.env("BENCH_HOST_PIDS", &self.pid_table);
        run.args(["-launcher", "ssh", "-launcher-exec"]).arg(client).args(["-hosts", &self.host_list(), "-ppn", "1"]);
        run.args(["-n", &self.cluster.len().to_string()]);
        run
    }
}
