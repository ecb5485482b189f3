#![forbid(unsafe_code)]
//! The launcher: from a command line to the exit status of a job.
//!
//! [`cli`] reads what the user wants, [`discover`] finds hosts and key, [`run`] drives the job, [`exec`] somebody else's launcher, [`hosts`] shows whose agents answer,
//! [`output`] carries the ranks' streams on a thread of its own, [`report`] tells people and logs what happened.

pub mod cli;
pub mod discover;
pub mod exec;
pub mod hosts;
pub mod key;
pub mod output;
pub mod plan;
pub mod report;
pub mod run;
