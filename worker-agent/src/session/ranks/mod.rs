//! The ranks of one job on this host: a state machine between the tree, the executor and the ranks' PMI sockets.
//!
//! It is told what happened and answers with [`RankAct`]s; it touches neither processes nor sockets.

mod bootstrap;
mod pmix;
mod start;

use std::collections::BTreeMap;
use std::ffi::OsString;

use bytes::Bytes;
use muster_core::forgotten::Forgotten;
use muster_core::job::lease::Lease;
use muster_core::pmi::Server;
use muster_core::tree::Chunks;
use muster_protocol::frame::Kind;
use muster_protocol::message::{
    BadPayload, Bootstrap, CallAnswer, Dead, End, Ended, Exits, Fetch, Forget, Heartbeat, Initialised, Kill, Message,
    Phase, ProcEnd, ProcExit, ProcStarted, Share, Signal, Spec, Stamp, Started, StreamEnd,
};
use muster_protocol::{Frame, Group, HostIndex, ProcId, Rank};

use super::convert::{self, Asked};
use crate::executor::border::{ExitStatus, Order, RankOrder, Report, Survivor, Which};
use pmix::Pmix;
pub(super) use pmix::{PMIX_PROC, PmixSite};

/// A rank that closed its PMI connection without finalising has this long to end by itself, in milliseconds.
const DEPARTURE_MS: u64 = 2_000;

/// What the shell shall do.
#[derive(Debug)]
pub(super) enum RankAct {
    /// For the executor.
    Order(Order),
    /// For the root.
    Up(Frame),
    /// This host's part of a fence.
    Fence(Group, u64, Bytes),
    /// A rank runs: its descriptors.
    Running(Report, u32),
    /// For a rank's PMI socket.
    PmiSend(ProcId, Bytes),
    /// Start the PMIx server of this host.
    PmixStart(Box<RankOrder>),
    /// It runs: its descriptors.
    PmixRunning(Report),
    /// Nothing of the job is left: remove its folders.
    PmixGone,
    /// Close a rank's PMI socket when everything is written.
    PmiClose(ProcId),
    /// Read what is left in the socket of a rank that has ended, then tell.
    PmiDrain(ProcId),
    /// The lease is over.
    GaveUp,
    /// Read the streams to their ends, then tell how long they were.
    FinishStreams,
}

struct LocalGroup {
    spec: Spec,
    server: Option<Server>,
    procs: Vec<ProcId>,
    asked: BTreeMap<u64, Asked>,
    /// Ranks that start when the PMIx server knows them.
    held: Vec<RankOrder>,
}

#[derive(Debug)]
struct LocalProc {
    group: Group,
    local: usize,
    rank: Rank,
    pid: Option<u32>,
    /// It has a PMI socket that has not been drained.
    pmi: bool,
    exit: Option<(ProcEnd, u64)>,
    /// Whether the agent had killed it when it ended; what is told of that later may follow an order that came after it.
    killed: Option<bool>,
    told: Option<ProcExit>,
    departed_ms: Option<u64>,
}

/// The ranks; see the module above.
pub(super) struct Ranks {
    me: HostIndex,
    stamp: Stamp,
    inherited: Vec<(OsString, OsString)>,
    specs: BTreeMap<Group, Spec>,
    groups: BTreeMap<Group, LocalGroup>,
    procs: BTreeMap<ProcId, LocalProc>,
    /// Groups that are over.
    forgotten: Forgotten,
    /// There have been ranks, and what they have left must be swept.
    used: bool,
    site: PmixSite,
    pmix: Option<Pmix>,
    chunks: Chunks,
    lease: Lease,
    killed: bool,
    /// No rank is started any more, and those that run are being ended.
    ending: bool,
    /// The sweep has been ordered.
    sweeping: bool,
    /// What the sweep could not end.
    survivors: Vec<Survivor>,
    ended: Option<Ended>,
    /// Exit status of the job, once it is over.
    status: Option<u8>,
    started: Vec<ProcStarted>,
    exits: Vec<ProcExit>,
    acts: Vec<RankAct>,
}

