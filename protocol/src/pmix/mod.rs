//! What an agent and its `muster-pmix` say to each other.
//!
//! `muster-pmix` hosts a PMIx server for the ranks of one host by loading libpmix at run time. It decides nothing: what the library
//! asks goes to the agent as it is, and what the agent answers goes back. The two are of one release and talk over a Unix socket
//! that the agent has made: each message is its length (four bytes, little-endian) and its CBOR, at most
//! [`PMIX_MESSAGE_BYTES_MAX`] bytes.
//!
//! Statuses, ranks and data types are the numbers of the PMIx standard; the names of keys too.

mod from_server;
mod to_server;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

pub use self::from_server::{FromPmix, SpawnProgram};
pub use self::to_server::ToPmix;
use crate::limits::PMIX_MESSAGE_BYTES_MAX;
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
