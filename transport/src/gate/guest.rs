//! A peer that has proven itself and said hello, and waits for the answer.

use std::net::IpAddr;
use std::sync::Arc;

use muster_protocol::frame::Kind;
use muster_protocol::hello::{Hello, HelloReply, Refusal, Welcome};
use thiserror::Error;
use tokio_util::task::TaskTracker;

use super::ledger::{Ledger, Reason};
use crate::connection::{FrameReader, Framed, ReceiveError, Receiver, Sender};
use crate::dial::{Dialed, IntroduceError, introduce_framed};
use crate::stream::BoxStream;
use crate::tls::SecureError;

/// Why a stream brought no hello.
#[derive(Debug, Error)]
pub enum GreetError {
    /// The stream ended or failed, or carried something else.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The first frame's payload is not a hello.
    #[error("the hello cannot be read ({0})")]
    Hello(minicbor::decode::Error),
}

impl GreetError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Receive(ReceiveError::Failed(error)) => reason(error),
            Self::Receive(ReceiveError::Truncated { .. } | ReceiveError::Aborted) => Reason::Left,
            _ => Reason::Garbage,
        }
    }
}

pub(super) fn reason(error: &SecureError) -> Reason {
    match error {
        SecureError::WrongKey => Reason::WrongKey,
        SecureError::Garbage(_) => Reason::Garbage,
        SecureError::Closed => Reason::Left,
        SecureError::Io(_) => Reason::Failed,
    }
}

/// Where a peer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The network.
    Network(std::net::SocketAddr),
    /// This host or this process: a Unix socket or memory.
    Local,
}

impl Source {
    pub(super) fn ip(&self) -> IpAddr {
        match self {
            Self::Network(address) => address.ip(),
            Self::Local => IpAddr::from([127, 0, 0, 1]),
        }
    }
}

/// A peer that waits to be welcomed or refused. Dropping it closes the connection without a word.
pub struct Guest {
    /// What it said.
    pub hello: Hello,
    /// Where it comes from.
    pub source: Source,
    framed: Framed,
    ledger: Arc<Ledger>,
}

impl Guest {
    /// Moves the connection to the runtime that this is called in.
    pub fn rehome(&mut self) -> std::io::Result<()> {
        self.framed.rehome()
    }

    /// Answers with a welcome and keeps the connection; the welcome is its first frame.
    pub fn welcome(self, welcome: Welcome, queue_frames: usize, tasks: &TaskTracker) -> (Sender, Receiver) {
        let (sender, receiver) = self.framed.spawn(queue_frames, tasks);
        // An empty queue has room; a connection that has just failed tells so through its receiver.
        let _ = sender.try_send(HelloReply::Welcome(welcome).frame());
        (sender, receiver)
    }

    /// Answers with a welcome, then says hello itself: who has joined is served from here on as if it had been dialled.
    /// The caller sets the deadline.
    pub async fn turn(mut self, welcome: Welcome, hello: &Hello) -> Result<Dialed, IntroduceError> {
        self.framed.write(&HelloReply::Welcome(welcome).frame()).await.map_err(ReceiveError::Failed)?;
        introduce_framed(self.framed, hello).await
    }

    pub(crate) fn new(hello: Hello, source: Source, framed: Framed, ledger: Arc<Ledger>) -> Self {
        Self { hello, source, framed, ledger }
    }

    /// Answers with a refusal and closes.
    pub fn refuse(self, refusal: Refusal, tasks: &TaskTracker) {
        self.ledger.refuse(Reason::Refused, self.source.ip(), &refusal.to_string());
        let (sender, _) = self.framed.spawn(1, tasks);
        let _ = sender.try_send(HelloReply::Refused(refusal).frame());
        sender.close();
    }
}

/// Reads the hello of a stream that needs no proof: a Unix socket, memory. The caller sets the deadline.
pub async fn greet(stream: BoxStream, source: Source) -> Result<Guest, GreetError> {
    greet_for(stream, source, Arc::default()).await
}

pub(super) async fn greet_for(stream: BoxStream, source: Source, ledger: Arc<Ledger>) -> Result<Guest, GreetError> {
    greet_framed(FrameReader::new(stream), source, ledger).await
}

/// Reads the hello of a connection that is framed already.
pub(crate) async fn greet_framed(mut framed: Framed, source: Source, ledger: Arc<Ledger>) -> Result<Guest, GreetError> {
    let frame = framed.next_of(Kind::Hello).await?.ok_or(ReceiveError::Failed(SecureError::Closed))?;
    let hello = minicbor::decode(&frame.payload).map_err(GreetError::Hello)?;
    Ok(Guest::new(hello, source, framed, ledger))
}
