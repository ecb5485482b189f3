//! The agent: one loop on one thread that hears the door, the job and the clock. Handlers do not wait.

mod facts;
mod guests;

use std::ffi::OsString;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::hello::{HostFacts, RELEASE};
use muster_protocol::limits::AGENT_QUEUE_INPUTS_MAX;
use muster_sys::clock::boottime_ms;
use muster_transport::dial::Dialer;
use muster_transport::gate::Guest;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

pub use self::facts::{incarnation, network};
use crate::door::Door;
use crate::executor::border::{Executor, Order, Report};
use crate::hold::Hold;
use crate::patience::Patience;
use crate::promises::Promises;
use crate::quarantine::Quarantine;
use crate::rivals::Rivals;
use crate::session::bulk::{Bulk, BulkReport};
use crate::session::tree::TreeInput;
use crate::session::{Job, JobInput, Over, PmiInput, Surroundings};
use crate::shell::Shells;
use crate::signals::{Asked, Signals};
use crate::tally::{self, Tally};

/// Time that a leaving agent gives its launcher to hear the end of its ranks.
const FAREWELL: Duration = Duration::from_millis(300);

/// What the agent is told on its command line.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The only job it serves; any when absent.
    pub job: Option<String>,
    /// It ends with the first job that succeeds, or the first command of a launcher that tells its end.
    pub exit_with_job: bool,
    /// It was started for one launcher and ends with it, however that ends.
    pub one_launcher: bool,
    /// Time between the polite and the hard kill when it is told to go, in milliseconds.
    pub grace_ms: u64,
    /// Variables by which remote shells that commands here start reach the agents of other hosts.
    pub shell_variables: Vec<(&'static str, OsString)>,
}

/// The agent; see the module above.
pub struct Agent {
    settings: Settings,
    door: Door,
    /// Whether jobs are taken yet.
    hold: Hold,
    dialer: Dialer,
    executor: Arc<dyn Executor>,
    bulk: Arc<Bulk>,
    /// Started with the first remote shell.
    shells: Option<Shells>,
    /// A command that has used remote shells here has succeeded.
    command_over: Arc<Notify>,
    environment: Vec<(OsString, OsString)>,
    facts: HostFacts,
    incarnation: u64,
    job: Option<Job>,
    /// It ends as soon as it has no job and no remote shell.
    may_leave: bool,
    leaving: bool,
    /// With which it ends.
    status: u8,
    patience: Patience,
    promises: Promises,
    rivals: Rivals,
    quarantine: Option<Quarantine>,
    /// The door was opened: from then on what ends jobs opens it again.
    opened: bool,
    tally: Tally,
    inboxes: Inboxes,
    tasks: TaskTracker,
}

struct Inboxes {
    tree: (mpsc::Sender<TreeInput>, mpsc::Receiver<TreeInput>),
    pmi: (mpsc::Sender<PmiInput>, mpsc::Receiver<PmiInput>),
    parent: (mpsc::Sender<JobInput>, mpsc::Receiver<JobInput>),
    bulk: mpsc::UnboundedReceiver<BulkReport>,
    executor: mpsc::UnboundedReceiver<Report>,
}

impl Inboxes {
    /// New ends for a new job; senders of the old one find nobody.
    fn renew(&mut self) {
        (self.tree, self.pmi, self.parent) = (
            mpsc::channel(AGENT_QUEUE_INPUTS_MAX),
            mpsc::channel(AGENT_QUEUE_INPUTS_MAX),
            mpsc::channel(AGENT_QUEUE_INPUTS_MAX),
        );
    }
}

/// What woke the loop.
enum Wake {
    Guest(Box<Guest>),
    Input(JobInput),
    Time,
    Signal(Asked),
    Held(Option<u8>),
    CommandOver,
}

