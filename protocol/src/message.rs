//! Payloads of control frames.
//!
//! Field numbers are explicit and never reused; a release skips fields it does not know. `docs/protocol.md` has the table.

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::Serialize;
use thiserror::Error;

use crate::frame::{EVERY_HOST, Frame, Kind};
use crate::hello::cbor;
use crate::hostset::HostSet;
use crate::ids::{Epoch, Generation, Group, HostIndex, ProcId, Rank, Stream};

/// A payload and the kind of frame it travels in.
pub trait Message: Encode<()> + for<'b> Decode<'b, ()> {
    /// The kind.
    const KIND: Kind;

    /// Reads the payload of a frame of this kind.
    fn read(frame: &Frame) -> Result<Self, BadPayload> {
        minicbor::decode(&frame.payload).map_err(|e| BadPayload { kind: Self::KIND, why: e.to_string() })
    }
}

/// A payload that is not what its frame says it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind:?} frame with a bad payload: {why}")]
pub struct BadPayload {
    /// The frame's kind.
    pub kind: Kind,
    /// The decoder's complaint.
    pub why: String,
}

macro_rules! messages {
    ($($name:ident),* $(,)?) => { $( impl Message for $name { const KIND: Kind = Kind::$name; } )* };
}

messages!(
    Heartbeat, Alive, Adopt, Spec, Share, Signal, Kill, Resync, CallAnswer, Query, End, Joined, Missing, Started, Exits, Call,
    Abort, Lost, Report, Ended, WantBulk, Initialised, OutputAck, InputAck,
);

/// Makes frames of one sender: its job incarnation, generation and own host index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Launcher incarnation.
    pub epoch: Epoch,
    /// Rank generation.
    pub generation: Generation,
}

impl Stamp {
    /// A frame for one host, or from one host.
    pub fn frame<M: Message>(self, host: HostIndex, message: &M) -> Frame {
        Frame::new(M::KIND, host, self.epoch, self.generation, cbor(message))
    }

    /// A frame for every host below.
    pub fn to_all<M: Message>(self, message: &M) -> Frame {
        self.frame(EVERY_HOST, message)
    }

    /// A frame of raw bytes.
    pub fn raw(self, kind: Kind, host: HostIndex, payload: Bytes) -> Frame {
        Frame::new(kind, host, self.epoch, self.generation, payload)
    }
}

// ---------------------------------------------------------------------------------------------------------------- downward

/// Heartbeat of the root. Ranks may live one lease from `sent_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// The root's boot-time clock when it sent this, in milliseconds.
    #[n(0)]
    pub sent_ms: u64,
    /// How long ranks may live after it without another one, in milliseconds.
    #[n(1)]
    pub lease_ms: u64,
}

/// A host as its parent needs it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HostEntry {
    /// Its index in this job.
    #[n(0)]
    pub index: HostIndex,
    /// Its name in the host list.
    #[n(1)]
    pub name: String,
    /// TCP port of its agent.
    #[n(2)]
    pub port: u16,
    /// Where to dial instead of its name: an address, or `unix:` and the path of a socket.
    #[n(3)]
    pub address: Option<String>,
}

/// Connect these hosts below you.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Adopt {
    /// The hosts of the subtree, without the receiver.
    #[n(0)]
    pub hosts: Vec<HostEntry>,
    /// Children of one node at most.
    #[n(1)]
    pub radix: u32,
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct EnvVar {
    /// Name.
    #[n(0)]
    pub name: String,
    /// Value; `None` removes the variable.
    #[n(1)]
    pub value: Option<String>,
}

/// One program of a (possibly MPMD) process group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct App {
    /// Program and arguments.
    #[n(0)]
    pub argv: Vec<String>,
    /// Working directory; the agent's own when absent.
    #[n(1)]
    pub wdir: Option<String>,
    /// Variables the user asked for, in order.
    #[n(2)]
    pub env: Vec<EnvVar>,
}

/// What ranks use to find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Bootstrap {
    /// PMI-1 and PMI-2 on an inherited socket.
    #[n(0)]
    Pmi,
    /// Only the `MUSTER_*` variables.
    #[n(1)]
    None,
}

/// Who reads the launcher's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StdinTo {
    /// Nobody: ranks read the null device.
    #[n(0)]
    Nobody,
    /// Every rank gets a copy.
    #[n(1)]
    All,
    /// One process.
    #[n(2)]
    One(#[n(0)] ProcId),
}

/// A limit on a resource of every rank.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Rlimit {
    /// Its name as in `limits.conf`: `nofile`, `memlock`, …
    #[n(0)]
    pub resource: String,
    /// Soft limit; the largest number stands for no limit.
    #[n(1)]
    pub soft: u64,
    /// Hard limit; the largest number stands for no limit.
    #[n(2)]
    pub hard: u64,
}

/// A key and its value in the key-value space.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct KeyValue {
    /// Key.
    #[n(0)]
    pub key: ByteVec,
    /// Value.
    #[n(1)]
    pub value: ByteVec,
}

