//! The launcher's loop: signals, the tree, the output thread and the clock go in; what the job decides is carried out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use muster_core::exit::Outcome;
use muster_core::job::{Cause, Job, JobAct};
use muster_core::tree::TreeNode;
use muster_protocol::Frame;
use muster_protocol::event::Event;
use muster_protocol::hello::Role;
use muster_protocol::limits::{HEARTBEAT_PERIOD_MS, LAUNCHER_QUEUE_INPUTS_MAX};
use muster_protocol::message::{Adopt, Heartbeat, HostEntry, StdinTo};
use muster_sys::clock::boottime_ms;
use muster_sys::{signal_count, signals};
use muster_transport::dial::Dialer;
use muster_transport::identity::JobKey;
use muster_transport::resolve::Resolver;
use muster_transport::tls;
use muster_worker_agent::agent::incarnation;
use muster_worker_agent::session::tree::{Introduction, TreeInput, TreeShell};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::joiners::Joiners;
use super::local::LocalAgents;
use super::prepare::Prepared;
use super::signal_source::{Asked, SignalSource};
use super::{Ended, SIGPIPE, Usage, tracing_level};
use crate::cli::RunOptions;
use crate::output::{self, Output, OutputOrder, OutputReport, Style};
use crate::report::{Reporter, TerminationMessage, TrainerStatus};

/// Time that ranks and their output have after the second demand for the end, in milliseconds.
const IMPATIENT_MS: u64 = 2_000;
/// Time that queued frames have to leave when the job is over.
const FAREWELL: Duration = Duration::from_millis(500);
/// Lease of the ranks of a launcher that the user has suspended, in milliseconds: nobody renews it meanwhile.
const SUSPENDED_LEASE_MS: u64 = 24 * 3_600 * 1_000;
/// Time for the last frames to leave before the launcher suspends itself.
const SUSPEND_DELAY: Duration = Duration::from_millis(50);

/// Runs a prepared job to its end.
pub(super) fn run(
    options: &RunOptions,
    mut prepared: Prepared,
    trainer: Option<TrainerStatus>,
    message: Option<TerminationMessage>,
) -> anyhow::Result<Ended> {
    signals::ignore_broken_pipe();
    // What the options name is opened before anything is started.
    let reporter = Reporter::new(options, trainer, message, boottime_ms()).map_err(|e| Usage(format!("{e:#}")))?;
    if let Some(dir) = &options.spec.output.dir {
        output::make_dir(Path::new(dir)).map_err(|e| Usage(format!("--output-dir: {e}")))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Heard from now on: a signal must not find agents without a launcher that ends them.
        let source = SignalSource::new()?;
        let start = |hosts: &mut [HostEntry]| LocalAgents::start(hosts, tracing_level(options.log));
        let agents = prepared.local.then(|| start(&mut prepared.entries)).transpose()?;
        // Every child of the root is a descriptor or two; the limit that shells set is for interactive use. Not sooner: the agents
        // above give their ranks the limit they were started with.
        let _ = muster_sys::limits::raise_open_files();
        let mut shell = Shell::new(options, prepared, agents, reporter)?;
        let mut ended = shell.run(source).await;
        shell.report_end(&ended);
        shell.farewell().await;
        ended.last_words = shell.reporter.last_words();
        Ok(ended)
    })
}

struct Shell {
    tree: TreeShell,
    inbox: mpsc::Receiver<TreeInput>,
    job: Job,
    output: Output,
    reports: mpsc::UnboundedReceiver<OutputReport>,
    reporter: Reporter,
    lease_ms: u64,
    /// The user's time limit: when it is over, and how long it is.
    timeout_ms: Option<(u64, u64)>,
    connect_deadline_ms: u64,
    grace_ms: u64,
    over: Option<(Outcome, Option<Cause>)>,
    output_finished: bool,
    end_signals: u32,
    /// The user has asked twice, or the time limit is over: when nothing is waited for any more, and what it is then called.
    impatient: Option<(u64, Cause)>,
    /// Every host of the job, as it is dialled.
    everyone: Adopt,
    /// Those of this machine. They end when their connections do, so they come last.
    agents: Option<LocalAgents>,
}