impl Agent {
    /// An agent behind a door.
    pub fn new(
        settings: Settings,
        door: Door,
        hold: Hold,
        dialer: Dialer,
        executor: Arc<dyn Executor>,
        reports: mpsc::UnboundedReceiver<Report>,
    ) -> std::io::Result<Self> {
        let (bulk_reports, bulk_inbox) = mpsc::unbounded_channel();
        Ok(Self {
            patience: Patience::new(settings.one_launcher, boottime_ms()),
            settings,
            door,
            hold,
            dialer,
            executor,
            bulk: Arc::new(Bulk::start(bulk_reports)?),
            shells: None,
            command_over: Arc::default(),
            environment: std::env::vars_os().collect(),
            facts: facts::facts(),
            incarnation: incarnation(),
            job: None,
            may_leave: false,
            leaving: false,
            status: 0,
            promises: Promises::default(),
            rivals: Rivals::default(),
            quarantine: None,
            opened: false,
            tally: Tally::new(boottime_ms()),
            inboxes: Inboxes {
                tree: mpsc::channel(AGENT_QUEUE_INPUTS_MAX),
                pmi: mpsc::channel(AGENT_QUEUE_INPUTS_MAX),
                parent: mpsc::channel(AGENT_QUEUE_INPUTS_MAX),
                bulk: bulk_inbox,
                executor: reports,
            },
            tasks: TaskTracker::new(),
        })
    }

    /// Serves until told to end, and says with which status.
    pub async fn run(mut self) -> std::io::Result<u8> {
        let mut signals = Signals::new()?;
        self.open_when_free();
        tracing::info!(listening = self.door.describe(), release = RELEASE, "agent is ready");
        while !self.is_done() {
            let wake = self.wake(&mut signals).await;
            let now_ms = boottime_ms();
            self.take(wake, now_ms);
            self.take_waiting(now_ms);
            if let Some(job) = &mut self.job {
                job.settle(now_ms);
                if job.over(now_ms) == Over::Yes {
                    self.end_job(now_ms);
                }
            }
        }
        if self.leaving {
            tokio::time::sleep(FAREWELL).await;
        }
        if let Some(line) = self.door.ledger().and_then(|ledger| Tally::total(&tally::counts(ledger))) {
            tracing::info!("{line}");
        }
        tracing::info!("agent ends");
        Ok(self.status)
    }

    async fn wake(&mut self, signals: &mut Signals) -> Wake {
        let timer = self.timer();
        let inboxes = &mut self.inboxes;
        tokio::select! {
            biased;
            Some(report) = inboxes.executor.recv() => Wake::Input(JobInput::Executor(report)),
            Some(input) = inboxes.pmi.1.recv() => Wake::Input(JobInput::Pmi(input)),
            Some(input) = inboxes.parent.1.recv() => Wake::Input(input),
            Some(input) = inboxes.tree.1.recv() => Wake::Input(JobInput::Tree(input)),
            Some(report) = inboxes.bulk.recv() => Wake::Input(JobInput::Bulk(report)),
            asked = signals.next() => Wake::Signal(asked),
            () = timer => Wake::Time,
            over = self.hold.changed() => Wake::Held(over),
            () = self.command_over.notified() => Wake::CommandOver,
            guest = self.door.next() => Wake::Guest(Box::new(guest)),
        }
    }

