//! Where guests come in: the network's gate, or a Unix socket for a launcher on the same host.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_protocol::limits::HANDSHAKE_TIMEOUT_MS;
use muster_transport::gate::{Gate, Guest, Ledger, Source, greet};
use muster_transport::stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::join::{JoinDoor, Wish};

/// Pause when the system has no descriptor for a new connection: it has one again when others end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The agent's door.
pub enum Door {
    /// TCP, behind TLS unless only loopback is listened on.
    Network(Box<Gate>),
    /// A Unix socket; its folder's mode bits are the lock.
    Local(LocalDoor),
    /// No door at all: it goes out and joins a launcher.
    Join(JoinDoor),
}

/// A Unix socket and the guests that have not said hello yet.
pub struct LocalDoor {
    listener: UnixListener,
    path: PathBuf,
    greetings: JoinSet<Option<Guest>>,
}

impl Door {
    /// A Unix socket that listens already: whoever started this agent has made it, so that nobody has to wait for it.
    pub fn local(listener: OwnedFd, path: &Path) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self::Local(LocalDoor { listener, path: path.to_owned(), greetings: JoinSet::new() }))
    }

    /// Where it listens, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Network(gate) => gate.addresses().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", "),
            Self::Local(door) => door.path.display().to_string(),
            Self::Join(door) => door.describe(),
        }
    }

    /// The next guest that has said hello; cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Guest {
        match self {
            Self::Network(gate) => gate.next().await,
            Self::Local(door) => door.next().await,
            Self::Join(door) => door.next().await,
        }
    }

    /// Whether the parent brings its bulk connection by itself, when asked for it in a frame. Otherwise it is fetched.
    pub fn parent_brings_bulk(&self) -> bool {
        match self {
            Self::Join(door) => {
                door.wish(Wish::Bulk);
                false
            }
            _ => true,
        }
    }

    /// The agent begins to take jobs, one is over, or a guest was refused: be ready for the next one. A launcher that had nothing to do for this agent is not
    /// joined again at once.
    pub fn reopen(&self, served: bool) {
        if let Self::Join(door) = self {
            door.wish(if served { Wish::Control } else { Wish::ControlLater });
        }
    }

    /// Who was turned away, where everybody can knock.
    pub fn ledger(&self) -> Option<&Ledger> {
        match self {
            Self::Network(gate) => Some(gate.ledger()),
            Self::Local(_) | Self::Join(_) => None,
        }
    }
}

impl LocalDoor {
    async fn next(&mut self) -> Guest {
        loop {
            tokio::select! {
                Some(greeting) = self.greetings.join_next() => {
                    if let Ok(Some(guest)) = greeting {
                        return guest;
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => self.greet(socket),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection on the local socket");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn greet(&mut self, socket: UnixStream) {
        self.greetings.spawn(async move {
            let limit = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
            tokio::time::timeout(limit, greet(stream::unix(socket), Source::Local)).await.ok()?.ok()
        });
    }
}

impl Drop for LocalDoor {
    fn drop(&mut self) {
        // Nothing of ours stays behind; a file that is gone already is as good.
        let _ = std::fs::remove_file(&self.path);
        if let Some(folder) = self.path.parent() {
            let _ = std::fs::remove_dir(folder);
            // The last agent of a launcher that was killed takes the launcher's folder along.
            if let Some(folder) = folder.parent() {
                let _ = std::fs::remove_dir(folder);
            }
        }
    }
}
