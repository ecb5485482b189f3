//! The executor half of the agent: starts ranks, watches them, ends them.

pub mod border;
