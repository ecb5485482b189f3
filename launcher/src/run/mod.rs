//! `muster run`: connects the hosts, starts the ranks, waits for the end.

mod elf;
mod joiners;
pub mod local;
pub mod prepare;
pub(crate) mod program;
mod seats;
mod shell;
pub(crate) mod signal_source;

use std::time::{SystemTime, UNIX_EPOCH};

use muster_core::exit::Outcome;
use muster_core::job::Cause;
use muster_protocol::Epoch;

use crate::cli::{LogLevel, RunOptions};
use crate::discover::Surroundings;
use crate::report::{self, TerminationMessage, TrainerStatus};

/// `SIGPIPE`: what a program dies of whose reader has gone.
pub const SIGPIPE: i32 = 13;

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// What the exit status says.
    pub outcome: Outcome,
    /// First cause, when it failed.
    pub cause: Option<Cause>,
    /// What may take a moment and concerns nobody but who keeps a status of this job: to be dropped last.
    pub last_words: Option<TrainerStatus>,
}

/// Runs a job.
pub fn run(options: &RunOptions, site: &Surroundings) -> anyhow::Result<Ended> {
    report::notes(&options.notes);
    let prepared = match prepare::prepare(options, site, new_epoch()) {
        Ok(prepared) => prepared,
        Err(error) => return Err(Usage(error.to_string()).into()),
    };
    report::notes(&prepared.setup.hosts.notes);
    let trainer = TrainerStatus::start(options.trainer_status, site);
    let message = TerminationMessage::new(options.termination_message.as_deref(), site);
    shell::run(options, prepared, trainer, message)
}

/// Something the user has to correct before anything can start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A launcher's incarnation: later launchers have higher ones.
pub fn new_epoch() -> Epoch {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Epoch(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The level as the logging library names it.
pub fn tracing_level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}
