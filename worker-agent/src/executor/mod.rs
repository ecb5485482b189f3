//! The executor half of the agent: starts ranks, watches them, ends them.
//!
//! [`border`] is what the session half sees. `ranks` decides, without touching a process; `queue` keeps the
//! orders; `thread` is their shell.

pub mod border;
mod failure;
mod queue;
mod ranks;
mod stdio;
mod thread;

pub use border::{Executor, Order, OrderError, RankEnv, RankOrder, Report, SpawnFailure, StdinSource, Which};
pub use thread::{LocalExecutor, StartError};
