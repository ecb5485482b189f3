//! The executor inside the agent's own process: one thread that starts, watches and ends the ranks.
//!
//! One thread and no other, because a rank dies with the *thread* that started it; and a thread of its own, so that a start
//! from a slow file system delays nothing of the session. It sleeps until an order, an end or a deadline wakes it; after
//! each start it looks at all three again.
//!
//! A limit: while the kernel waits inside one start, for a program on a file server that is gone, this thread waits with
//! it, and what is ordered meanwhile is done when the kernel gives up. Nothing can interrupt it; the session half goes on
//! to be heard.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use muster_sys::children::Owner;
use muster_sys::clock::boottime_ms;
use muster_sys::pipe::Bell;
use muster_sys::poll::{Poller, Trigger};
use muster_sys::spawn::{SpawnError, SpawnOrder, Spawned, Spawner};
use muster_sys::subreaper::{self, Strangers};
use muster_sys::{reap, signals};

use super::border::{Executor, Order, OrderError, PMI_FD_NUMBER, RankOrder, Report, SpawnFailure, Stage};
use super::failure::errno::{EAGAIN, EBUSY, ECANCELED, EEXIST, EIO};
use super::queue::{Next, Queue};
use super::ranks::{Act, Look, RankTable, Refusal};
use super::stdio::{self, AgentEnds, RankEnds};

const TOKEN_ORDERS: u64 = 0;
const TOKEN_CHILDREN: u64 = 1;
/// Process ids start at 1; the tokens of ranks are theirs above this.
const TOKEN_RANKS: u64 = 1;

/// Why there is no executor.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the agent's executor: {what} failed: {source}")]
pub struct StartError {
    what: &'static str,
    source: io::Error,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError { what, source }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    bell: Bell,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A queue of plain values is consistent between any two operations.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The executor of this process. Dropping it is ordering `Shutdown`.
#[derive(Debug)]
pub struct LocalExecutor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LocalExecutor {
    /// Starts the thread, and makes this process the one that orphans fall to. Reports go to `report`, on that thread: it
    /// must not block.
    pub fn start(report: Box<dyn Fn(Report) + Send>) -> Result<Self, StartError> {
        subreaper::become_subreaper().map_err(failed("becoming a subreaper"))?;
        // Before there is any rank: whoever is here already is not ours.
        let strangers = Strangers::here().unwrap_or_else(|e| {
            tracing::warn!(
                "cannot see which processes are here already, they will not be told from what ranks leave: {e}"
            );
            Strangers::default()
        });
        let owner = Owner::new();
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            bell: Bell::new().map_err(failed("making an event descriptor"))?,
        });
        let poller = Poller::new().map_err(failed("making a poll set"))?;
        poller.add(shared.bell.as_fd(), TOKEN_ORDERS, Trigger::Level).map_err(failed("watching for orders"))?;
        let children = signals::child_bell().map_err(failed("handling the end of children"))?;
        poller.add(children, TOKEN_CHILDREN, Trigger::Edge).map_err(failed("watching for the end of children"))?;
        let worker = Worker {
            shared: Arc::clone(&shared),
            report,
            owner,
            strangers,
            spawner: Spawner::new(owner).map_err(failed("mapping a stack"))?,
            poller,
            table: RankTable::default(),
            pidfds: BTreeMap::new(),
            shutdown: false,
        };
        let thread = std::thread::Builder::new()
            .name("muster-executor".to_owned())
            .stack_size(256 << 10)
            .spawn(move || worker.run())
            .map_err(failed("starting a thread"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Orders `Shutdown` and waits until everything is swept and the thread has ended. Blocks.
    pub fn join(mut self) {
        let _ = self.order(Order::Shutdown);
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported when it happened; its ranks have died with it.
            let _ = thread.join();
        }
    }
}

impl Executor for LocalExecutor {
    fn order(&self, order: Order) -> Result<(), OrderError> {
        self.shared.queue().push(order)?;
        self.shared.bell.ring();
        Ok(())
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        let _ = self.order(Order::Shutdown);
    }
}

struct Worker {
    shared: Arc<Shared>,
    report: Box<dyn Fn(Report) + Send>,
    owner: Owner,
    strangers: Strangers,
    spawner: Spawner,
    poller: Poller,
    table: RankTable,
    pidfds: BTreeMap<i32, OwnedFd>,
    shutdown: bool,
}

/// Closes the inbox however the thread ends, so that nobody orders into the void.
struct CloseOnExit(Arc<Shared>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        self.0.queue().close();
    }
}

