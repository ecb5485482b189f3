//! Small identifiers, as types, so that a rank is never passed where a host is meant.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::Serialize;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize)]
        #[cbor(transparent)]
        #[serde(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Position of a host in the launcher's host list of this job, from 0.
    HostIndex,
    u32
);
id!(
    /// A process of the job, unique in it: the ranks of the command line's process groups come first, one group after the other, those of spawned groups follow.
    ProcId,
    u32
);
id!(
    /// A rank inside its process group, `0..size`.
    Rank,
    u32
);
id!(
    /// A process group: 0 is what the command line started, every `MPI_Comm_spawn` adds one.
    Group,
    u32
);
id!(
    /// One incarnation of the job's ranks; grows by one at every restart.
    Generation,
    u32
);
id!(
    /// One incarnation of the launcher; agents obey the highest they have promised.
    Epoch,
    u64
);

/// One of a rank's three standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard input, launcher to rank.
    #[n(0)]
    Stdin,
    /// Standard output, rank to launcher.
    #[n(1)]
    Stdout,
    /// Standard error, rank to launcher.
    #[n(2)]
    Stderr,
}

impl Stream {
    /// The stream with this number in a frame's channel, if there is one.
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }

    /// The number that stands for this stream in a frame's channel.
    pub fn code(self) -> u32 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}
