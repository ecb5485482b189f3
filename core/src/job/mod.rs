//! The job: what its root does about everything that happens.
//!
//! ```text
//!  CONNECTING ──all hosts joined──▶ RUNNING ──every rank ended──▶ CLOSING ──every host confirmed──▶ OVER
//!       │                              │                            ▲
//!       └──────first cause─────────────┴──────▶ ENDING (kill) ──────┘
//! ```
//! [`Job`] is told of frames, signals and deadlines and answers with [`JobAct`]s. Whatever ends a job first is its cause;
//! what follows from that never replaces it. What was told first and what happened first may differ by moments: see `collect`.

mod answers;
mod board;
mod calls;
pub mod cause;
mod collect;
pub mod credit;
mod ending;
mod ends;
mod fit;
mod forget;
mod joining;
pub mod lease;
pub mod machine;
mod meetings;
mod pending;
mod pmix;
mod query;
pub mod spawn;
mod survival;
mod table;
#[cfg(test)]
mod tests;
mod ties;

pub use cause::{Cause, signal_name};
pub use fit::SpecTooLarge;
pub use machine::{Job, JobAct, JobSetup, World};
