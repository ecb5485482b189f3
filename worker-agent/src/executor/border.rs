//! The message border between the session half and the executor half of the agent.
//!
//! Everything that crosses it is plain data and descriptors, so that the two halves can live in one process or, in a
//! sidecar, in two that share nothing but a Unix socket. Process ids cross it for display only: in another process id
//! namespace they mean nothing.
//!
//! Rules of the border:
//! - A rank is named by its [`ProcId`]; at most one live process has it. A second `Spawn` of a living one is refused.
//! - Orders are carried out one after the other, in the order given. But an order that ends ranks (`Kill`, `Sweep`,
//!   `Shutdown`) waits for no start: it cancels those starts of its ranks that were ordered before it and have not begun,
//!   and the one that is under way ends its rank as soon as it comes back, or before.
//! - For every `Spawn` there is one `Spawned` or `SpawnFailed`, and after `Spawned` one `Exited`. That is all a rank
//!   ever reports, so the reports waiting to be read are bounded by the ranks ordered.
//! - For every `Sweep` there is one `Swept`, after the `Exited` of every rank that the sweep ended; a start that hangs is a
//!   survivor. A new generation starts after a `Swept` without survivors; so a report never belongs to an older
//!   generation than its reader.
//! - After `Shutdown` comes one last `Swept`, then nothing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use muster_protocol::ProcId;
use muster_protocol::message::OutOfMemory;
pub use muster_sys::limits::{Resource, ResourceLimit};
pub use muster_sys::stage::Stage;
pub use muster_sys::status::ExitStatus;
pub use muster_sys::subreaper::Survivor;

pub use super::failure::SpawnFailure;

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

/// The environment of a rank. What it has in common with others is shared: a megabyte of it for thousands of ranks is
/// nothing unusual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankEnv {
    /// What the ranks of its program have in common; every name once.
    pub base: Arc<[(OsString, OsString)]>,
    /// Its own, which win; every name once.
    pub own: Vec<(OsString, OsString)>,
}

impl RankEnv {
    /// The whole, every name once.
    pub fn joined(&self) -> Vec<(&OsStr, &OsStr)> {
        fn pair((name, value): &(OsString, OsString)) -> (&OsStr, &OsStr) {
            (name, value)
        }
        let own: BTreeSet<&OsString> = self.own.iter().map(|(name, _)| name).collect();
        let base = self.base.iter().filter(|(name, _)| !own.contains(name));
        base.chain(&self.own).map(pair).collect()
    }
}

/// Everything that is needed to start one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankOrder {
    /// Its name in the job.
    pub proc: ProcId,
    /// Program and arguments; a program without a slash is looked up in the `PATH` of `env`.
    pub argv: Arc<[OsString]>,
    /// The whole environment. `PMI_FD` is added when `pmi` is set.
    pub env: RankEnv,
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
        /// The kernel has killed it, for want of memory.
        memory: Option<OutOfMemory>,
    },
    /// A sweep is over.
    Swept {
        /// Processes that have not died in time; empty when nothing is left. They may merely be slow to give back their
        /// memory: another `Sweep` asks again.
        survivors: Vec<Survivor>,
    },
}

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

    #[test]
    fn what_a_rank_has_of_its_own_replaces_what_it_shares() {
        let vars = |list: &[(&str, &str)]| list.iter().map(|(n, v)| (n.into(), v.into())).collect::<Vec<_>>();
        let env = RankEnv { base: vars(&[("A", "1"), ("B", "2")]).into(), own: vars(&[("B", "mine"), ("C", "3")]) };
        assert_eq!(env.joined(), [("A", "1"), ("B", "mine"), ("C", "3")].map(|(n, v)| (OsStr::new(n), OsStr::new(v))));
    }
}
