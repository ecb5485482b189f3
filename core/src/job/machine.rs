//! The job's state machine.

use std::collections::BTreeMap;

use muster_protocol::event::Event;
use muster_protocol::frame::{EVERY_HOST, FLAG_MORE, Frame, Kind};
use muster_protocol::message::{
    Abort, BadPayload, Call, Ended, Exits, Fetched, Initialised, Joined, Lost, Message, Missing, ProcShare, Report,
    Say, Share, Spec, Stamp, Started, StreamEnd, Wanted,
};
use muster_protocol::{Group, HostIndex, ProcId};

use super::answers::Answers;
use super::cause::Cause;
use super::collect::Collecting;
use super::ending::Order;
use super::fit::settle_in;
use super::pmix::Exchange;
use super::query::Question;
use super::survival::Survival;
use super::table::{Host, Table};
use crate::exit::Outcome;
use crate::hosts::{HostList, HostSpec};
use crate::plan::{HostShare, OnFailure, Placed};
use crate::pmi::NameTable;
use crate::tree::chunks;

/// Everything a job needs to begin.
#[derive(Debug, Clone)]
pub struct JobSetup {
    /// Stamp of its frames.
    pub stamp: Stamp,
    /// The hosts, in the order of their indices.
    pub hosts: HostList,
    /// What the command line starts, in the order of its process groups, which are numbered from 0 as their processes are.
    pub worlds: Vec<World>,
    /// What the failure of a rank or a host means for the others.
    pub on_failure: OnFailure,
    /// Time between the polite and the hard kill, in milliseconds.
    pub grace_ms: u64,
}

/// A process group of the command line.
#[derive(Debug, Clone)]
pub struct World {
    /// What its ranks have in common; `members` and `mapping` follow from where they are placed.
    pub spec: Spec,
    /// Where they run.
    pub placed: Vec<Placed>,
    /// Ranks that do not speak PMI, or PMIx, are an error.
    pub insists: bool,
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
    NewGroup(Group, ProcId, u32),
    /// The output of these hosts will never be complete. May come after the job is over.
    OutputLost(Vec<ProcId>),
    /// A host was lost before the job began: connect it again, as when the job was new.
    Redial(HostIndex),
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
    pub(super) answers: Answers,
    pub(super) exchange: Exchange,
    pub(super) survival: Survival,
    pub(super) stage: Stage,
    pub(super) cause: Option<Cause>,
    pub(super) order: Option<Order>,
    pub(super) kill_hard_at_ms: Option<u64>,
    pub(super) close_at_ms: Option<u64>,
    pub(super) query: Option<Question>,
    pub(super) collecting: Option<Collecting>,
    /// Shares of whose ranks nothing has been heard, for hosts that lose their place in the tree meanwhile.
    pub(super) unheard: BTreeMap<(HostIndex, Group), Share>,
    /// When they are sent again, and how long that was put off, in milliseconds.
    pub(super) share_again_ms: Option<(u64, u64)>,
    /// Key-value bytes of the fence whose pieces are passing.
    fence_bytes: usize,
    pub(super) acts: Vec<JobAct>,
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
            forgotten: Vec::new(),
        };
        let table = Table { hosts: setup.hosts.hosts().iter().map(host).collect(), ..Table::default() };
        let mut job = Self {
            setup,
            table,
            names: NameTable::new(),
            answers: Answers::default(),
            exchange: Exchange::default(),
            survival: Survival::default(),
            stage: Stage::Connecting,
            cause: None,
            order: None,
            kill_hard_at_ms: None,
            close_at_ms: None,
            query: None,
            collecting: None,
            unheard: BTreeMap::new(),
            share_again_ms: None,
            fence_bytes: 0,
            acts: Vec::new(),
        };
        let worlds = &job.setup.worlds;
        let starting = Event::JobStarting {
            job: worlds.first().map_or_else(String::new, |world| world.spec.job.clone()),
            hosts: job.setup.hosts.len(),
            ranks: worlds.iter().map(|world| world.spec.size).sum(),
            worlds: worlds.len() as u32,
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
        // Nothing is news any more but the loss of a host: its last output may still be on its way, and be waited for.
        if self.stage == Stage::Over && frame.header.kind != Kind::Lost {
            return;
        }
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
            Kind::Fetched => self.on_fetched(Fetched::read(frame)?),
            Kind::Say => self.on_say(&Say::read(frame)?),
            Kind::Lost => self.on_lost(&Lost::read(frame)?),
            Kind::Wanted => self.on_wanted(frame.header.host, &Wanted::read(frame)?),
            Kind::Report => self.on_report(frame.header.host, Report::read(frame)?),
            Kind::Ended => self.on_ended(Ended::read(frame)?),
            Kind::FenceDown => self.on_fence(frame),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn launch(&mut self) {
        self.stage = Stage::Running;
        for world in std::mem::take(&mut self.setup.worlds) {
            self.start_group(world.spec, &world.placed, world.insists);
        }
    }

    /// Starts a process group whose ranks are placed.
    pub(super) fn start_group(&mut self, mut spec: Spec, placed: &[Placed], insists: bool) {
        let shares = settle_in(&mut spec, placed, &self.setup.hosts);
        self.acts.push(JobAct::NewGroup(spec.group, spec.first_proc, spec.size));
        self.broadcast(&spec);
        let nodes = shares.len() as u32;
        for share in &shares {
            let message = self.share_message(&spec, share, nodes);
            self.send(share.host, &message);
            self.unheard.insert((share.host, spec.group), message);
        }
        self.table.add_group(spec, placed, insists);
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

    fn on_started(&mut self, started: &Started) {
        for one in &started.procs {
            let Some(proc) = self.table.proc_mut(one.proc) else { continue };
            if std::mem::replace(&mut proc.started, true) {
                continue;
            }
            let (group, rank, host) = (proc.group, proc.rank, proc.host);
            self.unheard.remove(&(host, group));
            let host = self.table.host_name(host);
            let generation = self.setup.stamp.generation;
            self.emit(Event::RankStarted { group, rank, host, pid: one.pid, generation });
            let Some(state) = self.table.groups.get_mut(&group) else { continue };
            state.started += 1;
            if state.started == state.spec.size {
                let size = state.spec.size;
                self.emit(Event::GroupRunning { group, size });
            }
        }
    }

    /// A piece of a completed fence passes the root.
    fn on_fence(&mut self, frame: &Frame) {
        self.fence_bytes += chunks::bytes_of(frame);
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

    /// Epoch and generation of its frames.
    pub fn stamp(&self) -> Stamp {
        self.setup.stamp
    }

    /// The name of the host that a process runs on.
    pub fn host_of(&self, proc: ProcId) -> String {
        self.table.place(proc).host
    }

    /// Whether a frame may come from, or go to, this host.
    pub fn knows(&self, host: HostIndex) -> bool {
        host == EVERY_HOST || (host.0 as usize) < self.table.hosts.len()
    }
}
