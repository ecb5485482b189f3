//! How a command ends, and what its failure is called.

use std::fmt;

use crate::exit::Outcome;
use crate::job::{Cause, signal_name};

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited.
    Exited(u8),
    /// A signal ended it.
    Signaled(i32),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// What ends a job of ranks as well: hosts that were not reached or lost, a time limit, a signal.
    Job(Cause),
    /// The command could not be started.
    NotStarted {
        /// Why.
        why: String,
        /// As which status that counts.
        outcome: Outcome,
    },
    /// The command ended badly.
    Command(End),
    /// The command says that all is well, and a daemon that it had started did not end well.
    Daemon {
        /// Where.
        host: String,
        /// Its exit status, as a shell has it.
        code: u8,
        /// The command did not say that all is well, but waited on.
        waited: bool,
    },
}

impl Failure {
    /// What the exit status says.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Job(cause) => cause.outcome(),
            Self::NotStarted { outcome, .. } => *outcome,
            Self::Command(End::Exited(code)) => Outcome::exited(*code),
            Self::Command(End::Signaled(signal)) => Outcome::signaled(*signal),
            Self::Daemon { .. } => Outcome::Rank(1),
        }
    }

    /// Whether the same command may be started again.
    pub fn may_be_tried_again(&self) -> bool {
        matches!(self, Self::Job(Cause::HostLost { .. }) | Self::Command(_) | Self::Daemon { .. })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(cause) => cause.fmt(f),
            Self::NotStarted { why, .. } => f.write_str(why),
            Self::Command(End::Exited(code)) => write!(f, "the command exited with status {code}"),
            Self::Command(End::Signaled(signal)) => write!(f, "the command was killed by {}", signal_name(*signal)),
            Self::Daemon { host, code, waited: true } => {
                write!(f, "what the command had started on {host} ended with status {code}, and it waited on")
            }
            Self::Daemon { host, code, waited: false } => {
                write!(f, "the command ended with status 0, but what it had started on {host} ended with status {code}")
            }
        }
    }
}
