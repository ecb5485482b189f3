//! The job: what its root does about everything that happens.
//!
//! ```text
//!  CONNECTING ──all hosts joined──▶ RUNNING ──every rank ended──▶ CLOSING ──every host confirmed──▶ OVER
//!       │                              │                            ▲
//!       └──────first cause─────────────┴──────▶ ENDING (kill) ──────┘
//! ```
//! [`Job`] is told of frames, signals and deadlines and answers with [`JobAct`]s. Whatever ends a job first is its cause;
//! what happens while the other ranks are being ended never replaces it.

pub mod cause;
pub mod lease;
pub mod machine;
pub mod spawn;
mod calls;
mod ending;
mod ends;
mod joining;
mod query;
mod table;

pub use cause::Cause;
pub use machine::{Job, JobAct, JobSetup};
