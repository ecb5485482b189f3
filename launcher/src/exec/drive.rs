//! The loop: news of lines, visitors at the desk, signals, the command's end and time go in; what the watch decides is done.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use muster_core::exec::{Act, End, Failure, Family, Use, Watch, idle_note, wanted_ranks};
use muster_core::exit::Outcome;
use muster_core::hosts::HostList;
use muster_protocol::HostIndex;
use muster_protocol::event::Event;
use muster_protocol::message::Obstacle;
use muster_sys::clock::boottime_ms;
use muster_sys::{reap, signals};
use muster_transport::dial::Dialer;
use muster_transport::resolve::Resolver;
use muster_transport::tls;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::command::{Commands, Running};
use super::desk::{self, Visitor};
use super::find::{find_host, is_here, subset};
use super::lines::{self, News, Target};
use super::prepare::Prepared;
use super::workplace::{Agents, Workplace};
use crate::cli::ExecOptions;
use crate::discover::Surroundings;
use crate::report::{self, TerminationMessage, TrainerStatus, terminal::Terminal};
use crate::run::signal_source::{Asked, SignalSource};

/// Time between two looks for what an ended command has left.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
/// Looks after which what is left is left.
const SWEEPS_MAX: u32 = 400;

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
    visitors: mpsc::UnboundedSender<Visitor>,
    target: Rc<Target>,
    /// Commands that its agent has begun in all, as far as is known.
    shells: Option<u64>,
    /// The same when the command of this attempt was started.
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
            let (visitors, queue) = mpsc::unbounded_channel();
            if !here {
                tokio::task::spawn_local(lines::keep(target.clone(), queue));
            }
            HostState { here, up: here, visitors, target, shells: None, before: None }
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

    /// A command that ends badly may have seen a host die a moment before this launcher did, as its daemons elsewhere do.
    async fn look_for_lost(&mut self, chosen: &[usize], watch: &mut Watch) {
        let answers = self.each(|target| async move { target.answers().await }).await;
        for (host, at) in chosen.iter().enumerate() {
            if !self.states[*at].here && !answers[*at] && watch.begun(host) > 0 {
                let why = "its agent does not answer any more".to_owned();
                self.states[*at].up = false;
                self.tell_news(*at, &News::Lost { why: why.clone() });
                watch.lost(host, why, boottime_ms());
            }
        }
    }

    /// Hosts whose agents answer now: others may be as lost as the one that is known to be.
    async fn that_answer(&mut self) -> Vec<usize> {
        let probes = self.each(|target| async move { target.answers().await }).await;
        for (state, answers) in self.states.iter_mut().zip(probes) {
            state.up = state.here || answers;
        }
        (0..self.states.len()).filter(|at| self.states[*at].up).collect()
    }

    /// Asks all hosts something at once, in their order; of one that does not say anything the default is taken.
    async fn each<T: Default + Clone + 'static, F: Future<Output = T> + 'static>(
        &self,
        ask: impl Fn(Rc<Target>) -> F,
    ) -> Vec<T> {
        let mut questions = JoinSet::new();
        for (at, state) in self.states.iter().enumerate().filter(|(_, state)| !state.here) {
            let question = ask(state.target.clone());
            questions.spawn_local(async move { (at, question.await) });
        }
        let mut answers = vec![T::default(); self.states.len()];
        while let Some(answer) = questions.join_next().await {
            if let Ok((at, answer)) = answer {
                answers[at] = answer;
            }
        }
        answers
    }

    /// Whether these hosts have room for the ranks that the command asks for.
    fn enough(&self, chosen: &[usize]) -> bool {
        let slots: u32 = chosen.iter().map(|at| self.hosts.hosts()[*at].slots).sum();
        !chosen.is_empty() && wanted_ranks(&self.options.argv).is_none_or(|ranks| ranks <= slots)
    }

    /// One attempt, from connecting to the last process's end.
    async fn attempt(&mut self, hosts: &HostList, chosen: &[usize]) -> anyhow::Result<Watch> {
        self.workplace.write_hosts(hosts)?;
        let names = hosts.hosts().iter().map(|h| h.name.clone()).collect();
        let mut watch = Watch::new(names, self.family.daemons_end_well(), self.options.grace_ms);
        if let Some(limit_ms) = self.options.timeout_ms {
            watch.limit(self.started_ms, limit_ms);
        }
        let connect_by_ms = boottime_ms().saturating_add(self.options.connect_timeout_ms);
        let mut attempt = Attempt { watch, running: None, over: false };
        for (i, at) in chosen.iter().enumerate() {
            if self.states[*at].up {
                self.tell_news(*at, &News::Ready { shells: None });
                let acts = attempt.watch.ready(i);
                self.carry_out(acts, &mut attempt, hosts);
            }
        }
        while !attempt.over {
            let due_ms = self.due_ms(&attempt.watch, connect_by_ms);
            let running = attempt.running.as_ref();
            let acts = tokio::select! {
                biased;
                asked = self.signals.next() => self.asked(asked, &mut attempt).await,
                end = ended(running) => {
                    attempt.running = None;
                    // What has happened before its end may be the reason for it.
                    while let Ok((at, news)) = self.news.try_recv() {
                        self.hear(at, news, chosen, &mut attempt.watch);
                    }
                    // Where one is known to be lost already, that is the reason.
                    if end != End::Exited(0) && chosen.iter().all(|at| self.states[*at].up) {
                        self.look_for_lost(chosen, &mut attempt.watch).await;
                    }
                    attempt.watch.command_ended(end)
                }
                Some((at, news)) = self.news.recv() => self.hear(at, news, chosen, &mut attempt.watch),
                Some(visitor) = self.visitors.recv() => {
                    self.receive(visitor);
                    Vec::new()
                }
                () = wait_until(due_ms) => self.time(connect_by_ms, &mut attempt.watch),
            };
            self.carry_out(acts, &mut attempt, hosts);
        }
        self.clear().await;
        Ok(attempt.watch)
    }

    fn due_ms(&self, watch: &Watch, connect_by_ms: u64) -> Option<u64> {
        let connecting = watch.connecting();
        let progress = self.terminal.next_due_ms().map(|at| at + self.started_ms);
        let of_connecting = [Some(connect_by_ms), progress].into_iter().flatten().filter(|_| connecting);
        of_connecting.chain(watch.next_due_ms()).min()
    }

    fn time(&mut self, connect_by_ms: u64, watch: &mut Watch) -> Vec<Act> {
        let now_ms = boottime_ms();
        let mut acts = watch.tick(now_ms);
        if now_ms >= connect_by_ms {
            acts.extend(watch.connect_deadline());
        }
        if watch.connecting() {
            self.terminal.progress(&watch.missing(), now_ms.saturating_sub(self.started_ms));
        }
        acts
    }

    fn carry_out(&mut self, acts: Vec<Act>, attempt: &mut Attempt, hosts: &HostList) {
        for act in acts {
            match act {
                Act::Start => {
                    self.terminal.progress(&[], 0);
                    for state in &mut self.states {
                        state.before = state.shells;
                    }
                    let variables = self.workplace.places.variables(hosts, self.restarts > 0, self.site);
                    match self.commands.start(&self.options.argv, &variables, self.site) {
                        Ok(running) => {
                            attempt.running = Some(running);
                            self.tell(|| Event::CommandStarted { restarts: self.restarts });
                        }
                        Err((why, outcome)) => {
                            let acts = attempt.watch.not_started(why, outcome);
                            self.carry_out(acts, attempt, hosts);
                        }
                    }
                }
                Act::Signal(signal) => {
                    if let Some(running) = &attempt.running {
                        running.signal(signal);
                    }
                }
                Act::Kill => {
                    if let Some(running) = &attempt.running {
                        running.kill();
                    }
                }
                Act::Over => attempt.over = true,
            }
        }
    }

    /// News of a line; only hosts of this attempt concern the watch.
    fn hear(&mut self, at: usize, news: News, chosen: &[usize], watch: &mut Watch) -> Vec<Act> {
        self.tell_news(at, &news);
        let state = &mut self.states[at];
        let host = chosen.iter().position(|chosen| *chosen == at);
        match news {
            News::Ready { shells } => {
                state.up = true;
                state.shells = shells;
                return host.map_or_else(Vec::new, |host| watch.ready(host));
            }
            News::Unreached { why, not_authorised } => {
                if let Some(host) = host {
                    watch.unreached(host, why, not_authorised);
                }
            }
            News::Lost { why } => {
                state.up = false;
                let idle = host.is_some_and(|host| watch.lost(host, why.clone(), boottime_ms()));
                if idle {
                    let name = &self.hosts.hosts()[at].name;
                    report::say(&format!(
                        "muster: host {name}, on which this launcher has started nothing itself, is lost: {why}"
                    ));
                }
            }
            News::Begun => {
                if let Some(host) = host {
                    watch.shell_begun(host);
                }
            }
            News::Shells(shells) => {
                state.shells = Some(shells);
                if let Some(host) = host.filter(|host| !watch.connecting() && watch.begun(*host) == 0)
                    && state.before.is_some_and(|before| shells > before)
                {
                    watch.shell_begun(host);
                }
            }
            News::Refused { why } => {
                if let Some(host) = host {
                    watch.refused(host, why, boottime_ms());
                }
            }
            News::Ended { code } => {
                if let Some(host) = host {
                    watch.shell_ended(host, code, boottime_ms());
                }
            }
        }
        Vec::new()
    }

    /// What news of a line are for those who keep a status.
    fn tell_news(&self, at: usize, news: &News) {
        let host = || self.hosts.hosts()[at].name.clone();
        match news {
            News::Ready { .. } => self.tell(|| Event::HostJoined { index: HostIndex(at as u32), host: host() }),
            News::Unreached { why, .. } => {
                let (obstacle, text) = (Obstacle::Waiting, why.clone());
                self.tell(|| Event::HostMissing { host: host(), obstacle, text });
            }
            News::Lost { why } => self.tell(|| Event::HostLost { host: host(), why: why.clone() }),
            News::Begun | News::Shells(_) | News::Refused { .. } | News::Ended { .. } => {}
        }
    }

    fn receive(&mut self, visitor: Visitor) {
        let asked = visitor.ask.host.as_str();
        match find_host(&self.hosts, asked) {
            Some(at) if self.states[at].here => drop(tokio::task::spawn_local(lines::run_here(visitor))),
            Some(at) => drop(self.states[at].visitors.send(visitor)),
            None => drop(tokio::task::spawn_local(lines::refuse(visitor))),
        }
    }

    async fn asked(&mut self, asked: Asked, attempt: &mut Attempt) -> Vec<Act> {
        match asked {
            Asked::End(signal) => return attempt.watch.end_signal(signal, boottime_ms()),
            Asked::Pass(signal) => attempt.signal(signal),
            Asked::Report => attempt.signal(signals::number("SIGQUIT").unwrap_or_default()),
            Asked::Suspend(signal) => {
                attempt.signal(signal);
                let _ = signals::raise(signals::STOP);
                attempt.signal(signals::CONTINUE);
            }
            Asked::Children => drop(reap::reap_adopted()),
        }
        Vec::new()
    }

    /// Ends what the command has left on this machine; remote shells among it take their commands along.
    async fn clear(&mut self) {
        for _ in 0..SWEEPS_MAX {
            if !self.commands.sweep() {
                return;
            }
            sleep(SWEEP_PAUSE).await;
        }
        report::say("muster: processes of the command on this machine cannot be ended");
    }

    /// Whether the command has used its hosts.
    async fn look_at_use(&mut self, hosts: &HostList, chosen: &[usize], watch: &Watch) -> Verdict {
        let unsure = (0..chosen.len()).any(|host| watch.begun(host) == 0 && !self.states[chosen[host]].here);
        // Daemons start further daemons by themselves: only the host's own agent knows of those.
        let counts = if unsure { self.each(|target| async move { target.shells().await }).await } else { Vec::new() };
        let by_others = |at: usize| {
            let now = counts.get(at).copied().flatten();
            self.states[at].before.zip(now).is_some_and(|(before, now)| now > before)
        };
        let use_of = |(host, at): (usize, &usize)| match &self.states[*at] {
            state if state.here => Use::Here,
            _ if watch.begun(host) > 0 || by_others(*at) => Use::Started,
            _ => Use::Nothing,
        };
        let uses: Vec<Use> = chosen.iter().enumerate().map(use_of).collect();
        let success = Verdict { outcome: Outcome::Success, why: None };
        let Some(note) = idle_note(hosts, &uses, &self.family, &self.options.argv) else { return success };
        report::say(&format!("muster: {note}"));
        if !self.options.strict {
            return success;
        }
        self.tell(|| Event::Ending { cause: note.clone() });
        Verdict { outcome: Outcome::Rank(1), why: Some(note) }
    }
}

struct Attempt {
    watch: Watch,
    running: Option<Running>,
    over: bool,
}

impl Attempt {
    fn signal(&self, signal: i32) {
        if let Some(running) = &self.running {
            running.signal(signal);
        }
    }
}

async fn ended(running: Option<&Running>) -> End {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

async fn wait_until(due_ms: Option<u64>) {
    match due_ms {
        Some(at) => sleep(Duration::from_millis(at.saturating_sub(boottime_ms()))).await,
        None => std::future::pending().await,
    }
}
