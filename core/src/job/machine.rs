//! The job's state machine.

use muster_protocol::event::Event;
use muster_protocol::frame::{EVERY_HOST, FLAG_MORE, Frame, Kind};
use muster_protocol::message::{
    Abort, BadPayload, Call, End, Ended, Exits, Initialised, Joined, Kill, Lost, Message, Missing, Obstacle, ProcShare, Query,
    Report, Share, Signal, Spec, Stamp, Started, StreamEnd,
};
use muster_protocol::{Group, HostIndex, HostSet};

use super::cause::Cause;
use super::table::{Host, Table};
use crate::exit::Outcome;
use crate::hosts::{HostList, HostSpec};
use crate::plan::{HostShare, Placed, node_of_each, shares};
use crate::pmi::{NameTable, process_mapping};

/// Time that hosts have to answer a question, in milliseconds.
const QUERY_MS: u64 = 1_000;

/// Everything a job needs to begin.
#[derive(Debug, Clone)]
pub struct JobSetup {
    /// Stamp of its frames.
    pub stamp: Stamp,
    /// The hosts, in the order of their indices.
    pub hosts: HostList,
    /// The first process group; `members` and `mapping` follow from where its ranks are placed.
    pub spec: Spec,
    /// Where its ranks run.
    pub placed: Vec<Placed>,
    /// PMI was asked for by name: ranks that do not speak it are an error.
    pub pmi_required: bool,
    /// Time between the polite and the hard kill, in milliseconds.
    pub grace_ms: u64,
}

/// What the launcher shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobAct {
    /// Send a frame down the tree.
    Down(Frame),
    /// Tell the world.
    Emit(Event),
    /// A host has closed these streams; their output is complete at this many bytes.
    StreamsEnd(Vec<StreamEnd>),
    /// New processes whose output will come: process group, first process id and size.
    NewGroup(Group, muster_protocol::ProcId, u32),
    /// The output of these hosts will never be complete.
    OutputLost(Vec<muster_protocol::ProcId>),
    /// The job is over.
    Over {
        /// What the exit status says.
        outcome: Outcome,
        /// First cause, when it failed.
        cause: Option<Cause>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Connecting,
    Running,
    Ending,
    Closing,
    Over,
}

/// The job; see the module above.
#[derive(Debug)]
pub struct Job {
    pub(super) setup: JobSetup,
    pub(super) table: Table,
    pub(super) names: NameTable,
    pub(super) stage: Stage,
    pub(super) cause: Option<Cause>,
    kill_hard_at_ms: Option<u64>,
    query: Option<QueryState>,
    /// Key-value bytes of the fence whose pieces are passing.
    fence_bytes: usize,
    pub(super) acts: Vec<JobAct>,
}

#[derive(Debug)]
struct QueryState {
    until_ms: u64,
    waiting: HostSet,
    reports: Vec<(HostIndex, Report)>,
    then: Option<Cause>,
}

impl Job {
    /// A job that waits for its hosts.
    pub fn new(setup: JobSetup) -> Self {
        let host = |spec: &HostSpec| Host {
            name: spec.name.clone(),
            joined: false,
            lost: false,
            ended: false,
            obstacle: None,
        };
        let table = Table { hosts: setup.hosts.hosts().iter().map(host).collect(), ..Table::default() };
        let mut job = Self {
            setup,
            table,
            names: NameTable::new(),
            stage: Stage::Connecting,
            cause: None,
            kill_hard_at_ms: None,
            query: None,
            fence_bytes: 0,
            acts: Vec::new(),
        };
        let starting = Event::JobStarting {
            job: job.setup.spec.job.clone(),
            hosts: job.setup.hosts.len(),
            ranks: job.setup.spec.size,
        };
        job.emit(starting);
        job
    }

    /// What there is to do since the last call.
    pub fn take_acts(&mut self) -> Vec<JobAct> {
        std::mem::take(&mut self.acts)
    }

