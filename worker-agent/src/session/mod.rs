//! The session half of the agent: one job on this host, as its launcher sees it.

pub mod bulk;
mod convert;
mod job;
mod pmi;
mod pmix;
mod ranks;
pub mod tree;

pub use job::{Job, JobInput, Over, Surroundings};
pub use pmi::PmiInput;
