//! What a command line amounts to.

use std::net::SocketAddr;

use muster_core::hosts::Origin;
use muster_core::plan::JobSpec;

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The flag, variable or file line that gave it.
    pub origin: Origin,
}

/// What the user says about hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChoice {
    /// A list, as typed.
    List(Sourced<String>),
    /// A host file.
    File(Sourced<String>),
    /// So many embedded agents on this machine.
    Local(Sourced<u32>),
    /// Nothing: an operator's host file if there is one, else this machine.
    Unsaid,
}

/// How much Muster says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// What ends the job.
    Error,
    /// What may be wrong.
    #[default]
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Every message.
    Trace,
}

/// Everything that `muster run` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The job, with its programs.
    pub spec: JobSpec,
    /// Where it shall run.
    pub hosts: HostChoice,
    /// The secret shared with the agents, if named.
    pub key_file: Option<Sourced<String>>,
    /// The agents' port, if named.
    pub port: Option<Sourced<u16>>,
    /// Where agents may join, if they may.
    pub listen: Option<Sourced<SocketAddr>>,
    /// File for the events, one JSON object on each line.
    pub events: Option<Sourced<String>>,
    /// Where to write why the job has failed, if that was said.
    pub termination_message: Option<String>,
    /// Whether a TrainJob's status is kept up to date.
    pub trainer_status: bool,
    /// How much Muster says about itself.
    pub log: LogLevel,
    /// Things worth telling the user that are no errors.
    pub notes: Vec<String>,
}

/// Everything that `muster exec` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOptions {
    /// Name of the job, which agents may insist on.
    pub job: String,
    /// The hosts.
    pub hosts: HostChoice,
    /// The secret shared with the agents, if named.
    pub key_file: Option<Sourced<String>>,
    /// The agents' port, if named.
    pub port: Option<Sourced<u16>>,
    /// Time until every host must have been reached.
    pub connect_timeout_ms: u64,
    /// Time until the command must have ended.
    pub timeout_ms: Option<u64>,
    /// Time between the polite and the hard end.
    pub grace_ms: u64,
    /// How often the command may be started again.
    pub restarts: u32,
    /// A host on which nothing was started is an error.
    pub strict: bool,
    /// Where to write why the command has failed, if that was said.
    pub termination_message: Option<String>,
    /// Whether a TrainJob's status is kept up to date.
    pub trainer_status: bool,
    /// How much Muster says about itself.
    pub log: LogLevel,
    /// The command.
    pub argv: Vec<String>,
    /// Things worth telling the user that are no errors.
    pub notes: Vec<String>,
}

/// What `muster hosts` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsOptions {
    /// Name of the job, which agents may insist on.
    pub job: String,
    /// The hosts.
    pub hosts: HostChoice,
    /// The secret shared with the agents, if named.
    pub key_file: Option<Sourced<String>>,
    /// The agents' port, if named.
    pub port: Option<Sourced<u16>>,
    /// Time for a host to answer in.
    pub limit_ms: u64,
    /// How much Muster says about itself.
    pub log: LogLevel,
    /// Things worth telling the user that are no errors.
    pub notes: Vec<String>,
}

/// What `muster` is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run a job.
    Run(Box<RunOptions>),
    /// Show what would run where.
    Plan {
        /// As for running.
        run: Box<RunOptions>,
        /// Whether to print JSON.
        json: bool,
    },
    /// Run a command that starts daemons through the remote shell.
    Exec(Box<ExecOptions>),
    /// Show what that command would get.
    PlanExec {
        /// As for running.
        exec: Box<ExecOptions>,
        /// Whether to print JSON.
        json: bool,
    },
    /// Show the hosts whose agents answer.
    Hosts(Box<HostsOptions>),
    /// Make a job key.
    KeyNew {
        /// File to create; none: standard output.
        file: Option<String>,
    },
    /// Print this text.
    Help(String),
    /// Print the release.
    Version,
}
