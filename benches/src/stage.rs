//! A cluster with agents, and the commands that are compared on it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_cluster::workspace::{self, mpi_prefix};
use muster_cluster::{Cluster, Proc, Ssh};

use crate::lobby::{Lobby, command};

/// How hydra reaches its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    /// By OpenSSH.
    Ssh,
    /// By a program that only enters the host's namespaces.
    Enter,
}

/// A launcher that uses a remote shell, and its MPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// Debian's Open MPI.
    OpenMpi4,
    /// Open MPI 5 from its wheel.
    OpenMpi5,
    /// Debian's MPICH.
    Mpich4,
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
        self.muster_on(&self.host_list())
    }

    /// `muster run` with so many ranks on each host.
    pub(crate) fn muster_with(&self, ranks_per_host: usize) -> Command {
        self.muster_on(&self.cluster.host_list(ranks_per_host))
    }

    fn muster_on(&self, hosts: &str) -> Command {
        let mut run = command(&self.muster);
        run.arg("run").arg("--key-file").arg(self.cluster.key_file()).args(["-H", hosts]);
        run
    }

    /// A launcher through `muster exec`, with one rank on each host; the program is to follow.
    pub(crate) fn exec(&self, launcher: Launcher) -> Command {
        let mut exec = command(&self.muster);
        exec.arg("exec").arg("--key-file").arg(self.cluster.key_file()).args(["-H", &self.host_list(), "--"]);
        match launcher {
            Launcher::OpenMpi4 => allow_root(exec.arg("mpirun.openmpi")),
            Launcher::OpenMpi5 => {
                allow_root(exec.env("OPAL_PREFIX", mpi_prefix("openmpi")).arg(mpi_prefix("openmpi").join("bin/mpirun")))
            }
            Launcher::Mpich4 => exec.arg("mpiexec.hydra"),
        };
        exec
    }

    /// The same launcher through another remote shell.
    pub(crate) fn peer(&self, launcher: Launcher, shell: Shell) -> Command {
        match launcher {
            Launcher::Mpich4 => self.hydra(shell),
            Launcher::OpenMpi4 => {
                let mut run = command("mpirun.openmpi");
                run.env("BENCH_HOST_PIDS", &self.pid_table).args(["--mca", "plm_rsh_agent"]).arg(self.client(shell));
                run.args(["--host", &self.host_list(), "-n", &self.cluster.len().to_string()]);
                allow_root(&mut run);
                run
            }
            Launcher::OpenMpi5 => self.open_mpi_5("mpirun", shell, 1),
        }
    }

    /// A launcher of Open MPI 5's (`mpirun`, or the same without an MPI: `prterun`) with so many ranks on each host.
    pub(crate) fn open_mpi_5(&self, launcher: &str, shell: Shell, ranks_per_host: usize) -> Command {
        let prefix = mpi_prefix("openmpi");
        let mut run = command(prefix.join("bin").join(launcher));
        run.env("BENCH_HOST_PIDS", &self.pid_table);
        for part in ["OPAL_PREFIX", "PRTE_PREFIX", "PMIX_PREFIX"] {
            run.env(part, &prefix);
        }
        run.env("PRTE_MCA_plm_ssh_agent", self.client(shell));
        run.env("PRTE_ALLOW_RUN_AS_ROOT", "1").env("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        allow_root(&mut run).args(["--host", &self.cluster.host_list(ranks_per_host)]);
        // It would bind each host's first rank to the same core, and refuses more ranks than cores.
        run.args(["-n", &(self.cluster.len() * ranks_per_host).to_string(), "--bind-to", "none"]);
        run
    }

    fn client(&self, shell: Shell) -> &std::path::Path {
        if shell == Shell::Ssh { &self.ssh.client } else { &self.enter }
    }

    /// A script that calls `ssh` with the right key and options.
    pub(crate) fn ssh_client(&self) -> &std::path::Path {
        &self.ssh.client
    }

    /// `mpiexec` with one rank on each host; options and the program are to follow.
    pub(crate) fn hydra(&self, shell: Shell) -> Command {
        let mut run = command("mpiexec.hydra");
        run.env("BENCH_HOST_PIDS", &self.pid_table);
        run.args(["-launcher", "ssh", "-launcher-exec"]).arg(self.client(shell)).args([
            "-hosts",
            &self.host_list(),
            "-ppn",
            "1",
        ]);
        run.args(["-n", &self.cluster.len().to_string()]);
        run
    }
}

fn allow_root(command: &mut Command) -> &mut Command {
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
}
