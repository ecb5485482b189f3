//! The agent's session half in this process: a made-up launcher on one side, a recording executor on the other.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::hello::{Hello, Lane, Refusal, Role};
use muster_protocol::message::{App, Bootstrap, Heartbeat, ProcShare, Share, Spec, Stamp, StdinTo};
use muster_protocol::{Epoch, Frame, Generation, Group, HostIndex, HostSet, Kind, ProcId, Rank};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::dial::{Dialed, Dialer, IntroduceError, introduce};
use muster_transport::resolve::Resolver;
use muster_transport::stream;
use muster_worker_agent::agent::{Agent, Settings};
use muster_worker_agent::door::Door;
use muster_worker_agent::executor::{Executor, Order, OrderError};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

const SAFETY_NET: Duration = Duration::from_secs(20);
const STAMP: Stamp = Stamp { epoch: Epoch(7), generation: Generation(3) };
const ME: HostIndex = HostIndex(0);

struct Recorder(mpsc::UnboundedSender<Order>);

impl Executor for Recorder {
    fn order(&self, order: Order) -> Result<(), OrderError> {
        self.0.send(order).map_err(|_| OrderError::Gone)
    }
}

struct Rig {
    socket: PathBuf,
    orders: mpsc::UnboundedReceiver<Order>,
    tasks: TaskTracker,
    _dir: tempfile::TempDir,
}

fn start(settings: Settings) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a");
    std::fs::create_dir(&inner).unwrap();
    let socket = inner.join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let door = Door::local(OwnedFd::from(listener), &socket).unwrap();
    let (orders_in, orders) = mpsc::unbounded_channel();
    let (reports_in, reports) = mpsc::unbounded_channel();
    let dialer = Dialer::new(Arc::new(Resolver::default()), None);
    let agent = Agent::new(settings, door, dialer, Arc::new(Recorder(orders_in)), reports).unwrap();
    tokio::task::spawn_local(async move {
        let _kept = reports_in;
        agent.run().await.unwrap();
    });
    Rig { socket, orders, tasks: TaskTracker::new(), _dir: dir }
}

fn hello(job: &str, epoch: u64) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        release: "test".into(),
        role: Role::Launcher,
        lane: Lane::Control,
        job: job.into(),
        epoch: Epoch(epoch),
        from: "launcher".into(),
        incarnation: 1,
        you: ME,
        your_name: "h0".into(),
        generation: STAMP.generation,
    }
}

async fn dial(socket: &Path, hello: &Hello) -> Result<Dialed, IntroduceError> {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    timeout(SAFETY_NET, introduce(stream::unix(stream), hello)).await.unwrap()
}

async fn refusal(socket: &Path, hello: &Hello) -> Refusal {
    match dial(socket, hello).await {
        Err(IntroduceError::Refused(refusal)) => refusal,
        other => panic!("a refusal, not {other:?}"),
    }
}

fn job_frames(stamp: Stamp) -> [Frame; 2] {
    let spec = Spec {
        group: Group(0),
        size: 1,
        first_proc: ProcId(0),
        members: HostSet::first(1),
        apps: vec![App { argv: vec!["program".into()], wdir: None, env: Vec::new() }],
        bootstrap: Bootstrap::Pmi,
        kvsname: "kvs".into(),
        mapping: None,
        universe_size: -1,
        preput: Vec::new(),
        stdin: StdinTo::Nobody,
        umask: None,
        rlimits: Vec::new(),
        window_bytes: 1 << 16,
        job: "j".into(),
    };
    let share = Share {
        group: Group(0),
        procs: vec![ProcShare { rank: Rank(0), app: 0, cpus: Vec::new() }],
        node_rank: 0,
        nodes: 1,
        host_name: "h0".into(),
        reachable_as: "h0".into(),
    };
    [stamp.to_all(&spec), stamp.frame(ME, &share)]
}

/// Sends a heartbeat and waits for its answer: everything sent before has been acted on then.
async fn round_trip(sender: &Sender, receiver: &mut Receiver) {
    let beat = Heartbeat { sent_ms: muster_sys::clock::boottime_ms(), lease_ms: 60_000 };
    sender.send(STAMP.to_all(&beat)).await.unwrap();
    let answered = async {
        while let Some(frame) = receiver.recv().await.unwrap() {
            if frame.header.kind == Kind::Alive {
                return;
            }
        }
        panic!("the agent has closed the connection");
    };
    timeout(SAFETY_NET, answered).await.unwrap();
}

fn in_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_frame_of_another_epoch_or_generation_changes_nothing() {
    in_one_thread(async {
        let mut rig = start(Settings::default());
        let dialed = dial(&rig.socket, &hello("j", STAMP.epoch.0)).await.unwrap();
        let (sender, mut receiver) = dialed.spawn(64, &rig.tasks);
        let others = [
            Stamp { epoch: Epoch(6), ..STAMP },
            Stamp { epoch: Epoch(8), ..STAMP },
            Stamp { generation: Generation(2), ..STAMP },
            Stamp { generation: Generation(4), ..STAMP },
        ];
        for frame in others.into_iter().flat_map(job_frames) {
            sender.send(frame).await.unwrap();
        }
        round_trip(&sender, &mut receiver).await;
        assert!(rig.orders.try_recv().is_err(), "a foreign frame had an effect");
        for frame in job_frames(STAMP) {
            sender.send(frame).await.unwrap();
        }
        round_trip(&sender, &mut receiver).await;
        assert!(matches!(rig.orders.try_recv(), Ok(Order::Spawn(order)) if *order.argv == ["program"] && order.pmi));
    });
}

#[test]
fn whoever_comes_second_is_told_why_it_is_not_served() {
    in_one_thread(async {
        let rig = start(Settings::default());
        let first = dial(&rig.socket, &hello("j", 7)).await.unwrap();
        let (_sender, _receiver) = first.spawn(64, &rig.tasks);
        let busy = Refusal::Busy { job: "j".into(), launcher: "launcher".into() };
        assert_eq!(refusal(&rig.socket, &hello("other", 9)).await, busy);
        assert_eq!(refusal(&rig.socket, &hello("j", 9)).await, busy);
        assert_eq!(refusal(&rig.socket, &hello("j", 6)).await, Refusal::StaleEpoch { promised: Epoch(7) });
        assert_eq!(refusal(&rig.socket, &hello("j", 7)).await, Refusal::HasParent);
        assert_eq!(refusal(&rig.socket, &Hello { lane: Lane::Bulk, ..hello("k", 7) }).await, Refusal::NoEdge);
        let newer = Hello { version_min: 99, version_max: 99, ..hello("j", 7) };
        assert!(matches!(refusal(&rig.socket, &newer).await, Refusal::Version { max: 1, .. }));
        let probe = Hello { role: Role::Probe, ..hello("j", 0) };
        assert!(dial(&rig.socket, &probe).await.is_ok());
    });
}

#[test]
fn an_agent_of_one_job_names_it_to_others_and_is_free_again_when_a_launcher_leaves_before_it_started_anything() {
    in_one_thread(async {
        let rig = start(Settings { job: Some("j".into()), ..Settings::default() });
        assert_eq!(refusal(&rig.socket, &hello("k", 7)).await, Refusal::WrongJob { theirs: "j".into() });
        let first = dial(&rig.socket, &hello("j", 7)).await.unwrap();
        let (sender, receiver) = first.spawn(64, &rig.tasks);
        sender.abort();
        drop(receiver);
        // It hears of the closed connection in its own time.
        let served = async {
            while dial(&rig.socket, &hello("j", 8)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SAFETY_NET, served).await.unwrap();
    });
}
