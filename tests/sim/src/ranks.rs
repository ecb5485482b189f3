//! A model of the ranks of one job on one host and of what their agent does about them.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_core::job::lease::Lease;
use muster_core::tree::Chunks;
use muster_protocol::frame::Kind;
use muster_protocol::message::{
    Abort, AbortCause, Answer, Ask, Call, CallAnswer, Ended, Exits, FenceState, Heartbeat, Initialised, Kill, Message,
    Phase, ProcEnd, ProcExit, ProcStarted, Report, Share, Signal, Spec, Stamp, Started,
};
use muster_protocol::{Frame, Group, HostIndex, HostSet, ProcId, Rank};

use crate::blobs::{blob, open};
use crate::rng::Rng;

/// What every rank of a job does.
#[derive(Debug, Clone)]
pub struct Program {
    /// Fences between initialising and finalising.
    pub fences: u64,
    /// Longest time between two steps of a rank, in microseconds.
    pub step_us: u64,
    /// Key-values that a host brings to a fence, in bytes; 8 at least.
    pub blob_bytes: usize,
    /// One rank does something else instead of arriving at a fence.
    pub odd: Option<(ProcId, u64, Odd)>,
    /// Every rank publishes a name after initialising, and waits until that is done.
    pub publishes: bool,
    /// Ranks, of a hundred, that ignore the polite kill.
    pub stubborn_percent: u64,
}

/// What a rank does that spoils the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// It exits with this status.
    Exit(u8),
    /// A signal ends it.
    Crash(i32),
    /// It asks for the end with this code, and waits.
    Abort(i32),
    /// It never arrives.
    Hang,
}

/// Something that will happen to ranks.
#[derive(Debug, Clone)]
pub enum RankEvent {
    /// Its process runs.
    Running(ProcId),
    /// It takes its next step.
    Step(ProcId),
    /// It ends.
    Exit(ProcId, ProcEnd),
    /// The time between the polite and the hard kill is over.
    HardKill,
    /// Nothing of the job is left on the host.
    Swept,
    /// Its streams have been read to their ends.
    StreamsRead,
}

/// What the agent shall do.
#[derive(Debug)]
pub enum RankAct {
    /// Send a frame to the parent.
    Up(Frame),
    /// Contribute to a fence.
    Fence(Group, u64, Bytes),
    /// Something happens after so many microseconds.
    Later(u64, RankEvent),
    /// Something happened that must not.
    Wrong(String),
}

#[derive(Debug)]
struct LocalRank {
    group: Group,
    rank: Rank,
    started: bool,
    phase: Phase,
    arrived: bool,
    /// It has asked for its name to be published.
    asked: bool,
    end: Option<ProcExit>,
}

#[derive(Debug)]
struct LocalGroup {
    members: HostSet,
    seq: u64,
    in_flight: bool,
}

/// The ranks of one job on one host.
#[derive(Debug)]
pub struct Ranks {
    me: HostIndex,
    stamp: Stamp,
    program: Program,
    rng: Rng,
    specs: BTreeMap<Group, Spec>,
    groups: BTreeMap<Group, LocalGroup>,
    ranks: BTreeMap<ProcId, LocalRank>,
    chunks: Chunks,
    lease: Lease,
    killed: bool,
    ending: bool,
    ended: Option<Ended>,
    started: Vec<ProcStarted>,
    exits: Vec<ProcExit>,
    /// Calls without an answer, by their numbers.
    calls: BTreeMap<u64, ProcId>,
    next_call: u64,
    aborted: bool,
    acts: Vec<RankAct>,
}

impl Ranks {
    /// No ranks yet.
    pub fn new(me: HostIndex, stamp: Stamp, program: Program, rng: Rng) -> Self {
        Self {
            me,
            stamp,
            program,
            rng,
            specs: BTreeMap::new(),
            groups: BTreeMap::new(),
            ranks: BTreeMap::new(),
            chunks: Chunks::default(),
            lease: Lease::default(),
            killed: false,
            ending: false,
            ended: None,
            started: Vec::new(),
            exits: Vec::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            aborted: false,
            acts: Vec::new(),
        }
    }

