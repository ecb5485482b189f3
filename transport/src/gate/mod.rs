//! Accepting connections from anyone, and letting in those that hold the job key.
//!
//! Proof and hello have one deadline together. Until both are there a connection costs one of a limited number of places, no
//! log line of its own, and gets no byte of answer beyond what TLS itself says.

mod guest;
mod ledger;
mod waiting;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use muster_protocol::limits::{HANDSHAKE_TIMEOUT_MS, UNPROVEN_CONNECTIONS_MAX};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

pub(crate) use guest::greet_framed;
pub use guest::{GreetError, Guest, Source, greet};
pub use ledger::{Ledger, Reason};
use waiting::Waiting;

use crate::stream::{boxed, tune};
use crate::tls::Acceptor;

/// Connections that the kernel keeps ready for us.
const BACKLOG: u32 = 1_024;
/// Pause when the system has no descriptor for a new connection: it has one again when others end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no gate.
#[derive(Debug, Error)]
pub enum GateError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Without a key only this host may reach the agent.
    #[error(
        "will not listen on {address} without a job key: whoever reaches the agent can run programs; give --key-file, or listen on 127.0.0.1"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
}

type Outcome = (u64, Option<Guest>);

/// Listens, and yields peers that have proven themselves.
pub struct Gate {
    listeners: Vec<TcpListener>,
    acceptor: Option<Acceptor>,
    deadline: Duration,
    ledger: Arc<Ledger>,
    waiting: Waiting<AbortHandle>,
    handshakes: JoinSet<Outcome>,
}

impl Gate {
    /// Listens on these addresses; port 0 lets the system choose. Without an acceptor only on loopback, and without TLS.
    pub fn listen(addresses: &[SocketAddr], acceptor: Option<Acceptor>) -> Result<Self, GateError> {
        if let Some(address) = addresses.iter().find(|a| acceptor.is_none() && !a.ip().is_loopback()) {
            return Err(GateError::Open { address: *address });
        }
        let listen =
            |address: &SocketAddr| listener(*address).map_err(|source| GateError::Listen { address: *address, source });
        Ok(Self {
            listeners: addresses.iter().map(listen).collect::<Result<_, _>>()?,
            acceptor,
            deadline: Duration::from_millis(HANDSHAKE_TIMEOUT_MS),
            ledger: Arc::default(),
            waiting: Waiting::new(UNPROVEN_CONNECTIONS_MAX),
            handshakes: JoinSet::new(),
        })
    }

    /// Gives connections another time for proof and hello than [`HANDSHAKE_TIMEOUT_MS`].
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The addresses listened on, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// What has been counted so far.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The next peer that has proven itself and said hello. Connections are taken in while this is waited for; cancelling
    /// the wait loses nothing.
    pub async fn next(&mut self) -> Guest {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.handshakes.join_next() => {
                    // A displaced handshake ends as cancelled and was counted when it was displaced.
                    let Ok((ticket, guest)) = done else { continue };
                    self.waiting.remove(ticket);
                    if let Some(guest) = guest {
                        return guest;
                    }
                }
                accepted = accept_any(&self.listeners) => match accepted {
                    Ok((stream, from)) => self.admit(stream, from),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, from: SocketAddr) {
        self.ledger.accept();
        let (ticket, ledger) = (self.waiting.next_ticket(), self.ledger.clone());
        let (acceptor, deadline) = (self.acceptor.clone(), self.deadline);
        let handshake = async move {
            let proven = timeout(deadline, prove(stream, from, acceptor, ledger.clone()));
            let guest = proven.await.unwrap_or_else(|_| {
                ledger.refuse(Reason::TooSlow, from.ip(), "");
                None
            });
            (ticket, guest)
        };
        let handle = self.handshakes.spawn(handshake);
        if let Some((source, displaced)) = self.waiting.insert(from.ip(), handle)
            && !displaced.is_finished()
        {
            displaced.abort();
            self.ledger.refuse(Reason::Displaced, source, "");
        }
    }

    /// Connections that have not proven themselves yet.
    pub fn unproven(&self) -> usize {
        self.waiting.len()
    }
}

async fn prove(stream: TcpStream, from: SocketAddr, acceptor: Option<Acceptor>, ledger: Arc<Ledger>) -> Option<Guest> {
    let refuse = |reason, detail: String| {
        ledger.refuse(reason, from.ip(), &detail);
        None
    };
    if let Err(error) = tune(&stream) {
        return refuse(Reason::Left, error.to_string());
    }
    let secured = match acceptor {
        Some(acceptor) => acceptor.accept(stream).await,
        None => Ok(boxed(stream)),
    };
    let stream = match secured {
        Ok(stream) => stream,
        Err(error) => return refuse(guest::reason(&error), error.to_string()),
    };
    match guest::greet_for(stream, Source::Network(from), ledger.clone()).await {
        Ok(guest) => Some(guest),
        Err(error) => refuse(error.reason(), error.to_string()),
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // An agent that restarts must get its port back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection of any listener; never without listeners.
async fn accept_any(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}
