//! The executor half of the agent: starts ranks, watches them, ends them.
//!
//! [`border`] is what the session half sees. [`ranks`] decides, without touching a process; [`thread`] is its shell.

pub mod border;
mod ranks;
mod stdio;
mod thread;

pub use border::{Executor, Order, OrderError, RankOrder, Report, SpawnFailure, StdinSource, Which};
pub use thread::{LocalExecutor, StartError};