enum Wake {
    Tree(TreeInput),
    Output(OutputReport),
    Signal(Asked),
    Heartbeat,
    Time,
}

impl Shell {
    fn new(
        options: &RunOptions,
        prepared: Prepared,
        agents: Option<LocalAgents>,
        reporter: Reporter,
    ) -> anyhow::Result<Self> {
        let now_ms = boottime_ms();
        let stamp = prepared.setup.stamp;
        let (inbox_sender, inbox) = mpsc::channel(LAUNCHER_QUEUE_INPUTS_MAX);
        let (report_sender, reports) = mpsc::unbounded_channel();
        let identity = prepared.key.as_ref().map(JobKey::identity);
        let dialer = Dialer::new(Arc::new(Resolver::default()), identity.as_ref().map(tls::connector));
        let introduction = Introduction {
            role: Role::Launcher,
            job: options.spec.job.clone(),
            from: muster_sys::proc::hostname(),
            incarnation: incarnation(),
            stamp,
        };
        let style = Style {
            label: options.spec.output.label,
            dir: options.spec.output.dir.as_ref().map(Into::into),
            stdin: prepared.setup.worlds.first().map_or(StdinTo::Nobody, |world| world.spec.stdin),
            ranks: prepared.plan.world,
        };
        let mut node = TreeNode::new(None, stamp);
        let connect_timeout_ms = options.spec.connect_timeout_ms;
        if let Some(listen) = &options.listen {
            let Some(identity) = &identity else {
                return Err(Usage(format!(
                    "{}: agents of this machine do not join, they are started here",
                    listen.origin
                ))
                .into());
            };
            let joiners = Joiners::new(&prepared.entries, introduction.clone(), inbox_sender.clone());
            let listening = joiners.listen(listen.value, tls::acceptor(identity));
            listening.map_err(|e| Usage(format!("{}: {e}", listen.origin)))?;
        }
        let everyone = Adopt { hosts: prepared.entries, radix: options.spec.radix };
        node.adopt(everyone.clone(), now_ms);
        Ok(Self {
            tree: TreeShell::new(node, introduction, dialer, inbox_sender),
            inbox,
            job: Job::new(prepared.setup),
            output: Output::start(stamp, style, report_sender).context("output")?,
            reports,
            reporter,
            lease_ms: options.spec.lease_ms,
            timeout_ms: options.spec.timeout_ms.map(|limit| (now_ms + limit, limit)),
            connect_deadline_ms: now_ms + connect_timeout_ms,
            grace_ms: options.spec.grace_ms,
            over: None,
            output_finished: false,
            end_signals: 0,
            impatient: None,
            everyone,
            agents,
        })
    }

