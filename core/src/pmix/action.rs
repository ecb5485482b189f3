//! What a server asks of the agent around it.

use bytes::Bytes;
use muster_protocol::message::{Ask, EnvVar};
use muster_protocol::pmix::ToPmix;
use muster_protocol::{Group, Rank};

/// Something a rank's library wants people to read, or a rank says when it aborts.
pub type Text = String;

/// Something the agent is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Say this to the PMIx server.
    Send(ToPmix),
    /// Start this host's ranks of a group.
    Start {
        /// The process group.
        group: Group,
        /// Variables of each, in the order of their local ranks.
        environments: Vec<Vec<EnvVar>>,
        /// Whether ranks of the job have to share cores.
        crowded: bool,
    },
    /// A rank of this host has said its first word; from now on a rank that ends without one is missed by the others.
    FirstInit(Group, Rank),
    /// This host has arrived at a fence of a whole group.
    Fence {
        /// The process group.
        group: Group,
        /// Number of the fence in the group, from 0.
        seq: u64,
        /// What this host brings; may be empty.
        blob: Bytes,
    },
    /// A question that only the root can answer. [`super::Server::answer`] takes it.
    Upcall {
        /// The process group of who asks.
        group: Group,
        /// Who asks, or the first rank here of those that do.
        rank: Rank,
        /// To be given back with the answer.
        token: u64,
        /// The question.
        ask: Ask,
    },
    /// A rank has asked for the end of the job.
    Abort {
        /// The process group.
        group: Group,
        /// The rank.
        rank: Rank,
        /// The exit status it asked for.
        code: i32,
        /// What it said; empty when it said nothing.
        message: Text,
    },
    /// A rank's library wants people to read this, as if the rank had written it to standard error.
    Say {
        /// The process group.
        group: Group,
        /// The rank.
        rank: Rank,
        /// The text, line ends included.
        text: Bytes,
    },
    /// A rank whose process has ended has nothing more to say; may be told more than once.
    Drained(Group, Rank),
    /// There is no PMIx service for this group: its ranks here cannot start, or cannot go on.
    Failed(Group, Text),
}
