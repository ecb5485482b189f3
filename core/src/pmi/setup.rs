//! What a server must know of its group before a rank speaks.

use std::collections::HashSet;

use bytes::Bytes;
use muster_protocol::limits::{PMI_KVSNAME_BYTES_MAX, PMI_VALUE_BYTES_MAX, RANKS_PER_HOST_MAX};
use muster_protocol::{Group, Rank};

use crate::kvs::KvsError;

/// A rank of the group on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRank {
    /// Its rank in the group.
    pub rank: Rank,
    /// Which program of the command line, or of the spawn, it runs.
    pub appnum: u32,
}

/// What a server must know of its group.
#[derive(Debug, Clone)]
pub struct GroupSetup {
    /// The process group.
    pub group: Group,
    /// Number of its ranks on all hosts.
    pub size: u32,
    /// Its ranks on this host; the position here is the `local` of the server's calls.
    pub local: Vec<LocalRank>,
    /// Name of its key-value space. Keep it short: old clients take its maximum from the room for values.
    pub kvsname: String,
    /// `PMI_process_mapping`, or nothing if no form of it fits.
    pub mapping: Option<String>,
    /// How many processes the job could have; nothing if that is unlimited.
    pub universe_size: Option<u32>,
    /// Pairs that can be read before the first fence: what a spawner has handed over.
    pub preput: Vec<(Bytes, Bytes)>,
    /// Key-value space of the spawner's group, for a spawned group.
    pub spawner: Option<String>,
}

/// Why a server cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// No ranks here, or more than a host may have.
    #[error("group {group}: {count} ranks on this host, must be 1 to {RANKS_PER_HOST_MAX}")]
    LocalRanks {
        /// The process group.
        group: Group,
        /// How many.
        count: usize,
    },
    /// A rank is not below the size, or is there twice.
    #[error("group {group}: rank {rank} is there twice or not below the size {size}")]
    Rank {
        /// The process group.
        group: Group,
        /// The rank.
        rank: Rank,
        /// Size of the group.
        size: u32,
    },
    /// The name cannot travel in a message.
    #[error(
        "group {group}: {what} {name:?} must be 1 to {max} printable characters without blank, semicolon and backslash"
    )]
    Text {
        /// The process group.
        group: Group,
        /// Which text.
        what: &'static str,
        /// The text.
        name: String,
        /// Its length at most.
        max: usize,
    },
    /// The handed-over pairs do not fit.
    #[error("group {group}: handed-over key-values do not fit")]
    Preput {
        /// The process group.
        group: Group,
        /// Why.
        source: KvsError,
    },
}

/// Whether everything in it can be put into replies.
pub(super) fn check(setup: &GroupSetup) -> Result<(), SetupError> {
    let (group, size, count) = (setup.group, setup.size, setup.local.len());
    if count == 0 || count > RANKS_PER_HOST_MAX as usize {
        return Err(SetupError::LocalRanks { group, count });
    }
    let mut seen = HashSet::new();
    for LocalRank { rank, .. } in &setup.local {
        if rank.0 >= size || !seen.insert(*rank) {
            return Err(SetupError::Rank { group, rank: *rank, size });
        }
    }
    let texts = [
        ("key-value space", Some(&setup.kvsname), PMI_KVSNAME_BYTES_MAX),
        ("spawner", setup.spawner.as_ref(), PMI_KVSNAME_BYTES_MAX),
        ("process mapping", setup.mapping.as_ref(), PMI_VALUE_BYTES_MAX),
    ];
    for (what, text, max) in texts {
        let Some(text) = text else { continue };
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b';' | b'\\'));
        if text.is_empty() || text.len() > max || !plain {
            return Err(SetupError::Text { group, what, name: text.clone(), max });
        }
    }
    Ok(())
}
