//! What goes up the tree: from a host to the root, or from a child to its parent.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::hostset::HostSet;
use crate::ids::{Group, HostIndex, ProcId, Rank, Stream};

/// Answer to a heartbeat, from a child to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Alive {}

/// Hosts that are connected.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Joined {
    /// The hosts.
    #[n(0)]
    pub hosts: HostSet,
}

/// A host that cannot be connected yet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Missing {
    /// The host.
    #[n(0)]
    pub host: HostIndex,
    /// What stands in the way.
    #[n(1)]
    pub why: Obstacle,
    /// The whole story, for people.
    #[n(2)]
    pub text: String,
}

/// What stands between a parent and a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// Nothing tried yet, or no answer yet.
    #[n(0)]
    Waiting,
    /// The name does not resolve.
    #[n(1)]
    Unresolved,
    /// Nothing listens there.
    #[n(2)]
    Refused,
    /// No route, or no answer within the time limit.
    #[n(3)]
    Unreachable,
    /// The agent holds another job key.
    #[n(4)]
    WrongKey,
    /// The agent serves another job.
    #[n(5)]
    WrongJob,
    /// No protocol version in common.
    #[n(6)]
    Version,
    /// The agent serves another launcher now.
    #[n(7)]
    Busy,
    /// What answers is no agent.
    #[n(8)]
    NotAnAgent,
}

/// A rank that runs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProcStarted {
    /// The process.
    #[n(0)]
    pub proc: ProcId,
    /// Its pid on its host.
    #[n(1)]
    pub pid: u32,
}

/// Ranks that run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Started {
    /// The ranks.
    #[n(0)]
    pub procs: Vec<ProcStarted>,
}

/// Processes of a host's control group that the kernel has killed for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct OutOfMemory {
    /// How many, since ranks run there.
    #[n(0)]
    pub killed: u64,
    /// How many bytes the group may have; absent when that limit was not reached since ranks run there.
    #[n(1)]
    pub limit_bytes: Option<u64>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcEnd {
    /// It returned this status.
    #[n(0)]
    Exited(#[n(0)] u8),
    /// A signal ended it.
    #[n(1)]
    Signaled {
        /// The signal.
        #[n(0)]
        signal: i32,
        /// Whether a core file was written.
        #[n(1)]
        core: bool,
        /// The kernel did, for want of memory.
        #[n(2)]
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<OutOfMemory>,
    },
    /// It never ran.
    #[n(2)]
    NotStarted {
        /// What could not be done.
        #[n(0)]
        stage: StartStage,
        /// Error number.
        #[n(1)]
        errno: i32,
        /// The program, directory or limit concerned.
        #[n(2)]
        what: String,
    },
}

/// Step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum StartStage {
    /// Entering the working directory.
    #[n(0)]
    Wdir,
    /// Executing the program.
    #[n(1)]
    Exec,
    /// Binding, limits, descriptors, or the fork itself.
    #[n(2)]
    Setup,
}

/// How far a rank got with its bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never spoke to it.
    #[default]
    #[n(0)]
    Untouched,
    /// Initialised and has not finalised.
    #[n(1)]
    Initialised,
    /// Finalised.
    #[n(2)]
    Finalised,
}

/// A rank that ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProcExit {
    /// The process.
    #[n(0)]
    pub proc: ProcId,
    /// How.
    #[n(1)]
    pub end: ProcEnd,
    /// How far its bootstrap had got.
    #[n(2)]
    pub phase: Phase,
    /// Peak resident memory, in KiB.
    #[n(3)]
    pub maxrss_kib: u64,
    /// The agent killed it, on order or because the lease ended.
    #[n(4)]
    pub killed: bool,
}

/// Ranks that ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exits {
    /// The ranks, in the order they ended on their host.
    #[n(0)]
    pub procs: Vec<ProcExit>,
}

/// Words of a rank's library for people, as if the rank had written them to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Say {
    /// The rank.
    #[n(0)]
    pub proc: ProcId,
    /// The words, line ends included.
    #[n(1)]
    pub text: ByteVec,
}