    pub(super) fn emit(&mut self, event: Event) {
        self.acts.push(JobAct::Emit(event));
    }

    pub(super) fn broadcast<M: Message>(&mut self, message: &M) {
        self.acts.push(JobAct::Down(self.setup.stamp.to_all(message)));
    }

    pub(super) fn send<M: Message>(&mut self, host: HostIndex, message: &M) {
        self.acts.push(JobAct::Down(self.setup.stamp.frame(host, message)));
    }

    /// A frame came up the tree.
    pub fn frame(&mut self, frame: &Frame) {
        if let Err(bad) = self.dispatch(frame) {
            let host = self.table.host_name(frame.header.host);
            self.fail(Cause::Internal { why: format!("{host}: {bad}") });
        }
    }

    fn dispatch(&mut self, frame: &Frame) -> Result<(), BadPayload> {
        match frame.header.kind {
            Kind::Joined => self.on_joined(&Joined::read(frame)?),
            Kind::Missing => self.on_missing(Missing::read(frame)?),
            Kind::Started => self.on_started(&Started::read(frame)?),
            Kind::Initialised => self.on_initialised(&Initialised::read(frame)?),
            Kind::Exits => {
                for exit in Exits::read(frame)?.procs {
                    self.on_exit(exit);
                }
            }
            Kind::Abort => self.on_abort(Abort::read(frame)?),
            Kind::Call => self.on_call(frame.header.host, Call::read(frame)?),
            Kind::Lost => self.on_lost(&Lost::read(frame)?),
            Kind::Report => self.on_report(frame.header.host, Report::read(frame)?),
            Kind::Ended => self.on_ended(Ended::read(frame)?),
            Kind::FenceDown => self.on_fence(frame),
            _ => {}
        }
        Ok(())
    }

    fn on_joined(&mut self, joined: &Joined) {
        for index in joined.hosts.iter() {
            let Some(host) = self.table.hosts.get_mut(index.0 as usize) else { continue };
            if !host.joined {
                host.joined = true;
                let host = host.name.clone();
                self.emit(Event::HostJoined { index, host });
            }
        }
        if self.stage == Stage::Connecting && self.table.hosts.iter().all(|h| h.joined) {
            self.launch();
        }
    }

    fn launch(&mut self) {
        self.stage = Stage::Running;
        let spec = self.setup.spec.clone();
        let placed = std::mem::take(&mut self.setup.placed);
        self.start_group(spec, &placed);
    }

    /// Starts a process group whose ranks are placed.
    pub(super) fn start_group(&mut self, mut spec: Spec, placed: &[Placed]) {
        let hosts = self.setup.hosts.len();
        let shares = shares(placed, hosts);
        spec.members = shares.iter().map(|s| s.host).collect();
        spec.mapping = process_mapping(&node_of_each(placed, hosts));
        self.acts.push(JobAct::NewGroup(spec.group, spec.first_proc, spec.size));
        self.broadcast(&spec);
        let nodes = shares.len() as u32;
        for share in &shares {
            let message = self.share_message(&spec, share, nodes);
            self.send(share.host, &message);
        }
        let hosts_of_ranks: Vec<HostIndex> = placed.iter().map(|p| p.host).collect();
        self.table.add_group(spec, &hosts_of_ranks);
    }

    fn share_message(&self, spec: &Spec, share: &HostShare, nodes: u32) -> Share {
        let procs = share.procs.iter().map(|p| ProcShare { rank: p.rank, app: p.app, cpus: Vec::new() }).collect();
        let host = self.setup.hosts.get(share.host);
        Share {
            group: spec.group,
            procs,
            node_rank: share.node,
            nodes,
            host_name: host.map_or_else(String::new, |h| h.name.clone()),
            reachable_as: host.map_or_else(String::new, |h| h.reachable_as().to_owned()),
        }
    }

