//! The ranks' PMI sockets: bytes in, bytes out, and a last look when a rank has ended.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use bytes::Bytes;
use muster_protocol::ProcId;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Bytes read from a rank at a time.
const READ_BYTES: usize = 16 << 10;
/// Answers that wait for a rank that does not read; a client asks one question at a time, so few ever wait.
const ANSWERS_MAX: usize = 1_024;

/// What happened on a rank's PMI socket.
#[derive(Debug)]
pub enum PmiInput {
    /// It said something.
    Bytes(ProcId, Bytes),
    /// Nothing more will come.
    Closed(ProcId),
}

enum Command {
    Send(Bytes),
    Close,
    Drain,
}

/// The sockets of all ranks here.
pub(super) struct PmiSockets {
    inbox: mpsc::Sender<PmiInput>,
    commands: HashMap<ProcId, mpsc::Sender<Command>>,
    tasks: TaskTracker,
}

impl PmiSockets {
    pub(super) fn new(inbox: mpsc::Sender<PmiInput>) -> Self {
        Self { inbox, commands: HashMap::new(), tasks: TaskTracker::new() }
    }

    /// Serves a rank's socket from now on.
    pub(super) fn add(&mut self, proc: ProcId, socket: OwnedFd) -> io::Result<()> {
        let socket = UnixStream::from_std(StdUnixStream::from(socket))?;
        let (commands, queue) = mpsc::channel(ANSWERS_MAX);
        self.commands.insert(proc, commands);
        self.tasks.spawn(serve(proc, socket, queue, self.inbox.clone()));
        Ok(())
    }

    pub(super) fn send(&self, proc: ProcId, bytes: Bytes) {
        self.command(proc, Command::Send(bytes));
    }

    pub(super) fn close(&self, proc: ProcId) {
        self.command(proc, Command::Close);
    }

    pub(super) fn drain(&self, proc: ProcId) {
        self.command(proc, Command::Drain);
    }

    fn command(&self, proc: ProcId, command: Command) {
        if let Some(commands) = self.commands.get(&proc)
            && commands.try_send(command).is_err()
        {
            // Its task has ended and has said so, or the rank reads none of a thousand answers; then it hears no more.
            tracing::debug!(proc = proc.0, "an answer to a rank was dropped");
        }
    }
}

async fn serve(
    proc: ProcId,
    mut socket: UnixStream,
    mut queue: mpsc::Receiver<Command>,
    inbox: mpsc::Sender<PmiInput>,
) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        tokio::select! {
            command = queue.recv() => match command {
                Some(Command::Send(bytes)) => {
                    if socket.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Some(Command::Drain) => {
                    drain(proc, socket, &mut buffer, &inbox).await;
                    let _ = inbox.send(PmiInput::Closed(proc)).await;
                    return;
                }
                Some(Command::Close) | None => break,
            },
            ready = socket.readable() => {
                if ready.is_err() {
                    break;
                }
                match socket.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(bytes) => {
                        if !tell(&inbox, proc, &buffer[..bytes]).await {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        }
    }
    drop(socket);
    let _ = inbox.send(PmiInput::Closed(proc)).await;
}

/// Reads what the kernel has, by the kernel's own word: the runtime may not have heard of it yet.
async fn drain(proc: ProcId, socket: UnixStream, buffer: &mut [u8], inbox: &mpsc::Sender<PmiInput>) {
    let Ok(mut socket) = socket.into_std() else { return };
    while let Ok(bytes) = socket.read(buffer) {
        if bytes == 0 || !tell(inbox, proc, &buffer[..bytes]).await {
            return;
        }
    }
}

async fn tell(inbox: &mpsc::Sender<PmiInput>, proc: ProcId, bytes: &[u8]) -> bool {
    inbox.send(PmiInput::Bytes(proc, Bytes::copy_from_slice(bytes))).await.is_ok()
}
