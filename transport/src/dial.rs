//! Connecting to one peer: find it, reach it, prove the key both ways, say hello, hear the answer.
//!
//! Each step fails with an error that names the peer, what happened and what to do, since these are what users of a new
//! cluster see most.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::frame::Kind;
use muster_protocol::hello::{Hello, HelloReply, Refusal, Welcome};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::connection::{FrameReader, Framed, ReceiveError, Receiver, Sender};
use crate::gate::{GreetError, Guest, Source, greet_framed};
use crate::resolve::{ResolveError, Resolver};
use crate::stream::{BoxStream, boxed, tune};
use crate::tls::{Connector, SecureError};

/// A peer that could not be connected.
#[derive(Debug, Error)]
#[error("{host}: {failure}")]
pub struct DialError {
    /// The peer, as the caller named it.
    pub host: String,
    /// What happened.
    #[source]
    pub failure: Failure,
}

impl DialError {
    /// Whether trying again may help.
    pub fn retryable(&self) -> bool {
        self.failure.retryable()
    }
}

/// The step of connecting that was not done in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Asking for the peer's address.
    Resolving,
    /// Waiting for the peer's kernel.
    Connecting,
    /// Proving the key.
    Proving,
    /// Waiting for the answer to the hello.
    Greeting,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "no answer from DNS",
            Self::Connecting => "no answer from its address; is a firewall or network policy in between?",
            Self::Proving => "connected, but the handshake got no answer",
            Self::Greeting => "connected, but its agent does not answer; is it stopped or starved?",
        })
    }
}

/// What went wrong with one peer.
#[derive(Debug, Error)]
pub enum Failure {
    /// It has no address.
    #[error(transparent)]
    Unresolved(ResolveError),
    /// It is there, but nobody listens on the port.
    #[error("connection refused by {address}; is the agent running there, and on this port?")]
    Refused {
        /// Where it was looked for.
        address: SocketAddr,
    },
    /// There is no way to it.
    #[error("{address} cannot be reached: {source}")]
    Unreachable {
        /// Where it was looked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A step took too long.
    #[error("timed out after {} s: {step}", after.as_secs_f32())]
    TimedOut {
        /// What was being waited for.
        step: Step,
        /// The time it was given.
        after: Duration,
    },
    /// It holds another key.
    #[error("connected, but its agent has another job key; do both sides read the same key file?")]
    WrongKey,
    /// Something else listens there.
    #[error("connected, but what answers at {address} is not a muster agent ({detail})")]
    NotMuster {
        /// Where it was found.
        address: SocketAddr,
        /// What it said.
        detail: String,
    },
    /// It went away during the handshake.
    #[error(
        "connected, but {address} closed the connection before it answered; is its agent running and has it a job key, and is a proxy in \
         between (a service mesh's sidecar) ready?"
    )]
    Closed {
        /// Where it was found.
        address: SocketAddr,
    },
    /// It serves another job.
    #[error(
        "connected, but its agent serves job \"{theirs}\" (this is job \"{ours}\"); is an old pod still terminating?"
    )]
    WrongJob {
        /// Its job.
        theirs: String,
        /// This side's job.
        ours: String,
    },
    /// It refused for another reason.
    #[error("connected, but {0}")]
    Declined(Refusal),
}

impl Failure {
    /// Whether trying again may help. Another key or job counts as such: the pod may be one that is about to be replaced.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unresolved(error) => error.retryable(),
            Self::Declined(refusal) => matches!(
                refusal,
                Refusal::Busy { .. }
                    | Refusal::NoEdge
                    | Refusal::Leaving
                    | Refusal::Quarantined { .. }
                    | Refusal::Held { .. }
            ),
            Self::NotMuster { .. } => false,
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::WrongKey
            | Self::Closed { .. }
            | Self::WrongJob { .. } => true,
        }
    }

    /// One or two words for a progress line.
    pub fn summary(&self) -> &'static str {
        match self {
            Self::Unresolved(_) => "unresolved",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed out",
            Self::WrongKey => "wrong key",
            Self::NotMuster { .. } => "not an agent",
            Self::Closed { .. } => "closed",
            Self::WrongJob { .. } => "wrong job",
            Self::Declined(Refusal::Version { .. }) => "wrong version",
            Self::Declined(Refusal::Busy { .. }) => "busy",
            Self::Declined(_) => "declined",
        }
    }
}

/// A peer that has welcomed us.
pub struct Dialed {
    /// What it said.
    pub welcome: Welcome,
    /// Where it was reached, when that was by its name.
    pub address: Option<SocketAddr>,
    framed: Framed,
}

impl Dialed {
    /// Moves the connection to the runtime that this is called in.
    pub fn rehome(&mut self) -> io::Result<()> {
        self.framed.rehome()
    }

    /// Splits the connection into its ends; up to `queue_frames` frames wait for the network.
    pub fn spawn(self, queue_frames: usize, tasks: &TaskTracker) -> (Sender, Receiver) {
        self.framed.spawn(queue_frames, tasks)
    }
}

impl Dialed {
    /// Hears the hello of a launcher that was joined: the other end of [`crate::gate::Guest::turn`]. The caller sets the
    /// deadline.
    pub async fn turn(self) -> Result<Guest, GreetError> {
        greet_framed(self.framed, Source::Local, Arc::default()).await
    }
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").field("welcome", &self.welcome).finish_non_exhaustive()
    }
}

