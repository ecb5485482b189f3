#![forbid(unsafe_code)]
//! The agent protocol: what crosses the wire between a launcher and its agents.
//!
//! Plain data only. This crate performs no I/O, reads no clock and depends on no runtime, so that the same types serve the
//! launcher, the agents, the simulator and the fuzz targets. `docs/protocol.md` describes every message for readers; a test
//! in this crate fails when the messages change and that document does not.

pub mod event;
pub mod frame;
pub mod hello;
pub mod hostset;
pub mod ids;
pub mod limits;
pub mod message;
pub mod pmix;

pub use frame::{Class, Frame, Header, Kind};
pub use hostset::HostSet;
pub use ids::{Epoch, Generation, Group, HostIndex, ProcId, Rank, Stream};
