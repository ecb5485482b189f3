//! One job on this host: its ranks, its place in the tree, its parent.

use std::ffi::OsString;
use std::sync::Arc;

use muster_core::tree::TreeNode;
use muster_protocol::hello::{Hello, Role, Welcome};
use muster_protocol::limits::{CONNECTION_QUEUE_FRAMES_MAX, PMIX_WAITING_OPERATIONS_MAX, SILENCE_DEAD_MS};
use muster_protocol::message::{Lost, Stamp, WantBulk, Wanted};
use muster_protocol::{Frame, HostIndex, Kind, Stream};
use muster_sys::clock::boottime_ms;
use muster_transport::connection::{Receiver, Sender};
use muster_transport::dial::Dialer;
use muster_transport::gate::Guest;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::bulk::{Bulk, BulkOrder, BulkReport};
use super::pmi::{PmiInput, PmiSockets};
use super::pmix;
use super::ranks::{PMIX_PROC, RankAct, Ranks};
use super::tree::{Introduction, TreeInput, TreeShell};
use crate::executor::border::{Executor, Order, RankOrder, Report, Survivor, Which};

/// Time that streams of a job that was given up have to be taken by somebody, in milliseconds.
const FINISH_MS: u64 = 2_000;

/// What happens to a job on this host.
#[derive(Debug)]
pub enum JobInput {
    /// A frame from the parent with this number.
    Parent(u64, Frame),
    /// That parent's connection ended.
    ParentClosed(u64, String),
    /// Something below.
    Tree(TreeInput),
    /// Something on a rank's PMI socket.
    Pmi(PmiInput),
    /// The bulk plane.
    Bulk(BulkReport),
    /// The executor.
    Executor(Report),
}

/// Whether the job goes on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It does.
    No,
    /// Nothing of it is left and nobody asks for it any more.
    Yes,
}

/// What a job needs of its agent.
pub struct Surroundings {
    /// Starts and ends processes.
    pub executor: Arc<dyn Executor>,
    /// Carries streams.
    pub bulk: Arc<Bulk>,
    /// Dials hosts below.
    pub dialer: Dialer,
    /// The agent's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The agent's host name.
    pub hostname: String,
    /// The agent's incarnation.
    pub incarnation: u64,
    /// Where tasks report.
    pub tree_inbox: mpsc::Sender<TreeInput>,
    /// Where PMI sockets report.
    pub pmi_inbox: mpsc::Sender<PmiInput>,
    /// Where the parent's frames go.
    pub parent_inbox: mpsc::Sender<JobInput>,
}

struct Parent {
    number: u64,
    sender: Sender,
    heard_ms: u64,
}

/// A job; see the module above.
pub struct Job {
    name: String,
    launcher: String,
    stamp: Stamp,
    me: HostIndex,
    tree: TreeShell,
    ranks: Ranks,
    pmi: PmiSockets,
    executor: Arc<dyn Executor>,
    bulk: Arc<Bulk>,
    parent_inbox: mpsc::Sender<JobInput>,
    parent: Option<Parent>,
    parents: u64,
    bulk_wanted: bool,
    /// The agent leaves, or the lease is over: the ranks end whatever the launcher says.
    given_up: bool,
    /// When streams count as finished although nobody takes what is left of them.
    finish_by_ms: Option<u64>,
    shared_anything: bool,
    /// The launcher lets go of this host for another one's job.
    released: bool,
    tasks: TaskTracker,
}

