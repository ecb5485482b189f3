//! The bulk plane over connections in memory: this test is the parent, a child and the ranks at once.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use muster_core::tree::EdgeId;
use muster_protocol::frame::{FLAG_ANNOUNCE, FLAG_END, Kind, stream_channel};
use muster_protocol::hello::{Hello, HostFacts, Lane, Role, Welcome};
use muster_protocol::limits::STDIN_WINDOW_BYTES;
use muster_protocol::message::{InputAck, Message, OutputAck, Stamp};
use muster_protocol::{Epoch, Frame, Generation, HostIndex, ProcId, Stream};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::dial::introduce;
use muster_transport::gate::{Source, greet};
use muster_transport::stream;
use muster_worker_agent::session::bulk::{Bulk, BulkOrder, BulkReport};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

const SAFETY_NET: Duration = Duration::from_secs(30);
const STAMP: Stamp = Stamp { epoch: Epoch(7), generation: Generation(3) };
const ME: HostIndex = HostIndex(4);
const BELOW: HostIndex = HostIndex(5);
const PROC: ProcId = ProcId(9);

struct Rig {
    bulk: Bulk,
    reports: mpsc::UnboundedReceiver<BulkReport>,
    tasks: TaskTracker,
}

/// One connection, seen from the plane's parent or child.
struct Peer {
    sender: Sender,
    receiver: Receiver,
}

impl Rig {
    fn new() -> Self {
        let (reports_in, reports) = mpsc::unbounded_channel();
        let bulk = Bulk::start(reports_in).unwrap();
        bulk.order(BulkOrder::Begin(STAMP, ME));
        Self { bulk, reports, tasks: TaskTracker::new() }
    }

    async fn report(&mut self) -> BulkReport {
        timeout(SAFETY_NET, self.reports.recv()).await.unwrap().unwrap()
    }

    async fn wanted(&mut self) {
        let report = self.report().await;
        assert!(matches!(report, BulkReport::WantUplink), "{report:?}");
    }

    /// What the streams' lengths are in the end; requests for an uplink may come before.
    async fn finished(&mut self) -> Vec<u64> {
        loop {
            if let BulkReport::Finished(ends) = self.report().await {
                return ends.iter().map(|end| end.bytes).collect();
            }
        }
    }

    async fn uplink(&self) -> Peer {
        let (ours, theirs) = stream::memory(64 << 10);
        let greeted = async {
            let guest = greet(theirs, Source::Local).await.unwrap();
            self.bulk.order(BulkOrder::Uplink(Box::new(guest), welcome()));
        };
        let hello = hello();
        let (dialed, ()) = tokio::join!(introduce(ours, &hello), greeted);
        let (sender, receiver) = dialed.unwrap().spawn(16, &self.tasks);
        Peer { sender, receiver }
    }

    async fn child(&self) -> Peer {
        let (ours, theirs) = stream::memory(64 << 10);
        let greeted = async {
            let guest = greet(ours, Source::Local).await.unwrap();
            guest.welcome(welcome(), 16, &self.tasks)
        };
        let hello = hello();
        let (dialed, (sender, receiver)) = tokio::join!(introduce(theirs, &hello), greeted);
        self.bulk.order(BulkOrder::Child(EdgeId(1), Box::new(dialed.unwrap())));
        Peer { sender, receiver }
    }

    fn output(&self, window_bytes: u32) -> File {
        let (pipe, rank) = std::io::pipe().unwrap();
        let stream = Stream::Stdout;
        self.bulk.order(BulkOrder::Output { proc: PROC, stream, pipe: pipe.into(), window_bytes });
        File::from(OwnedFd::from(rank))
    }

    fn input(&self) -> File {
        let (rank, pipe) = std::io::pipe().unwrap();
        self.bulk.order(BulkOrder::Input { proc: PROC, pipe: pipe.into() });
        File::from(OwnedFd::from(rank))
    }
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        release: "test".into(),
        role: Role::Parent,
        lane: Lane::Bulk,
        job: "j".into(),
        epoch: STAMP.epoch,
        from: "h4".into(),
        incarnation: 1,
        you: BELOW,
        your_name: "h5".into(),
        generation: STAMP.generation,
    }
}

fn welcome() -> Welcome {
    Welcome { version: 1, release: "test".into(), incarnation: 1, facts: HostFacts::default() }
}

impl Peer {
    async fn recv(&mut self) -> Frame {
        timeout(SAFETY_NET, self.receiver.recv()).await.unwrap().unwrap().unwrap()
    }

    async fn send(&self, frame: Frame) {
        timeout(SAFETY_NET, self.sender.send(frame)).await.unwrap().unwrap();
    }

