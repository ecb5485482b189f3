//! What an agent and its `muster-pmix` say to each other.
//!
//! `muster-pmix` hosts a PMIx server for the ranks of one host by loading libpmix at run time. It decides nothing: what the library
//! asks goes to the agent as it is, and what the agent answers goes back. The two are of one release and talk over a Unix socket
//! that the agent has made: each message is its length (four bytes, little-endian) and its CBOR, at most
//! [`PMIX_MESSAGE_BYTES_MAX`] bytes.
//!
//! Statuses, ranks and data types are the numbers of the PMIx standard; the names of keys too.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::limits::PMIX_MESSAGE_BYTES_MAX;
use crate::message::EnvVar;
pub use crate::message::Run;

/// Bytes of a message's length.
pub const LENGTH_BYTES: usize = 4;
/// All ranks of a namespace, in place of a rank.
pub const RANK_WILDCARD: u32 = u32::MAX - 1;

/// A process as PMIx names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Proc {
    /// Its namespace.
    #[n(0)]
    pub namespace: String,
    /// Its rank there, or [`RANK_WILDCARD`].
    #[n(1)]
    pub rank: u32,
}

/// A published value. Other types are refused by `muster-pmix` itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Value {
    /// `PMIX_STRING`.
    #[n(0)]
    Text(#[n(0)] String),
    /// `PMIX_BYTE_OBJECT`.
    #[n(1)]
    Bytes(#[n(0)] ByteVec),
    /// `PMIX_UINT32`.
    #[n(2)]
    Number(#[n(0)] u32),
}

/// A published key with its value and its owner.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Item {
    /// Key.
    #[n(0)]
    pub key: String,
    /// Value.
    #[n(1)]
    pub value: Value,
}

/// A rank of this host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LocalRank {
    /// Its rank in the namespace.
    #[n(0)]
    pub rank: u32,
    /// Number of its program.
    #[n(1)]
    pub app: u32,
    /// Cores it is bound to; empty: not bound.
    #[n(2)]
    pub cpus: Vec<u32>,
}

/// A process group: what is registered for it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Namespace {
    /// Its name; unique on every host of the job.
    #[n(0)]
    pub name: String,
    /// Number of ranks.
    #[n(1)]
    pub size: u32,
    /// Ranks that there may be in all, spawned ones included.
    #[n(2)]
    pub universe: u32,
    /// Names of its nodes.
    #[n(3)]
    pub nodes: Vec<String>,
    /// Where its ranks run, in their order.
    #[n(4)]
    pub runs: Vec<Run>,
    /// Position of this host in `nodes`.
    #[n(5)]
    pub node: u32,
    /// Ranks of each program, in order.
    #[n(6)]
    pub apps: Vec<u32>,
    /// Its ranks on this host, in the order of their local ranks.
    #[n(7)]
    pub local: Vec<LocalRank>,
    /// Who spawned it.
    #[n(8)]
    pub parent: Option<Proc>,
    /// Ranks of the job that ran on this host before: the first node rank.
    #[n(9)]
    pub first_node_rank: u32,
    /// Folder of this namespace below the server's.
    #[n(10)]
    pub folder: String,
}

