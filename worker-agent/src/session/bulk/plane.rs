//! The bulk thread's loop: orders of the control plane, and what all tasks of a job share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use muster_protocol::frame::Kind;
use muster_protocol::message::{Message, OutputAck, Stamp, StreamEnd};
use muster_protocol::{Frame, HostIndex, ProcId, Stream};
use muster_transport::connection::Sender;
use tokio::sync::{Notify, mpsc};

use super::input::{Input, feed};
use super::output::{Output, pump};
use super::relay::{Below, read_child, read_uplink, same};
use super::{BulkOrder, BulkReport};

/// Time that streams have to end after every process of the job is gone: what still holds a pipe then is not of the job.
const STREAMS_END_LIMIT: Duration = Duration::from_secs(2);
/// Time between two requests for an uplink. A request may go down with a parent, or a parent may fail to fulfil it.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How far the end of the job's streams has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Processes may run.
    Running,
    /// Every process is gone.
    Finishing,
    /// The time for streams to end by themselves is over.
    Late,
    /// The lengths of the streams have been reported.
    Finished,
}

/// What the tasks of one job share. The thread is one, so cells are enough.
pub(super) struct Shared {
    reports: mpsc::UnboundedSender<BulkReport>,
    identity: Cell<Option<(Stamp, HostIndex)>>,
    uplink: RefCell<Option<Sender>>,
    pub(super) uplink_came: Notify,
    uplink_lacks: Notify,
    phase: Cell<Phase>,
    outputs: RefCell<BTreeMap<(ProcId, Stream), Rc<Output>>>,
    inputs: RefCell<HashMap<ProcId, Rc<Input>>>,
    pub(super) below: Below,
    pub(super) scratch: RefCell<BytesMut>,
}

impl Shared {
    fn new(reports: mpsc::UnboundedSender<BulkReport>) -> Self {
        Self {
            reports,
            identity: Cell::new(None),
            uplink: RefCell::new(None),
            uplink_came: Notify::new(),
            uplink_lacks: Notify::new(),
            phase: Cell::new(Phase::Running),
            outputs: RefCell::default(),
            inputs: RefCell::default(),
            below: Below::default(),
            scratch: RefCell::default(),
        }
    }

    pub(super) fn uplink(&self) -> Option<Sender> {
        self.uplink.borrow().clone()
    }

    /// Has an uplink asked for, until there is one or nobody needs it any more.
    pub(super) fn want_uplink(&self) {
        self.uplink_lacks.notify_one();
    }

    fn needs_uplink(&self) -> bool {
        self.uplink.borrow().is_none()
            && (self.outputs.borrow().values().any(|o| o.is_owed())
                || self.below.anybody_waits()
                || (self.phase.get() == Phase::Running && self.inputs.borrow().values().any(|i| i.is_open())))
    }

    pub(super) fn frame(&self, kind: Kind, payload: Bytes) -> Option<Frame> {
        let (stamp, me) = self.identity.get()?;
        Some(stamp.raw(kind, me, payload))
    }

    pub(super) fn message<M: Message>(&self, message: &M) -> Option<Frame> {
        let (stamp, me) = self.identity.get()?;
        Some(stamp.frame(me, message))
    }

    pub(super) fn is_late(&self) -> bool {
        self.phase.get() >= Phase::Late
    }

    /// Reports the streams' lengths when all have been read to their ends and sent.
    pub(super) fn report_if_finished(&self) {
        if self.phase.get() > Phase::Running && self.outputs.borrow().values().all(|o| o.at_end()) {
            self.report_finished();
        }
    }

    /// Reports the streams' lengths as they are, once.
    fn report_finished(&self) {
        if self.phase.replace(Phase::Finished) == Phase::Finished {
            return;
        }
        let outputs = self.outputs.borrow();
        let end = |((proc, stream), output): (&(ProcId, Stream), &Rc<Output>)| StreamEnd {
            proc: *proc,
            stream: *stream,
            bytes: output.total(),
        };
        let ends = outputs.iter().map(end).filter(|e| e.bytes > 0).collect();
        let _ = self.reports.send(BulkReport::Finished(ends));
    }

    /// A frame from above: for a rank here, or to be passed on as returned.
    pub(super) fn down(&self, frame: Frame) -> Option<(Sender, Frame)> {
        let (_, me) = self.identity.get()?;
        if frame.header.host != me {
            return Some((self.below.towards(frame.header.host)?, frame));
        }
        let Ok((proc, stream)) = frame.header.stream() else { return None };
        match frame.header.kind {
            Kind::OutputAck => {
                if let (Ok(ack), Some(output)) = (OutputAck::read(&frame), self.outputs.borrow().get(&(proc, stream))) {
                    output.acked(ack.bytes);
                }
            }
            Kind::Input => {
                if let Some(input) = self.inputs.borrow().get(&proc) {
                    input.push(frame);
                }
            }
            _ => {}
        }
        None
    }