    async fn ended(&mut self) {
        while let Ok(Some(_)) = timeout(SAFETY_NET, self.receiver.recv()).await.unwrap() {}
    }

    /// Output from this offset on, of this length, in however many frames.
    async fn output(&mut self, from: u64, len: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while got.len() < len {
            let frame = self.recv().await;
            assert_eq!((frame.header.kind, frame.header.seq), (Kind::Output, from + got.len() as u64));
            got.extend_from_slice(&frame.payload);
        }
        assert_eq!(got.len(), len);
        got
    }

    async fn ack(&self, bytes: u64) {
        let frame = STAMP.frame(ME, &OutputAck { bytes });
        self.send(frame.with(0, stream_channel(PROC, Stream::Stdout), 0)).await;
    }

    async fn give(&self, offset: u64, bytes: impl Into<Bytes>, flags: u16) {
        let frame = STAMP.raw(Kind::Input, ME, bytes.into());
        self.send(frame.with(flags, stream_channel(PROC, Stream::Stdin), offset)).await;
    }

    async fn input_ack(&mut self) -> (u16, u64) {
        let frame = self.recv().await;
        (frame.header.flags, InputAck::read(&frame).unwrap().bytes)
    }

    async fn input_acked(&mut self, bytes: u64) {
        while self.input_ack().await.1 < bytes {}
    }
}

fn in_one_thread(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_lost_uplink_is_asked_for_until_it_comes_and_what_was_under_way_comes_again() {
    in_one_thread(async {
        let mut rig = Rig::new();
        let mut rank = rig.output(1_000);
        rank.write_all(b"hello ").unwrap();
        rig.wanted().await;
        rig.wanted().await;
        let mut first = rig.uplink().await;
        assert_eq!(first.output(0, 6).await, b"hello ");
        first.sender.abort();
        drop(first);
        // Nothing new is written, and it is asked for all the same.
        rig.wanted().await;
        let mut second = rig.uplink().await;
        assert_eq!(second.output(0, 6).await, b"hello ");
        second.ack(4).await;
        let mut third = rig.uplink().await;
        second.ended().await;
        third.ack(6).await;
        rank.write_all(b"world").unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"world") {
            got.extend_from_slice(&third.recv().await.payload);
        }
        third.ack(11).await;
        drop(rank);
        rig.bulk.order(BulkOrder::Finish);
        assert_eq!(rig.finished().await, [11]);
    });
}

#[test]
fn children_start_anew_when_the_uplink_changes() {
    in_one_thread(async {
        let mut rig = Rig::new();
        let frame = |byte: u8| STAMP.raw(Kind::Output, BELOW, vec![byte].into());
        let mut child = rig.child().await;
        child.send(frame(1)).await;
        rig.wanted().await;
        let mut first = rig.uplink().await;
        assert_eq!(first.recv().await, frame(1));
        first.send(STAMP.frame(BELOW, &OutputAck { bytes: 1 })).await;
        assert_eq!(child.recv().await.header.kind, Kind::OutputAck);
        first.sender.abort();
        drop(first);
        child.ended().await;
        // While there is no uplink its frame waits, and another uplink in its place ends it again.
        let mut child = rig.child().await;
        child.send(frame(2)).await;
        rig.wanted().await;
        let mut second = rig.uplink().await;
        assert_eq!(second.recv().await, frame(2));
        let mut third = rig.uplink().await;
        second.ended().await;
        child.ended().await;
        let child = rig.child().await;
        child.send(frame(3)).await;
        assert_eq!(third.recv().await, frame(3));
    });
}

#[test]
fn a_new_parent_is_asked_for_an_uplink_although_the_old_one_has_not_ended() {
    in_one_thread(async {
        let mut rig = Rig::new();
        let mut rank = rig.output(1 << 16);
        let mut old = rig.uplink().await;
        rank.write_all(b"one").unwrap();
        assert_eq!(old.output(0, 3).await, b"one");
        let mut child = rig.child().await;
        // Its host is gone; nothing on the connection says so.
        rig.bulk.order(BulkOrder::DropUplink);
        rig.wanted().await;
        child.ended().await;
        let mut new = rig.uplink().await;
        assert_eq!(new.output(0, 3).await, b"one");
        // Once there is nobody above, the end of the streams is told all the same.
        rig.bulk.order(BulkOrder::DropUplink);
        drop(rank);
        rig.bulk.order(BulkOrder::Finish);
        assert_eq!(rig.finished().await, [3]);
    });
}