impl Worker {
    fn run(mut self) {
        let _close = CloseOnExit(Arc::clone(&self.shared));
        signals::block_for_helper_thread();
        let mut ready = Vec::new();
        // Whoever has ended before the first wait rings for nobody.
        let (mut ended, mut more) = (true, false);
        loop {
            let deadline = self.table.next_deadline_ms().map(|at| at.saturating_sub(boottime_ms()));
            if let Err(e) = self.poller.wait(&mut ready, if more { Some(0) } else { deadline }) {
                tracing::error!("the executor cannot wait for its ranks any more and ends, and they with it: {e}");
                return;
            }
            for token in &ready {
                ended |= *token != TOKEN_ORDERS;
                match *token {
                    TOKEN_ORDERS => drop(self.shared.bell.hear()),
                    TOKEN_CHILDREN => self.table.child_ended(),
                    rank => self.reap_rank(rank),
                }
            }
            more = self.take_orders();
            // After the ranks, whose ends may have hidden those of orphans.
            if std::mem::take(&mut ended)
                && let Err(e) = reap::reap_adopted()
            {
                tracing::warn!("cannot reap orphans: {e}");
            }
            let due = self.table.due(boottime_ms());
            self.perform(due);
            if self.look() && self.shutdown {
                return;
            }
        }
    }

    /// Carries out orders up to the first start, which may take long. Says whether more wait.
    fn take_orders(&mut self) -> bool {
        // One by one, so that the lock is never held during a start.
        loop {
            let next = self.shared.queue().pop();
            let Some(next) = next else { return false };
            let now = boottime_ms();
            let acts = match next {
                Next::Order(Order::Spawn(rank)) => {
                    self.spawn(&rank);
                    return !self.shared.queue().is_empty();
                }
                Next::Cancelled(rank) => {
                    self.not_started(&rank, SpawnError { stage: Stage::Prepare, errno: ECANCELED });
                    continue;
                }
                Next::Order(Order::Signal { procs, signal }) => self.table.signal(&procs, signal),
                Next::Order(Order::Kill { which, grace_ms }) => self.table.kill(&which, grace_ms, now),
                Next::Order(Order::Sweep) => self.table.sweep(now),
                Next::Order(Order::Shutdown) => {
                    // A second one is not another sweep: after the first one's report comes nothing.
                    if std::mem::replace(&mut self.shutdown, true) { Vec::new() } else { self.table.sweep(now) }
                }
            };
            self.perform(acts);
        }
    }

    fn spawn(&mut self, rank: &RankOrder) {
        match self.try_spawn(rank) {
            Ok((pid, AgentEnds { stdin, stdout, stderr, pmi })) => {
                (self.report)(Report::Spawned { proc: rank.proc, pid, stdin, stdout, stderr, pmi });
            }
            Err(error) => self.not_started(rank, error),
        }
    }

    fn not_started(&self, rank: &RankOrder, error: SpawnError) {
        (self.report)(Report::SpawnFailed(SpawnFailure {
            proc: rank.proc,
            stage: error.stage,
            errno: error.errno,
            program: rank.argv.first().map_or_else(String::new, |p| p.to_string_lossy().into_owned()),
            cwd: rank.cwd.as_ref().map(|d| d.to_string_lossy().into_owned()),
        }));
    }

