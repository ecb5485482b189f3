//! What a rank asks of the root by its PMI or PMIx client.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::{EnvVar, KeyValue};
use crate::ids::{Group, ProcId, Rank};

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
    /// Variables of its own, over those of who asks.
    #[n(3)]
    #[cbor(default)]
    pub env: Vec<EnvVar>,
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
    /// All participants on this host have come to a meeting of ranks of several groups, or of some ranks of one.
    #[n(4)]
    Gather {
        /// For what.
        #[n(0)]
        purpose: Purpose,
        /// Its name, if it has one.
        #[n(1)]
        name: String,
        /// Who takes part.
        #[n(2)]
        parts: Vec<Part>,
        /// What the participants here bring.
        #[n(3)]
        data: ByteVec,
        /// Whether a number of its own is wanted.
        #[n(4)]
        context: bool,
    },
    /// What a rank elsewhere has put.
    #[n(5)]
    Fetch {
        /// Its process group.
        #[n(0)]
        group: Group,
        /// The rank.
        #[n(1)]
        rank: Rank,
    },
    /// Publish values under keys, for PMIx.
    #[n(6)]
    Put {
        /// Keys and values.
        #[n(0)]
        items: Vec<KeyValue>,
        /// Whether each is gone when it was found once.
        #[n(1)]
        once: bool,
    },
    /// Look published values up, for PMIx.
    #[n(7)]
    Find {
        /// Their keys.
        #[n(0)]
        keys: Vec<String>,
        /// How long to wait for all of them, in milliseconds; without it as long as it takes.
        #[n(1)]
        wait_ms: Option<u64>,
    },
    /// Take back what this rank has published for PMIx.
    #[n(8)]
    Withdraw {
        /// Its keys; empty: all of them.
        #[n(0)]
        keys: Vec<String>,
    },
}

/// What ranks meet for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Purpose {
    /// A fence of some ranks, or of ranks of several groups.
    #[n(0)]
    Fence,
    /// To be one for connect.
    #[n(1)]
    Connect,
    /// To part again.
    #[n(2)]
    Disconnect,
    /// To make a PMIx group.
    #[n(3)]
    Construct,
    /// To end one.
    #[n(4)]
    Destruct,
}

/// Who takes part in a meeting: one rank of a process group, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Part {
    /// The process group.
    #[n(0)]
    pub group: Group,
    /// The rank; without it all.
    #[n(1)]
    pub rank: Option<Rank>,
}

/// A call of a rank's PMI or PMIx client that the root answers.
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