    /// What there is to do since the last call.
    pub fn take_acts(&mut self) -> Vec<RankAct> {
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

    /// Ranks that are alive.
    pub fn alive(&self) -> usize {
        self.ranks.values().filter(|r| r.end.is_none()).count()
    }

    /// Whether nothing of the job is left here.
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Living ranks whose call has no answer yet.
    pub fn unanswered(&self) -> Vec<ProcId> {
        self.calls.values().copied().filter(|p| self.ranks.get(p).is_some_and(|r| r.end.is_none())).collect()
    }

    /// Whether a rank here has asked for the end of the job.
    pub fn aborted(&self) -> bool {
        self.aborted
    }

    /// Fences of the first group that are over here.
    pub fn fences_done(&self) -> Option<u64> {
        self.groups.get(&Group(0)).map(|g| g.seq)
    }

    fn up<M: Message>(&mut self, message: &M) {
        self.acts.push(RankAct::Up(self.stamp.frame(self.me, message)));
    }

    fn later(&mut self, longest_us: u64, event: RankEvent) {
        let after = self.rng.range(1, longest_us.max(1));
        self.acts.push(RankAct::Later(after, event));
    }

    fn wrong(&mut self, what: String) {
        self.acts.push(RankAct::Wrong(format!("host {}: {what}", self.me)));
    }

    /// A frame for this host.
    pub fn frame(&mut self, frame: &Frame, now_ms: u64) {
        if let Err(bad) = self.read(frame, now_ms) {
            self.wrong(bad.to_string());
        }
    }

    fn read(&mut self, frame: &Frame, now_ms: u64) -> Result<(), muster_protocol::message::BadPayload> {
        match frame.header.kind {
            Kind::Spec => {
                let spec = Spec::read(frame)?;
                self.specs.insert(spec.group, spec);
            }
            Kind::Share => self.start(&Share::read(frame)?),
            Kind::Signal => self.end_ranks(Signal::read(frame)?.signal),
            Kind::Kill => self.kill(Kill::read(frame)?.grace_ms),
            Kind::Query => self.query(),
            Kind::CallAnswer => self.answered(CallAnswer::read(frame)?),
            Kind::Heartbeat => self.lease.renew(&Heartbeat::read(frame)?, now_ms),
            Kind::FenceDown => self.fence_down(frame),
            Kind::Resync => self.resync(),
            Kind::End => self.end(),
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, share: &Share) {
        if self.groups.contains_key(&share.group) || self.ending {
            return;
        }
        let Some(spec) = self.specs.get(&share.group).cloned() else {
            self.wrong(format!("a share of group {} came before its spec", share.group));
            return;
        };
        for one in &share.procs {
            let proc = ProcId(spec.first_proc.0 + one.rank.0);
            let (group, rank) = (share.group, one.rank);
            let phase = Phase::Untouched;
            let state = LocalRank { group, rank, started: false, phase, arrived: false, asked: false, end: None };
            self.ranks.insert(proc, state);
            self.later(2_000, RankEvent::Running(proc));
        }
        self.groups.insert(share.group, LocalGroup { members: spec.members, seq: 0, in_flight: false });
    }

    fn living(&self) -> Vec<ProcId> {
        self.ranks.iter().filter(|(_, r)| r.end.is_none()).map(|(p, _)| *p).collect()
    }

    fn end_ranks(&mut self, signal: i32) {
        for proc in self.living() {
            if !self.rng.chance(self.program.stubborn_percent) {
                self.later(50_000, RankEvent::Exit(proc, ProcEnd::Signaled { signal, core: false, memory: None }));
            }
        }
    }

    fn kill(&mut self, grace_ms: u64) {
        self.killed = true;
        self.end_ranks(15);
        self.acts.push(RankAct::Later(grace_ms * 1_000 + 1, RankEvent::HardKill));
    }

    fn end(&mut self) {
        if let Some(ended) = self.ended.clone() {
            self.up(&ended);
        } else if !self.ending {
            self.ending = true;
            self.later(10_000, RankEvent::Swept);
        }
    }

    fn query(&mut self) {
        let state = |(group, local): (&Group, &LocalGroup)| {
            let of = |arrived| {
                let here = self.ranks.values().filter(|r| r.group == *group && r.end.is_none());
                here.filter(|r| r.arrived == arrived).map(|r| r.rank).collect::<Vec<_>>()
            };
            let (arrived, absent) = (of(true), of(false));
            (!arrived.is_empty()).then_some(FenceState { group: *group, seq: local.seq, arrived, absent })
        };
        let fences = self.groups.iter().filter_map(state).collect();
        self.up(&Report { fences });
    }

    fn resync(&mut self) {
        let running =
            |(proc, r): (&ProcId, &LocalRank)| r.started.then_some(ProcStarted { proc: *proc, pid: proc.0 + 100 });
        self.started = self.ranks.iter().filter_map(running).collect();
        self.exits = self.ranks.values().filter_map(|r| r.end.clone()).collect();
        let spoken: Vec<Initialised> = self
            .ranks
            .values()
            .filter(|r| r.phase != Phase::Untouched)
            .map(|r| Initialised { group: r.group, rank: r.rank })
            .collect();
        for message in &spoken {
            self.up(message);
        }
        if let Some(ended) = self.ended.clone() {
            // The ends of its ranks come first, as they did.
            let procs = std::mem::take(&mut self.exits);
            self.up(&Exits { procs });
            self.up(&ended);
        }
    }

    /// When [`Ranks::tick`] is due next.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.lease.kill_at_ms().filter(|_| !self.ending)
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        if !self.ending && self.lease.kill_at_ms().is_some_and(|at| at <= now_ms) {
            self.kill(0);
            self.end();
        }
    }

    /// Something happens to the ranks.
    pub fn event(&mut self, event: RankEvent) {
        match event {
            RankEvent::Running(proc) => self.running(proc),
            RankEvent::Step(proc) => self.step(proc),
            RankEvent::Exit(proc, end) => self.exit(proc, end),
            RankEvent::HardKill => self.end_all(),
            RankEvent::Swept => {
                self.end_all();
                self.later(20_000, RankEvent::StreamsRead);
            }
            RankEvent::StreamsRead => {
                let procs = std::mem::take(&mut self.exits);
                if !procs.is_empty() {
                    self.up(&Exits { procs });
                }
                let ended =
                    Ended { hosts: [self.me].into_iter().collect(), streams: Vec::new(), survivors: Vec::new() };
                self.up(&ended);
                self.ended = Some(ended);
            }
        }
    }

    fn end_all(&mut self) {
        for proc in self.living() {
            self.exit(proc, ProcEnd::Signaled { signal: 9, core: false, memory: None });
        }
    }

    fn running(&mut self, proc: ProcId) {
        let Some(rank) = self.ranks.get_mut(&proc).filter(|r| r.end.is_none()) else { return };
        rank.started = true;
        self.started.push(ProcStarted { proc, pid: proc.0 + 100 });
        self.later(self.program.step_us, RankEvent::Step(proc));
    }

    fn exit(&mut self, proc: ProcId, end: ProcEnd) {
        let killed = self.killed;
        let Some(rank) = self.ranks.get_mut(&proc).filter(|r| r.end.is_none()) else { return };
        let exit = ProcExit { proc, end, phase: rank.phase, maxrss_kib: 0, killed };
        rank.end = Some(exit.clone());
        rank.arrived = false;
        self.exits.push(exit);
    }

    /// Initialise, arrive at every fence, finalise and return.
    fn step(&mut self, proc: ProcId) {
        let Some(rank) = self.ranks.get(&proc).filter(|r| r.end.is_none() && !r.arrived) else { return };
        if self.calls.values().any(|waiting| *waiting == proc) {
            return;
        }
        let (group, number, phase) = (rank.group, rank.rank, rank.phase);
        let seq = self.groups.get(&group).map_or(0, |g| g.seq);
        if phase == Phase::Untouched {
            self.set_phase(proc, Phase::Initialised);
            self.up(&Initialised { group, rank: number });
            self.later(self.program.step_us, RankEvent::Step(proc));
        } else if self.program.publishes && !rank.asked {
            self.publish(proc);
        } else if let Some((odd, at, what)) = self.program.odd
            && odd == proc
            && at == seq
        {
            self.spoil(proc, what);
        } else if seq < self.program.fences {
            self.arrive(proc, group);
        } else {
            self.set_phase(proc, Phase::Finalised);
            self.later(self.program.step_us, RankEvent::Exit(proc, ProcEnd::Exited(0)));
        }
    }

    fn publish(&mut self, proc: ProcId) {
        if let Some(rank) = self.ranks.get_mut(&proc) {
            rank.asked = true;
        }
        let token = self.next_call;
        self.next_call += 1;
        self.calls.insert(token, proc);
        let ask = Ask::Publish { name: format!("name of {proc}"), port: "port".to_owned() };
        self.up(&Call { proc, token, ask });
    }

    fn answered(&mut self, message: CallAnswer) {
        let Some(proc) = self.calls.remove(&message.token) else { return };
        if message.answer != Answer::Done {
            self.wrong(format!("process {proc} cannot publish a name of its own: {:?}", message.answer));
        }
        self.later(self.program.step_us, RankEvent::Step(proc));
    }

    fn set_phase(&mut self, proc: ProcId, phase: Phase) {
        if let Some(rank) = self.ranks.get_mut(&proc) {
            rank.phase = phase;
        }
    }

    fn spoil(&mut self, proc: ProcId, what: Odd) {
        match what {
            Odd::Exit(code) => self.exit(proc, ProcEnd::Exited(code)),
            Odd::Crash(signal) => self.exit(proc, ProcEnd::Signaled { signal, core: false, memory: None }),
            Odd::Abort(code) => {
                self.aborted = true;
                self.up(&Abort { proc, cause: AbortCause::Asked { code, message: String::new() } });
            }
            Odd::Hang => {}
        }
    }

    fn arrive(&mut self, proc: ProcId, group: Group) {
        if let Some(rank) = self.ranks.get_mut(&proc) {
            rank.arrived = true;
        }
        let here = || self.ranks.values().filter(|r| r.group == group);
        let complete = here().all(|r| r.arrived && r.end.is_none());
        let Some(local) = self.groups.get_mut(&group) else { return };
        if complete && !local.in_flight {
            local.in_flight = true;
            let blob = blob(self.me, local.seq, self.program.blob_bytes);
            self.acts.push(RankAct::Fence(group, local.seq, blob));
        }
    }

    fn fence_down(&mut self, frame: &Frame) {
        let whole = match self.chunks.push(frame) {
            Ok(Some(whole)) => whole,
            Ok(None) => return,
            Err(bad) => return self.wrong(bad.to_string()),
        };
        let (group, seq) = (frame.header.group(), frame.header.seq);
        let Some(local) = self.groups.get_mut(&group) else { return };
        if seq < local.seq {
            return;
        }
        if seq > local.seq || !local.in_flight {
            let text = format!(
                "fence {seq} is over, but the ranks here are at {} (in flight: {})",
                local.seq, local.in_flight
            );
            return self.wrong(text);
        }
        local.seq += 1;
        local.in_flight = false;
        let members = local.members.clone();
        let found = open(whole, seq);
        let wanted: Vec<u32> = members.iter().map(|h| h.0).collect();
        if found.as_deref() != Some(&wanted) {
            self.wrong(format!("fence {seq} brings hosts {found:?} instead of {wanted:?}"));
        }
        let waiting: Vec<ProcId> =
            self.ranks.iter().filter(|(_, r)| r.group == group && r.arrived).map(|(p, _)| *p).collect();
        for proc in waiting {
            if let Some(rank) = self.ranks.get_mut(&proc) {
                rank.arrived = false;
            }
            self.later(self.program.step_us, RankEvent::Step(proc));
        }
    }
}