impl Ranks {
    pub(super) fn new(me: HostIndex, stamp: Stamp, inherited: Vec<(OsString, OsString)>, site: PmixSite) -> Self {
        Self {
            me,
            stamp,
            inherited,
            specs: BTreeMap::new(),
            groups: BTreeMap::new(),
            procs: BTreeMap::new(),
            forgotten: Forgotten::default(),
            used: false,
            site,
            pmix: None,
            chunks: Chunks::default(),
            lease: Lease::default(),
            killed: false,
            ending: false,
            sweeping: false,
            survivors: Vec::new(),
            ended: None,
            status: None,
            started: Vec::new(),
            exits: Vec::new(),
            acts: Vec::new(),
        }
    }

    /// What there is to do since the last call. Starts and ends of ranks are told in one frame each.
    pub(super) fn take_acts(&mut self) -> Vec<RankAct> {
        if !self.started.is_empty() {
            let procs = std::mem::take(&mut self.started);
            self.up(&Started { procs });
        }
        if !self.exits.is_empty() {
            let procs = std::mem::take(&mut self.exits);
            self.up(&Exits { procs });
        }
        std::mem::take(&mut self.acts)
    }

    fn up<M: Message>(&mut self, message: &M) {
        self.acts.push(RankAct::Up(self.stamp.frame(self.me, message)));
    }

    /// A frame for this host.
    pub(super) fn frame(&mut self, frame: &Frame, now_ms: u64) -> Result<(), BadPayload> {
        match frame.header.kind {
            Kind::Spec => {
                let spec = Spec::read(frame)?;
                if !self.forgotten.contains(spec.group) {
                    self.specs.insert(spec.group, spec.clone());
                    self.know_pmix(&spec);
                }
            }
            Kind::Share => {
                self.lease.begin(now_ms);
                self.start(Share::read(frame)?);
            }
            Kind::Signal => {
                let signal = Signal::read(frame)?.signal;
                self.acts.push(RankAct::Order(Order::Signal { procs: Which::All, signal }));
            }
            Kind::Kill => self.kill(Kill::read(frame)?.grace_ms),
            Kind::CallAnswer => self.call_answer(CallAnswer::read(frame)?),
            Kind::Forget => self.forget(&Forget::read(frame)?),
            Kind::Dead => self.dead_pmix(&Dead::read(frame)?),
            Kind::Fetch => self.fetch_pmix(&Fetch::read(frame)?),
            Kind::Query => self.query(),
            Kind::Heartbeat => self.lease.renew(&Heartbeat::read(frame)?, now_ms),
            Kind::FenceDown => self.fence_down(frame),
            Kind::Resync => self.resync(),
            Kind::End => {
                self.status = Some(End::read(frame)?.status);
                self.end();
            }
            _ => {}
        }
        Ok(())
    }

    /// Groups are over everywhere. What the root counts as gone may still run here: the host is lost then, and ends it.
    fn forget(&mut self, forget: &Forget) {
        self.forgotten.add(forget);
        let runs = |proc: &ProcId| self.procs.get(proc).is_some_and(|state| state.told.is_none());
        let ended = |group: &Group| self.groups.get(group).is_none_or(|local| !local.procs.iter().any(runs));
        let over = self.specs.keys().filter(|group| self.forgotten.contains(**group) && ended(group));
        for group in over.copied().collect::<Vec<_>>() {
            self.specs.remove(&group);
            for proc in self.groups.remove(&group).map_or_else(Vec::new, |local| local.procs) {
                self.procs.remove(&proc);
            }
            self.with_pmix(|server, out| server.forget(group, out));
            tracing::debug!(group = group.0, left = self.specs.len(), "a process group is over and forgotten");
        }
    }

    fn kill(&mut self, grace_ms: u64) {
        self.killed = true;
        self.acts.push(RankAct::Order(Order::Kill { which: Which::All, grace_ms }));
        self.cancel_held();
    }

