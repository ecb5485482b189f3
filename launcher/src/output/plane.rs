//! The output thread's loop: bulk connections on one side, the writing thread and standard input on the other.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use muster_core::tree::EdgeId;
use muster_protocol::frame::{FLAG_ANNOUNCE, Kind, stream_channel};
use muster_protocol::message::{InputAck, Message, OutputAck, Stamp, StdinTo, StreamEnd};
use muster_protocol::{Frame, HostIndex, ProcId, Stream};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::credit::Dedup;
use muster_worker_agent::session::tree::spawn_bulk;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use super::input::{Input, reader};
use super::writer::{Done, Job, Writers};
use super::{OutputOrder, OutputReport};

/// One stream as the root sees it.
struct Seen {
    host: HostIndex,
    arrived: Dedup,
    written: u64,
}

/// What the tasks of this thread share.
struct Shared {
    stamp: Stamp,
    writers: Writers,
    streams: RefCell<HashMap<(ProcId, Stream), Seen>>,
    input: RefCell<Input>,
    /// Something about standard input has changed.
    input_changed: Notify,
    children: RefCell<HashMap<EdgeId, Sender>>,
    routes: RefCell<HashMap<HostIndex, EdgeId>>,
    ends: RefCell<BTreeMap<(ProcId, Stream), u64>>,
    lost: RefCell<HashSet<ProcId>>,
    finishing: Cell<bool>,
    reports: mpsc::UnboundedSender<OutputReport>,
}

/// The thread's ends of its channels.
pub(super) struct Channels {
    pub(super) orders: mpsc::UnboundedReceiver<OutputOrder>,
    pub(super) writers: Writers,
    pub(super) done: mpsc::UnboundedReceiver<Done>,
    pub(super) reports: mpsc::UnboundedSender<OutputReport>,
}

/// Runs until the control plane is gone.
pub(super) async fn run(stamp: Stamp, stdin: StdinTo, ranks: u32, channels: Channels) {
    let Channels { mut orders, writers, mut done, reports } = channels;
    let shared = Rc::new(Shared {
        stamp,
        writers,
        streams: RefCell::default(),
        input: RefCell::new(Input::new(stamp, stdin, ranks)),
        input_changed: Notify::new(),
        children: RefCell::default(),
        routes: RefCell::default(),
        ends: RefCell::default(),
        lost: RefCell::default(),
        finishing: Cell::new(false),
        reports: reports.clone(),
    });
    let tasks = TaskTracker::new();
    let mut unfinished = shared.writers.count();
    if stdin != StdinTo::Nobody {
        tokio::task::spawn_local(feed_input(shared.clone()));
    }
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => shared.obey(order, &tasks),
                None => return,
            },
            Some(done) = done.recv() => match done {
                Done::Written(proc, stream, end) => shared.written(proc, stream, end),
                Done::Finished => {
                    unfinished -= 1;
                    if unfinished == 0 {
                        let _ = reports.send(OutputReport::Finished);
                    }
                }
            },
        }
        shared.finish_if_complete();
    }
}

impl Shared {
    fn obey(self: &Rc<Self>, order: OutputOrder, tasks: &TaskTracker) {
        match order {
            OutputOrder::Child(edge, dialed) => {
                let (sender, receiver) = spawn_bulk(*dialed, tasks);
                self.children.borrow_mut().insert(edge, sender);
                tokio::task::spawn_local(read_child(edge, receiver, self.clone()));
            }
            OutputOrder::ChildGone(edge) => {
                if let Some(sender) = self.children.borrow_mut().remove(&edge) {
                    sender.abort();
                }
            }
            OutputOrder::Group(group, first, size) => self.writers.tell(&Job::Group(group, first, size)),
            OutputOrder::Ends(ends) => self.expect(ends),
            OutputOrder::Lost(procs) => self.lost.borrow_mut().extend(procs),
            OutputOrder::Finish => self.finishing.set(true),
        }
    }

    fn expect(&self, ends: Vec<StreamEnd>) {
        self.ends.borrow_mut().extend(ends.into_iter().map(|e| ((e.proc, e.stream), e.bytes)));
    }

