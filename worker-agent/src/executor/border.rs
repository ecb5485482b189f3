//! The message border between the session half and the executor half of the agent.
//!
//! Everything that crosses it is plain data and descriptors, so that the two halves can live in one process or, in a
//! sidecar, in two that share nothing but a Unix socket. Process ids cross it for display only: in another process id
//! namespace they mean nothing.
//!
//! Rules of the border:
//! - A rank is named by its [`ProcId`]; at most one live process has it. A second `Spawn` of a living one is refused.
//! - For every `Spawn` there is one `Spawned` or `SpawnFailed`, and after `Spawned` one `Exited`. That is all a rank
//!   ever reports, so the reports waiting to be read are bounded by the ranks ordered.
//! - For every `Sweep` there is one `Swept`, after the `Exited` of every rank that the sweep ended. A new generation
//!   starts after a `Swept` without survivors; so a report never belongs to an older generation than its reader.
//! - After `Shutdown` comes one last `Swept`, then nothing.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use errno::{E2BIG, EACCES, EAGAIN, EBUSY, EEXIST, ENOENT, ENOEXEC};
use muster_protocol::ProcId;
use muster_protocol::limits::RANKS_PER_HOST_MAX;
pub use muster_sys::limits::{Resource, ResourceLimit};
pub use muster_sys::stage::Stage;
pub use muster_sys::status::ExitStatus;
pub use muster_sys::subreaper::Survivor;

/// Number of the descriptor at which a rank finds its PMI socket; `PMI_FD` says so in its environment.
///
/// Above the single digits that shell scripts redirect, below any sensible limit on open files.
pub const PMI_FD_NUMBER: i32 = 17;

/// What the session half asks of the executor half.
#[derive(Debug)]
pub enum Order {
    /// Start a rank.
    Spawn(Box<RankOrder>),
    /// Send a signal to the process group of each of these ranks. `SIGTSTP` arrives as `SIGSTOP`: a rank leads a session
    /// of its own, and the kernel ignores a terminal's stop in such a group.
    Signal {
        /// The ranks meant.
        procs: Which,
        /// The signal's number.
        signal: i32,
    },
    /// End these ranks: `SIGTERM` to their process groups now, `SIGKILL` to those and everything descended from them
    /// after the grace. A grace of 0 kills at once; a later, shorter grace shortens an earlier one. What a rank leaves
    /// behind when it ends is left to `Sweep`, to be ordered after the last `Exited`.
    Kill {
        /// The ranks meant.
        which: Which,
        /// Time between the two signals.
        grace_ms: u64,
    },
    /// Kill every rank that is left and everything that any rank left behind, then report `Swept`.
    Sweep,
    /// Sweep, report it, and end the executor.
    Shutdown,
}

/// Which ranks an order means. Ranks that are gone or unknown are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All ranks that live here.
    All,
    /// These.
    Some(Vec<ProcId>),
}

/// Where a rank's standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdinSource {
    /// `/dev/null`.
    Null,
    /// A pipe whose writing end comes back with `Spawned`.
    Pipe,
}

/// Everything that is needed to start one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankOrder {
    /// Its name in the job.
    pub proc: ProcId,
    /// Program and arguments; a program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment. `PMI_FD` is added when `pmi` is set.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; the agent's own when absent.
    pub cwd: Option<PathBuf>,
    /// Source of its standard input.
    pub stdin: StdinSource,
    /// Whether it gets a PMI socket, at [`PMI_FD_NUMBER`].
    pub pmi: bool,
    /// Cores it may run on; unbound when absent.
    pub cpus: Option<Vec<u32>>,
    /// Resource limits that differ from the agent's own.
    pub limits: Vec<ResourceLimit>,
    /// File mode creation mask; the agent's own when absent.
    pub umask: Option<u32>,
}

/// What the executor half tells the session half. Every descriptor in it is non-blocking and closes on exec.
#[derive(Debug)]
pub enum Report {
    /// The program runs.
    Spawned {
        /// Which rank.
        proc: ProcId,
        /// Its process id, for display.
        pid: i32,
        /// Writing end of its standard input, when that is a pipe.
        stdin: Option<OwnedFd>,
        /// Reading end of its standard output.
        stdout: OwnedFd,
        /// Reading end of its standard error.
        stderr: OwnedFd,
        /// The agent's end of its PMI socket.
        pmi: Option<OwnedFd>,
    },
    /// The program does not run.
    SpawnFailed(SpawnFailure),
    /// The process of a rank has ended and was reaped.
    Exited {
        /// Which rank.
        proc: ProcId,
        /// How it ended.
        status: ExitStatus,
        /// Largest resident set of it and of the children it waited for, as the kernel counts: never less than the
        /// agent's own at the time of the start.
        maxrss_kib: u64,
    },
    /// A sweep is over.
    Swept {
        /// Processes that have not died in time; empty when nothing is left. They may merely be slow to give back their
        /// memory: another `Sweep` asks again.
        survivors: Vec<Survivor>,
    },
}

/// Why a rank did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnFailure {
    /// Which rank.
    pub proc: ProcId,
    /// The step that failed.
    pub stage: Stage,
    /// The system's reason.
    pub errno: i32,
    /// The program as it was named.
    pub program: String,
    /// The working directory as it was named; absent when it was the agent's own.
    pub cwd: Option<String>,
}