/// What a group operation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum GroupOp {
    /// `PMIX_GROUP_CONSTRUCT`.
    #[n(0)]
    Construct,
    /// `PMIX_GROUP_DESTRUCT`.
    #[n(1)]
    Destruct,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToPmix {
    /// First message: load a library and start the server.
    #[n(0)]
    Start {
        /// Libraries to try, in order: paths or names for the loader. The first that can be loaded and is new enough serves.
        #[n(0)]
        libraries: Vec<String>,
        /// Folder for the server's files; it exists and is empty.
        #[n(1)]
        folder: String,
        /// This host's name among the nodes.
        #[n(2)]
        host: String,
    },
    /// Register a namespace with its ranks here and tell the environment that they need.
    #[n(1)]
    Register {
        /// It.
        #[n(0)]
        namespace: Namespace,
        /// User id of the ranks.
        #[n(1)]
        uid: u32,
        /// Group id of the ranks.
        #[n(2)]
        gid: u32,
    },
    /// Forget a namespace.
    #[n(2)]
    Deregister {
        /// Its name.
        #[n(0)]
        namespace: String,
    },
    /// The end of an operation without a result: publish, unpublish, connect, disconnect, log.
    #[n(3)]
    Done {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
    },
    /// The end of a fence or of a direct modex.
    #[n(4)]
    Data {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// Result.
        #[n(2)]
        data: ByteVec,
    },
    /// The end of a look-up.
    #[n(5)]
    Found {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// What was found, with who published it.
        #[n(2)]
        items: Vec<(Proc, Item)>,
    },
    /// The end of a spawn.
    #[n(6)]
    Spawned {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// The new namespace; empty without success.
        #[n(2)]
        namespace: String,
    },
    /// The end of a group operation.
    #[n(7)]
    Grouped {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// Members.
        #[n(2)]
        members: Vec<Proc>,
        /// Context id, if one was asked for.
        #[n(3)]
        context: Option<u64>,
        /// What the members have brought, one behind the other.
        #[n(4)]
        endpoint: ByteVec,
    },
    /// Another host wants what a rank here has put; answered by [`FromPmix::Fetched`].
    #[n(8)]
    Fetch {
        /// The agent's number for it.
        #[n(0)]
        token: u64,
        /// The rank.
        #[n(1)]
        proc: Proc,
    },
    /// Tell the ranks here of an event that concerns another process.
    #[n(9)]
    Notify {
        /// PMIx status that names the event.
        #[n(0)]
        event: i32,
        /// Whom it concerns.
        #[n(1)]
        proc: Proc,
    },
    /// A rank here has ended; answered by [`FromPmix::Drained`].
    #[n(10)]
    Ended {
        /// It.
        #[n(0)]
        proc: Proc,
    },
}

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
    /// All participants here have arrived at a fence. Answered by [`ToPmix::Data`].
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
    /// A rank here needs what a rank elsewhere has put. Answered by [`ToPmix::Data`].
    #[n(7)]
    Modex {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Whose data.
        #[n(1)]
        proc: Proc,
    },
    /// Answer to [`ToPmix::Fetch`].
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
    /// A rank publishes. Answered by [`ToPmix::Done`].
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
    /// A rank looks published keys up. Answered by [`ToPmix::Found`].
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
    /// A rank takes back what it has published. Answered by [`ToPmix::Done`].
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
    /// A rank starts more ranks. Answered by [`ToPmix::Spawned`].
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
    /// Participants here have called connect. Answered by [`ToPmix::Done`].
    #[n(13)]
    Connect {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Participants.
        #[n(1)]
        procs: Vec<Proc>,
    },
    /// Participants here have called disconnect. Answered by [`ToPmix::Done`].
    #[n(14)]
    Disconnect {
        /// Number of this operation.
        #[n(0)]
        token: u64,
        /// Participants.
        #[n(1)]
        procs: Vec<Proc>,
    },
    /// Members here make or end a group. Answered by [`ToPmix::Grouped`].
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
    /// Something a rank's library wants people to read. Answered by [`ToPmix::Done`].
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

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It is longer than any may be.
    #[error("a PMIx message of {bytes} bytes; at most {PMIX_MESSAGE_BYTES_MAX} are taken")]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// It is not what the other side of this release writes.
    #[error("a PMIx message cannot be read: {why}")]
    Unreadable {
        /// The decoder's complaint.
        why: String,
    },
}

/// A message with its length.
///
/// # Errors
/// When it is too long.
pub fn packed<T: Encode<()>>(message: &T) -> Result<Vec<u8>, BadMessage> {
    let mut bytes = vec![0; LENGTH_BYTES];
    minicbor::encode(message, &mut bytes).expect("encoding into memory cannot fail");
    let length = bytes.len() - LENGTH_BYTES;
    check(length as u64)?;
    bytes[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Bytes of the message that follows.
///
/// # Errors
/// When it is too long.
pub fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, BadMessage> {
    let length = u32::from_le_bytes(bytes);
    check(u64::from(length))?;
    Ok(length as usize)
}

/// The message in these bytes, which follow its length.
///
/// # Errors
/// When it is none.
pub fn unpacked<T: for<'b> Decode<'b, ()>>(body: &[u8]) -> Result<T, BadMessage> {
    minicbor::decode(body).map_err(|error| BadMessage::Unreadable { why: error.to_string() })
}

fn check(bytes: u64) -> Result<(), BadMessage> {
    if bytes > PMIX_MESSAGE_BYTES_MAX as u64 { Err(BadMessage::TooLong { bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = FromPmix::Fence {
            token: 7,
            procs: vec![Proc { namespace: "j.0".into(), rank: RANK_WILDCARD }],
            collect: true,
            data: ByteVec::from(vec![1, 2, 3]),
        };
        let bytes = packed(&message).unwrap();
        let (head, body) = bytes.split_at(LENGTH_BYTES);
        assert_eq!(length(head.try_into().unwrap()), Ok(body.len()));
        assert_eq!(unpacked::<FromPmix>(body), Ok(message));
        assert!(unpacked::<ToPmix>(&[0xff]).is_err());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_by_name() {
        assert_eq!(length(u32::MAX.to_le_bytes()), Err(BadMessage::TooLong { bytes: u64::from(u32::MAX) }));
    }
}
