//! The shell around a node of the tree: connections to children. Agents use it below themselves, the launcher at the root.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use muster_core::tree::{Act, EdgeId, TreeNode};
use muster_protocol::hello::{Hello, Lane, RELEASE, Refusal, Role, VERSION_MAX, VERSION_MIN};
use muster_protocol::limits::{BULK_ATTEMPTS_MAX, BULK_QUEUE_FRAMES_MAX, CONNECTION_QUEUE_FRAMES_MAX};
use muster_protocol::message::{HostEntry, Obstacle, Stamp};
use muster_protocol::{Frame, HostIndex};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::dial::{DialError, Dialed, Dialer, Failure, introduce};
use muster_transport::stream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Time for one attempt to connect a host.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Time for a probe: together with the silence before it, a dead host is known as one after the promised time.
const PROBE_LIMIT: Duration = Duration::from_millis(1_500);
/// Pause after the first attempt that failed; it grows by itself each time.
const BULK_PAUSE: Duration = Duration::from_millis(500);
/// Prefix of an address that is a Unix socket's path.
const UNIX_PREFIX: &str = "unix:";

/// Something of whoever let a host in, who sees by it whether the host's connection lives.
pub type Seat = Arc<dyn Any + Send + Sync>;

/// What happened below.
#[derive(Debug)]
pub enum TreeInput {
    /// A dial ended.
    Dialled(HostEntry, Box<Result<Dialed, DialFailure>>),
    /// A host has joined by itself. The last is kept as long as its connection.
    CameIn(HostEntry, Box<Dialed>, Seat),
    /// A host that has joined by itself brings its bulk connection.
    BulkCameIn(HostIndex, Box<Dialed>),
    /// A frame came from a child.
    Frame(EdgeId, Frame),
    /// A child's connection ended.
    Closed(EdgeId, String),
    /// A probe ended.
    Probed(EdgeId, bool),
    /// A bulk connection to a child is open.
    Bulk(EdgeId, Box<Dialed>),
    /// A bulk connection to a child could not be opened.
    NoBulk(EdgeId),
}

/// Why a host was not connected, in the protocol's words.
#[derive(Debug)]
pub struct DialFailure {
    /// What stands in the way.
    pub obstacle: Obstacle,
    /// The whole story.
    pub text: String,
}

impl From<DialError> for DialFailure {
    fn from(error: DialError) -> Self {
        let obstacle = match &error.failure {
            Failure::Unresolved(_) => Obstacle::Unresolved,
            Failure::Refused { .. } => Obstacle::Refused,
            Failure::Unreachable { .. } | Failure::TimedOut { .. } => Obstacle::Unreachable,
            Failure::WrongKey => Obstacle::WrongKey,
            Failure::WrongJob { .. } => Obstacle::WrongJob,
            Failure::NotMuster { .. } | Failure::Closed { .. } => Obstacle::NotAnAgent,
            Failure::Declined(Refusal::Version { .. }) => Obstacle::Version,
            Failure::Declined(Refusal::HasParent) => Obstacle::Waiting,
            Failure::Declined(_) => Obstacle::Busy,
        };
        Self { obstacle, text: error.failure.to_string() }
    }
}

/// What a dialling node says of itself.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Launcher or parent.
    pub role: Role,
    /// The job.
    pub job: String,
    /// This host's name.
    pub from: String,
    /// This process.
    pub incarnation: u64,
    /// Epoch and generation.
    pub stamp: Stamp,
}

impl Introduction {
    /// The hello for one host.
    pub fn hello(&self, host: &HostEntry, role: Role, lane: Lane) -> Hello {
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            release: RELEASE.to_owned(),
            role,
            lane,
            job: self.job.clone(),
            epoch: self.stamp.epoch,
            from: self.from.clone(),
            incarnation: self.incarnation,
            you: host.index,
            your_name: host.name.clone(),
            generation: self.stamp.generation,
        }
    }
}

/// Frames that the node has for others than its children.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// For the parent; at the root: for the job.
    pub up: Vec<Frame>,
    /// For this host.
    pub local: Vec<Frame>,
    /// Children whose bulk connection is open now.
    pub bulk: Vec<(EdgeId, Dialed)>,
    /// Children that are gone.
    pub gone: Vec<EdgeId>,
}

/// A node and its connections.
pub struct TreeShell {
    /// The decisions.
    pub node: TreeNode,
    introduction: Introduction,
    dialer: Dialer,
    inbox: mpsc::Sender<TreeInput>,
    tasks: TaskTracker,
    edges: HashMap<EdgeId, Sender>,
    /// Children that have come by themselves; they bring their bulk connections, too.
    undialable: HashMap<EdgeId, Seat>,
    /// Children whose bulk connection is being opened.
    opening: HashSet<EdgeId>,
    next_edge: u64,
    ready: Outgoing,
}

