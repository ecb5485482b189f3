//! The agent's session half in this process: a made-up launcher on one side, a recording executor on the other.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::hello::{Hello, HostFacts, Lane, Refusal, Role, Welcome};
use muster_protocol::message::{
    Adopt, Answer, App, Bootstrap, Call, CallAnswer, End, Heartbeat, HostEntry, Message, Obstacle, ProcShare, Release,
    Share, Spec, Stamp, StdinTo, Wanted,
};
use muster_protocol::{Epoch, Frame, Generation, Group, HostIndex, HostSet, Kind, ProcId, Rank};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::dial::{Dialed, Dialer, IntroduceError, introduce};
use muster_transport::gate::{Source, greet};
use muster_transport::resolve::Resolver;
use muster_transport::stream;
use muster_worker_agent::agent::{Agent, Settings};
use muster_worker_agent::door::Door;
use muster_worker_agent::executor::border::Survivor;
use muster_worker_agent::executor::{Executor, Order, OrderError, Report};
use muster_worker_agent::hold::Hold;
use muster_worker_agent::session::tree::{DialFailure, connect, unix_address};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
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
    reports: mpsc::UnboundedSender<Report>,
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
    let (report, reports) = mpsc::unbounded_channel();
    let dialer = Dialer::new(Arc::new(Resolver::default()), None);
    let agent = Agent::new(settings, door, Hold::none(), dialer, Arc::new(Recorder(orders_in)), reports).unwrap();
    tokio::task::spawn_local(async move { agent.run().await.unwrap() });
    Rig { socket, orders, reports: report, tasks: TaskTracker::new(), _dir: dir }
}

impl Rig {
    /// The next sweep that is ordered; other orders are passed over.
    async fn sweep_ordered(&mut self) {
        let ordered = async { while !matches!(self.orders.recv().await.unwrap(), Order::Sweep) {} };
        timeout(SAFETY_NET, ordered).await.unwrap();
    }