/// Dials peers.
#[derive(Clone)]
pub struct Dialer {
    resolver: Arc<Resolver>,
    connector: Option<Connector>,
}

impl Dialer {
    /// A dialer; without a connector it speaks no TLS, which only agents on loopback accept.
    pub fn new(resolver: Arc<Resolver>, connector: Option<Connector>) -> Self {
        Self { resolver, connector }
    }

    /// Connects to one peer, all steps within `limit`.
    pub async fn dial(&self, host: &str, port: u16, hello: &Hello, limit: Duration) -> Result<Dialed, DialError> {
        let attempt = Attempt { dialer: self, deadline: Instant::now() + limit, limit };
        let failed = |failure| DialError { host: host.to_owned(), failure };
        let (tcp, address) = attempt.reach(host, port).await.map_err(failed)?;
        attempt.introduce(tcp, address, hello).await.map_err(failed)
    }
}

struct Attempt<'a> {
    dialer: &'a Dialer,
    deadline: Instant,
    limit: Duration,
}

impl Attempt<'_> {
    /// The first address that answers; when none does, the last one's failure.
    async fn reach(&self, host: &str, port: u16) -> Result<(TcpStream, SocketAddr), Failure> {
        let addresses = self.within(Step::Resolving, self.dialer.resolver.resolve(host)).await?;
        let addresses = addresses.map_err(Failure::Unresolved)?;
        let mut last = self.timed_out(Step::Connecting);
        for (i, ip) in addresses.iter().enumerate() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let share = Instant::now() + left / (addresses.len() - i) as u32;
            match self.connect(*ip, port, share).await {
                Ok(reached) => return Ok(reached),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn connect(&self, ip: IpAddr, port: u16, until: Instant) -> Result<(TcpStream, SocketAddr), Failure> {
        let address = SocketAddr::new(ip, port);
        let connected = timeout_at(until, TcpStream::connect(address)).await;
        let tuned = connected.map_err(|_| self.timed_out(Step::Connecting))?.and_then(|tcp| {
            tune(&tcp)?;
            Ok(tcp)
        });
        match tuned {
            Ok(tcp) => Ok((tcp, address)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Failure::Refused { address }),
            Err(source) => Err(Failure::Unreachable { address, source }),
        }
    }

    async fn introduce(&self, tcp: TcpStream, address: SocketAddr, hello: &Hello) -> Result<Dialed, Failure> {
        let stream = match &self.dialer.connector {
            Some(connector) => {
                let secured = self.within(Step::Proving, connector.connect(tcp)).await?;
                secured.map_err(|error| insecure(error, address))?
            }
            None => boxed(tcp),
        };
        let introduced = self.within(Step::Greeting, introduce(stream, hello)).await?;
        let reached = |dialed| Dialed { address: Some(address), ..dialed };
        introduced.map(reached).map_err(|error| match error {
            IntroduceError::Receive(ReceiveError::Failed(error)) => insecure(error, address),
            IntroduceError::Refused(Refusal::WrongJob { theirs }) => {
                Failure::WrongJob { theirs, ours: hello.job.clone() }
            }
            IntroduceError::Refused(refusal) => Failure::Declined(refusal),
            other => Failure::NotMuster { address, detail: other.to_string() },
        })
    }

    async fn within<T>(&self, step: Step, future: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.deadline, future).await.map_err(|_| self.timed_out(step))
    }

    fn timed_out(&self, step: Step) -> Failure {
        Failure::TimedOut { step, after: self.limit }
    }
}

fn insecure(error: SecureError, address: SocketAddr) -> Failure {
    match error {
        SecureError::WrongKey => Failure::WrongKey,
        SecureError::Garbage(detail) => Failure::NotMuster { address, detail },
        SecureError::Closed => Failure::Closed { address },
        SecureError::Io(source) => Failure::Unreachable { address, source },
    }
}

/// Why a stream brought no welcome.
#[derive(Debug, Error)]
pub enum IntroduceError {
    /// The stream ended or failed, or carried something else.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The answer's payload is not one.
    #[error("the answer to the hello cannot be read ({0})")]
    Reply(minicbor::decode::Error),
    /// The other side answered that it will not serve.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Says hello over a stream and hears the answer: the dialling counterpart of [`crate::gate::greet`]. The caller sets the
/// deadline.
pub async fn introduce(stream: BoxStream, hello: &Hello) -> Result<Dialed, IntroduceError> {
    introduce_framed(FrameReader::new(stream), hello).await
}

pub(crate) async fn introduce_framed(mut framed: Framed, hello: &Hello) -> Result<Dialed, IntroduceError> {
    let said = framed.write(&hello.frame()).await;
    // The other side may have refused our key while we were speaking: what it said explains more than that it hung up.
    let heard = framed.next_of(Kind::HelloReply).await;
    let frame = match (heard, said) {
        (Ok(Some(frame)), _) => frame,
        (Ok(None), said) => return Err(ReceiveError::Failed(said.err().unwrap_or(SecureError::Closed)).into()),
        (Err(ReceiveError::Failed(SecureError::Io(_) | SecureError::Closed)), Err(said)) => {
            return Err(ReceiveError::Failed(said).into());
        }
        (Err(error), _) => return Err(error.into()),
    };
    match minicbor::decode(&frame.payload).map_err(IntroduceError::Reply)? {
        HelloReply::Welcome(welcome) => Ok(Dialed { welcome, address: None, framed }),
        HelloReply::Refused(refusal) => Err(refusal.into()),
    }
}
