//! The agent: one loop on one thread that hears the door, the job and the clock. Handlers do not wait.

use std::ffi::OsString;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::hello::{Hello, HostFacts, Lane, RELEASE, Refusal, Role, Welcome};
use muster_sys::clock::boottime_ms;
use muster_transport::dial::Dialer;
use muster_transport::gate::Guest;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::door::Door;
use crate::executor::border::{Executor, Report};
use crate::session::bulk::{Bulk, BulkReport};
use crate::session::tree::TreeInput;
use crate::session::{Job, JobInput, Over, PmiInput, Surroundings};
use crate::signals::{Asked, Signals};

/// Inputs that wait for the loop; whoever would add another one waits instead.
const INBOX_MAX: usize = 4_096;
/// Time that an agent made for one launcher waits for it.
const LAUNCHER_WAIT: Duration = Duration::from_secs(60);
/// Time that a leaving agent gives its launcher to hear the end of its ranks.
const FAREWELL: Duration = Duration::from_millis(300);

/// What the agent is told on its command line.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The only job it serves; any when absent.
    pub job: Option<String>,
    /// It ends with the first job that succeeds.
    pub exit_with_job: bool,
    /// It was started for one launcher and ends with it, however that ends.
    pub one_launcher: bool,
    /// Time between the polite and the hard kill when it is told to go, in milliseconds.
    pub grace_ms: u64,
}

/// The agent; see the module above.
pub struct Agent {
    settings: Settings,
    door: Door,
    dialer: Dialer,
    executor: Arc<dyn Executor>,
    bulk: Arc<Bulk>,
    environment: Vec<(OsString, OsString)>,
    facts: HostFacts,
    incarnation: u64,
    job: Option<Job>,
    leaving: bool,
    served: bool,
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
        (self.tree, self.pmi, self.parent) =
            (mpsc::channel(INBOX_MAX), mpsc::channel(INBOX_MAX), mpsc::channel(INBOX_MAX));
    }
}

/// What woke the loop.
enum Wake {
    Guest(Box<Guest>),
    Input(JobInput),
    Time,
    Signal(Asked),
}

impl Agent {
    /// An agent behind a door.
    pub fn new(
        settings: Settings,
        door: Door,
        dialer: Dialer,
        executor: Arc<dyn Executor>,
        reports: mpsc::UnboundedReceiver<Report>,
    ) -> std::io::Result<Self> {
        let (bulk_reports, bulk_inbox) = mpsc::unbounded_channel();
        Ok(Self {
            settings,
            door,
            dialer,
            executor,
            bulk: Arc::new(Bulk::start(bulk_reports)?),
            environment: std::env::vars_os().collect(),
            facts: facts(),
            incarnation: incarnation(),
            job: None,
            leaving: false,
            served: false,
            inboxes: Inboxes {
                tree: mpsc::channel(INBOX_MAX),
                pmi: mpsc::channel(INBOX_MAX),
                parent: mpsc::channel(INBOX_MAX),
                bulk: bulk_inbox,
                executor: reports,
            },
            tasks: TaskTracker::new(),
        })
    }

    /// Serves until told to end.
    pub async fn run(mut self) -> std::io::Result<()> {
        let mut signals = Signals::new()?;
        let started_ms = boottime_ms();
        tracing::info!(listening = self.door.describe(), release = RELEASE, "agent is ready");
        while !self.is_done(started_ms) {
            let wake = self.wake(started_ms, &mut signals).await;
            let now_ms = boottime_ms();
            self.take(wake, now_ms);
            self.take_waiting(now_ms);
            if let Some(job) = &mut self.job {
                job.settle(now_ms);
                if job.over(now_ms) == Over::Yes {
                    self.end_job();
                }
            }
        }
        if self.leaving {
            tokio::time::sleep(FAREWELL).await;
        }
        tracing::info!("agent ends");
        Ok(())
    }