#[test]
fn input_is_bound_by_bytes_and_what_comes_too_early_comes_again() {
    in_one_thread(async {
        let rig = Rig::new();
        let mut rank = rig.input();
        let mut first = rig.uplink().await;
        assert_eq!(first.input_ack().await, (FLAG_ANNOUNCE, 0));
        // Many more small pieces than a queue of pieces would hold, and nobody reads.
        let all: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
        for (n, piece) in all.chunks(5).enumerate() {
            first.give(5 * n as u64, piece.to_vec(), 0).await;
        }
        first.input_acked(1).await;
        let mut second = rig.uplink().await;
        let told = loop {
            if let (FLAG_ANNOUNCE, told) = second.input_ack().await {
                break told;
            }
        };
        assert!(told < all.len() as u64);
        // This was under way when what is before it was lost.
        second.give(200_000, b"early".to_vec(), FLAG_END).await;
        second.give(told, all[told as usize..].to_vec(), 0).await;
        second.give(all.len() as u64, b"last".to_vec(), FLAG_END).await;
        let reader = tokio::task::spawn_blocking(move || {
            let mut got = Vec::new();
            rank.read_to_end(&mut got).unwrap();
            got
        });
        second.input_acked(all.len() as u64 + 4).await;
        let got = timeout(SAFETY_NET, reader).await.unwrap().unwrap();
        assert!(got == [&all[..], b"last"].concat());
    });
}

#[test]
fn input_beyond_the_window_is_refused_and_asked_for_again() {
    in_one_thread(async {
        let rig = Rig::new();
        let mut rank = rig.input();
        let mut parent = rig.uplink().await;
        assert_eq!(parent.input_ack().await, (FLAG_ANNOUNCE, 0));
        let mut child = rig.child().await;
        child.send(STAMP.raw(Kind::Output, BELOW, Bytes::new())).await;
        assert_eq!(parent.recv().await.header.host, BELOW);
        let piece = 128usize << 10;
        let pieces = STDIN_WINDOW_BYTES as usize / piece + 4;
        for n in 0..pieces {
            parent.give((n * piece) as u64, vec![n as u8; piece], 0).await;
        }
        // What is for the child comes after all of it.
        parent.send(STAMP.frame(BELOW, &OutputAck { bytes: 0 })).await;
        assert_eq!(child.recv().await.header.kind, Kind::OutputAck);
        let reader = tokio::task::spawn_blocking(move || {
            let mut got = Vec::new();
            rank.read_to_end(&mut got).unwrap();
            got
        });
        let again = loop {
            if let (FLAG_ANNOUNCE, again) = parent.input_ack().await {
                break again as usize / piece;
            }
        };
        assert!(again >= 8 && again < pieces);
        for n in again..pieces {
            let flags = if n + 1 == pieces { FLAG_END } else { 0 };
            parent.give((n * piece) as u64, vec![n as u8; piece], flags).await;
            parent.input_acked(((n + 1) * piece) as u64).await;
        }
        let got = timeout(SAFETY_NET, reader).await.unwrap().unwrap();
        assert_eq!(got.len(), pieces * piece);
        assert!(got.chunks(piece).enumerate().all(|(n, bytes)| bytes.iter().all(|byte| *byte == n as u8)));
    });
}

#[test]
fn streams_are_finished_at_once_on_demand_although_nobody_takes_them() {
    in_one_thread(async {
        let mut rig = Rig::new();
        let mut rank = rig.output(1_000);
        rank.write_all(&[7; 5_000]).unwrap();
        let mut parent = rig.uplink().await;
        parent.output(0, 1_000).await;
        rig.bulk.order(BulkOrder::Finish);
        rig.bulk.order(BulkOrder::FinishNow);
        rig.bulk.order(BulkOrder::FinishNow);
        assert_eq!(rig.finished().await, [1_000]);
        rig.bulk.order(BulkOrder::Reset);
        parent.ended().await;
        assert!(rig.reports.try_recv().is_err(), "lengths are reported once");
    });
}

#[test]
fn what_is_in_a_pipe_is_not_lost_when_the_reader_is_slow_and_a_stranger_holds_the_pipe() {
    in_one_thread(async {
        let mut rig = Rig::new();
        let mut rank = rig.output(1_000);
        let all: Vec<u8> = (0..30_000u32).map(|n| (n / 3) as u8).collect();
        rank.write_all(&all).unwrap();
        let mut parent = rig.uplink().await;
        let mut got = parent.output(0, 1_000).await;
        rig.bulk.order(BulkOrder::Finish);
        // Longer than streams have to end by themselves; the pipe stays open all the time.
        tokio::time::sleep(Duration::from_secs(3)).await;
        while got.len() < all.len() {
            parent.ack(got.len() as u64).await;
            let more = parent.recv().await;
            assert_eq!(more.header.seq, got.len() as u64);
            got.extend_from_slice(&more.payload);
        }
        assert!(got == all);
        parent.ack(got.len() as u64).await;
        assert_eq!(rig.finished().await, [30_000]);
        drop(rank);
    });
}
