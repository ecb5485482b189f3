//! The job: what its root does about everything that happens.
//!
//! ```text
//!  CONNECTING ──all hosts joined──▶ RUNNING ──every rank ended──▶ CLOSING ──every host confirmed──▶ OVER
//!       │                              │                            ▲
//!       └──────first cause─────────────┴──────▶ ENDING (kill) ──────┘
//! ```
//! [`Job`] is told of frames, signals and deadlines and answers with [`JobAct`]s. Whatever ends a job first is its cause;
//! what happens while the other ranks are being ended never replaces it.

mod calls;
pub mod cause;
mod ending;
mod ends;
mod joining;
pub mod lease;
pub mod machine;
mod query;
pub mod spawn;
mod table;
#[cfg(test)]
mod tests;

pub use cause::Cause;
pub use machine::{Job, JobAct, JobSetup};
