//! What a job tells the outside world: the terminal view, the NDJSON log and every later reader see these and nothing else.

use serde::Serialize;

use crate::ids::{Generation, Group, HostIndex, ProcId, Rank};
use crate::message::{AbortCause, Obstacle, ProcEnd};

/// One thing that happened. In the log it is an object with `at_ms` (since the start of the command) and `event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The command began.
    JobStarting {
        /// The job.
        job: String,
        /// Hosts in the list.
        hosts: usize,
        /// Ranks asked for.
        ranks: u32,
        /// Worlds that the programs of the command line form: process groups below this number. Those that are spawned follow.
        worlds: u32,
    },
    /// A host cannot be connected yet.
    HostMissing {
        /// The host.
        host: String,
        /// What stands in the way.
        obstacle: Obstacle,
        /// The whole story.
        text: String,
    },
    /// A host is connected.
    HostJoined {
        /// Its index.
        index: HostIndex,
        /// Its name.
        host: String,
    },
    /// A rank runs.
    RankStarted {
        /// Process group.
        group: Group,
        /// Rank in it.
        rank: Rank,
        /// Its host.
        host: String,
        /// Its pid there.
        pid: u32,
        /// Rank generation.
        generation: Generation,
    },
    /// All ranks of a group run.
    GroupRunning {
        /// Process group.
        group: Group,
        /// Its size.
        size: u32,
    },
    /// Somebody else's launcher was started on its hosts.
    CommandStarted {
        /// How often it had been started before.
        restarts: u32,
    },
    /// A fence completed.
    FenceDone {
        /// Process group.
        group: Group,
        /// Number of the fence.
        seq: u64,
        /// Key-value bytes exchanged.
        bytes: usize,
    },
    /// Somebody asked which ranks have not arrived at the fence their group is in.
    FenceWaiting {
        /// Process group.
        group: Group,
        /// Number of the fence.
        seq: u64,
        /// Ranks that have arrived.
        arrived: usize,
        /// Ranks that have not, with their hosts.
        absent: Vec<(Rank, String)>,
        /// Hosts that did not answer the question.
        silent_hosts: Vec<String>,
    },
    /// Somebody asked which ranks have not arrived at a fence, and no rank waits in one.
    NoFenceWaiting {
        /// Hosts that did not answer the question.
        silent_hosts: Vec<String>,
    },
    /// A host could not end every process of the job.
    HostStained {
        /// Its name.
        host: String,
        /// Pid and name of each.
        survivors: Vec<(u32, String)>,
    },
    /// A rank ended.
    RankEnded {
        /// Process group.
        group: Group,
        /// Rank in it.
        rank: Rank,
        /// Process id in the job.
        proc: ProcId,
        /// Its host.
        host: String,
        /// How it ended.
        end: ProcEnd,
        /// The launcher or its agent killed it.
        killed: bool,
        /// Rank generation.
        generation: Generation,
    },
    /// A rank asked for the end of the job.
    RankAborted {
        /// Process group.
        group: Group,
        /// Rank in it.
        rank: Rank,
        /// Its host.
        host: String,
        /// Why.
        cause: AbortCause,
    },
    /// A rank's library has words for people.
    RankSaid {
        /// Process group.
        group: Group,
        /// Rank in it.
        rank: Rank,
        /// Its host.
        host: String,
        /// The words, line ends included.
        text: String,
    },
    /// A failure that would end another job: this one goes on without those who are dead.
    WentOn {
        /// What happened, as a sentence.
        cause: String,
    },
    /// A connected host is lost.
    HostLost {
        /// Its name.
        host: String,
        /// What was seen.
        why: String,
    },
    /// A rank started more ranks.
    Spawned {
        /// The new process group.
        group: Group,
        /// Its size.
        size: u32,
        /// Rank that asked, and its group.
        by: (Group, Rank),
    },
    /// A signal was passed on to the ranks.
    SignalForwarded {
        /// Its number.
        signal: i32,
    },
    /// The job is being ended.
    Ending {
        /// First cause, as a sentence.
        cause: String,
    },
    /// The job is over and its output is written, or is not waited for any more: always the last event, and once.
    JobEnded {
        /// Exit status of the command.
        status: u8,
        /// First cause when it failed.
        cause: Option<String>,
    },
}
