//! What a host's PMIx server is told, as a state machine: words of the library in, actions out.
//!
//! [`Server`] stands for all ranks of all process groups of one job on one host. The library speaks through a small process beside
//! the ranks (`muster_protocol::pmix`), which decides nothing. What can be answered on this host is answered here; the rest becomes
//! an [`Action`]: a fence to merge over the tree, a question for the root, the end of a rank.
//!
//! The first fence of every group is the hosts' own: they compare the versions of their libraries before any rank starts, since the
//! blobs of one major series mean nothing to another.

mod action;
mod asks;
mod company;
mod group;
mod server;
mod stream;
mod version;

#[cfg(test)]
mod tests;

pub use action::{Action, Text};
pub use company::Machine;
pub use server::{Server, Setup};
pub use stream::Stream;
pub use version::{Disagreement, agree};

/// Statuses of the PMIx standard that are answered here.
pub mod status {
    /// It went well.
    pub const SUCCESS: i32 = 0;
    /// Not supported.
    pub const NOT_SUPPORTED: i32 = -47;
    /// There is no such thing.
    pub const NOT_FOUND: i32 = -46;
    /// It took too long.
    pub const TIMEOUT: i32 = -24;
    /// It cannot be done.
    pub const ERROR: i32 = -1;
    /// An event: a process has ended without finalising.
    pub const TERMINATED_WITHOUT_SYNC: i32 = -200;
    /// An event: a signal has ended a process.
    pub const ABORTED_BY_SIGNAL: i32 = -402;
}
