//! The output thread's loop: bulk connections on one side, the writing thread and standard input on the other.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use muster_core::tree::EdgeId;
use muster_protocol::frame::{FLAG_ANNOUNCE, Kind, stream_channel};
use muster_protocol::message::{InputAck, Message, OutputAck, Stamp, StdinTo, StreamEnd};
use muster_protocol::{Frame, HostIndex, ProcId, Stream};
use muster_transport::connection::{Receiver, Sender, TrySendError};
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
    /// Children with one frame of input more than their queue takes; they get the next one when it has gone.
    stuffed: RefCell<HashSet<EdgeId>>,
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
        stuffed: RefCell::default(),
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
                self.add_child(edge, sender);
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

    /// A connection to a child, the first one or one instead of an earlier one.
    fn add_child(&self, edge: EdgeId, sender: Sender) {
        if let Some(old) = self.children.borrow_mut().insert(edge, sender) {
            old.abort();
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
        let incomplete = missing.peek().copied().copied();
        if missing.all(|proc| lost.contains(proc)) {
            self.finishing.set(false);
            if let Some(proc) = incomplete {
                let _ = self.reports.send(OutputReport::Incomplete(proc));
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
        if let Some((_, sender)) = self.towards(frame.header.host) {
            // The queue is seldom full, so the task seldom lives longer than this call.
            if let Err(TrySendError::Full(frame)) = sender.try_send(frame) {
                tokio::task::spawn_local(async move { sender.send(frame).await });
            }
        }
    }

    fn towards(&self, host: HostIndex) -> Option<(EdgeId, Sender)> {
        let edge = *self.routes.borrow().get(&host)?;
        Some((edge, self.children.borrow().get(&edge)?.clone()))
    }

    /// Puts a frame of input on its way; says whether it was taken. A child with a full queue takes one more, which waits on a
    /// task of its own, so that neither the others nor the reading wait for it.
    fn give_input(self: &Rc<Self>, frame: Frame) -> bool {
        // Nobody there: the rank asks again over its next way.
        let Some((edge, sender)) = self.towards(frame.header.host) else { return true };
        if self.stuffed.borrow().contains(&edge) {
            return false;
        }
        if let Err(TrySendError::Full(frame)) = sender.try_send(frame) {
            self.stuffed.borrow_mut().insert(edge);
            let shared = self.clone();
            tokio::task::spawn_local(async move {
                // If the connection ends first, the rank asks again as well.
                let _ = sender.send(frame).await;
                shared.stuffed.borrow_mut().remove(&edge);
                shared.input_changed.notify_one();
            });
        }
        true
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
        shared.input.borrow_mut().offer(|frame| shared.give_input(frame));
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::{Epoch, Generation};
    use muster_transport::connection::FrameReader;
    use muster_transport::stream;

    use super::*;

    const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };

    fn shared() -> Rc<Shared> {
        let (done, _) = mpsc::unbounded_channel();
        let (reports, _) = mpsc::unbounded_channel();
        Rc::new(Shared {
            stamp: STAMP,
            writers: Writers::start(false, None, &done, &reports).unwrap(),
            streams: RefCell::default(),
            input: RefCell::new(Input::new(STAMP, StdinTo::All, 2)),
            input_changed: Notify::new(),
            children: RefCell::default(),
            stuffed: RefCell::default(),
            routes: RefCell::default(),
            ends: RefCell::default(),
            lost: RefCell::default(),
            finishing: Cell::new(false),
            reports,
        })
    }

    /// A child behind a queue of one frame, and its end of the connection.
    fn child(shared: &Shared, edge: EdgeId, host: HostIndex, tasks: &TaskTracker) -> (Sender, Receiver) {
        let (ours, theirs) = stream::memory(1);
        let (sender, _receiver) = FrameReader::new(ours).spawn(1, tasks);
        shared.add_child(edge, sender.clone());
        shared.routes.borrow_mut().insert(host, edge);
        (sender, FrameReader::new(theirs).spawn(1, tasks).1)
    }

    fn in_one_thread(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn frame(host: HostIndex, seq: u64) -> Frame {
        STAMP.raw(Kind::Input, host, Bytes::from_static(b"x")).with(0, stream_channel(ProcId(0), Stream::Stdin), seq)
    }

    #[test]
    fn a_new_connection_of_a_child_ends_the_old_one() {
        in_one_thread(async {
            let (shared, tasks) = (shared(), TaskTracker::new());
            let (old, _peer) = child(&shared, EdgeId(3), HostIndex(0), &tasks);
            let (new, _peer) = child(&shared, EdgeId(3), HostIndex(0), &tasks);
            old.closed().await;
            assert!(new.try_send(frame(HostIndex(0), 0)).is_ok());
        });
    }

    #[test]
    fn a_child_that_takes_nothing_holds_up_neither_the_others_nor_the_reading() {
        in_one_thread(async {
            let (shared, tasks) = (shared(), TaskTracker::new());
            let (stuck, other) = (HostIndex(0), HostIndex(1));
            let (_sender, mut stuck_peer) = child(&shared, EdgeId(0), stuck, &tasks);
            let (_sender, mut other_peer) = child(&shared, EdgeId(1), other, &tasks);
            // Nobody has polled the writers yet: one frame fills the queue, one more waits, and then none is taken.
            let taken: Vec<bool> = (0..4).map(|seq| shared.give_input(frame(stuck, seq))).collect();
            assert_eq!(taken, [true, true, false, false]);
            assert!(shared.give_input(frame(other, 0)));
            assert_eq!(other_peer.recv().await.unwrap().unwrap().header.host, other);
            // When room is there, feeding is woken, and nothing was lost or turned round.
            for seq in 0..2 {
                assert_eq!(stuck_peer.recv().await.unwrap().unwrap().header.seq, seq);
            }
            shared.input_changed.notified().await;
            assert!(shared.give_input(frame(stuck, 2)));
            assert_eq!(stuck_peer.recv().await.unwrap().unwrap().header.seq, 2);
        });
    }
}