    fn new_uplink(&self, sender: Sender) {
        if let Some(old) = self.uplink.replace(Some(sender)) {
            old.abort();
            self.below.restart();
        }
        for output in self.outputs.borrow().values() {
            output.replay();
        }
        for input in self.inputs.borrow().values() {
            input.announce();
        }
        self.uplink_came.notify_waiters();
    }

    /// What waits in the uplink, and what comes from below through it, goes to the next one.
    fn drop_uplink(&self) {
        if let Some(old) = self.uplink.take() {
            old.abort();
            self.below.restart();
            self.want_uplink();
        }
    }

    /// An uplink has ended; a newer one may have taken its place before.
    pub(super) fn uplink_ended(&self, ended: &Sender) {
        if self.uplink.borrow().as_ref().is_some_and(|current| same(current, ended)) {
            self.uplink.replace(None);
            self.below.restart();
            self.want_uplink();
        }
    }
}

/// Runs until the control plane is gone.
pub(super) async fn run(mut orders: mpsc::UnboundedReceiver<BulkOrder>, reports: mpsc::UnboundedSender<BulkReport>) {
    let mut job = JobPlane::new(reports.clone());
    while let Some(order) = orders.recv().await {
        if matches!(order, BulkOrder::Reset) {
            job.drop_all();
            job = JobPlane::new(reports.clone());
        } else {
            job.obey(order);
        }
    }
    job.drop_all();
}

/// One job's tasks.
struct JobPlane {
    shared: Rc<Shared>,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl JobPlane {
    fn new(reports: mpsc::UnboundedSender<BulkReport>) -> Self {
        let mut plane = Self { shared: Rc::new(Shared::new(reports)), tasks: Vec::new() };
        plane.spawn(ask(plane.shared.clone()));
        plane
    }

    fn obey(&mut self, order: BulkOrder) {
        let shared = &self.shared;
        match order {
            BulkOrder::Begin(stamp, me) => shared.identity.set(Some((stamp, me))),
            BulkOrder::Output { proc, stream, pipe, window_bytes } => {
                let output = Output::new(proc, stream, window_bytes);
                shared.outputs.borrow_mut().insert((proc, stream), output.clone());
                self.spawn(pump(output, pipe, self.shared.clone()));
            }
            BulkOrder::Input { proc, pipe } => {
                let input = Input::new(proc);
                shared.inputs.borrow_mut().insert(proc, input.clone());
                self.spawn(feed(input, pipe, self.shared.clone()));
            }
            BulkOrder::Uplink(guest, welcome) => {
                let (sender, receiver) = shared.below.welcome(*guest, welcome);
                shared.new_uplink(sender.clone());
                self.spawn(read_uplink(sender, receiver, self.shared.clone()));
            }
            BulkOrder::DropUplink => shared.drop_uplink(),
            BulkOrder::Child(edge, dialed) => {
                let (sender, receiver) = shared.below.add(edge, *dialed);
                self.spawn(read_child(edge, sender, receiver, self.shared.clone()));
            }
            BulkOrder::ChildGone(edge) => shared.below.remove(edge),
            BulkOrder::Finish => self.finish(),
            BulkOrder::FinishNow => shared.report_finished(),
            BulkOrder::Reset => {}
        }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.retain(|t| !t.is_finished());
        self.tasks.push(tokio::task::spawn_local(task).abort_handle());
    }

    fn finish(&mut self) {
        if self.shared.phase.get() > Phase::Running {
            return;
        }
        self.shared.phase.set(Phase::Finishing);
        self.shared.report_if_finished();
        let shared = self.shared.clone();
        self.spawn(async move {
            while shared.phase.get() != Phase::Finished {
                tokio::time::sleep(STREAMS_END_LIMIT).await;
                shared.end_late();
                tokio::task::yield_now().await;
                // Nobody takes what is left, and the processes are gone all the same.
                if shared.uplink().is_none() {
                    shared.report_finished();
                }
            }
        });
    }

    fn drop_all(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.shared.inputs.borrow_mut().clear();
        self.shared.outputs.borrow_mut().clear();
        if let Some(uplink) = self.shared.uplink.take() {
            uplink.abort();
        }
        self.shared.below.restart();
    }
}

impl Shared {
    /// From now on only what is in the pipes already is read.
    fn end_late(&self) {
        self.phase.set(self.phase.get().max(Phase::Late));
        for output in self.outputs.borrow().values() {
            output.wake();
        }
    }
}

/// Asks for an uplink as long as one is needed and lacking.
async fn ask(shared: Rc<Shared>) {
    loop {
        shared.uplink_lacks.notified().await;
        while shared.needs_uplink() {
            let came = shared.uplink_came.notified();
            let _ = shared.reports.send(BulkReport::WantUplink);
            let _ = tokio::time::timeout(ASK_AGAIN, came).await;
        }
    }
}