/// Answer to a [`super::Fetch`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Fetched {
    /// The root's number for it.
    #[n(0)]
    pub ticket: u64,
    /// PMIx status.
    #[n(1)]
    pub status: i32,
    /// What the rank has put.
    #[n(2)]
    pub data: ByteVec,
}

/// Why a rank's bootstrap ends the job.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortCause {
    /// It asked for it.
    #[n(0)]
    Asked {
        /// Exit status it asked for.
        #[n(0)]
        code: i32,
        /// Its words.
        #[n(1)]
        message: String,
    },
    /// It said something its bootstrap protocol does not have.
    #[n(1)]
    Protocol {
        /// What was wrong.
        #[n(0)]
        message: String,
    },
    /// It closed its bootstrap connection without finalising, and lives on.
    #[n(2)]
    Departed,
    /// What serves its bootstrap on its host has failed.
    #[n(3)]
    Unserved {
        /// How.
        #[n(0)]
        message: String,
    },
}

/// A rank asked for the end of the job, or broke the rules of its bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Abort {
    /// The rank.
    #[n(0)]
    pub proc: ProcId,
    /// Why.
    #[n(1)]
    pub cause: AbortCause,
}

/// A host that was connected is lost.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Lost {
    /// The host.
    #[n(0)]
    pub host: HostIndex,
    /// What was seen.
    #[n(1)]
    pub why: String,
}

/// Ranks that have not arrived at the fence their group is in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FenceState {
    /// The group.
    #[n(0)]
    pub group: Group,
    /// Number of the fence.
    #[n(1)]
    pub seq: u64,
    /// Ranks of this host that have arrived.
    #[n(2)]
    pub arrived: Vec<Rank>,
    /// Ranks of this host that have not.
    #[n(3)]
    pub absent: Vec<Rank>,
}

/// What a host tells the others of a group before its ranks start, in the first fence of a group that uses PMIx: the value of the
/// entry that has the host's name as its key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PmixHost {
    /// Version of its PMIx library.
    #[n(0)]
    pub version: String,
    /// Identifies the machine that it is a part of, until that starts anew; 0 when unknown.
    #[n(1)]
    pub machine: u64,
    /// Ranks of the job on the host.
    #[n(2)]
    pub ranks: u32,
    /// The same for hosts whose ranks share what they may use of that machine; 0 when unknown.
    #[n(3)]
    pub share: u64,
}

/// Answer to a query.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Report {
    /// One entry for each group with ranks on this host.
    #[n(0)]
    pub fences: Vec<FenceState>,
}

/// How many bytes a stream had.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamEnd {
    /// The process.
    #[n(0)]
    pub proc: ProcId,
    /// Standard output or error.
    #[n(1)]
    pub stream: Stream,
    /// Bytes written in all.
    #[n(2)]
    pub bytes: u64,
}

/// A launcher that goes first wants the sender's host. A root that still connects its hosts answers with `Release`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Wanted {
    /// Its job.
    #[n(0)]
    pub job: String,
    /// The host of the launcher or parent that asked.
    #[n(1)]
    pub launcher: String,
}

/// A process that could not be ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Survivor {
    /// Its pid on its host.
    #[n(0)]
    pub pid: u32,
    /// Its command name.
    #[n(1)]
    pub name: String,
}

/// Hosts on which nothing of the job is left.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// The hosts.
    #[n(0)]
    pub hosts: HostSet,
    /// Streams of theirs that had any bytes.
    #[n(1)]
    pub streams: Vec<StreamEnd>,
    /// Processes that could not be ended; there is one host only when there are any.
    #[n(2)]
    pub survivors: Vec<Survivor>,
}

/// Please open a bulk connection to me.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WantBulk {}

/// First rank of a group on this host that spoke to its bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Initialised {
    /// The group.
    #[n(0)]
    pub group: Group,
    /// The rank.
    #[n(1)]
    pub rank: Rank,
}

/// Bytes that a rank has been given; the stream is the frame's channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct InputAck {
    /// Bytes of the stream given so far.
    #[n(0)]
    pub bytes: u64,
}