impl Job {
    /// The job of a launcher or parent that has just said hello.
    pub fn new(hello: &Hello, around: Surroundings) -> Self {
        let stamp = Stamp { epoch: hello.epoch, generation: hello.generation };
        let me = hello.you;
        let introduction = Introduction {
            role: Role::Parent,
            job: hello.job.clone(),
            from: around.hostname,
            incarnation: around.incarnation,
            stamp,
        };
        around.bulk.order(BulkOrder::Begin(stamp, me));
        let site = pmix::site(me, stamp, &around.environment);
        Self {
            name: hello.job.clone(),
            launcher: hello.from.clone(),
            stamp,
            me,
            tree: TreeShell::new(TreeNode::new(Some(me), stamp), introduction, around.dialer, around.tree_inbox),
            ranks: Ranks::new(me, stamp, around.environment, site),
            pmi: PmiSockets::new(around.pmi_inbox),
            executor: around.executor,
            bulk: around.bulk,
            parent_inbox: around.parent_inbox,
            parent: None,
            parents: 0,
            bulk_wanted: false,
            given_up: false,
            finish_by_ms: None,
            shared_anything: false,
            released: false,
            tasks: TaskTracker::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host of the launcher or parent that began it.
    pub fn launcher(&self) -> &str {
        &self.launcher
    }

    /// Whether this is the job and launcher incarnation of a hello.
    pub fn is_of(&self, hello: &Hello) -> bool {
        self.name == hello.job && self.stamp == (Stamp { epoch: hello.epoch, generation: hello.generation })
    }

    /// Its launcher's incarnation.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether a parent is connected and has been heard lately.
    pub fn has_parent(&self, now_ms: u64) -> bool {
        self.parent.as_ref().is_some_and(|p| now_ms.saturating_sub(p.heard_ms) < SILENCE_DEAD_MS)
    }

    /// Whether its parent's connection is gone.
    pub fn is_orphan(&self) -> bool {
        self.parent.is_none()
    }

    /// Takes a parent, the first one or one that replaces a dead one.
    pub fn take_parent(&mut self, guest: Guest, welcome: Welcome, now_ms: u64) {
        self.parents += 1;
        let number = self.parents;
        let (sender, receiver) = guest.welcome(welcome, CONNECTION_QUEUE_FRAMES_MAX, &self.tasks);
        self.tasks.spawn(read_parent(number, receiver, self.parent_inbox.clone()));
        if let Some(old) = self.parent.replace(Parent { number, sender, heard_ms: now_ms }) {
            old.sender.abort();
        }
        if number > 1 {
            // The old parent may be gone without its connections having noticed.
            self.bulk.order(BulkOrder::DropUplink);
            self.ranks.new_parent();
            self.tree.node.reparented();
            if self.bulk_wanted {
                self.to_parent(self.stamp.frame(self.me, &WantBulk {}));
            }
        }
        self.settle(now_ms);
    }

    /// Takes the parent's bulk connection.
    pub fn take_bulk(&mut self, guest: Guest, welcome: Welcome) {
        self.bulk_wanted = false;
        self.bulk.order(BulkOrder::Uplink(Box::new(guest), welcome));
    }

    /// Something happened.
    pub fn handle(&mut self, input: JobInput, now_ms: u64) {
        match input {
            JobInput::Parent(number, frame) => self.parent_frame(number, frame, now_ms),
            JobInput::ParentClosed(number, why) => self.parent_closed(number, &why, now_ms),
            JobInput::Tree(TreeInput::Frame(edge, frame)) if !self.is_current(&frame) => {
                tracing::warn!(edge = edge.0, kind = ?frame.header.kind, "a frame of another epoch or generation is dropped");
            }
            JobInput::Tree(input) => self.tree.handle(input, now_ms),
            JobInput::Pmi(PmiInput::Bytes(proc, bytes)) => self.ranks.pmi_input(proc, &bytes),
            JobInput::Pmi(PmiInput::Closed(proc)) => self.ranks.pmi_closed(proc, now_ms),
            JobInput::Bulk(BulkReport::WantUplink) => {
                self.bulk_wanted = true;
                self.to_parent(self.stamp.frame(self.me, &WantBulk {}));
            }
            JobInput::Bulk(BulkReport::Finished(streams)) => self.ranks.streams_finished(streams),
            JobInput::Executor(report) => self.ranks.report(report, now_ms),
        }
    }

    fn is_current(&self, frame: &Frame) -> bool {
        frame.header.epoch == self.stamp.epoch && frame.header.generation == self.stamp.generation
    }

    fn parent_frame(&mut self, number: u64, frame: Frame, now_ms: u64) {
        let Some(parent) = self.parent.as_mut().filter(|p| p.number == number) else { return };
        parent.heard_ms = now_ms;
        if self.is_current(&frame) {
            self.tree.node.from_parent(frame, now_ms);
        }
    }

    fn parent_closed(&mut self, number: u64, why: &str, now_ms: u64) {
        if self.parent.as_ref().is_some_and(|p| p.number == number) {
            // What it has said before counts: the lease may just have become a long one.
            self.settle(now_ms);
            self.parent = None;
            if let Some(beat) = self.ranks.cut_off(now_ms) {
                self.tree.node.shorten_lease(beat);
            }
            if !self.ranks.is_over() {
                tracing::warn!(job = self.name, why, "lost the parent");
            }
        }
    }

    fn to_parent(&self, frame: Frame) {
        if let Some(parent) = &self.parent
            && let Err(error) = parent.sender.try_send(frame)
        {
            tracing::warn!(%error, "dropping a parent that does not take frames");
            parent.sender.abort();
        }
    }

    /// Carries out everything that has been decided, until nothing is left to do.
    pub fn settle(&mut self, now_ms: u64) {
        loop {
            let outgoing = self.tree.perform();
            let acts = self.ranks.take_acts();
            if outgoing.up.is_empty() && outgoing.local.is_empty() && acts.is_empty() && outgoing.bulk.is_empty() {
                for edge in outgoing.gone {
                    self.bulk.order(BulkOrder::ChildGone(edge));
                }
                return;
            }
            for frame in outgoing.up {
                self.to_parent(frame);
            }
            for frame in outgoing.local {
                self.shared_anything |= frame.header.kind == Kind::Share;
                self.released |= frame.header.kind == Kind::Release && !self.was_served();
                if let Err(bad) = self.ranks.frame(&frame, now_ms) {
                    tracing::error!(%bad, "a frame of the launcher cannot be read");
                }
            }
            for (edge, dialed) in outgoing.bulk {
                self.bulk.order(BulkOrder::Child(edge, Box::new(dialed)));
            }
            for edge in outgoing.gone {
                self.bulk.order(BulkOrder::ChildGone(edge));
            }
            for act in acts {
                self.act(act);
            }
        }
    }

    fn act(&mut self, act: RankAct) {
        match act {
            RankAct::Order(order) => {
                if let Err(error) = self.executor.order(order) {
                    tracing::error!(%error, "the executor does not take orders");
                }
            }
            RankAct::Up(frame) => self.tree.node.from_here(frame, boottime_ms()),
            RankAct::Fence(group, seq, blob) => {
                if let Err(why) = self.tree.node.own_fence(group, seq, blob) {
                    self.ranks.fence_failed(group, &why);
                }
            }
            RankAct::PmixStart(order) => self.start_pmix(order),
            RankAct::PmixRunning(report) => self.pmix_running(report),
            RankAct::PmixGone => self.ranks.remove_pmix_folders(pmix::remove_folders),
            RankAct::Running(report, window_bytes) => self.running(report, window_bytes),
            RankAct::PmiSend(proc, bytes) => self.pmi.send(proc, bytes),
            RankAct::PmiClose(proc) => self.pmi.close(proc),
            RankAct::PmiDrain(proc) => self.pmi.drain(proc),
            RankAct::GaveUp => self.given_up = true,
            RankAct::FinishStreams => {
                self.finish_by_ms = Some(boottime_ms() + FINISH_MS);
                self.bulk.order(BulkOrder::Finish);
            }
        }
    }

    fn running(&mut self, report: Report, window_bytes: u32) {
        let Report::Spawned { proc, stdin, stdout, stderr, pmi, .. } = report else { return };
        for (stream, pipe) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            self.bulk.order(BulkOrder::Output { proc, stream, pipe, window_bytes });
        }
        if let Some(pipe) = stdin {
            self.bulk.order(BulkOrder::Input { proc, pipe });
        }
        if let Some(socket) = pmi
            && let Err(error) = self.pmi.add(proc, socket)
        {
            tracing::error!(%error, proc = proc.0, "a rank's PMI socket cannot be served");
        }
    }

    fn start_pmix(&mut self, order: Box<RankOrder>) {
        match self.ranks.prepare_pmix(pmix::prepare) {
            Ok(()) => self.act(RankAct::Order(Order::Spawn(order))),
            Err(error) => self.ranks.pmix_died(&format!("a folder for PMIx cannot be made: {error}")),
        }
    }

    fn pmix_running(&mut self, report: Report) {
        let Report::Spawned { stdout, stderr, pmi, .. } = report else { return };
        pmix::hear(stdout);
        pmix::hear(stderr);
        if let Some(socket) = pmi
            && let Err(error) = self.pmi.add_with_room(PMIX_PROC, socket, 2 * PMIX_WAITING_OPERATIONS_MAX)
        {
            self.ranks.pmix_died(&format!("its socket cannot be served: {error}"));
        }
    }

    /// Passes a signal on to the ranks here.
    pub fn pass_signal(&mut self, signal: i32) {
        self.act(RankAct::Order(Order::Signal { procs: Which::All, signal }));
    }

    /// Ends the ranks, because the agent is told to go or a newer launcher asks for it.
    pub fn give_up(&mut self, grace_ms: u64, now_ms: u64) {
        self.given_up = true;
        self.ranks.give_up(grace_ms);
        self.settle(now_ms);
    }

    /// The agent is told to go: the launcher hears it before the ranks end.
    pub fn leave(&mut self, grace_ms: u64, why: &str, now_ms: u64) {
        let lost = self.stamp.frame(self.me, &Lost { host: self.me, why: why.to_owned() });
        self.tree.node.from_here(lost, now_ms);
        self.give_up(grace_ms, now_ms);
    }

    /// Whether every process of it is gone and the root has been told.
    pub fn is_clean(&self) -> bool {
        self.ranks.is_over() || !self.shared_anything
    }

    /// Another launcher, which goes first, wants this host while nothing has been started here: ours decides.
    pub fn wanted_by(&mut self, hello: &Hello) {
        let wanted = Wanted { job: hello.job.clone(), launcher: hello.from.clone() };
        self.to_parent(self.stamp.frame(self.me, &wanted));
    }

    /// Whether its launcher has given it something to do, or has said that it is over. A dial may be dropped before that.
    pub fn was_served(&self) -> bool {
        self.shared_anything || self.status().is_some()
    }

    /// Processes that could not be ended.
    pub fn survivors(&self) -> &[Survivor] {
        self.ranks.survivors()
    }

    /// Exit status of the job, once its launcher has told.
    pub fn status(&self) -> Option<u8> {
        self.ranks.status()
    }

    /// Whether it goes on.
    pub fn over(&self, now_ms: u64) -> Over {
        // A launcher that stands still has its connection open; nothing is left here that it could ask for.
        let left_alone = self.is_clean() && (self.is_orphan() || self.given_up && !self.has_parent(now_ms));
        if left_alone || self.released { Over::Yes } else { Over::No }
    }

    /// Closes what is open.
    pub fn close(&mut self) {
        self.tree.close_all();
        if let Some(parent) = &self.parent {
            parent.sender.close();
        }
        self.bulk.order(BulkOrder::Reset);
    }

    /// When [`Job::tick`] is due next, on the boot-time clock.
    pub fn next_due_ms(&self) -> Option<u64> {
        let finish = self.finish_by_ms.filter(|_| self.given_up);
        self.tree.node.next_due_ms().into_iter().chain(self.ranks.next_due_ms()).chain(finish).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.tree.node.tick(now_ms);
        self.ranks.tick(now_ms);
        if self.given_up && self.finish_by_ms.take_if(|at| *at <= now_ms).is_some() {
            self.bulk.order(BulkOrder::FinishNow);
        }
    }
}

async fn read_parent(number: u64, mut receiver: Receiver, inbox: mpsc::Sender<JobInput>) {
    let why = loop {
        match receiver.recv().await {
            Ok(Some(frame)) => {
                if inbox.send(JobInput::Parent(number, frame)).await.is_err() {
                    return;
                }
            }
            Ok(None) => break "it closed the connection".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    let _ = inbox.send(JobInput::ParentClosed(number, why)).await;
}
