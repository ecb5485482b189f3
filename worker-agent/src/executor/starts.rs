//! The thread that starts ranks, and the start that it is busy with.
//!
//! A rank dies with the *thread* that started it, so one thread starts them all and lives as long as the executor. It does
//! nothing else: inside a start it may wait for a file server that is gone, and signals, ends and sweeps must not wait with it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use muster_protocol::ProcId;
use muster_protocol::limits::KEPT_SIGNALS_MAX;
use muster_sys::signals;
use muster_sys::spawn::{SpawnError, SpawnOrder, Spawned, Spawner};

use super::border::{PMI_FD_NUMBER, RankOrder, Which};
use super::stdio::{AgentEnds, RankEnds};

/// Time between two attempts to kill a process that does not run its program yet, in milliseconds.
const KILL_AGAIN_MS: u64 = 20;

/// Starts processes, always from the same thread.
pub trait Starter: Send {
    /// Returns when the program runs or has failed to.
    fn start(&mut self, order: &SpawnOrder<'_>) -> Result<Spawned, SpawnError>;
}

impl Starter for Spawner {
    fn start(&mut self, order: &SpawnOrder<'_>) -> Result<Spawned, SpawnError> {
        self.spawn(order)
    }
}

/// A start to be done.
struct Begin {
    rank: Box<RankOrder>,
    theirs: RankEnds,
    ours: AgentEnds,
}

/// A start that is done.
pub(super) struct Done {
    pub(super) rank: Box<RankOrder>,
    pub(super) ours: AgentEnds,
    pub(super) result: Result<Spawned, SpawnError>,
}

/// What is to become of the rank that is being started.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) proc: ProcId,
    /// The program, for people.
    pub(super) program: String,
    /// Signals that came meanwhile, in their order.
    pub(super) signals: Vec<i32>,
    /// It is to end: when the polite time is over.
    pub(super) kill_at_ms: Option<u64>,
    /// When its process is killed next although its program does not run yet.
    attempt_ms: Option<u64>,
}

impl UnderWay {
    fn is_meant(&self, which: &Which) -> bool {
        match which {
            Which::All => true,
            Which::Some(procs) => procs.contains(&self.proc),
        }
    }

    /// A signal for it, once it runs.
    pub(super) fn signal(&mut self, which: &Which, signal: i32) {
        if !self.is_meant(which) {
            return;
        }
        if self.signals.len() == KEPT_SIGNALS_MAX {
            self.signals.remove(0);
        }
        self.signals.push(signal);
        if signal == signals::KILL {
            self.kill(which, 0, 0);
        }
    }

    /// It is to end. A later, shorter grace shortens an earlier one.
    pub(super) fn kill(&mut self, which: &Which, grace_ms: u64, now_ms: u64) {
        if self.is_meant(which) {
            let at = now_ms.saturating_add(grace_ms);
            let at = self.kill_at_ms.map_or(at, |earlier| earlier.min(at));
            self.kill_at_ms = Some(at);
            self.attempt_ms = Some(self.attempt_ms.map_or(at, |next| next.min(at)));
        }
    }

    /// Whether to kill its process now, whatever that is doing.
    pub(super) fn attempt(&mut self, now_ms: u64) -> bool {
        let due = self.attempt_ms.is_some_and(|at| at <= now_ms);
        if due {
            self.attempt_ms = Some(now_ms.saturating_add(KILL_AGAIN_MS));
        }
        due
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.attempt_ms
    }
}

/// The thread and what it is busy with.
pub(super) struct Starts {
    orders: Sender<Begin>,
    done: Receiver<Done>,
    pub(super) under_way: Option<UnderWay>,
}

impl Starts {
    /// Starts the thread. It rings when a start is done, and ends when this is dropped.
    pub(super) fn new(starter: Box<dyn Starter>, ring: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (orders, begun) = mpsc::channel();
        let (report, done) = mpsc::channel();
        let run = move || serve(starter, &begun, &report, ring);
        thread::Builder::new().name("muster-spawner".to_owned()).stack_size(256 << 10).spawn(run)?;
        Ok(Self { orders, done, under_way: None })
    }

    /// Begins a start; there must be none under way. Gives the order back when the thread has died.
    pub(super) fn begin(
        &mut self,
        rank: Box<RankOrder>,
        theirs: RankEnds,
        ours: AgentEnds,
    ) -> Result<(), Box<RankOrder>> {
        let program = program(&rank);
        let under_way = UnderWay { proc: rank.proc, program, signals: Vec::new(), kill_at_ms: None, attempt_ms: None };
        self.orders.send(Begin { rank, theirs, ours }).map_err(|lost| lost.0.rank)?;
        self.under_way = Some(under_way);
        Ok(())
    }

    /// The start that is done, and what was ordered for its rank meanwhile.
    pub(super) fn take_done(&mut self) -> Option<(Done, UnderWay)> {
        let done = self.done.try_recv().ok()?;
        Some((done, self.under_way.take()?))
    }
}

/// The program of a rank as it was named.
pub(super) fn program(rank: &RankOrder) -> String {
    rank.argv.first().map_or_else(String::new, |p| p.to_string_lossy().into_owned())
}

fn serve(mut starter: Box<dyn Starter>, begun: &Receiver<Begin>, report: &Sender<Done>, ring: impl Fn()) {
    signals::block_for_helper_thread();
    while let Ok(Begin { rank, theirs, ours }) = begun.recv() {
        let result = start(starter.as_mut(), &rank, &theirs);
        drop(theirs);
        if report.send(Done { rank, ours, result }).is_err() {
            return;
        }
        ring();
    }
}

fn start(starter: &mut dyn Starter, rank: &RankOrder, ends: &RankEnds) -> Result<Spawned, SpawnError> {
    let number = PMI_FD_NUMBER.to_string();
    let mut env = rank.env.joined();
    if rank.pmi {
        env.retain(|(name, _)| *name != "PMI_FD");
        env.push((OsStr::new("PMI_FD"), OsStr::new(&number)));
    }
    starter.start(&SpawnOrder {
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
        terminal: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ordered_for_a_rank_under_way_is_kept_for_it() {
        let mut start = UnderWay {
            proc: ProcId(3),
            program: "a.out".to_owned(),
            signals: Vec::new(),
            kill_at_ms: None,
            attempt_ms: None,
        };
        let others = Which::Some(vec![ProcId(4)]);
        start.signal(&others, 10);
        start.kill(&others, 0, 0);
        assert_eq!((start.signals.len(), start.kill_at_ms, start.attempt(0)), (0, None, false));
        start.signal(&Which::All, 10);
        start.kill(&Which::Some(vec![ProcId(3)]), 500, 1_000);
        assert_eq!((start.kill_at_ms, start.attempt(1_499), start.attempt(1_500)), (Some(1_500), false, true));
        // It may not have died, or there was no process yet.
        assert_eq!((start.attempt(1_501), start.next_due_ms()), (false, Some(1_500 + KILL_AGAIN_MS)));
        start.kill(&Which::All, 9_000, 1_600);
        assert_eq!(start.kill_at_ms, Some(1_500), "never later than it was told first");
        for _ in 0..2 * KEPT_SIGNALS_MAX {
            start.signal(&Which::All, 12);
        }
        assert_eq!(start.signals.len(), KEPT_SIGNALS_MAX);
    }
}
