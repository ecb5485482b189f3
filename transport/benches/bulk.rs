//! Bulk throughput of one connection over loopback, each side on one thread:
//! `cargo bench -p muster-transport --bench bulk`.
#![expect(clippy::print_stdout, reason = "a bench prints its result")]

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_protocol::frame::{EVERY_HOST, Frame, Kind};
use muster_protocol::hello::{Hello, HostFacts, Lane, RELEASE, Role, VERSION_MAX, VERSION_MIN, Welcome};
use muster_protocol::limits::BULK_QUEUE_FRAMES_MAX;
use muster_protocol::{Epoch, Generation, HostIndex};
use muster_transport::dial::Dialer;
use muster_transport::gate::Gate;
use muster_transport::identity::JobKey;
use muster_transport::resolve::Resolver;
use muster_transport::tls::{acceptor, connector};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::TaskTracker;

const LIMIT: Duration = Duration::from_secs(10);
const TOTAL_BYTES: usize = 3 << 30;

fn hello() -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        release: RELEASE.into(),
        role: Role::Launcher,
        lane: Lane::Bulk,
        job: "bench".into(),
        epoch: Epoch(1),
        from: "here".into(),
        incarnation: 1,
        you: HostIndex(0),
        your_name: "there".into(),
        generation: Generation(0),
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn receive(key: Option<JobKey>, listening: &mpsc::Sender<SocketAddr>, frames: usize) {
    runtime().block_on(async {
        let acceptor = key.map(|key| acceptor(&key.identity()));
        let mut gate = Gate::listen(&["127.0.0.1:0".parse().expect("an address")], acceptor).expect("a gate");
        listening.send(gate.addresses()[0]).expect("the other side waits");
        let tasks = TaskTracker::new();
        let welcome =
            Welcome { version: VERSION_MAX, release: RELEASE.into(), incarnation: 1, facts: HostFacts::default() };
        let (sender, mut receiver) = gate.next().await.welcome(welcome, BULK_QUEUE_FRAMES_MAX, &tasks);
        for _ in 0..frames {
            receiver.recv().await.expect("a connection").expect("a frame");
        }
        sender.close();
        tasks.close();
        tasks.wait().await;
    });
}

fn measure(key: Option<JobKey>, frame_bytes: usize) -> f64 {
    let frames = TOTAL_BYTES / frame_bytes;
    let (listening, address) = mpsc::channel();
    let receiver_key = key.clone();
    let receiver = std::thread::spawn(move || receive(receiver_key, &listening, frames));
    let address = address.recv().expect("the receiving side listens");
    let took = runtime().block_on(async {
        let dialer = Dialer::new(Arc::new(Resolver::default()), key.map(|key| connector(&key.identity())));
        let dialed = dialer.dial("127.0.0.1", address.port(), &hello(), LIMIT).await.expect("a welcome");
        let tasks = TaskTracker::new();
        let (sender, mut receiver) = dialed.spawn(BULK_QUEUE_FRAMES_MAX, &tasks);
        let payload = Bytes::from(vec![7; frame_bytes]);
        let start = Instant::now();
        for seq in 0..frames as u64 {
            let frame = Frame::new(Kind::Output, EVERY_HOST, Epoch(1), Generation(0), payload.clone());
            sender.send(frame.with(0, 1, seq)).await.expect("a connection");
        }
        assert!(receiver.recv().await.expect("a goodbye").is_none());
        start.elapsed()
    });
    receiver.join().expect("the receiving side is done");
    TOTAL_BYTES as f64 / took.as_secs_f64() / 1e9
}

fn main() {
    for frame_bytes in [4 << 10, 64 << 10, 128 << 10, 256 << 10] {
        let key = JobKey::from_bytes(b"a key for measurements").expect("a key");
        let (tls, plain) = (measure(Some(key), frame_bytes), measure(None, frame_bytes));
        println!("frames of {:3} KiB: TLS {tls:.2} GB/s, plain TCP {plain:.2} GB/s", frame_bytes >> 10);
    }
}
