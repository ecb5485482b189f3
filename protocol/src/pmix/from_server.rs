//! What a PMIx server says to its agent.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::{GroupOp, Item, Proc};
use crate::message::EnvVar;

/// What `muster-pmix` says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromPmix {
    /// The server runs.
    #[n(0)]
    Ready {
        /// Version of the library: `4.2.2`.
        #[n(0)]
        version: String,
        /// The library.
        #[n(1)]
        library: String,
    },
    /// There is no server, or it cannot go on; nothing follows.
    #[n(1)]
    Failed {
        /// Why, for people.
        #[n(0)]
        why: String,
    },
    /// A namespace is registered.
    #[n(2)]
    Registered {
        /// Its name.
        #[n(0)]
        namespace: String,
        /// What the environment of each local rank must hold, in the order of `local`.
        #[n(1)]
        environments: Vec<Vec<EnvVar>>,
    },
    /// A rank has connected: it has begun its initialisation.
    #[n(3)]
    Connected {
        /// It.
        #[n(0)]
        proc: Proc,
    },
    /// A rank has finalised.
    #[n(4)]
    Finalised {
        /// It.
        #[n(0)]
        proc: Proc,
    },
    /// A rank asks for the end of the job.
    #[n(5)]
    Abort {
        /// It.
        #[n(0)]
        proc: Proc,
        /// Exit status it wants.
        #[n(1)]
        status: i32,
        /// Its words.
        #[n(2)]
        message: String,
    },
    /// All participants here have arrived at a fence. Answered by [`super::ToPmix::Data`].
    #[n(6)]
    Fence {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Participants.
        #[n(1)]
        procs: Vec<Proc>,
        /// Whether all data are wanted everywhere.
        #[n(2)]
        collect: bool,
        /// Contribution.
        #[n(3)]
        data: ByteVec,
    },
    /// A rank here needs what a rank elsewhere has put. Answered by [`super::ToPmix::Data`].
    #[n(7)]
    Modex {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Whose data.
        #[n(1)]
        proc: Proc,
    },
    /// Answer to [`super::ToPmix::Fetch`].
    #[n(8)]
    Fetched {
        /// The agent's number.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// What the rank has put.
        #[n(2)]
        data: ByteVec,
    },
    /// A rank publishes. Answered by [`super::ToPmix::Done`].
    #[n(9)]
    Publish {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Who.
        #[n(1)]
        proc: Proc,
        /// What.
        #[n(2)]
        items: Vec<Item>,
        /// Whether it is gone after it was read once.
        #[n(3)]
        once: bool,
    },
    /// A rank looks published keys up. Answered by [`super::ToPmix::Found`].
    #[n(10)]
    Lookup {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Who.
        #[n(1)]
        proc: Proc,
        /// Keys.
        #[n(2)]
        keys: Vec<String>,
        /// Whether to wait until they are published.
        #[n(3)]
        wait: bool,
        /// For how long, in seconds; 0: for ever.
        #[n(4)]
        timeout_s: u32,
    },
    /// A rank takes back what it has published. Answered by [`super::ToPmix::Done`].
    #[n(11)]
    Unpublish {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Who.
        #[n(1)]
        proc: Proc,
        /// Keys; empty: all of its own.
        #[n(2)]
        keys: Vec<String>,
    },
    /// A rank starts more ranks. Answered by [`super::ToPmix::Spawned`].
    #[n(12)]
    Spawn {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Who.
        #[n(1)]
        parent: Proc,
        /// Info for the whole, as text.
        #[n(2)]
        info: Vec<EnvVar>,
        /// Programs.
        #[n(3)]
        apps: Vec<SpawnProgram>,
    },
    /// Participants here have called connect. Answered by [`super::ToPmix::Done`].
    #[n(13)]
    Connect {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Participants.
        #[n(1)]
        procs: Vec<Proc>,
    },
    /// Participants here have called disconnect. Answered by [`super::ToPmix::Done`].
    #[n(14)]
    Disconnect {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Participants.
        #[n(1)]
        procs: Vec<Proc>,
    },
    /// Members here make or end a group. Answered by [`super::ToPmix::Grouped`].
    #[n(15)]
    Group {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Which.
        #[n(1)]
        op: GroupOp,
        /// Its name.
        #[n(2)]
        id: String,
        /// Members.
        #[n(3)]
        procs: Vec<Proc>,
        /// Whether a context id is wanted.
        #[n(4)]
        context: bool,
        /// What the members here bring.
        #[n(5)]
        endpoint: ByteVec,
    },
    /// Something a rank's library wants people to read. Answered by [`super::ToPmix::Done`].
    #[n(16)]
    Log {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Whose.
        #[n(1)]
        proc: Proc,
        /// Text, line ends included.
        #[n(2)]
        text: ByteVec,
    },
    /// Everything that a rank which has ended had said was told before.
    #[n(17)]
    Drained {
        /// It.
        #[n(0)]
        proc: Proc,
    },
    /// A namespace cannot be registered; nothing of it is left, and the server serves the others.
    #[n(18)]
    NotRegistered {
        /// Its name.
        #[n(0)]
        namespace: String,
        /// Why, for people.
        #[n(1)]
        why: String,
    },
}

/// A program of a spawn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SpawnProgram {
    /// What to execute.
    #[n(0)]
    pub program: String,
    /// Arguments, the program's name first.
    #[n(1)]
    pub argv: Vec<String>,
    /// Variables, as `NAME=value`.
    #[n(2)]
    pub env: Vec<String>,
    /// Directory.
    #[n(3)]
    pub wdir: Option<String>,
    /// Number of ranks.
    #[n(4)]
    pub count: u32,
    /// Info, as text.
    #[n(5)]
    pub info: Vec<EnvVar>,
}