    /// The lease has run out, or the agent is told to go: nothing may run on. Ranks get their grace; what they leave behind
    /// is swept when the last of them has ended. A second call with less grace hurries them.
    pub(super) fn give_up(&mut self, grace_ms: u64) {
        self.kill(grace_ms);
        self.ending = true;
        self.sweep_if_idle();
    }

    fn sweep_if_idle(&mut self) {
        if self.ending && !self.sweeping && self.procs.values().all(|p| p.told.is_some()) {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.ending = true;
        self.sweeping = true;
        self.acts.push(RankAct::Order(Order::Sweep));
    }

    fn end(&mut self) {
        if let Some(ended) = self.ended.clone() {
            self.up(&ended);
        } else if !self.sweeping {
            self.sweep();
        }
    }

    /// The executor reports.
    pub(super) fn report(&mut self, report: Report, now_ms: u64) {
        match report {
            Report::Spawned { proc: PMIX_PROC, .. } => {
                self.acts.push(RankAct::PmixRunning(report));
                self.pmix_runs();
            }
            Report::SpawnFailed(failure) if failure.proc == PMIX_PROC => {
                self.pmix_died(&format!("the PMIx server of this host cannot be started: {failure}"));
            }
            Report::Exited { proc: PMIX_PROC, status, memory, .. } => {
                self.pmix_ended(convert::end(status, memory));
            }
            Report::Spawned { proc, pid, ref pmi, .. } => {
                let Some(state) = self.procs.get_mut(&proc) else { return };
                state.pid = u32::try_from(pid).ok();
                state.pmi = pmi.is_some();
                self.started.push(ProcStarted { proc, pid: pid.unsigned_abs() });
                let window = self.groups.get(&state.group).map_or(0, |g| g.spec.window_bytes);
                self.acts.push(RankAct::Running(report, window));
            }
            Report::SpawnFailed(failure) => self.finish(failure.proc, convert::not_started(&failure), 0),
            Report::Exited { proc, status, maxrss_kib, memory } => {
                self.exited(proc, status, convert::end(status, memory), maxrss_kib, now_ms);
            }
            Report::Swept { survivors } => {
                self.survivors = survivors;
                self.acts.push(RankAct::PmixGone);
                self.acts.push(RankAct::FinishStreams);
            }
        }
    }

    /// A rank has ended. What it wrote to its PMI socket before must be heard first: it may have asked for the abort.
    fn exited(&mut self, proc: ProcId, status: ExitStatus, end: ProcEnd, maxrss_kib: u64, _now_ms: u64) {
        let Some(state) = self.procs.get_mut(&proc) else { return };
        state.exit = Some((end.clone(), maxrss_kib));
        state.killed = Some(self.killed);
        let (group, local) = (state.group, state.local);
        if state.pmi {
            self.acts.push(RankAct::PmiDrain(proc));
        } else if self.groups.get(&group).is_some_and(|g| g.spec.bootstrap == Bootstrap::Pmix) {
            self.with_pmix(|server, out| server.exited(group, local, out));
            if self.has_crashed(group, status) {
                self.finish(proc, end, maxrss_kib);
            }
        } else {
            self.finish(proc, end, maxrss_kib);
        }
    }

    /// Whether a signal has ended a rank that cannot be the consequence of what it said last: neither its own abort nor our order.
    /// Its peers notice at once and end as well, so the cause must not wait for a server that has much to do. How far it had come is
    /// then what has been heard so far, which counts for more where ranks outlive others; there nobody is in a hurry.
    fn has_crashed(&self, group: Group, status: ExitStatus) -> bool {
        const SIGABRT: i32 = 6;
        const SIGTERM: i32 = 15;
        let tolerant = self.specs.get(&group).and_then(|spec| spec.pmix.as_ref()).is_some_and(|pmix| pmix.tolerant);
        let by_itself = matches!(status, ExitStatus::Signaled { signal, .. } if ![SIGABRT, SIGTERM].contains(&signal));
        by_itself && !tolerant && !self.killed
    }

    fn finish(&mut self, proc: ProcId, end: ProcEnd, maxrss_kib: u64) {
        let Some(state) = self.procs.get_mut(&proc) else { return };
        if state.told.is_some() {
            return;
        }
        let group = self.groups.get_mut(&state.group);
        let server = group.and_then(|g| g.server.as_mut());
        let phase = match (&server, &self.pmix) {
            (Some(server), _) => convert::phase(server.phase(state.local)),
            (None, Some(pmix)) => convert::phase(pmix.phase(state.group, state.local)),
            (None, None) => Phase::Untouched,
        };
        let exit = ProcExit { proc, end, phase, maxrss_kib, killed: state.killed.unwrap_or(self.killed) };
        state.told = Some(exit.clone());
        let (local, name) = (state.local, state.group);
        let mut actions = Vec::new();
        if let Some(server) = server {
            server.exited(local, &mut actions);
        }
        self.exits.push(exit);
        self.carry_out(name, actions);
        self.sweep_if_idle();
    }

    /// A new parent: everything again, since what was on its way may be lost. Every receiver knows how to hear it twice.
    fn resync(&mut self) {
        let procs = self.procs.iter().filter_map(|(proc, s)| Some(ProcStarted { proc: *proc, pid: s.pid? })).collect();
        self.up(&Started { procs });
        let spoken: Vec<Initialised> = self
            .procs
            .iter()
            .filter(|(proc, _)| self.phase(**proc) != Phase::Untouched)
            .map(|(_, s)| Initialised { group: s.group, rank: s.rank })
            .collect();
        for message in &spoken {
            self.up(message);
        }
        // The end of the host comes last: nothing is heard of it after that.
        let procs = self.procs.values().filter_map(|s| s.told.clone()).collect();
        self.up(&Exits { procs });
        if let Some(ended) = self.ended.clone() {
            self.up(&ended);
        }
    }

    /// The streams have been read to their ends.
    pub(super) fn streams_finished(&mut self, streams: Vec<StreamEnd>) {
        let survivors = self.survivors.iter().map(convert::survivor).collect();
        let ended = Ended { hosts: [self.me].into_iter().collect(), streams, survivors };
        self.up(&ended);
        self.ended = Some(ended);
    }

    /// What is left here although everything was killed.
    pub(super) fn survivors(&self) -> &[Survivor] {
        &self.survivors
    }

    /// Whether the end of this host has been told: nothing of the job is left here, but for survivors.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Exit status of the job, once its launcher has told.
    pub(super) fn status(&self) -> Option<u8> {
        self.status
    }

    /// When the lease ends what runs here; without ranks there is nothing to end.
    fn kill_at_ms(&self) -> Option<u64> {
        self.lease.kill_at_ms().filter(|_| !self.ending && self.used)
    }

    /// The connection to the parent is gone. Returns what those below are told, if the lease has become shorter.
    pub(super) fn cut_off(&mut self, now_ms: u64) -> Option<Frame> {
        self.lease.cut_off(now_ms).map(|beat| self.stamp.to_all(&beat))
    }

    /// A new parent: what the old one had begun to say will be said anew.
    pub(super) fn new_parent(&mut self) {
        self.chunks = Chunks::default();
    }

    /// When [`Ranks::tick`] is due next.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let lease = self.kill_at_ms();
        let departures = self.procs.values().filter_map(|s| s.departed_ms).map(|at| at + DEPARTURE_MS);
        departures.chain(lease).min()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now_ms: u64) {
        let mut departed = Vec::new();
        for state in self.procs.values_mut() {
            if state.departed_ms.is_some_and(|at| at + DEPARTURE_MS <= now_ms) {
                state.departed_ms = None;
                if state.exit.is_none() {
                    departed.push((state.group, state.rank));
                }
            }
        }
        for (group, rank) in departed {
            self.abort(group, rank, muster_protocol::message::AbortCause::Departed);
        }
        if self.kill_at_ms().is_some_and(|at| at <= now_ms) {
            tracing::warn!("no word from the launcher for as long as ranks may live without it; killing them");
            self.acts.push(RankAct::GaveUp);
            self.give_up(0);
        }
    }
}

#[cfg(test)]
mod tests;
