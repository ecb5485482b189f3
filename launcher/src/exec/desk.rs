//! Where remote shells of this machine come: a socket, and a thread that takes what they hand over.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use muster_worker_agent::shell::desk::{Ask, take};
use tokio::sync::mpsc;

/// Time in which a remote shell says what it was asked for.
const TAKE_LIMIT: Duration = Duration::from_secs(10);

/// Time between a failure and the next remote shell.
const PAUSE: Duration = Duration::from_millis(20);

/// A remote shell that waits.
pub(super) struct Visitor {
    pub(super) ask: Ask,
    /// Its descriptors: standard input if that is for the command, standard output, standard error.
    pub(super) descriptors: Vec<OwnedFd>,
    /// Its end is the client's; the answer goes here.
    pub(super) socket: UnixStream,
}

/// Opens the desk; only who may enter its folder can come.
pub(super) fn open(path: &Path) -> anyhow::Result<mpsc::UnboundedReceiver<Visitor>> {
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    // Unbounded by type, bounded by the processes that the command starts.
    let (visitors, queue) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("desk".to_owned()).stack_size(256 << 10).spawn(move || {
        for socket in listener.incoming() {
            match socket.and_then(receive) {
                Ok(visitor) => {
                    if visitors.send(visitor).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a remote shell could not be received");
                    // Where descriptors are lacking, the next one would fail as well.
                    std::thread::sleep(PAUSE);
                }
            }
        }
    })?;
    Ok(queue)
}

fn receive(mut socket: UnixStream) -> std::io::Result<Visitor> {
    socket.set_read_timeout(Some(TAKE_LIMIT))?;
    let (ask, descriptors) = take(&mut socket)?;
    socket.set_nonblocking(true)?;
    Ok(Visitor { ask, descriptors, socket })
}