    fn on_missing(&mut self, missing: Missing) {
        let Some(host) = self.table.hosts.get_mut(missing.host.0 as usize) else { return };
        if host.joined {
            return;
        }
        host.obstacle = Some((missing.why, missing.text.clone()));
        let event = Event::HostMissing { host: host.name.clone(), obstacle: missing.why, text: missing.text };
        self.emit(event);
    }

    /// The time to connect is over. Does nothing once all hosts have joined.
    pub fn connect_deadline(&mut self) {
        if self.stage != Stage::Connecting {
            return;
        }
        let mut wrong_key = false;
        let mut hosts = Vec::new();
        for host in self.table.hosts.iter().filter(|h| !h.joined) {
            wrong_key |= matches!(host.obstacle, Some((Obstacle::WrongKey, _)));
            let why = host.obstacle.as_ref().map_or("no answer yet", |(_, text)| text);
            hosts.push((host.name.clone(), why.to_owned()));
        }
        self.fail(Cause::Unreachable { hosts, wrong_key });
    }

    fn on_started(&mut self, started: &Started) {
        for one in &started.procs {
            let Some(proc) = self.table.procs.get_mut(one.proc.0 as usize) else { continue };
            if std::mem::replace(&mut proc.started, true) {
                continue;
            }
            let (group, rank, host) = (proc.group, proc.rank, proc.host);
            let host = self.table.host_name(host);
            let generation = self.setup.stamp.generation;
            self.emit(Event::RankStarted { group, rank, host, pid: one.pid, generation });
            let Some(state) = self.table.groups.get_mut(group.0 as usize) else { continue };
            state.started += 1;
            if state.started == state.spec.size {
                let size = state.spec.size;
                self.emit(Event::GroupRunning { group, size });
            }
        }
    }

    /// The job must end, for this reason. Only the first one counts.
    pub fn fail(&mut self, cause: Cause) {
        let grace = match cause {
            // It asked for the end: its own cleaning up is done.
            Cause::Aborted { .. } => self.setup.grace_ms.min(200),
            _ => self.setup.grace_ms,
        };
        if self.begin_end(cause) {
            self.broadcast(&Kill { grace_ms: grace });
            self.kill_hard_at_ms = None;
        }
        self.settle();
    }

    fn begin_end(&mut self, cause: Cause) -> bool {
        if self.stage >= Stage::Ending {
            return false;
        }
        let sentence = cause.to_string();
        // A status that a finished rank left behind came first.
        self.cause.get_or_insert(cause);
        self.emit(Event::Ending { cause: sentence });
        self.stage = Stage::Ending;
        true
    }

    /// A signal for the ranks that does not end the job by itself.
    pub fn pass_signal(&mut self, signal: i32) {
        self.broadcast(&Signal { signal });
        self.emit(Event::SignalForwarded { signal });
    }

    /// A signal that asks for the end: forwarded at first, then with force.
    pub fn end_signal(&mut self, signal: i32, now_ms: u64) {
        if self.stage >= Stage::Ending {
            self.broadcast(&Kill { grace_ms: 0 });
            return;
        }
        self.pass_signal(signal);
        self.begin_end(Cause::Signal { signal });
        self.kill_hard_at_ms = Some(now_ms + self.setup.grace_ms);
        self.settle();
    }

    /// Asks every host which ranks have not arrived at their fence; `then` ends the job after the answers.
    pub fn query(&mut self, then: Option<Cause>, now_ms: u64) {
        if self.stage != Stage::Running {
            if let Some(cause) = then {
                self.fail(cause);
            }
            return;
        }
        let hosts = self.table.hosts.iter().enumerate().filter(|(_, h)| h.joined && !h.lost);
        let waiting = hosts.map(|(i, _)| HostIndex(i as u32)).collect();
        let then = then.or_else(|| self.query.take().and_then(|q| q.then));
        self.query = Some(QueryState { until_ms: now_ms + QUERY_MS, waiting, reports: Vec::new(), then });
        self.broadcast(&Query {});
    }