    async fn run(&mut self, mut source: SignalSource) -> Ended {
        let mut heartbeat = interval(Duration::from_millis(HEARTBEAT_PERIOD_MS));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.settle(boottime_ms());
            if let Some((outcome, cause)) = self.over.take_if(|_| self.output_finished) {
                return Ended { outcome, cause, last_words: None };
            }
            let wake = self.wake(&mut source, &mut heartbeat).await;
            let now_ms = boottime_ms();
            if let Some((_, cause)) = self.impatient.take_if(|(at, _)| *at <= now_ms) {
                return self.ended_by(cause);
            }
            match wake {
                Wake::Tree(input) => {
                    self.tree_input(input, now_ms);
                    while let Ok(input) = self.inbox.try_recv() {
                        self.tree_input(input, now_ms);
                    }
                }
                Wake::Output(report) => self.output_report(report),
                Wake::Signal(asked) => {
                    if let Some(ended) = self.signal(asked, now_ms).await {
                        return ended;
                    }
                }
                Wake::Heartbeat => self.beat(self.lease_ms, now_ms),
                Wake::Time => self.time(now_ms),
            }
        }
    }

    async fn wake(&mut self, source: &mut SignalSource, heartbeat: &mut tokio::time::Interval) -> Wake {
        let now_ms = boottime_ms();
        let due = [
            self.tree.node.next_due_ms(),
            self.job.next_due_ms(),
            self.job.connecting().then_some(self.connect_deadline_ms),
            self.timeout_ms.map(|(at, _)| at),
            self.reporter.next_due_ms(),
            self.impatient.as_ref().map(|(at, _)| *at),
        ];
        let wait = due.into_iter().flatten().min().map(|at| Duration::from_millis(at.saturating_sub(now_ms)));
        tokio::select! {
            biased;
            asked = source.next() => Wake::Signal(asked),
            Some(input) = self.inbox.recv() => Wake::Tree(input),
            Some(report) = self.reports.recv() => Wake::Output(report),
            _ = heartbeat.tick() => Wake::Heartbeat,
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => Wake::Time,
        }
    }

    fn tree_input(&mut self, input: TreeInput, now_ms: u64) {
        if let TreeInput::Frame(edge, frame) = &input
            && !self.is_current(frame)
        {
            tracing::warn!(edge = edge.0, kind = ?frame.header.kind, "a frame of another epoch or generation is dropped");
            return;
        }
        self.tree.handle(input, now_ms);
        self.settle(now_ms);
    }

    fn is_current(&self, frame: &Frame) -> bool {
        self.job.stamp().epoch == frame.header.epoch
            && self.job.stamp().generation == frame.header.generation
            && self.job.knows(frame.header.host)
    }

    /// Carries out what tree and job decide, until nothing is left to do.
    fn settle(&mut self, now_ms: u64) {
        loop {
            let outgoing = self.tree.perform();
            for frame in &outgoing.up {
                self.job.frame(frame);
            }
            for (edge, dialed) in outgoing.bulk {
                self.output.order(OutputOrder::Child(edge, Box::new(dialed)));
            }
            for edge in outgoing.gone {
                self.output.order(OutputOrder::ChildGone(edge));
            }
            let acts = self.job.take_acts();
            if acts.is_empty() && outgoing.up.is_empty() {
                return;
            }
            for act in acts {
                self.act(act, now_ms);
            }
        }
    }

    fn act(&mut self, act: JobAct, now_ms: u64) {
        match act {
            JobAct::Down(frame) => self.tree.node.from_parent(frame, now_ms),
            JobAct::Emit(event) => self.reporter.event(&event, now_ms),
            JobAct::StreamsEnd(ends) => self.output.order(OutputOrder::Ends(ends)),
            JobAct::NewGroup(group, first, size) => self.output.order(OutputOrder::Group(group, first, size)),
            JobAct::OutputLost(procs) => self.output.order(OutputOrder::Lost(procs)),
            JobAct::Redial(host) => {
                let hosts = self.everyone.hosts.iter().filter(|entry| entry.index == host).cloned().collect();
                self.tree.node.adopt(Adopt { hosts, radix: self.everyone.radix }, now_ms);
            }
            JobAct::Over { outcome, cause } => {
                self.over = Some((outcome, cause));
                self.output.order(OutputOrder::Finish);
            }
        }
    }

    fn output_report(&mut self, report: OutputReport) {
        match report {
            OutputReport::Finished => self.output_finished = true,
            OutputReport::Incomplete(proc) => {
                let why = "it was lost before the last output of its ranks had arrived".to_owned();
                self.output_failed(Cause::HostLost { host: self.job.host_of(proc), why });
            }
            OutputReport::ReaderGone => self.output_failed(Cause::Signal { signal: SIGPIPE }),
            OutputReport::Failed(why) => {
                self.output_failed(Cause::Internal { why: format!("output cannot be written: {why}") });
            }
        }
    }

    /// A job whose output is lost has not succeeded, even if its ranks were done before that was known.
    fn output_failed(&mut self, cause: Cause) {
        match &mut self.over {
            Some(over) if over.1.is_none() => *over = (cause.outcome(), Some(cause)),
            Some(_) => {}
            None => self.job.lose_output(cause),
        }
    }

    /// A signal came. After the second demand for the end output is waited for a little, after the third nothing is.
    async fn signal(&mut self, asked: Asked, now_ms: u64) -> Option<Ended> {
        match asked {
            Asked::End(signal) => {
                self.end_signals += 1;
                if self.end_signals > 2 || (self.end_signals > 1 && self.over.is_some()) {
                    return Some(self.ended_by(Cause::Signal { signal }));
                }
                if self.end_signals == 2 {
                    self.impatient = Some((now_ms + IMPATIENT_MS, Cause::Signal { signal }));
                }
                self.job.end_signal(signal, now_ms);
            }
            Asked::Pass(signal) => self.job.pass_signal(signal),
            Asked::Report => self.job.query(None, now_ms),
            Asked::Suspend(signal) => self.suspend(signal).await,
            Asked::Children => self.look_after_agents(),
        }
        None
    }

    /// The end without waiting for anything. What ended the job first stays its cause.
    fn ended_by(&self, cause: Cause) -> Ended {
        let cause = self.job.cause().cloned().unwrap_or(cause);
        Ended { outcome: cause.outcome(), cause: Some(cause), last_words: None }
    }

    /// An agent of this machine that has ended before it was connected will not come any more. Later its connection tells.
    fn look_after_agents(&mut self) {
        let ended = self.agents.as_mut().map(LocalAgents::ended).unwrap_or_default();
        if self.job.connecting() && !ended.is_empty() {
            self.job.fail(Cause::Unreachable { hosts: ended, not_authorised: false });
        }
    }

    /// The last event, on whatever way the end was reached: only now nothing can change the status any more.
    fn report_end(&mut self, ended: &Ended) {
        let cause = ended.cause.as_ref().map(Cause::to_string);
        self.reporter.event(&Event::JobEnded { status: ended.outcome.code(), cause }, boottime_ms());
    }

    /// Stops the ranks, then this process; goes on when the user says so.
    async fn suspend(&mut self, signal: i32) {
        self.job.pass_signal(signal);
        self.beat(SUSPENDED_LEASE_MS, boottime_ms());
        self.settle(boottime_ms());
        signal_count::take(signals::CONTINUE);
        tokio::time::sleep(SUSPEND_DELAY).await;
        // Who has changed his mind meanwhile would not say it twice.
        if signal_count::take(signals::CONTINUE) == 0 {
            let _ = signals::raise(signals::STOP);
        }
        // Somebody let us go on, or nothing could stop us, as it is with the first process of a container: so go the ranks.
        signal_count::take(signals::CONTINUE);
        self.job.pass_signal(signals::CONTINUE);
        self.beat(self.lease_ms, boottime_ms());
    }

    fn beat(&mut self, lease_ms: u64, now_ms: u64) {
        let stamp = self.job.stamp();
        self.tree.node.from_parent(stamp.to_all(&Heartbeat { sent_ms: now_ms, lease_ms }), now_ms);
        self.tree.node.tick(now_ms);
    }

    fn time(&mut self, now_ms: u64) {
        self.tree.node.tick(now_ms);
        self.job.tick(now_ms);
        if self.connect_deadline_ms <= now_ms {
            self.job.connect_deadline();
        }
        if let Some((_, limit_ms)) = self.timeout_ms.take_if(|(at, _)| *at <= now_ms) {
            self.job.query(Some(Cause::Timeout { limit_ms }), now_ms);
            // Time for the answers, the grace and the last output; a reader that takes none of it does not prolong the limit.
            let end_by_ms = now_ms.saturating_add(self.grace_ms).saturating_add(2 * IMPATIENT_MS);
            self.impatient = Some((end_by_ms, Cause::Timeout { limit_ms }));
        }
        let missing = if self.job.connecting() { self.job.missing_hosts() } else { Vec::new() };
        self.reporter.progress(&missing, now_ms);
    }

    async fn farewell(&mut self) {
        self.tree.close_all();
        // What has not left by then finds its way by the closed connection.
        let _ = tokio::time::timeout(FAREWELL, self.tree.closed()).await;
    }
}