    /// Never, unless something is due.
    fn timer(&self) -> impl Future<Output = ()> + use<> {
        let due = [
            self.job.as_ref().and_then(Job::next_due_ms),
            self.patience.due_ms(self.job.is_some()),
            self.quarantine.as_ref().and_then(Quarantine::due_ms),
            self.door.ledger().map(|_| self.tally.due_ms()),
        ];
        let due = due.into_iter().flatten().min();
        let wait = due.map(|at| Duration::from_millis(at.saturating_sub(boottime_ms())));
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        }
    }

    fn take(&mut self, wake: Wake, now_ms: u64) {
        match wake {
            Wake::Guest(guest) => self.admit(*guest, now_ms),
            Wake::Input(input) => self.input(input, now_ms),
            Wake::Time => self.tick(now_ms),
            Wake::Signal(Asked::End(why)) => self.terminate(why, now_ms),
            Wake::Held(None) => self.open_when_free(),
            Wake::CommandOver => {
                self.may_leave |= self.settings.exit_with_job;
                self.leave_if_idle();
            }
            Wake::Held(Some(status)) => {
                // Ranks of an attempt that is over get no grace: all other pods wait for this one.
                (self.status, self.leaving) = (status, true);
                self.terminate("its attempt is over", now_ms);
            }
            Wake::Signal(Asked::Pass(signal)) => {
                if let Some(job) = &mut self.job {
                    job.pass_signal(signal);
                }
            }
        }
    }

    /// Who goes out to join a launcher does so when jobs are taken, and not before: a launcher would be refused again and again.
    fn open_when_free(&mut self) {
        if !self.opened && self.hold.refusal().is_none() {
            self.opened = true;
            self.door.reopen(true);
        }
    }

    fn tick(&mut self, now_ms: u64) {
        if let Some(job) = &mut self.job {
            job.tick(now_ms);
        }
        self.look_for_survivors(false, now_ms);
        if let Some(ledger) = self.door.ledger()
            && let Some(line) = self.tally.tick(&tally::counts(ledger), now_ms)
        {
            tracing::info!("{line}");
        }
    }

    fn look_for_survivors(&mut self, asked: bool, now_ms: u64) {
        if let Some(held) = &mut self.quarantine
            && held.look(asked, now_ms)
            && let Err(error) = self.executor.order(Order::Sweep)
        {
            tracing::error!(%error, "the executor does not take orders");
        }
    }

    /// What the executor says while there is no job: only a host in quarantine has asked for anything.
    fn idle_report(&mut self, report: Report, now_ms: u64) {
        let Some(held) = &mut self.quarantine else { return };
        let Report::Swept { survivors } = report else { return };
        if held.swept(survivors, now_ms) {
            tracing::info!("processes that could not be ended are gone; this host takes jobs again");
            self.quarantine = None;
            self.door.reopen(true);
        }
    }

    fn input(&mut self, input: JobInput, now_ms: u64) {
        if let JobInput::Bulk(BulkReport::WantUplink) = input
            && !self.door.parent_brings_bulk()
        {
            return;
        }
        match (&mut self.job, input) {
            (Some(job), input) => job.handle(input, now_ms),
            (None, JobInput::Executor(report)) => self.idle_report(report, now_ms),
            (None, _) => {}
        }
    }

    /// Whatever else has come meanwhile, so that what it causes goes out together.
    fn take_waiting(&mut self, now_ms: u64) {
        for _ in 0..AGENT_QUEUE_INPUTS_MAX {
            let inboxes = &mut self.inboxes;
            let input = if let Ok(report) = inboxes.executor.try_recv() {
                JobInput::Executor(report)
            } else if let Ok(input) = inboxes.pmi.1.try_recv() {
                JobInput::Pmi(input)
            } else if let Ok(input) = inboxes.parent.1.try_recv() {
                input
            } else if let Ok(input) = inboxes.tree.1.try_recv() {
                JobInput::Tree(input)
            } else {
                return;
            };
            self.input(input, now_ms);
        }
    }

    fn terminate(&mut self, why: &'static str, now_ms: u64) {
        tracing::info!(why, "ending");
        let grace_ms = if self.leaving { 0 } else { self.settings.grace_ms };
        self.leaving = true;
        if let Some(job) = &mut self.job {
            job.leave(grace_ms, why, now_ms);
        }
    }

    fn is_done(&self) -> bool {
        match &self.job {
            Some(job) => self.leaving && job.is_clean(),
            None => self.leaving || self.patience.is_over(boottime_ms()),
        }
    }

    fn end_job(&mut self, now_ms: u64) {
        let Some(mut job) = self.job.take() else { return };
        job.close();
        tracing::info!(job = job.name(), status = job.status(), "job is over");
        let served = job.was_served();
        self.patience.job_over(served, now_ms);
        self.rivals.job_over(served, now_ms);
        self.quarantine = Quarantine::after(job.name(), job.survivors().to_vec(), now_ms);
        match &self.quarantine {
            Some(held) => {
                let survivors = held.names();
                tracing::error!(
                    job = job.name(),
                    survivors,
                    "processes cannot be ended; this host takes no job before they are gone"
                );
            }
            None => self.door.reopen(served),
        }
        if served {
            self.promises.keep(job.name(), job.stamp().epoch);
        }
        self.leaving |= self.settings.exit_with_job && job.status() == Some(0);
        self.leave_if_idle();
    }

    /// Remote shells tell when the last one has ended.
    fn leave_if_idle(&mut self) {
        let idle = self.job.is_none() && self.shells.as_ref().is_none_or(|shells| shells.running() == 0);
        self.leaving |= self.may_leave && idle;
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            executor: self.executor.clone(),
            bulk: self.bulk.clone(),
            dialer: self.dialer.clone(),
            environment: self.environment.clone(),
            hostname: self.facts.hostname.clone(),
            incarnation: self.incarnation,
            tree_inbox: self.inboxes.tree.0.clone(),
            pmi_inbox: self.inboxes.pmi.0.clone(),
            parent_inbox: self.inboxes.parent.0.clone(),
        }
    }
}
