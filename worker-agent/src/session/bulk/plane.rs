//! The bulk thread's loop: orders of the control plane, the uplink, the children.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use muster_core::tree::EdgeId;
use muster_protocol::frame::Kind;
use muster_protocol::limits::BULK_PAYLOAD_BYTES_MAX;
use muster_protocol::message::{Message, OutputAck, Stamp, StreamEnd};
use muster_protocol::{Frame, HostIndex, ProcId, Stream};
use muster_transport::connection::{Receiver, Sender};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use super::input::Input;
use super::output::{Output, pump};
use super::{BulkOrder, BulkReport};
use crate::session::tree::spawn_bulk;

/// Time that streams have to end after every process of the job is gone: what still holds a pipe then is not of the job.
const STREAMS_END_LIMIT: Duration = Duration::from_secs(2);

/// What the tasks of one job share. The thread is one, so cells are enough.
pub(super) struct Shared {
    reports: mpsc::UnboundedSender<BulkReport>,
    identity: Cell<Option<(Stamp, HostIndex)>>,
    uplink: RefCell<Option<Sender>>,
    uplink_came: Notify,
    wanted: Cell<bool>,
    /// Every process is gone; the second flag: and its time is over.
    finishing: Cell<(bool, bool)>,
    outputs: RefCell<BTreeMap<(ProcId, Stream), Rc<Output>>>,
    inputs: RefCell<HashMap<ProcId, Input>>,
    children: RefCell<HashMap<EdgeId, Sender>>,
    routes: RefCell<HashMap<HostIndex, EdgeId>>,
    pub(super) scratch: RefCell<Vec<u8>>,
    tasks: TaskTracker,
}