/// What all ranks of a process group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Spec {
    /// The process group.
    #[n(0)]
    pub group: Group,
    /// Ranks in the group.
    #[n(1)]
    pub size: u32,
    /// Process id of the group's rank 0; the others follow.
    #[n(2)]
    pub first_proc: ProcId,
    /// Hosts that have ranks of the group.
    #[n(3)]
    pub members: HostSet,
    /// The programs.
    #[n(4)]
    pub apps: Vec<App>,
    /// How ranks find each other.
    #[n(5)]
    pub bootstrap: Bootstrap,
    /// Name of the group's key-value space.
    #[n(6)]
    pub kvsname: String,
    /// PMI process mapping, when it has a form that clients take.
    #[n(7)]
    pub mapping: Option<String>,
    /// Universe size, or -1.
    #[n(8)]
    pub universe_size: i32,
    /// Key-values every rank sees from the start.
    #[n(9)]
    pub preput: Vec<KeyValue>,
    /// Who reads standard input.
    #[n(10)]
    pub stdin: StdinTo,
    /// File mode creation mask of the ranks.
    #[n(11)]
    pub umask: Option<u32>,
    /// Resource limits of the ranks.
    #[n(12)]
    pub rlimits: Vec<Rlimit>,
    /// Unacknowledged output of one stream, in bytes.
    #[n(13)]
    pub window_bytes: u32,
    /// The job, as ranks see it.
    #[n(14)]
    pub job: String,
}

/// One rank on one host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProcShare {
    /// Rank in its group.
    #[n(0)]
    pub rank: Rank,
    /// Position in `Spec::apps`.
    #[n(1)]
    pub app: u32,
    /// Cores it is bound to; empty: not bound.
    #[n(2)]
    pub cpus: Vec<u32>,
}

/// What one host shall start of a process group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Share {
    /// The process group; its `Spec` came before.
    #[n(0)]
    pub group: Group,
    /// The ranks, in order of their local rank.
    #[n(1)]
    pub procs: Vec<ProcShare>,
    /// Position of this host among the group's hosts.
    #[n(2)]
    pub node_rank: u32,
    /// Hosts of the group.
    #[n(3)]
    pub nodes: u32,
    /// The host's name in the host list.
    #[n(4)]
    pub host_name: String,
    /// What other ranks reach it by.
    #[n(5)]
    pub reachable_as: String,
}

/// Send a signal to every rank.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Signal {
    /// Signal number.
    #[n(0)]
    pub signal: i32,
}

/// End every rank.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Kill {
    /// Time between the polite and the hard kill, in milliseconds; 0: hard at once.
    #[n(0)]
    pub grace_ms: u64,
}

/// Tell what you know again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Resync {}

/// Tell which ranks have not arrived.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Query {}

/// The job is over: end what is left, close every stream, confirm with `Ended`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct End {
    /// Exit status of the job, as far as it is known.
    #[n(0)]
    pub status: u8,
}

// ------------------------------------------------------------------------------------------------------------------ upward

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

/// One program of a spawn request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SpawnApp {
    /// Program and arguments.
    #[n(0)]
    pub argv: Vec<String>,
    /// Ranks of it.
    #[n(1)]
    pub count: u32,
    /// Info keys and values.
    #[n(2)]
    pub info: Vec<EnvVar>,
}

/// What a rank asks of the root.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// Publish a port under a service name.
    #[n(0)]
    Publish {
        /// Service name.
        #[n(0)]
        name: String,
        /// Port.
        #[n(1)]
        port: String,
    },
    /// Look a service name up.
    #[n(1)]
    Lookup {
        /// Service name.
        #[n(0)]
        name: String,
    },
    /// Take a service name back.
    #[n(2)]
    Unpublish {
        /// Service name.
        #[n(0)]
        name: String,
    },
    /// Start more ranks, as a process group of their own.
    #[n(3)]
    Spawn {
        /// The programs.
        #[n(0)]
        apps: Vec<SpawnApp>,
        /// Key-values the new ranks see from the start.
        #[n(1)]
        preput: Vec<KeyValue>,
    },
}

/// A call of a rank's PMI client that the root answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Call {
    /// Who asks.
    #[n(0)]
    pub proc: ProcId,
    /// Its host's number for this call.
    #[n(1)]
    pub token: u64,
    /// What it asks.
    #[n(2)]
    pub ask: Ask,
}

/// What the root says to a call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Published, taken back.
    #[n(0)]
    Done,
    /// The port found.
    #[n(1)]
    Found {
        /// Port.
        #[n(0)]
        port: String,
    },
    /// No such name, or it is taken, or ranks cannot be started.
    #[n(2)]
    Denied {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// New ranks are being started.
    #[n(3)]
    Spawned {
        /// Name of their key-value space.
        #[n(0)]
        kvsname: String,
        /// How many.
        #[n(1)]
        count: u32,
    },
}

/// Answer to a [`Call`], to the host it came from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallAnswer {
    /// The group of the rank that asked.
    #[n(0)]
    pub group: Group,
    /// The host's number for the call.
    #[n(1)]
    pub token: u64,
    /// The answer.
    #[n(2)]
    pub answer: Answer,
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

/// A host on which nothing of the job is left.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// The host.
    #[n(0)]
    pub host: HostIndex,
    /// Streams that had any bytes.
    #[n(1)]
    pub streams: Vec<StreamEnd>,
    /// Processes that could not be ended.
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

/// Bytes that the launcher has written out; the stream is the frame's channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OutputAck {
    /// Bytes of the stream written so far.
    #[n(0)]
    pub bytes: u64,
}

/// Bytes that a rank has been given; the stream is the frame's channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct InputAck {
    /// Bytes of the stream given so far.
    #[n(0)]
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_through_frames() {
        let stamp = Stamp { epoch: Epoch(4), generation: Generation(2) };
        let exits = Exits {
            procs: vec![ProcExit {
                proc: ProcId(7),
                end: ProcEnd::Signaled { signal: 11, core: true },
                phase: Phase::Initialised,
                maxrss_kib: 12,
                killed: false,
            }],
        };
        let frame = stamp.frame(HostIndex(3), &exits);
        assert_eq!((frame.header.kind, frame.header.host, frame.header.epoch), (Kind::Exits, HostIndex(3), Epoch(4)));
        assert_eq!(Exits::read(&frame), Ok(exits));
        assert!(Share::read(&frame).is_err());
    }
}
