//! What goes down the tree: from the root, or from a parent to its child.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::hostset::HostSet;
use crate::ids::{Group, HostIndex, ProcId, Rank};

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
    /// PMIx, from a server beside the ranks.
    #[n(2)]
    Pmix,
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

/// Consecutive ranks on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// Position of the host among those of the group, in the order of their lowest ranks.
    #[n(0)]
    pub node: u32,
    /// How many ranks.
    #[n(1)]
    pub ranks: u32,
}

/// What PMIx needs to know of a process group beyond the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct PmixPlan {
    /// Names of the hosts that have ranks of the group, in the order of their lowest ranks.
    #[n(0)]
    pub nodes: Vec<String>,
    /// Where its ranks run, in their order.
    #[n(1)]
    pub runs: Vec<Run>,
    /// The only library to use; without it each host looks for one.
    #[n(2)]
    pub library: Option<String>,
    /// Who spawned the group: its process group and rank.
    #[n(3)]
    pub parent: Option<(Group, Rank)>,
    /// Ranks of each program.
    #[n(4)]
    pub apps: Vec<u32>,
    /// Whether ranks are told of others that have died, and go on.
    #[n(5)]
    #[cbor(default)]
    pub tolerant: bool,
    /// A library to try before others: the one of the ranks' own MPI.
    #[n(6)]
    pub preferred: Option<String>,
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
    /// Variables of every program, before its own.
    #[n(15)]
    pub env: Vec<EnvVar>,
    /// For ranks that use PMIx.
    #[n(16)]
    pub pmix: Option<PmixPlan>,
    /// The process group whose rank has spawned this one; none: the command line names its programs.
    #[n(17)]
    pub spawned_by: Option<Group>,
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

/// The host is another launcher's first. Only before the first share: forget the job and close the connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Release {}

/// The job is over: end what is left, close every stream, confirm with `Ended`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct End {
    /// Exit status of the job, as far as it is known.
    #[n(0)]
    pub status: u8,
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
    /// All parts of a gathering have come.
    #[n(4)]
    Gathered {
        /// What they have brought, one behind the other.
        #[n(0)]
        data: ByteVec,
        /// A number that no other gathering of the job has, if one was asked for.
        #[n(1)]
        context: Option<u64>,
    },
    /// What a rank has put.
    #[n(5)]
    Data {
        /// PMIx status.
        #[n(0)]
        status: i32,
        /// Its data.
        #[n(1)]
        data: ByteVec,
    },
    /// What was found of what ranks have published.
    #[n(6)]
    Items {
        /// It; fewer than asked for when the time is over.
        #[n(0)]
        items: Vec<FoundItem>,
    },
}

/// Something published that was found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FoundItem {
    /// Process group of who published it.
    #[n(0)]
    pub group: Group,
    /// Its rank.
    #[n(1)]
    pub rank: Rank,
    /// What.
    #[n(2)]
    pub item: KeyValue,
}

/// A rank that has died while the job goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct DeadRank {
    /// The rank.
    #[n(0)]
    pub rank: Rank,
    /// Whether a signal ended it, or its host is gone.
    #[n(1)]
    pub violent: bool,
}

/// Ranks have died and the job goes on: tell those that live, and wait in fences for nobody who is dead.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Dead {
    /// The process group.
    #[n(0)]
    pub group: Group,
    /// The ranks.
    #[n(1)]
    pub ranks: Vec<DeadRank>,
    /// Hosts on which no rank of the group lives any more.
    #[n(2)]
    pub hosts: HostSet,
}

/// Process groups that have ended on every host, and that nobody is connected to any more: forget them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Forget {
    /// They, as stretches of neighbours, in ascending order.
    #[n(0)]
    pub groups: Vec<Stretch>,
}

/// Process groups with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stretch {
    /// The first of them.
    #[n(0)]
    pub first: Group,
    /// How many they are.
    #[n(1)]
    pub count: u32,
}

/// Tell what a rank of yours has put; answered by [`super::Fetched`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Fetch {
    /// The root's number for it.
    #[n(0)]
    pub ticket: u64,
    /// The rank's process group.
    #[n(1)]
    pub group: Group,
    /// The rank.
    #[n(2)]
    pub rank: Rank,
}

/// Answer to a [`super::Call`], to the host it came from.
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

/// Bytes that the launcher has written out; the stream is the frame's channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OutputAck {
    /// Bytes of the stream written so far.
    #[n(0)]
    pub bytes: u64,
}