impl Shared {
    fn new(reports: mpsc::UnboundedSender<BulkReport>) -> Self {
        Self {
            reports,
            identity: Cell::new(None),
            uplink: RefCell::new(None),
            uplink_came: Notify::new(),
            wanted: Cell::new(false),
            finishing: Cell::new((false, false)),
            outputs: RefCell::default(),
            inputs: RefCell::default(),
            children: RefCell::default(),
            routes: RefCell::default(),
            scratch: RefCell::new(Vec::new()),
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn uplink(&self) -> Option<Sender> {
        self.uplink.borrow().clone()
    }

    /// Asks for an uplink, once until there is one.
    pub(super) fn want_uplink(&self) {
        if !self.wanted.replace(true) {
            let _ = self.reports.send(BulkReport::WantUplink);
        }
    }

    pub(super) fn frame(&self, kind: Kind, payload: Bytes) -> Option<Frame> {
        let (stamp, me) = self.identity.get()?;
        Some(stamp.raw(kind, me, payload))
    }

    pub(super) fn message<M: Message>(&self, message: &M) -> Option<Frame> {
        let (stamp, me) = self.identity.get()?;
        Some(stamp.frame(me, message))
    }

    pub(super) fn finishing_late(&self) -> bool {
        self.finishing.get().1
    }

    /// Reports the streams' lengths when all have been read to their ends and sent.
    pub(super) fn report_if_finished(&self) {
        let complete = self.outputs.borrow().values().all(|o| o.state.borrow().at_end);
        if complete && self.finishing.get().0 {
            self.report_finished();
        }
    }

    fn report_finished(&self) {
        let outputs = self.outputs.borrow();
        self.finishing.set((false, false));
        let end = |((proc, stream), output): (&(ProcId, Stream), &Rc<Output>)| StreamEnd {
            proc: *proc,
            stream: *stream,
            bytes: output.total(),
        };
        let ends = outputs.iter().map(end).filter(|e| e.bytes > 0).collect();
        let _ = self.reports.send(BulkReport::Finished(ends));
    }

    fn down(&self, frame: Frame) -> Option<(Sender, Frame)> {
        let (_, me) = self.identity.get()?;
        if frame.header.host != me {
            let edge = *self.routes.borrow().get(&frame.header.host)?;
            let sender = self.children.borrow().get(&edge).cloned()?;
            return Some((sender, frame));
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
        *self.uplink.borrow_mut() = Some(sender);
        self.wanted.set(false);
        for output in self.outputs.borrow().values() {
            output.replay();
        }
        for input in self.inputs.borrow().values() {
            input.announce();
        }
        self.uplink_came.notify_waiters();
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
        Self { shared: Rc::new(Shared::new(reports)), tasks: Vec::new() }
    }

    fn obey(&mut self, order: BulkOrder) {
        let shared = &self.shared;
        match order {
            BulkOrder::Begin(stamp, me) => shared.identity.set(Some((stamp, me))),
            BulkOrder::Output { proc, stream, pipe, window_bytes } => {
                shared.scratch.borrow_mut().resize(BULK_PAYLOAD_BYTES_MAX as usize, 0);
                let output = Output::new(proc, stream, window_bytes);
                shared.outputs.borrow_mut().insert((proc, stream), output.clone());
                self.spawn(pump(output, pipe, self.shared.clone()));
            }
            BulkOrder::Input { proc, pipe } => {
                let input = Input::start(proc, pipe, shared.clone());
                shared.inputs.borrow_mut().insert(proc, input);
            }
            BulkOrder::Uplink(sender, receiver) => {
                shared.new_uplink(sender.clone());
                self.spawn(read_uplink(sender, receiver, self.shared.clone()));
            }
            BulkOrder::Child(edge, dialed) => {
                let (sender, receiver) = spawn_bulk(*dialed, &shared.tasks);
                shared.children.borrow_mut().insert(edge, sender);
                self.spawn(read_child(edge, receiver, self.shared.clone()));
            }
            BulkOrder::ChildGone(edge) => {
                if let Some(sender) = shared.children.borrow_mut().remove(&edge) {
                    sender.abort();
                }
                shared.routes.borrow_mut().retain(|_, e| *e != edge);
            }
            BulkOrder::Finish => self.finish(),
            BulkOrder::Reset => {}
        }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.retain(|t| !t.is_finished());
        self.tasks.push(tokio::task::spawn_local(task).abort_handle());
    }

    fn finish(&mut self) {
        self.shared.finishing.set((true, false));
        self.shared.report_if_finished();
        let shared = self.shared.clone();
        self.spawn(async move {
            loop {
                tokio::time::sleep(STREAMS_END_LIMIT).await;
                if !shared.finishing.get().0 {
                    return;
                }
                shared.finishing.set((true, true));
                for output in shared.outputs.borrow().values() {
                    output.changed.notify_one();
                }
                tokio::task::yield_now().await;
                // Nobody takes what is left, and the processes are gone all the same.
                if shared.uplink().is_none() && shared.finishing.get().0 {
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
        let uplink = self.shared.uplink.borrow_mut().take();
        for sender in uplink.into_iter().chain(self.shared.children.borrow_mut().drain().map(|(_, s)| s)) {
            sender.abort();
        }
    }
}

/// Hears the parent until its connection ends.
async fn read_uplink(mine: Sender, mut receiver: Receiver, shared: Rc<Shared>) {
    while let Ok(Some(frame)) = receiver.recv().await {
        if let Some((child, frame)) = shared.down(frame) {
            let _ = child.send(frame).await;
        }
    }
    mine.abort();
    // A newer uplink may have taken its place.
    let mut current = shared.uplink.borrow_mut();
    if current.as_ref().is_some_and(|s| std::sync::Arc::ptr_eq(s.traffic(), mine.traffic())) {
        *current = None;
    }
}

/// Passes a child's frames on. Not reading it while there is nobody to pass them to is what stalls the ranks below.
async fn read_child(edge: EdgeId, mut receiver: Receiver, shared: Rc<Shared>) {
    while let Ok(Some(frame)) = receiver.recv().await {
        shared.routes.borrow_mut().insert(frame.header.host, edge);
        let mut frame = Some(frame);
        while let Some(held) = frame.take() {
            match shared.uplink() {
                // A frame that is lost with its uplink is sent again by the host that made it.
                Some(uplink) => drop(uplink.send(held).await),
                None => {
                    let came = shared.uplink_came.notified();
                    shared.want_uplink();
                    came.await;
                    frame = Some(held);
                }
            }
        }
    }
}