    fn on_report(&mut self, host: HostIndex, report: Report) {
        let Some(query) = &mut self.query else { return };
        if query.waiting.remove(host) {
            query.reports.push((host, report));
        }
        if query.waiting.is_empty() {
            self.finish_query();
        }
    }

    fn finish_query(&mut self) {
        let Some(query) = self.query.take() else { return };
        let silent: Vec<String> = query.waiting.iter().map(|h| self.table.host_name(h)).collect();
        for group in 0..self.table.groups.len() as u32 {
            let group = Group(group);
            let mut seq = 0;
            let (mut arrived, mut absent) = (0, Vec::new());
            for (host, report) in &query.reports {
                for fence in report.fences.iter().filter(|f| f.group == group) {
                    seq = seq.max(fence.seq);
                    arrived += fence.arrived.len();
                    absent.extend(fence.absent.iter().map(|r| (*r, self.table.host_name(*host))));
                }
            }
            absent.sort();
            if arrived > 0 || !absent.is_empty() {
                self.emit(Event::FenceWaiting { group, seq, arrived, absent, silent_hosts: silent.clone() });
            }
        }
        if let Some(cause) = query.then {
            self.fail(cause);
        }
    }

    /// Moves on when nothing is left to wait for.
    pub(super) fn settle(&mut self) {
        let idle = match self.stage {
            Stage::Connecting | Stage::Over | Stage::Closing => false,
            Stage::Running | Stage::Ending => self.table.alive == 0,
        };
        if idle {
            self.stage = Stage::Closing;
            let status = self.cause.as_ref().map_or(0, |c| c.outcome().code());
            self.broadcast(&End { status });
        }
        if self.stage == Stage::Closing && self.table.confirmed() {
            self.stage = Stage::Over;
            if self.cause.is_none() && self.setup.pmi_required && self.setup.spec.size > 1 && self.table.nobody_spoke() {
                self.cause = Some(Cause::Singletons { ranks: self.setup.spec.size });
            }
            let outcome = self.cause.as_ref().map_or(Outcome::Success, Cause::outcome);
            self.emit(Event::JobEnded { status: outcome.code(), cause: self.cause.as_ref().map(Cause::to_string) });
            self.acts.push(JobAct::Over { outcome, cause: self.cause.clone() });
        }
    }

    /// When [`Job::tick`] is due next, in milliseconds.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.kill_hard_at_ms.into_iter().chain(self.query.as_ref().map(|q| q.until_ms)).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        if self.kill_hard_at_ms.is_some_and(|at| at <= now_ms) {
            self.kill_hard_at_ms = None;
            self.broadcast(&Kill { grace_ms: 0 });
        }
        if self.query.as_ref().is_some_and(|q| q.until_ms <= now_ms) {
            self.finish_query();
        }
    }

    /// A piece of a completed fence passes the root.
    fn on_fence(&mut self, frame: &Frame) {
        self.fence_bytes += frame.payload.len();
        if frame.header.flags & FLAG_MORE == 0 {
            let bytes = std::mem::take(&mut self.fence_bytes);
            self.emit(Event::FenceDone { group: frame.header.group(), seq: frame.header.seq, bytes });
        }
    }

    /// Whether ranks run or are about to.
    pub fn running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Whether hosts are still being connected.
    pub fn connecting(&self) -> bool {
        self.stage == Stage::Connecting
    }

    /// Hosts that have not joined: name, and the obstacle as last heard.
    pub fn missing_hosts(&self) -> Vec<(&str, Option<&str>)> {
        let missing = self.table.hosts.iter().filter(|h| !h.joined);
        missing.map(|h| (h.name.as_str(), h.obstacle.as_ref().map(|(_, text)| text.as_str()))).collect()
    }

    /// Epoch and generation of its frames.
    pub fn stamp(&self) -> Stamp {
        self.setup.stamp
    }

    /// Whether a frame may come from, or go to, this host.
    pub fn knows(&self, host: HostIndex) -> bool {
        host == EVERY_HOST || (host.0 as usize) < self.table.hosts.len()
    }
}