    /// Dials until it is served.
    async fn dial_until_served(&self, hello: &Hello) -> Dialed {
        let served = async {
            loop {
                if let Ok(dialed) = dial(&self.socket, hello).await {
                    return dialed;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SAFETY_NET, served).await.unwrap()
    }

    /// A whole job, of which the sweep at its end leaves these.
    async fn run_job(&mut self, epoch: u64, survivors: Vec<Survivor>) {
        let stamp = Stamp { epoch: Epoch(epoch), ..STAMP };
        let (sender, mut receiver) = self.dial_until_served(&hello("j", epoch)).await.spawn(64, &self.tasks);
        for frame in job_frames(stamp) {
            sender.send(frame).await.unwrap();
        }
        sender.send(stamp.to_all(&End { status: 0 })).await.unwrap();
        self.sweep_ordered().await;
        self.reports.send(Report::Swept { survivors }).unwrap();
        let ended = async { while receiver.recv().await.unwrap().unwrap().header.kind != Kind::Ended {} };
        timeout(SAFETY_NET, ended).await.unwrap();
        sender.close();
    }
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
        env: Vec::new(),
        pmix: None,
        spawned_by: None,
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
        let (sender, mut receiver) = first.spawn(64, &rig.tasks);
        for frame in job_frames(STAMP) {
            sender.send(frame).await.unwrap();
        }
        round_trip(&sender, &mut receiver).await;
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
        let host = HostEntry { index: ME, name: "h0".into(), port: 0, address: Some(unix_address(&rig.socket)) };
        let dialer = Dialer::new(Arc::new(Resolver::default()), None);
        let refused = connect(&dialer, &host, &hello("k", 7), SAFETY_NET).await.unwrap_err();
        assert_eq!(DialFailure::from(refused).obstacle, Obstacle::WrongJob, "as over the network");
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

#[test]
fn an_agent_of_one_launcher_stays_when_a_dial_was_merely_dropped_and_ends_with_its_job() {
    in_one_thread(async {
        let mut rig = start(Settings { one_launcher: true, ..Settings::default() });
        let first = dial(&rig.socket, &hello("j", 7)).await.unwrap();
        drop(first);
        rig.run_job(7, Vec::new()).await;
        let gone = async {
            while rig.socket.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SAFETY_NET, gone).await.unwrap();
    });
}

#[test]
fn an_old_launcher_that_says_its_hello_again_after_a_newer_ones_job_is_refused() {
    in_one_thread(async {
        let mut rig = start(Settings::default());
        rig.run_job(7, Vec::new()).await;
        rig.run_job(9, Vec::new()).await;
        // Another job is another matter; once it is served here, the newer launcher's is gone.
        drop(rig.dial_until_served(&hello("k", 1)).await);
        let stale = async {
            let mut told = refusal(&rig.socket, &hello("j", 7)).await;
            // Until the agent has heard that the connection of the other job is closed.
            while matches!(told, Refusal::Busy { .. }) {
                told = refusal(&rig.socket, &hello("j", 7)).await;
            }
            told
        };
        assert_eq!(timeout(SAFETY_NET, stale).await.unwrap(), Refusal::StaleEpoch { promised: Epoch(9) });
        // Who has never been served has only waited.
        drop(rig.dial_until_served(&hello("j", 8)).await);
    });
}

#[test]
fn a_host_takes_no_job_while_processes_of_the_last_one_live_and_says_which() {
    in_one_thread(async {
        let mut rig = start(Settings::default());
        let stuck = || vec![Survivor { pid: 41, name: "python3".into(), state: 'D' }];
        rig.run_job(7, stuck()).await;
        let quarantined = Refusal::Quarantined { job: "j".into(), survivors: "41 (python3, state D)".into() };
        let refused = async {
            // Until it has heard the launcher leave it is busy.
            while refusal(&rig.socket, &hello("k", 8)).await != quarantined {}
        };
        timeout(SAFETY_NET, refused).await.unwrap();
        assert_eq!(refusal(&rig.socket, &Hello { role: Role::Probe, ..hello("k", 0) }).await, quarantined);
        // Whoever asks has it looked for them again.
        rig.sweep_ordered().await;
        rig.reports.send(Report::Swept { survivors: stuck() }).unwrap();
        assert_eq!(refusal(&rig.socket, &hello("k", 8)).await, quarantined);
        rig.sweep_ordered().await;
        rig.reports.send(Report::Swept { survivors: Vec::new() }).unwrap();
        drop(rig.dial_until_served(&hello("k", 8)).await);
    });
}

/// The lease in the next heartbeat that a host below hears.
async fn next_lease_ms(child: &mut Receiver) -> u64 {
    let told = async {
        loop {
            let frame = child.recv().await.unwrap().unwrap();
            if frame.header.kind == Kind::Heartbeat {
                return Heartbeat::read(&frame).unwrap().lease_ms;
            }
        }
    };
    timeout(SAFETY_NET, told).await.unwrap()
}

#[test]
fn a_suspended_launcher_that_dies_leaves_an_ordinary_lease_to_the_ranks_here_and_below() {
    in_one_thread(async {
        let rig = start(Settings::default());
        let (sender, receiver) = dial(&rig.socket, &hello("j", STAMP.epoch.0)).await.unwrap().spawn(64, &rig.tasks);
        // A host below, played by this test.
        let below = tempfile::tempdir().unwrap();
        let path = below.path().join("h1");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let entry = HostEntry {
            index: HostIndex(1),
            name: "h1".into(),
            port: 0,
            address: Some(format!("unix:{}", path.display())),
        };
        sender.send(STAMP.frame(ME, &Adopt { hosts: vec![entry], radix: 2 })).await.unwrap();
        let (socket, _) = timeout(SAFETY_NET, listener.accept()).await.unwrap().unwrap();
        let guest = timeout(SAFETY_NET, greet(stream::unix(socket), Source::Local)).await.unwrap().unwrap();
        let welcome = Welcome { version: 1, release: "test".into(), incarnation: 2, facts: HostFacts::default() };
        let (_child, mut child) = guest.welcome(welcome, 64, &rig.tasks);
        for frame in job_frames(STAMP) {
            sender.send(frame).await.unwrap();
        }
        let now_ms = muster_sys::clock::boottime_ms();
        for (sent_ms, lease_ms) in [(now_ms, 15_000), (now_ms + 1, 86_400_000)] {
            sender.send(STAMP.to_all(&Heartbeat { sent_ms, lease_ms })).await.unwrap();
            assert_eq!(next_lease_ms(&mut child).await, lease_ms);
        }
        sender.close();
        drop(receiver);
        assert_eq!(next_lease_ms(&mut child).await, 15_000);
    });
}

/// The next call that a parent hears.
async fn next_call(receiver: &mut Receiver) -> Call {
    let heard = async {
        loop {
            let frame = receiver.recv().await.unwrap().unwrap();
            if frame.header.kind == Kind::Call {
                return Call::read(&frame).unwrap();
            }
        }
    };
    timeout(SAFETY_NET, heard).await.unwrap()
}

#[test]
fn a_call_without_an_answer_is_told_to_the_next_parent() {
    in_one_thread(async {
        let mut rig = start(Settings::default());
        let first = dial(&rig.socket, &hello("j", STAMP.epoch.0)).await.unwrap();
        let (sender, mut receiver) = first.spawn(64, &rig.tasks);
        for frame in job_frames(STAMP) {
            sender.send(frame).await.unwrap();
        }
        assert!(matches!(timeout(SAFETY_NET, rig.orders.recv()).await.unwrap(), Some(Order::Spawn(_))));
        let (rank, pmi) = std::os::unix::net::UnixStream::pair().unwrap();
        let [stdout, stderr] = [(); 2].map(|()| OwnedFd::from(std::io::pipe().unwrap().0));
        let spawned = Report::Spawned { proc: ProcId(0), pid: 42, stdin: None, stdout, stderr, pmi: Some(pmi.into()) };
        rig.reports.send(spawned).unwrap();
        rank.set_nonblocking(true).unwrap();
        let mut rank = tokio::net::UnixStream::from_std(rank).unwrap();
        rank.write_all(b"cmd=init pmi_version=1 pmi_subversion=1\ncmd=lookup_name service=svc\n").await.unwrap();
        let call = next_call(&mut receiver).await;
        sender.close();
        drop(receiver);
        let second = rig.dial_until_served(&hello("j", STAMP.epoch.0)).await;
        let (sender, mut receiver) = second.spawn(64, &rig.tasks);
        assert_eq!(next_call(&mut receiver).await, call);
        let answer = Answer::Found { port: "port".into() };
        let answer = CallAnswer { group: Group(0), token: call.token, answer };
        sender.send(STAMP.frame(ME, &answer)).await.unwrap();
        let mut lines = BufReader::new(rank).lines();
        assert!(timeout(SAFETY_NET, lines.next_line()).await.unwrap().unwrap().unwrap().contains("response_to_init"));
        let found = timeout(SAFETY_NET, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(found, "cmd=lookup_result rc=0 port=port");
    });
}

/// The next frame of this kind.
async fn next_of<M: Message>(receiver: &mut Receiver) -> M {
    let came = async {
        loop {
            let frame = receiver.recv().await.unwrap().unwrap();
            if frame.header.kind == M::KIND {
                return M::read(&frame).unwrap();
            }
        }
    };
    timeout(SAFETY_NET, came).await.unwrap()
}

#[test]
fn of_two_launchers_at_the_same_moment_the_one_started_first_gets_the_host_if_the_other_lets_go() {
    in_one_thread(async {
        let rig = start(Settings::default());
        let (sender, mut receiver) = dial(&rig.socket, &hello("j", 7)).await.unwrap().spawn(64, &rig.tasks);
        let busy = |job: &str, from: &str| Refusal::Busy { job: job.into(), launcher: from.into() };
        let rival = Hello { from: "other".into(), ..hello("k", 6) };
        assert_eq!(refusal(&rig.socket, &hello("l", 8)).await, busy("j", "launcher"));
        assert_eq!(refusal(&rig.socket, &rival).await, busy("j", "launcher"));
        let wanted: Wanted = next_of(&mut receiver).await;
        assert_eq!(wanted, Wanted { job: "k".into(), launcher: "other".into() });
        sender.send(STAMP.frame(ME, &Release {})).await.unwrap();
        let closed = async { while let Ok(Some(_)) = receiver.recv().await {} };
        timeout(SAFETY_NET, closed).await.unwrap();
        assert_eq!(refusal(&rig.socket, &hello("j", 7)).await, busy("k", "other"));
        assert!(dial(&rig.socket, &rival).await.is_ok());
    });
}

#[test]
fn a_host_on_which_ranks_have_been_started_is_not_let_go() {
    in_one_thread(async {
        let rig = start(Settings::default());
        let (sender, mut receiver) = dial(&rig.socket, &hello("j", 7)).await.unwrap().spawn(64, &rig.tasks);
        for frame in job_frames(STAMP) {
            sender.send(frame).await.unwrap();
        }
        sender.send(STAMP.frame(ME, &Release {})).await.unwrap();
        round_trip(&sender, &mut receiver).await;
        assert!(matches!(refusal(&rig.socket, &hello("k", 6)).await, Refusal::Busy { .. }));
        let beat = Heartbeat { sent_ms: muster_sys::clock::boottime_ms(), lease_ms: 60_000 };
        sender.send(STAMP.to_all(&beat)).await.unwrap();
        let told = async {
            loop {
                let kind = receiver.recv().await.unwrap().unwrap().header.kind;
                assert_ne!(kind, Kind::Wanted);
                if kind == Kind::Alive {
                    return;
                }
            }
        };
        timeout(SAFETY_NET, told).await.unwrap();
    });
}
