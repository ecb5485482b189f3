//! The executor inside the agent's own process: one thread that watches and ends the ranks, and one that starts them.
//!
//! The first sleeps until an order, a finished start, an end or a deadline wakes it. The second does one start after the
//! other and may hang in one, for a program on a file server that is gone: other starts wait for that one, but signals, ends
//! and sweeps do not, and a rank that is to end is killed even before its program runs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use muster_core::memory::{Counters, Kills};
use muster_protocol::ProcId;
use muster_protocol::message::OutOfMemory;
use muster_sys::cgroup::{ControlGroup, Memory};
use muster_sys::children::Owner;
use muster_sys::clock::boottime_ms;
use muster_sys::pipe::Bell;
use muster_sys::poll::{Poller, Trigger};
use muster_sys::reap::{self, Reaped};
use muster_sys::signals;
use muster_sys::spawn::{SpawnError, Spawned, Spawner, kill_starting};
use muster_sys::subreaper::{self, Strangers, Survivor};

use super::border::{Executor, ExitStatus, Order, OrderError, RankOrder, Report, SpawnFailure, Stage, Which};
use super::failure::errno::{EAGAIN, EBUSY, ECANCELED, EEXIST, EIO};
use super::leavings::Leavings;
use super::queue::{Next, Queue};
use super::ranks::{Act, Look, RankTable, Refusal};
use super::starts::{Starter, Starts, program};
use super::stdio::{self, AgentEnds};

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
        Self::start_with(report, |owner| Ok(Box::new(Spawner::new(owner)?)))
    }

    /// The same, with another way to start processes.
    pub fn start_with(
        report: Box<dyn Fn(Report) + Send>,
        starter: impl FnOnce(Owner) -> io::Result<Box<dyn Starter>>,
    ) -> Result<Self, StartError> {
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
        let starter = starter(owner).map_err(failed("mapping a stack"))?;
        let bell = Arc::clone(&shared);
        let worker = Worker {
            shared: Arc::clone(&shared),
            report,
            owner,
            strangers,
            starts: Starts::new(starter, move || bell.bell.ring()).map_err(failed("starting a thread"))?,
            poller,
            table: RankTable::default(),
            pidfds: BTreeMap::new(),
            leavings: Leavings::default(),
            kills: Kills::default(),
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

/// What this host's control group counts, and what it may have.
fn memory() -> Option<(Counters, Option<u64>)> {
    let Memory { kills, limit } = ControlGroup::here().memory()?;
    let limit_hits = limit.map_or(0, |limit| limit.hits);
    Some((Counters { kills, limit_hits }, limit.map(|limit| limit.bytes)))
}

struct Worker {
    shared: Arc<Shared>,
    report: Box<dyn Fn(Report) + Send>,
    owner: Owner,
    strangers: Strangers,
    starts: Starts,
    poller: Poller,
    table: RankTable,
    pidfds: BTreeMap<i32, OwnedFd>,
    leavings: Leavings,
    kills: Kills,
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
        let mut ended = true;
        loop {
            let start = self.starts.under_way.as_ref().and_then(|start| start.next_due_ms());
            let due = self.table.next_deadline_ms().into_iter().chain(start).min();
            let deadline = due.map(|at| at.saturating_sub(boottime_ms()));
            if let Err(e) = self.poller.wait(&mut ready, deadline) {
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
            self.take_started();
            self.take_orders();
            // After the ranks, whose ends may have hidden those of orphans.
            if std::mem::take(&mut ended)
                && let Err(e) = reap::reap_adopted()
            {
                tracing::warn!("cannot reap orphans: {e}");
            }
            let due = self.table.due(boottime_ms());
            self.perform(due);
            self.hurry_start();
            if self.look() && self.shutdown {
                return;
            }
        }
    }

    /// Carries out orders. The start that is under way keeps those that come after the next start waiting.
    fn take_orders(&mut self) {
        loop {
            let next = self.shared.queue().pop(self.starts.under_way.is_some());
            let Some(next) = next else { return };
            let now = boottime_ms();
            let acts = match next {
                Next::Order(Order::Spawn(rank)) => {
                    self.spawn(rank);
                    continue;
                }
                Next::Cancelled(rank) => {
                    self.not_started(&rank, SpawnError { stage: Stage::Prepare, errno: ECANCELED });
                    continue;
                }
                Next::Order(Order::Signal { procs, signal }) => {
                    if let Some(start) = &mut self.starts.under_way {
                        start.signal(&procs, signal);
                    }
                    self.table.signal(&procs, signal)
                }
                Next::Order(Order::Kill { which, grace_ms }) => {
                    self.end_start(&which, grace_ms, now);
                    self.table.kill(&which, grace_ms, now)
                }
                Next::Order(Order::Sweep) => {
                    self.end_start(&Which::All, 0, now);
                    self.table.sweep(now)
                }
                Next::Order(Order::Shutdown) => {
                    self.end_start(&Which::All, 0, now);
                    // A second one is not another sweep: after the first one's report comes nothing.
                    if std::mem::replace(&mut self.shutdown, true) { Vec::new() } else { self.table.sweep(now) }
                }
            };
            self.perform(acts);
        }
    }

    /// Who is about to be killed is looked at first, if need be.
    fn before_killing(&mut self) {
        let (owner, strangers) = (self.owner, &self.strangers);
        self.leavings.before_killing(|| subreaper::relatives(owner, strangers));
    }

    fn end_start(&mut self, which: &Which, grace_ms: u64, now_ms: u64) {
        self.before_killing();
        if let Some(start) = &mut self.starts.under_way {
            start.kill(which, grace_ms, now_ms);
        }
    }

    /// Kills the process that does not run its program yet, when its rank is to end.
    fn hurry_start(&mut self) {
        if let Some(start) = &mut self.starts.under_way
            && start.attempt(boottime_ms())
            && let Err(e) = kill_starting(self.owner)
        {
            tracing::warn!("cannot kill the process that is to run {}: {e}", start.program);
        }
    }

    fn spawn(&mut self, rank: Box<RankOrder>) {
        let prepare = |errno| SpawnError { stage: Stage::Prepare, errno };
        let admitted = self.table.admits(rank.proc).map_err(|refusal| {
            prepare(match refusal {
                Refusal::Lives => EEXIST,
                Refusal::Full => EAGAIN,
                Refusal::Sweeping => EBUSY,
            })
        });
        let ends = admitted.and_then(|()| {
            let ends = stdio::open(rank.stdin, rank.pmi, self.table.len());
            ends.map_err(|e| prepare(e.raw_os_error().unwrap_or(EIO)))
        });
        match ends {
            Ok((theirs, ours)) => {
                self.leavings.begin();
                if self.table.len() == 0 {
                    self.kills = Kills::begin(memory().map(|(counters, _)| counters));
                }
                if let Err(rank) = self.starts.begin(rank, theirs, ours) {
                    self.not_started(&rank, prepare(EIO));
                }
            }
            Err(error) => self.not_started(&rank, error),
        }
    }

    /// A start is done: what was ordered for its rank meanwhile is carried out now.
    fn take_started(&mut self) {
        let Some((done, ordered)) = self.starts.take_done() else { return };
        let (proc, meant) = (done.rank.proc, Which::Some(vec![done.rank.proc]));
        match done.result.and_then(|spawned| self.started(proc, spawned)) {
            Ok(pid) => {
                let AgentEnds { stdin, stdout, stderr, pmi } = done.ours;
                (self.report)(Report::Spawned { proc, pid, stdin, stdout, stderr, pmi });
            }
            Err(error) => {
                // A sweep may have waited for it.
                self.table.child_ended();
                return self.not_started(&done.rank, error);
            }
        }
        let now = boottime_ms();
        for signal in ordered.signals {
            let acts = self.table.signal(&meant, signal);
            self.perform(acts);
        }
        if let Some(at) = ordered.kill_at_ms {
            let acts = self.table.kill(&meant, at.saturating_sub(now), now);
            self.perform(acts);
        }
    }

    fn started(&mut self, proc: ProcId, Spawned { pid, pidfd }: Spawned) -> Result<i32, SpawnError> {
        self.table.started(proc, pid);
        self.leavings.add(pid);
        if let Err(e) = self.poller.add(pidfd.as_fd(), TOKEN_RANKS + u64::from(pid.unsigned_abs()), Trigger::Level) {
            // Its end could not be seen, so it must not run.
            self.table.exited(pid);
            let _ = signals::send_group(pid, signals::KILL);
            let _ = reap::reap(pid);
            return Err(SpawnError { stage: Stage::Prepare, errno: e.raw_os_error().unwrap_or(EIO) });
        }
        self.pidfds.insert(pid, pidfd);
        Ok(pid)
    }

    fn not_started(&self, rank: &RankOrder, error: SpawnError) {
        (self.report)(Report::SpawnFailed(SpawnFailure {
            proc: rank.proc,
            stage: error.stage,
            errno: error.errno,
            program: program(rank),
            cwd: rank.cwd.as_ref().map(|d| d.to_string_lossy().into_owned()),
        }));
    }

    fn reap_rank(&mut self, token: u64) {
        let Ok(pid) = i32::try_from(token - TOKEN_RANKS) else { return };
        match reap::try_reap(pid) {
            Ok(Some(Reaped { status, maxrss_kib })) => {
                self.forget(pid);
                let memory = self.explain(pid, status);
                if let Some(proc) = self.table.exited(pid) {
                    (self.report)(Report::Exited { proc, status, maxrss_kib, memory });
                }
            }
            Ok(None) => {}
            Err(e) => {
                // Somebody in this process waited for a child that was not theirs: how it ended is lost, that it did is not.
                tracing::error!("process {pid} was reaped by somebody else, its exit status is lost: {e}");
                self.forget(pid);
                if let Some(proc) = self.table.exited(pid) {
                    let status = ExitStatus::Exited(u8::MAX);
                    (self.report)(Report::Exited { proc, status, maxrss_kib: 0, memory: None });
                }
            }
        }
    }

    /// Whether want of memory explains how a rank has ended.
    fn explain(&mut self, pid: i32, status: ExitStatus) -> Option<OutOfMemory> {
        let ExitStatus::Signaled { signal, .. } = status else { return None };
        if !self.table.is_wanted(pid) {
            return None;
        }
        self.kills.explain(signal, memory)
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
        self.before_killing();
        let found = subreaper::kill_round(self.owner, &self.strangers).unwrap_or_else(|e| {
            tracing::debug!("cannot look for what ranks left behind: {e}");
            // Not to see anybody is not to know that nobody is there.
            1
        });
        // A start that has not come back may still bring a process.
        let starting = self.starts.under_way.as_ref().map(|start| start.program.clone());
        match self.table.looked(found.max(usize::from(starting.is_some())), boottime_ms()) {
            Look::Again => false,
            Look::Over { askers } => {
                let mut survivors =
                    if found == 0 { Vec::new() } else { subreaper::survivors(self.owner, &self.strangers) };
                if found == 0 && starting.is_none() {
                    self.leavings.clear();
                }
                if let Some(program) = starting.filter(|_| survivors.is_empty()) {
                    survivors.push(Survivor { pid: 0, name: format!("the start of {program} hangs"), state: '?' });
                }
                for _ in 0..askers {
                    (self.report)(Report::Swept { survivors: survivors.clone() });
                }
                true
            }
        }
    }
}