impl TreeShell {
    /// A shell that reports what happens to `inbox`.
    pub fn new(node: TreeNode, introduction: Introduction, dialer: Dialer, inbox: mpsc::Sender<TreeInput>) -> Self {
        Self {
            node,
            introduction,
            dialer,
            inbox,
            tasks: TaskTracker::new(),
            edges: HashMap::new(),
            undialable: HashMap::new(),
            opening: HashSet::new(),
            next_edge: 0,
            ready: Outgoing::default(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: TreeInput, now_ms: u64) {
        match input {
            TreeInput::Dialled(entry, result) => match *result {
                Ok(dialed) => {
                    self.connected(&entry, dialed, now_ms);
                }
                Err(failure) => self.node.dial_failed(entry.index, failure.obstacle, failure.text, now_ms),
            },
            TreeInput::CameIn(entry, dialed, seat) => {
                self.node.expect(entry.clone(), now_ms);
                let edge = self.connected(&entry, *dialed, now_ms);
                self.undialable.insert(edge, seat);
            }
            TreeInput::BulkCameIn(host, dialed) => {
                if let Some(edge) = self.node.route(host) {
                    self.ready.bulk.push((edge, *dialed));
                }
            }
            TreeInput::Frame(edge, frame) => self.node.from_child(edge, frame, now_ms),
            TreeInput::Closed(edge, why) => {
                self.undialable.remove(&edge);
                if self.edges.remove(&edge).is_some() {
                    self.ready.gone.push(edge);
                    self.node.child_closed(edge, why, now_ms);
                }
            }
            TreeInput::Probed(edge, alive) => self.node.probed(edge, alive, now_ms),
            TreeInput::Bulk(edge, dialed) => {
                self.opening.remove(&edge);
                self.ready.bulk.push((edge, *dialed));
            }
            TreeInput::NoBulk(edge) => {
                self.opening.remove(&edge);
                // Without it output cannot flow; the control connection is as good as gone too.
                if let Some(sender) = self.edges.get(&edge) {
                    sender.abort();
                }
            }
        }
    }

    fn connected(&mut self, entry: &HostEntry, dialed: Dialed, now_ms: u64) -> EdgeId {
        let edge = EdgeId(self.next_edge);
        self.next_edge += 1;
        let (sender, receiver) = dialed.spawn(CONNECTION_QUEUE_FRAMES_MAX, &self.tasks);
        self.edges.insert(edge, sender);
        self.tasks.spawn(read_child(edge, receiver, self.inbox.clone()));
        self.node.dialled(entry.index, edge, now_ms);
        edge
    }

    /// Carries out what the node decided and returns what is for others.
    pub fn perform(&mut self) -> Outgoing {
        for act in self.node.take_acts() {
            match act {
                Act::Dial(entry) => self.dial(entry),
                Act::ToChild(edge, frame) => self.send(edge, frame),
                Act::Close(edge) => self.close(edge),
                Act::Up(frame) => self.ready.up.push(frame),
                Act::Local(frame) => self.ready.local.push(frame),
                Act::OpenBulk(edge, entry) => self.open_bulk(edge, entry),
                Act::Probe(edge, entry) => self.probe(edge, entry),
                Act::Offence(edge, why) => tracing::warn!(edge = edge.0, why, "dropping a child"),
            }
        }
        std::mem::take(&mut self.ready)
    }

    fn send(&mut self, edge: EdgeId, frame: Frame) {
        let Some(sender) = self.edges.get(&edge) else { return };
        if let Err(error) = sender.try_send(frame) {
            tracing::warn!(edge = edge.0, %error, "dropping a child that does not take frames");
            sender.abort();
        }
    }

    fn close(&mut self, edge: EdgeId) {
        self.undialable.remove(&edge);
        if let Some(sender) = self.edges.remove(&edge) {
            sender.abort();
            self.ready.gone.push(edge);
        }
    }

    fn dial(&self, entry: HostEntry) {
        let hello = self.introduction.hello(&entry, self.introduction.role, Lane::Control);
        let (dialer, inbox) = (self.dialer.clone(), self.inbox.clone());
        self.tasks.spawn(async move {
            let result = connect(&dialer, &entry, &hello, DIAL_LIMIT).await.map_err(DialFailure::from);
            let _ = inbox.send(TreeInput::Dialled(entry, Box::new(result))).await;
        });
    }

    fn open_bulk(&mut self, edge: EdgeId, entry: HostEntry) {
        // A child asks again and again until it is heard.
        if self.undialable.contains_key(&edge) || !self.opening.insert(edge) {
            return;
        }
        let hello = self.introduction.hello(&entry, self.introduction.role, Lane::Bulk);
        let (dialer, inbox) = (self.dialer.clone(), self.inbox.clone());
        self.tasks.spawn(async move {
            let input = match connect_bulk(&dialer, &entry, &hello).await {
                Ok(dialed) => TreeInput::Bulk(edge, Box::new(dialed)),
                Err(error) => {
                    // A short job may be over before its streams have been asked for.
                    if matches!(error.failure, Failure::Declined(Refusal::NoEdge)) {
                        tracing::debug!(host = entry.name, %error, "no bulk connection");
                    } else {
                        tracing::warn!(host = entry.name, %error, "no bulk connection");
                    }
                    TreeInput::NoBulk(edge)
                }
            };
            let _ = inbox.send(input).await;
        });
    }

    fn probe(&self, edge: EdgeId, entry: HostEntry) {
        let hello = self.introduction.hello(&entry, Role::Probe, Lane::Control);
        let (dialer, inbox) = (self.dialer.clone(), self.inbox.clone());
        let dialable = !self.undialable.contains_key(&edge);
        self.tasks.spawn(async move {
            let alive = dialable && connect(&dialer, &entry, &hello, PROBE_LIMIT).await.is_ok();
            let _ = inbox.send(TreeInput::Probed(edge, alive)).await;
        });
    }

    /// Closes every connection after what is queued has been sent.
    pub fn close_all(&mut self) {
        for sender in self.edges.values() {
            sender.close();
        }
        self.edges.clear();
        self.undialable.clear();
    }

    /// Waits until closed connections have sent what they had queued.
    pub async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A child's bulk connection, from here on served by the calling thread.
pub fn spawn_bulk(mut dialed: Dialed, tasks: &TaskTracker) -> (Sender, Receiver) {
    if let Err(error) = dialed.rehome() {
        // It works as well from where it is, only with more threads woken.
        tracing::debug!(%error, "a bulk connection stays with the thread that dialled it");
    }
    dialed.spawn(BULK_QUEUE_FRAMES_MAX, tasks)
}

async fn read_child(edge: EdgeId, mut receiver: Receiver, inbox: mpsc::Sender<TreeInput>) {
    let why = loop {
        match receiver.recv().await {
            Ok(Some(frame)) => {
                if inbox.send(TreeInput::Frame(edge, frame)).await.is_err() {
                    return;
                }
            }
            Ok(None) => break "its agent closed the connection".to_owned(),
            Err(error) => break format!("the connection to its agent broke: {error}"),
        }
    };
    let _ = inbox.send(TreeInput::Closed(edge, why)).await;
}

/// Connects a child's bulk lane. A starved host is slow, not dead, so it is asked more than once.
async fn connect_bulk(dialer: &Dialer, host: &HostEntry, hello: &Hello) -> Result<Dialed, DialError> {
    let mut attempt = 1;
    loop {
        match connect(dialer, host, hello, DIAL_LIMIT).await {
            Err(error) if attempt < BULK_ATTEMPTS_MAX && !matches!(error.failure, Failure::Declined(_)) => {
                tokio::time::sleep(BULK_PAUSE * attempt).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Connects one host, over the network or a Unix socket.
pub async fn connect(dialer: &Dialer, host: &HostEntry, hello: &Hello, limit: Duration) -> Result<Dialed, DialError> {
    let address = host.address.as_deref().unwrap_or(&host.name);
    match address.strip_prefix(UNIX_PREFIX) {
        Some(path) => connect_unix(path, host, hello, limit).await,
        None => dialer.dial(address, host.port, hello, limit).await,
    }
}

async fn connect_unix(path: &str, host: &HostEntry, hello: &Hello, limit: Duration) -> Result<Dialed, DialError> {
    let failed = |failure| DialError { host: host.name.clone(), failure };
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let greeting = async {
        let stream =
            UnixStream::connect(path).await.map_err(|source| Failure::Unreachable { address: nowhere, source })?;
        let answer = introduce(stream::unix(stream), hello).await;
        answer.map_err(|error| match error {
            muster_transport::dial::IntroduceError::Refused(Refusal::WrongJob { theirs }) => {
                Failure::WrongJob { theirs, ours: hello.job.clone() }
            }
            muster_transport::dial::IntroduceError::Refused(refusal) => Failure::Declined(refusal),
            other => Failure::NotMuster { address: nowhere, detail: other.to_string() },
        })
    };
    match tokio::time::timeout(limit, greeting).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(failed(Failure::TimedOut { step: muster_transport::dial::Step::Greeting, after: limit })),
    }
}

/// The address of an agent's Unix socket.
pub fn unix_address(path: &std::path::Path) -> String {
    format!("{UNIX_PREFIX}{}", path.display())
}