    async fn wake(&mut self, started_ms: u64, signals: &mut Signals) -> Wake {
        let timer = self.timer(started_ms);
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
            guest = self.door.next() => Wake::Guest(Box::new(guest)),
        }
    }

    /// Never, unless something is due.
    fn timer(&self, started_ms: u64) -> impl Future<Output = ()> + use<> {
        let launcher =
            (self.settings.one_launcher && !self.served).then(|| started_ms + LAUNCHER_WAIT.as_millis() as u64);
        let due = self.job.as_ref().and_then(Job::next_due_ms).into_iter().chain(launcher).min();
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
            Wake::Time => {
                if let Some(job) = &mut self.job {
                    job.tick(now_ms);
                }
            }
            Wake::Signal(Asked::End(why)) => self.terminate(why, now_ms),
            Wake::Signal(Asked::Pass(signal)) => {
                if let Some(job) = &mut self.job {
                    job.pass_signal(signal);
                }
            }
        }
    }

    fn input(&mut self, input: JobInput, now_ms: u64) {
        if let JobInput::Bulk(BulkReport::WantUplink) = input
            && !self.door.parent_brings_bulk()
        {
            return;
        }
        if let Some(job) = &mut self.job {
            job.handle(input, now_ms);
        }
    }

    /// Whatever else has come meanwhile, so that what it causes goes out together.
    fn take_waiting(&mut self, now_ms: u64) {
        for _ in 0..INBOX_MAX {
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

    fn is_done(&self, started_ms: u64) -> bool {
        let waited = boottime_ms().saturating_sub(started_ms) >= LAUNCHER_WAIT.as_millis() as u64;
        match &self.job {
            Some(job) => self.leaving && job.is_clean(),
            None => self.leaving || self.settings.one_launcher && (self.served || waited),
        }
    }

    fn end_job(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        job.close();
        tracing::info!(job = job.name(), status = job.status(), "job is over");
        self.served = true;
        self.door.reopen();
        self.leaving |= self.settings.exit_with_job && job.status() == Some(0);
    }

    fn admit(&mut self, guest: Guest, now_ms: u64) {
        match self.judge(&guest.hello, now_ms) {
            Err(refusal) => guest.refuse(refusal, &self.tasks),
            Ok(version) => {
                let welcome = Welcome {
                    version,
                    release: RELEASE.to_owned(),
                    incarnation: self.incarnation,
                    facts: self.facts.clone(),
                };
                self.receive(guest, welcome, now_ms);
            }
        }
    }

    /// Who is served: see `docs/protocol.md`, connections.
    fn judge(&mut self, hello: &Hello, now_ms: u64) -> Result<u32, Refusal> {
        let version = hello.common_version()?;
        if let Some(theirs) = self.settings.job.as_ref().filter(|job| **job != hello.job) {
            return Err(Refusal::WrongJob { theirs: theirs.clone() });
        }
        match hello.role {
            Role::Probe => return Ok(version),
            // It looks for a launcher that listens, and this is none.
            Role::Joiner => return Err(Refusal::NotInList { name: hello.your_name.clone() }),
            Role::Launcher | Role::Parent => {}
        }
        if self.leaving && hello.lane == Lane::Control {
            return Err(Refusal::Leaving);
        }
        let Some(job) = &mut self.job else {
            return if hello.lane == Lane::Bulk { Err(Refusal::NoEdge) } else { Ok(version) };
        };
        match (job.is_of(hello), hello.lane) {
            (true, Lane::Bulk) => Ok(version),
            (true, Lane::Control) if job.has_parent(now_ms) => Err(Refusal::HasParent),
            (true, Lane::Control) => Ok(version),
            (false, Lane::Bulk) => Err(Refusal::NoEdge),
            (false, Lane::Control) if job.name() == hello.job && hello.epoch < job.stamp().epoch => {
                Err(Refusal::StaleEpoch { promised: job.stamp().epoch })
            }
            (false, Lane::Control) => {
                if job.is_orphan() {
                    // Its launcher is gone and another one asks: the ranks it left behind end now, not with their lease.
                    job.give_up(0, now_ms);
                }
                Err(Refusal::Busy { job: job.name().to_owned(), launcher: job.launcher().to_owned() })
            }
        }
    }

    fn receive(&mut self, guest: Guest, welcome: Welcome, now_ms: u64) {
        if guest.hello.role == Role::Probe {
            let (sender, _) = guest.welcome(welcome, 1, &self.tasks);
            sender.close();
            return;
        }
        if guest.hello.lane == Lane::Bulk {
            if let Some(job) = &mut self.job {
                job.take_bulk(guest, welcome);
            }
            return;
        }
        if self.job.is_none() {
            // What tasks of an earlier job still have to say is nobody's business any more.
            self.inboxes.renew();
            let job = Job::new(&guest.hello, self.surroundings());
            tracing::info!(job = guest.hello.job, launcher = guest.hello.from, "job begins");
            self.job = Some(job);
        }
        if let Some(job) = &mut self.job {
            job.take_parent(guest, welcome, now_ms);
        }
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

/// What this host has.
fn facts() -> HostFacts {
    HostFacts {
        hostname: muster_sys::proc::hostname(),
        cores: muster_sys::proc::cpu_count() as u32,
        memory_bytes: 0,
        boot_id: muster_sys::proc::boot_id().unwrap_or_default(),
    }
}

/// A number that another process, or this one after a restart, does not have.
pub fn incarnation() -> u64 {
    muster_sys::clock::monotonic_ns() ^ u64::from(std::process::id()) << 44
}
