//! One command: the hosts and what is known of them, attempts until one is the last, and what all came to.
//!
//! `attempt` is the loop of one attempt, `news` takes in what lines tell, `ask` asks all hosts something at once, `used` looks
//! whether the command has used its hosts, and `networks` which networks it shall not use.

mod ask;
mod attempt;
mod networks;
mod news;
mod used;

use std::rc::Rc;
use std::sync::Arc;

use muster_core::exec::{End, Failure, Family, wanted_ranks};
use muster_core::exit::Outcome;
use muster_core::hosts::HostList;
use muster_protocol::event::Event;
use muster_sys::clock::boottime_ms;
use muster_transport::dial::Dialer;
use muster_transport::resolve::Resolver;
use muster_transport::tls;
use tokio::sync::mpsc;

use super::command::Commands;
use super::desk::{self, Visitor};
use super::find::{is_here, subset};
use super::lines::{self, Call, News, Reached, Target};
use super::prepare::Prepared;
use super::workplace::{Agents, Workplace};
use crate::cli::ExecOptions;
use crate::discover::Surroundings;
use crate::report::{self, TerminationMessage, TrainerStatus, terminal::Terminal};
use crate::run::signal_source::SignalSource;

/// Runs the command, again if that was asked for, and gives what it came to.
pub(super) fn run(options: &ExecOptions, prepared: Prepared, site: &Surroundings) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut drive = Drive::new(options, prepared, site)?;
        let (job, hosts) = (options.job.clone(), drive.hosts.len());
        // The command knows its ranks, and whether they are up; what its `-n` says would be all that is known here.
        drive.tell(|| Event::JobStarting { job, hosts, ranks: 0, worlds: 0 });
        let ended = drive.attempts().await;
        let (status, cause) = match &ended {
            Ok(verdict) => (verdict.outcome, verdict.why.clone()),
            Err(error) => (Outcome::Internal, Some(format!("{error:#}"))),
        };
        drive.tell(|| Event::JobEnded { status: status.code(), cause });
        if status == Outcome::Success {
            drive.tell_agents_that_it_is_over().await;
        }
        ended.map(|verdict| (verdict.outcome, drive.trainer.take()))
    });
    // Threads may still wait for descriptors that nobody uses any more.
    runtime.shutdown_background();
    // The last report may take a moment, and comes when nothing else is left to do.
    outcome.map(|(outcome, _last_words)| outcome)
}

/// What the command came to, and why that is no success.
struct Verdict {
    outcome: Outcome,
    why: Option<String>,
}

/// What is known of a host whatever attempt it is.
struct HostState {
    /// This machine: nothing is dialled.
    here: bool,
    up: bool,
    calls: mpsc::UnboundedSender<Call>,
    target: Rc<Target>,
    /// What its agent has said last.
    reached: Reached,
    /// Commands that its agent had begun in all when the command of this attempt was started.
    before: Option<u64>,
}

struct Drive<'a> {
    options: &'a ExecOptions,
    site: &'a Surroundings,
    hosts: HostList,
    family: Family,
    states: Vec<HostState>,
    news: mpsc::UnboundedReceiver<(usize, News)>,
    visitors: mpsc::UnboundedReceiver<Visitor>,
    signals: SignalSource,
    commands: Commands,
    workplace: Workplace,
    terminal: Terminal,
    started_ms: u64,
    /// How often the command was started again.
    restarts: u32,
    trainer: Option<TrainerStatus>,
    message: Option<TerminationMessage>,
}

impl<'a> Drive<'a> {
    fn new(options: &'a ExecOptions, prepared: Prepared, site: &'a Surroundings) -> anyhow::Result<Self> {
        let Prepared { hosts, port, key, key_file, shell, family } = prepared;
        // Before threads are started, which would be taken for strangers' children otherwise.
        let commands = Commands::new()?;
        if let Err(error) = muster_sys::limits::raise_open_files() {
            tracing::warn!(%error, "the limit on open files stays as it is");
        }
        let workplace = Workplace::make(Agents { shell, key_file, port, job: options.job.clone() })?;
        let visitors = desk::open(&workplace.places.desk())?;
        let dialer = Dialer::new(Arc::new(Resolver::default()), Some(tls::connector(&key.identity())));
        let (news, hears) = mpsc::unbounded_channel();
        let own_name = muster_sys::proc::hostname();
        let states = hosts.hosts().iter().enumerate().map(|(at, host)| {
            let target = Rc::new(Target {
                at,
                name: host.name.clone(),
                port: host.port.unwrap_or(port),
                job: options.job.clone(),
                dialer: dialer.clone(),
                news: news.clone(),
            });
            let here = is_here(&host.name, &own_name);
            let (calls, queue) = mpsc::unbounded_channel();
            if !here {
                tokio::task::spawn_local(lines::keep(target.clone(), queue));
            }
            HostState { here, up: here, calls, target, reached: Reached::default(), before: None }
        });
        Ok(Self {
            options,
            site,
            states: states.collect(),
            hosts,
            family,
            news: hears,
            visitors,
            signals: SignalSource::new()?,
            commands,
            workplace,
            terminal: Terminal::new(),
            started_ms: boottime_ms(),
            restarts: 0,
            trainer: TrainerStatus::start(options.trainer_status, site),
            message: TerminationMessage::new(options.termination_message.as_deref(), site),
        })
    }

    /// Tells those who keep a status of the command, or what is left of it.
    fn tell(&self, event: impl FnOnce() -> Event) {
        if self.trainer.is_none() && self.message.is_none() {
            return;
        }
        let event = event();
        if let Some(trainer) = &self.trainer {
            trainer.event(&event, boottime_ms().saturating_sub(self.started_ms));
        }
        if let Some(message) = &self.message {
            message.event(&event);
        }
    }

    async fn attempts(&mut self) -> anyhow::Result<Verdict> {
        let mut chosen: Vec<usize> = (0..self.hosts.len()).collect();
        loop {
            let hosts = subset(&self.hosts, &chosen);
            let watch = self.attempt(&hosts, &chosen).await?;
            let Some(failure) = watch.failure() else { return Ok(self.look_at_use(&hosts, &chosen, &watch).await) };
            let again = self.restarts < self.options.restarts && failure.may_be_tried_again();
            let next = if again { self.that_answer().await } else { Vec::new() };
            if !again || !self.enough(&next) {
                if again {
                    report::say("muster: the hosts that are left are not enough to start the command again");
                }
                // What a command says about its own failure stands above.
                let why = failure.to_string();
                self.tell(|| Event::Ending { cause: why.clone() });
                if !matches!(failure, Failure::Command(End::Exited(_))) || self.restarts > 0 {
                    report::say(&format!("muster: {why}"));
                } else if let Some(message) = &mut self.message {
                    message.leave_the_last_lines();
                }
                return Ok(Verdict { outcome: failure.outcome(), why: Some(why) });
            }
            self.restarts += 1;
            let count = next.len();
            report::say(&format!(
                "muster: {failure}; starting the command again on {count} host{} (restart {} of {})",
                if count == 1 { "" } else { "s" },
                self.restarts,
                self.options.restarts,
            ));
            chosen = next;
        }
    }

    /// Whether these hosts have room for the ranks that the command asks for.
    fn enough(&self, chosen: &[usize]) -> bool {
        let slots: u32 = chosen.iter().map(|at| self.hosts.hosts()[*at].slots).sum();
        !chosen.is_empty() && wanted_ranks(&self.options.argv).is_none_or(|ranks| ranks <= slots)
    }
}