    fn try_spawn(&mut self, rank: &RankOrder) -> Result<(i32, AgentEnds), SpawnError> {
        let prepare = |errno| SpawnError { stage: Stage::Prepare, errno };
        self.table.admits(rank.proc).map_err(|refusal| {
            prepare(match refusal {
                Refusal::Lives => EEXIST,
                Refusal::Full => EAGAIN,
                Refusal::Sweeping => EBUSY,
            })
        })?;
        let io = |e: io::Error| prepare(e.raw_os_error().unwrap_or(EIO));
        let (theirs, ours) = stdio::open(rank.stdin, rank.pmi, self.table.len()).map_err(io)?;
        let Spawned { pid, pidfd } = start(&mut self.spawner, rank, &theirs)?;
        self.table.started(rank.proc, pid);
        if let Err(e) = self.poller.add(pidfd.as_fd(), TOKEN_RANKS + u64::from(pid.unsigned_abs()), Trigger::Level) {
            // Its end could not be seen, so it must not run.
            self.table.exited(pid);
            let _ = signals::send_group(pid, signals::KILL);
            let _ = reap::reap(pid);
            return Err(io(e));
        }
        self.pidfds.insert(pid, pidfd);
        Ok((pid, ours))
    }

    fn reap_rank(&mut self, token: u64) {
        let Ok(pid) = i32::try_from(token - TOKEN_RANKS) else { return };
        match reap::try_reap(pid) {
            Ok(Some(reaped)) => {
                self.forget(pid);
                if let Some(proc) = self.table.exited(pid) {
                    (self.report)(Report::Exited { proc, status: reaped.status, maxrss_kib: reaped.maxrss_kib });
                }
            }
            Ok(None) => {}
            Err(e) => {
                // Somebody in this process waited for a child that was not theirs: how it ended is lost, that it did is not.
                tracing::error!("process {pid} was reaped by somebody else, its exit status is lost: {e}");
                self.forget(pid);
                if let Some(proc) = self.table.exited(pid) {
                    let status = super::border::ExitStatus::Exited(u8::MAX);
                    (self.report)(Report::Exited { proc, status, maxrss_kib: 0 });
                }
            }
        }
    }

    fn forget(&mut self, pid: i32) {
        if let Some(pidfd) = self.pidfds.remove(&pid)
            && let Err(e) = self.poller.remove(pidfd.as_fd())
        {
            tracing::warn!("cannot stop watching process {pid}: {e}");
        }
    }

    fn perform(&self, acts: Vec<Act>) {
        for act in acts {
            let done = match act {
                Act::SignalGroup { pid, signal } => signals::send_group(pid, signal).map(drop),
                // The tree while it is whole; then the group, for what was forked meanwhile.
                Act::KillTree { pid } => {
                    let tree = subreaper::kill_tree(pid);
                    signals::send_group(pid, signals::KILL).and(tree)
                }
            };
            if let Err(e) = done {
                tracing::warn!("{act:?} failed: {e}");
            }
        }
    }

    /// Lets a sweep look for what is left, when it wants to. Says whether a sweep has ended.
    fn look(&mut self) -> bool {
        if !self.table.wants_look(boottime_ms()) {
            return false;
        }
        let found = subreaper::kill_round(self.owner, &self.strangers).unwrap_or_else(|e| {
            tracing::debug!("cannot look for what ranks left behind: {e}");
            // Not to see anybody is not to know that nobody is there.
            1
        });
        match self.table.looked(found, boottime_ms()) {
            Look::Again => false,
            Look::Over { askers } => {
                let survivors = if found == 0 { Vec::new() } else { subreaper::survivors(self.owner, &self.strangers) };
                for _ in 0..askers {
                    (self.report)(Report::Swept { survivors: survivors.clone() });
                }
                true
            }
        }
    }
}

fn start(spawner: &mut Spawner, rank: &RankOrder, ends: &RankEnds) -> Result<Spawned, SpawnError> {
    let number = PMI_FD_NUMBER.to_string();
    let mut env = rank.env.joined();
    if rank.pmi {
        env.retain(|(name, _)| *name != "PMI_FD");
        env.push((OsStr::new("PMI_FD"), OsStr::new(&number)));
    }
    spawner.spawn(&SpawnOrder {
        argv: &rank.argv,
        env: &env,
        cwd: rank.cwd.as_deref(),
        stdin: ends.stdin.as_fd(),
        stdout: ends.stdout.as_fd(),
        stderr: ends.stderr.as_fd(),
        extra: ends.pmi.as_ref().map(|fd| (fd.as_fd(), PMI_FD_NUMBER)),
        cpus: rank.cpus.as_deref(),
        limits: &rank.limits,
        umask: rank.umask,
    })
}
