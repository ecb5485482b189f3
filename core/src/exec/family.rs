//! Which launcher a command is.

use std::fmt;

/// Names of commands that say which MPI they belong to when they are called with `--version`.
const ASKED: [&str; 8] =
    ["mpirun", "mpiexec", "mpiexec.hydra", "mpirun.openmpi", "mpiexec.openmpi", "orterun", "prterun", "mpirun.mpich"];

/// A launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Family {
    /// Open MPI with its ORTE (up to 4) or PRRTE (from 5).
    OpenMpi {
        /// As it says itself.
        version: String,
    },
    /// MPICH's hydra, and what is built from it.
    Mpich {
        /// As it says itself.
        version: String,
    },
    /// Intel's hydra.
    Intel {
        /// As it says itself.
        version: String,
    },
    /// Horovod's launcher, which calls `ssh` by its name.
    Horovod,
    /// Anything else.
    Unknown,
}

/// Whether a program of this name is worth asking for its version.
pub fn asks_for_version(program: &str) -> bool {
    let name = base(program);
    ASKED.contains(&name) || name == "mpiexec.mpich"
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

impl Family {
    /// By the program's name and, where it was asked, what it said to `--version`. Texts as Open MPI 4.1 and 5.0, MPICH 3 to 5 and
    /// Intel MPI 2021 print them.
    pub fn of(program: &str, said: Option<&str>) -> Self {
        if base(program) == "horovodrun" {
            return Self::Horovod;
        }
        let said = said.unwrap_or_default();
        let after = |mark: &str| {
            let rest = said.split_once(mark)?.1.trim_start();
            Some(rest.split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default().to_owned())
        };
        if let Some(version) = after("(Open MPI)").or_else(|| after("(OpenRTE)")) {
            Self::OpenMpi { version }
        } else if said.contains("Intel(R) MPI Library") {
            Self::Intel { version: after("Version").unwrap_or_default() }
        } else if said.contains("HYDRA build details") {
            Self::Mpich { version: after("Version:").unwrap_or_default() }
        } else {
            Self::Unknown
        }
    }

    /// Whether its daemons exit with 0 unless something has gone wrong with them.
    pub fn daemons_end_well(&self) -> bool {
        matches!(self, Self::OpenMpi { .. } | Self::Mpich { .. } | Self::Intel { .. })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenMpi { version } => write!(f, "Open MPI {version}"),
            Self::Mpich { version } => write!(f, "MPICH {version}"),
            Self::Intel { version } => write!(f, "Intel MPI {version}"),
            Self::Horovod => f.write_str("Horovod"),
            Self::Unknown => f.write_str("not recognised"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_known_by_what_they_say() {
        let hydra = "HYDRA build details:\n    Version:                                 5.0.2\n    Release Date: x\n";
        let intel = "Intel(R) MPI Library for Linux* OS, Version 2021.18 Build 20260101 (id: abc)\nCopyright 2003-2026";
        for (program, said, want) in [
            ("mpirun", Some("mpirun (Open MPI) 4.1.4\n\nReport bugs to somebody\n"), "Open MPI 4.1.4"),
            ("/opt/bin/mpirun", Some("mpirun (Open MPI) 5.0.11\n"), "Open MPI 5.0.11"),
            ("mpiexec", Some(hydra), "MPICH 5.0.2"),
            ("mpiexec.hydra", Some(intel), "Intel MPI 2021.18"),
            ("/usr/bin/horovodrun", None, "Horovod"),
            ("mpirun", Some("something else"), "not recognised"),
            ("sh", None, "not recognised"),
        ] {
            assert_eq!(Family::of(program, said).to_string(), want);
        }
        assert!(asks_for_version("/usr/bin/mpiexec") && !asks_for_version("python3"));
    }
}
