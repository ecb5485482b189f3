//! The output thread's loop.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use muster_core::tree::EdgeId;
use muster_protocol::frame::Kind;
use muster_protocol::message::{InputAck, Message, OutputAck, Stamp, StdinTo, StreamEnd};
use muster_protocol::{Frame, HostIndex, ProcId, Stream};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::credit::Dedup;
use muster_worker_agent::session::tree::spawn_bulk;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use super::input::{Input, reader};
use super::sink::{Sink, SinkError};
use super::{OutputOrder, OutputReport};

/// What the tasks of this thread share.
struct Shared {
    stamp: Stamp,
    sink: RefCell<Sink>,
    seen: RefCell<HashMap<(ProcId, Stream), Dedup>>,
    input: RefCell<Input>,
    /// Something about standard input has changed.
    input_changed: Notify,
    children: RefCell<HashMap<EdgeId, Sender>>,
    routes: RefCell<HashMap<HostIndex, EdgeId>>,
    ends: RefCell<BTreeMap<(ProcId, Stream), u64>>,
    lost: RefCell<HashSet<ProcId>>,
    finishing: RefCell<bool>,
    reports: mpsc::UnboundedSender<OutputReport>,
}

/// Runs until the control plane is gone.
pub(super) async fn run(
    stamp: Stamp,
    stdin: StdinTo,
    sink: Sink,
    mut orders: mpsc::UnboundedReceiver<OutputOrder>,
    reports: mpsc::UnboundedSender<OutputReport>,
) {
    let shared = Rc::new(Shared {
        stamp,
        sink: RefCell::new(sink),
        seen: RefCell::default(),
        input: RefCell::new(Input::new(stamp, stdin)),
        input_changed: Notify::new(),
        children: RefCell::default(),
        routes: RefCell::default(),
        ends: RefCell::default(),
        lost: RefCell::default(),
        finishing: RefCell::new(false),
        reports,
    });
    let tasks = TaskTracker::new();
    if stdin != StdinTo::Nobody {
        tokio::task::spawn_local(feed_input(shared.clone()));
    }
    while let Some(order) = orders.recv().await {
        match order {
            OutputOrder::Child(edge, dialed) => {
                let (sender, receiver) = spawn_bulk(*dialed, &tasks);
                shared.children.borrow_mut().insert(edge, sender.clone());
                tokio::task::spawn_local(read_child(edge, sender, receiver, shared.clone()));
            }
            OutputOrder::ChildGone(edge) => {
                if let Some(sender) = shared.children.borrow_mut().remove(&edge) {
                    sender.abort();
                }
            }
            OutputOrder::Group(group, first, size) => shared.sink.borrow_mut().group(group, first, size),
            OutputOrder::Ends(ends) => shared.expect(ends),
            OutputOrder::Lost(procs) => shared.lost.borrow_mut().extend(procs),
            OutputOrder::Finish => *shared.finishing.borrow_mut() = true,
        }
        shared.finish_if_complete();
    }
}

impl Shared {
    fn expect(&self, ends: Vec<StreamEnd>) {
        self.ends.borrow_mut().extend(ends.into_iter().map(|e| ((e.proc, e.stream), e.bytes)));
    }

    fn finish_if_complete(&self) {
        if !*self.finishing.borrow() {
            return;
        }
        let (seen, lost) = (self.seen.borrow(), self.lost.borrow());
        let complete = |((proc, stream), bytes): (&(ProcId, Stream), &u64)| {
            lost.contains(proc) || seen.get(&(*proc, *stream)).is_some_and(|s| s.next() >= *bytes)
        };
        if self.ends.borrow().iter().all(complete) {
            *self.finishing.borrow_mut() = false;
            let result = self.sink.borrow_mut().finish();
            self.tell(result);
            let _ = self.reports.send(OutputReport::Finished);
        }
    }

    fn tell(&self, result: Result<(), SinkError>) {
        let report = match result {
            Ok(()) => return,
            Err(SinkError::ReaderGone) => OutputReport::ReaderGone,
            Err(SinkError::Failed(why)) => OutputReport::Failed(why),
        };
        let _ = self.reports.send(report);
    }

    /// Takes output; the acknowledgement to send for it.
    fn output(&self, frame: &Frame) -> Option<Frame> {
        let (proc, stream) = frame.header.stream().ok()?;
        let mut seen = self.seen.borrow_mut();
        let seen = seen.entry((proc, stream)).or_default();
        match seen.accept(frame.header.seq, frame.payload.len()) {
            Ok(Some(skip)) => {
                let mut sink = self.sink.borrow_mut();
                let result = sink.feed(proc, stream, &frame.payload[skip..]).and_then(|()| sink.write());
                self.tell(result);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(proc = proc.0, %error, "output out of order is dropped"),
        }
        let ack = self.stamp.frame(frame.header.host, &OutputAck { bytes: seen.next() });
        Some(ack.with(0, frame.header.channel, 0))
    }

    fn input_ack(&self, frame: &Frame) {
        if let (Ok(ack), Ok((proc, _))) = (InputAck::read(frame), frame.header.stream()) {
            self.input.borrow_mut().acked(proc, frame.header.host, ack.bytes);
            self.input_changed.notify_one();
        }
    }
}

async fn read_child(edge: EdgeId, sender: Sender, mut receiver: Receiver, shared: Rc<Shared>) {
    while let Ok(Some(frame)) = receiver.recv().await {
        if frame.header.epoch != shared.stamp.epoch || frame.header.generation != shared.stamp.generation {
            continue;
        }
        shared.routes.borrow_mut().insert(frame.header.host, edge);
        match frame.header.kind {
            Kind::Output => {
                if let Some(ack) = shared.output(&frame) {
                    let _ = sender.send(ack).await;
                }
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
