//! What a server asks of the agent around it, and what it is told back.

use bytes::Bytes;
use muster_protocol::Rank;

use super::server::Phase;
use super::spawn::SpawnRequest;
use super::wire::WireError;

/// Something the agent is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes to a local rank.
    Send {
        /// Position of the rank in [`super::GroupSetup::local`].
        local: usize,
        /// What to write.
        bytes: Bytes,
    },
    /// Close the rank's descriptor once everything is written: the client has finalised and may not close it itself.
    Close {
        /// Position of the rank in [`super::GroupSetup::local`].
        local: usize,
    },
    /// A rank of this host has said its first word; from now on a rank that ends without one is missed by the others.
    FirstInit {
        /// The rank.
        rank: Rank,
    },
    /// All living ranks of this host have entered the fence.
    Fence {
        /// Number of the fence in the group, from 0.
        seq: u64,
        /// What they have put since the last one, as [`crate::kvs`] writes it; may be empty.
        blob: Bytes,
    },
    /// A question that only the root can answer. The rank waits for [`super::Server::answer`].
    Upcall {
        /// To be given back with the answer.
        token: u64,
        /// Who asks.
        rank: Rank,
        /// The question.
        call: Upcall,
    },
    /// A rank has asked for the end of the job.
    Abort {
        /// The rank.
        rank: Rank,
        /// The exit code it asked for.
        exitcode: i32,
        /// What it said; empty when it said nothing.
        message: String,
    },
    /// A rank is gone without having finalised: after init it closed its descriptor or ended, or it ended before init.
    Left {
        /// The rank.
        rank: Rank,
        /// How far it had come: [`Phase::Initialised`] is the end of the job, [`Phase::Untouched`] is it if any rank of the
        /// job has initialised.
        phase: Phase,
    },
    /// A rank does not speak the protocol. Nothing more is read from it.
    Broken {
        /// The rank.
        rank: Rank,
        /// What it did.
        error: PmiError,
    },
}

/// A question to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upcall {
    /// Publish a name.
    Publish {
        /// The service name.
        name: Bytes,
        /// Where it is reached.
        port: Bytes,
    },
    /// Look a name up.
    Lookup {
        /// The service name.
        name: Bytes,
    },
    /// Take a name back.
    Unpublish {
        /// The service name.
        name: Bytes,
    },
    /// Start more processes as a new group.
    Spawn(SpawnRequest),
}

/// What the root answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Upcall::Publish`]: done, or why not.
    Published(Result<(), String>),
    /// To [`Upcall::Lookup`]: the port, if the name is known.
    Found(Option<Bytes>),
    /// To [`Upcall::Unpublish`]: whether the name was there.
    Unpublished(bool),
    /// To [`Upcall::Spawn`]: the new group starts.
    Spawned {
        /// Name of the new group's key-value space.
        kvsname: String,
        /// One code for each process; empty stands for all zero.
        errcodes: Vec<i32>,
    },
    /// To [`Upcall::Spawn`]: nothing was started.
    SpawnFailed {
        /// Why, for people.
        reason: String,
    },
}

/// What a rank did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PmiError {
    /// Its bytes are no messages.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A command that this server does not know. PMI has no reply for that.
    #[error("unknown PMI command {command:?}")]
    UnknownCommand {
        /// The command's name, cut short.
        command: String,
    },
    /// It asks before it has said init.
    #[error("PMI command {command:?} before init")]
    BeforeInit {
        /// The command's name, cut short.
        command: String,
    },
    /// A field is missing.
    #[error("PMI command {command:?} without {field}")]
    MissingField {
        /// The command's name, cut short.
        command: String,
        /// The field.
        field: &'static str,
    },
    /// A field cannot be what it is.
    #[error("PMI command {command:?}: {field} is {value:?}, expected {expected}")]
    BadField {
        /// The command's name, cut short.
        command: String,
        /// The field.
        field: &'static str,
        /// What came, cut short.
        value: String,
        /// What should have come.
        expected: String,
    },
    /// It enters a fence that it has entered already.
    #[error("fence entered twice; the first is not over")]
    FenceTwice,
    /// More unanswered requests than a client's threads explain.
    #[error("more than {limit} requests without waiting for an answer")]
    TooManyRequests {
        /// How many are allowed.
        limit: usize,
    },
}