impl SpawnFailure {
    /// The exit status that shells give for this: 127 for a program that was not found, 126 for one that cannot run
    /// (or not there). None when the program is not at fault.
    pub fn shell_code(&self) -> Option<u8> {
        match self.stage {
            Stage::Exec if self.errno == ENOENT => Some(127),
            Stage::Exec | Stage::Interpreter | Stage::Cwd => Some(126),
            _ => None,
        }
    }
}

/// The system's reasons that are told apart here; their numbers are the same on every Linux that we know.
pub(super) mod errno {
    pub(in super::super) const ENOENT: i32 = 2;
    pub(in super::super) const EIO: i32 = 5;
    pub(in super::super) const E2BIG: i32 = 7;
    pub(in super::super) const ENOEXEC: i32 = 8;
    pub(in super::super) const EAGAIN: i32 = 11;
    pub(in super::super) const EACCES: i32 = 13;
    pub(in super::super) const EBUSY: i32 = 16;
    pub(in super::super) const EEXIST: i32 = 17;
}

impl fmt::Display for SpawnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        let reason = std::io::Error::from_raw_os_error(self.errno);
        match (self.stage, self.errno) {
            (Stage::Exec, ENOENT) if program.contains('/') => {
                write!(f, "program {program:?} not found; is it in this host's image and file system?")
            }
            (Stage::Exec, ENOENT) => {
                write!(f, "program {program:?} not found in the PATH of the rank; give its path, or set PATH with -x")
            }
            (Stage::Exec, EACCES) => {
                write!(
                    f,
                    "program {program:?} cannot be executed: permission denied; is it a program, is its mode executable?"
                )
            }
            (Stage::Exec, ENOEXEC) => {
                write!(f, "program {program:?} cannot be executed: not built for this machine's architecture")
            }
            (Stage::Exec, E2BIG) => {
                write!(f, "program {program:?} cannot be executed: its arguments and environment are too long together")
            }
            (Stage::Interpreter, _) => {
                write!(
                    f,
                    "program {program:?} cannot be executed: the interpreter or loader that it names is missing here"
                )
            }
            (Stage::Cwd, _) => {
                let cwd = self.cwd.as_deref().unwrap_or(".");
                write!(f, "working directory {cwd:?} cannot be entered: {reason}; choose another with --wdir")
            }
            (Stage::Prepare, EEXIST) => {
                write!(
                    f,
                    "program {program:?} was not started: an earlier process of the same rank still lives on this host"
                )
            }
            (Stage::Prepare, EBUSY) => {
                write!(f, "program {program:?} was not started: this host is still killing the ranks of before")
            }
            (Stage::Prepare, EAGAIN) => {
                write!(
                    f,
                    "program {program:?} was not started: this host runs {RANKS_PER_HOST_MAX} ranks, the most it may"
                )
            }
            (stage, _) => write!(f, "{stage} for program {program:?}: {reason}"),
        }
    }
}

impl std::error::Error for SpawnFailure {}

/// Why an order was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The executor has ended.
    #[error("the executor of this agent has ended; the agent must be started again")]
    Gone,
    /// Too many orders wait.
    #[error("the executor of this agent has {limit} orders waiting already; the order was not taken")]
    Full {
        /// Orders that may wait.
        limit: usize,
    },
}

/// The executor half as the session half sees it.
pub trait Executor: Send + Sync {
    /// Hands an order over without waiting for its effect; that comes as reports.
    fn order(&self, order: Order) -> Result<(), OrderError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: Stage, errno: i32) -> SpawnFailure {
        SpawnFailure { proc: ProcId(3), stage, errno, program: "a.out".to_owned(), cwd: Some("/data".to_owned()) }
    }

    #[test]
    fn failures_give_the_codes_of_shells() {
        let code = |stage, errno| failure(stage, errno).shell_code();
        assert_eq!(code(Stage::Exec, ENOENT), Some(127));
        assert_eq!(code(Stage::Exec, EACCES), Some(126));
        assert_eq!(code(Stage::Interpreter, ENOENT), Some(126));
        assert_eq!(code(Stage::Cwd, ENOENT), Some(126));
        assert_eq!(code(Stage::Clone, EAGAIN), None);
    }

    #[test]
    fn failures_say_what_happened_to_what_and_what_to_do() {
        let text = |stage, errno| failure(stage, errno).to_string();
        assert_eq!(
            text(Stage::Exec, ENOENT),
            "program \"a.out\" not found in the PATH of the rank; give its path, or set PATH with -x"
        );
        assert_eq!(
            text(Stage::Cwd, ENOENT),
            "working directory \"/data\" cannot be entered: No such file or directory (os error 2); choose another with --wdir"
        );
        assert_eq!(
            text(Stage::Clone, EAGAIN),
            "cannot create a process for program \"a.out\": Resource temporarily unavailable (os error 11)"
        );
        assert_eq!(
            text(Stage::Prepare, EBUSY),
            "program \"a.out\" was not started: this host is still killing the ranks of before"
        );
    }
}
