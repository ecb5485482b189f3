//! The executor half of the agent: starts ranks, watches them, ends them.
//!
//! [`border`] is what the session half sees. `ranks` decides, without touching a process; `queue` keeps the
//! orders; `thread` is their shell, `starts` the thread beside it that starts ranks.

pub mod border;
mod failure;
mod leavings;
mod queue;
mod ranks;
mod starts;
mod stdio;
mod thread;

pub use border::{Executor, Order, OrderError, RankEnv, RankOrder, Report, SpawnFailure, StdinSource, Which};
pub use starts::Starter;
pub use thread::{LocalExecutor, StartError};
