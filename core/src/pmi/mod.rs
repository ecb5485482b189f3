//! PMI-1 and PMI-2 as a state machine: bytes of the ranks in, actions out.
//!
//! [`Server`] stands for all ranks of one process group on one host. It answers whatever can be answered on this host and
//! turns the rest into [`Action`]s: a fence to merge over the tree, a question for the root, the end of a rank.

mod action;
mod answers;
mod mapping;
mod names;
mod reply;
mod server;
mod setup;
mod spawn;
mod v1;
mod v2;
mod wire;
mod wire_v1;
mod wire_v2;

#[cfg(test)]
mod tests;

pub use action::{Action, Answer, PmiError, Upcall};
pub use mapping::process_mapping;
pub use names::{NameError, NameTable, check_name};
pub use server::{FenceDoneError, FenceReport, Phase, Server};
pub use setup::{GroupSetup, LocalRank, SetupError};
pub use spawn::{SpawnError, SpawnRequest, SpawnSegment};
pub use wire::{Decoder, Dialect, Fields, Message, WireError};