    /// Once everything that is to come has come, the rest may be written.
    fn finish_if_complete(&self) {
        if !self.finishing.get() {
            return;
        }
        let (streams, lost) = (self.streams.borrow(), self.lost.borrow());
        let ends = self.ends.borrow();
        let mut missing = ends
            .iter()
            .filter(|(key, bytes)| streams.get(key).is_none_or(|s| s.arrived.next() < **bytes))
            .map(|((proc, _), _)| proc)
            .peekable();
        let incomplete = missing.peek().is_some();
        if missing.all(|proc| lost.contains(proc)) {
            self.finishing.set(false);
            if incomplete {
                let _ = self.reports.send(OutputReport::Incomplete);
            }
            self.writers.tell(&Job::Finish);
        }
    }

    fn output(&self, frame: Frame) {
        let Ok((proc, stream)) = frame.header.stream() else { return };
        let mut streams = self.streams.borrow_mut();
        let fresh = Seen { host: frame.header.host, arrived: Dedup::new(), written: 0 };
        let seen = streams.entry((proc, stream)).or_insert(fresh);
        match seen.arrived.accept(frame.header.seq, frame.payload.len()) {
            Ok(Some(skip)) => {
                self.writers.write(proc, stream, frame.payload.slice(skip..), seen.arrived.next());
            }
            // It came again over a new way: its host has not heard what became of it.
            Ok(None) => self.acknowledge(proc, stream, seen),
            Err(error) => tracing::warn!(proc = proc.0, %error, "output out of order is dropped"),
        }
    }

    fn written(&self, proc: ProcId, stream: Stream, end: u64) {
        if let Some(seen) = self.streams.borrow_mut().get_mut(&(proc, stream)) {
            seen.written = end;
            self.acknowledge(proc, stream, seen);
        }
    }

    fn acknowledge(&self, proc: ProcId, stream: Stream, seen: &Seen) {
        let ack = self.stamp.frame(seen.host, &OutputAck { bytes: seen.written });
        self.down(ack.with(0, stream_channel(proc, stream), 0));
    }

    fn down(&self, frame: Frame) {
        let edge = self.routes.borrow().get(&frame.header.host).copied();
        let sender = edge.and_then(|e| self.children.borrow().get(&e).cloned());
        if let Some(sender) = sender {
            // The queue is seldom full, so the task seldom lives longer than this call.
            if let Err(muster_transport::connection::TrySendError::Full(frame)) = sender.try_send(frame) {
                tokio::task::spawn_local(async move { sender.send(frame).await });
            }
        }
    }

    fn input_ack(&self, frame: &Frame) {
        if let (Ok(ack), Ok((proc, _))) = (InputAck::read(frame), frame.header.stream()) {
            let announced = frame.header.flags & FLAG_ANNOUNCE != 0;
            self.input.borrow_mut().acked(proc, frame.header.host, ack.bytes, announced);
            self.input_changed.notify_one();
        }
    }
}

async fn read_child(edge: EdgeId, mut receiver: Receiver, shared: Rc<Shared>) {
    while let Ok(Some(frame)) = receiver.recv().await {
        if frame.header.epoch != shared.stamp.epoch || frame.header.generation != shared.stamp.generation {
            continue;
        }
        shared.routes.borrow_mut().insert(frame.header.host, edge);
        match frame.header.kind {
            Kind::Output => {
                shared.output(frame);
                shared.finish_if_complete();
            }
            Kind::InputAck => shared.input_ack(&frame),
            _ => {}
        }
    }
}

/// Reads standard input as fast as its readers take it.
async fn feed_input(shared: Rc<Shared>) {
    let (requests, mut pieces) = reader();
    let mut requested = false;
    loop {
        if !requested && shared.input.borrow().wants_more() {
            requested = requests.try_send(()).is_ok();
        }
        tokio::select! {
            piece = pieces.recv(), if requested => {
                requested = false;
                shared.input.borrow_mut().read(piece.unwrap_or_else(Bytes::new));
            }
            () = shared.input_changed.notified() => {}
        }
        let frames = shared.input.borrow_mut().frames();
        for frame in frames {
            let edge = shared.routes.borrow().get(&frame.header.host).copied();
            let sender = edge.and_then(|e| shared.children.borrow().get(&e).cloned());
            if let Some(sender) = sender {
                let _ = sender.send(frame).await;
            }
        }
    }
}
