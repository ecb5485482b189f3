//! What people and programs are told: readers of the job's events.

mod log;
mod startup;
pub(crate) mod terminal;
mod termination;
mod trainer;

use std::io::Write;

use anyhow::Context;
use muster_core::job::Cause;
use muster_protocol::event::Event;

use crate::cli::{LogLevel, RunOptions};
use log::EventLog;
use startup::Startup;
use terminal::Terminal;
pub use termination::TerminationMessage;
pub use trainer::TrainerStatus;

/// All readers of one run's events.
pub struct Reporter {
    started_ms: u64,
    log: Option<EventLog>,
    terminal: Terminal,
    startup: Startup,
    trainer: Option<TrainerStatus>,
    message: Option<TerminationMessage>,
    verbose: bool,
}

impl Reporter {
    /// Opens what the options name.
    pub fn new(
        options: &RunOptions,
        trainer: Option<TrainerStatus>,
        message: Option<TerminationMessage>,
        now_ms: u64,
    ) -> anyhow::Result<Self> {
        let log = options.events.as_ref().map(|file| EventLog::create(&file.value)).transpose();
        Ok(Self {
            started_ms: now_ms,
            log: log.context("--events")?,
            terminal: Terminal::new(),
            startup: Startup::default(),
            trainer,
            message,
            verbose: options.log >= LogLevel::Info,
        })
    }

    /// Something happened.
    pub fn event(&mut self, event: &Event, now_ms: u64) {
        let at_ms = self.elapsed_ms(now_ms);
        if let Some(log) = &mut self.log {
            log.write(event, at_ms);
        }
        if let Some(trainer) = &self.trainer {
            trainer.event(event, at_ms);
        }
        if let Some(message) = &self.message {
            message.event(event);
        }
        self.startup.note(event, at_ms);
        self.terminal.event(event);
        if self.verbose && matches!(event, Event::JobEnded { .. }) {
            self.terminal.say(&self.startup.summary());
        }
    }

    /// Hands out what still has something to tell when everything else is over.
    pub fn last_words(&mut self) -> Option<TrainerStatus> {
        self.trainer.take()
    }

    /// Hosts that are waited for: name, and what stands in the way.
    pub fn progress(&mut self, missing: &[(&str, Option<&str>)], now_ms: u64) {
        let at_ms = self.elapsed_ms(now_ms);
        self.terminal.progress(missing, at_ms);
    }

    /// When the progress line wants to be drawn again.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.terminal.next_due_ms().map(|at| at + self.started_ms)
    }

    /// Time since the command began, in milliseconds.
    pub fn elapsed_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.started_ms)
    }
}

/// The last word about a failed job, on a line of its own whatever ranks have left unfinished. Who has closed our output knows why
/// it ended.
pub fn failure(cause: &Cause) {
    if !matches!(cause, Cause::Signal { signal: crate::run::SIGPIPE }) {
        let before = if crate::output::line_is_open() { "\n" } else { "" };
        terminal::say(&format!("{before}muster: {cause}"));
    }
}

/// Gives what was said a moment to be written, at the end of the command.
pub fn flush() {
    muster_worker_agent::teller::flush(std::time::Duration::from_millis(500));
}

/// Prints what was asked for. A reader that has seen enough is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// What is worth a word to the user and no error: variables that are not set, words of a host file without effect.
pub fn notes(notes: &[String]) {
    for note in notes {
        say(&format!("muster: {note}"));
    }
}

/// A message to the user.
pub fn say(text: &str) {
    terminal::say(text);
}
