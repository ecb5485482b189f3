//! A rank's standard input: bytes from the launcher into a pipe, acknowledged when the pipe has taken them.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use muster_protocol::frame::{FLAG_END, Kind, stream_channel};
use muster_protocol::message::InputAck;
use muster_protocol::{Frame, ProcId, Stream};
use muster_transport::credit::Dedup;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::plane::Shared;

/// Pieces that wait for a rank that does not read. The launcher keeps to its window, so there are never more.
const PIECES_MAX: usize = 4_096;

/// A rank's standard input, as others see it.
pub(super) struct Input {
    pieces: mpsc::Sender<Piece>,
}

enum Piece {
    Frame(Frame),
    NewUplink,
}

impl Input {
    /// Starts to feed a rank.
    pub(super) fn start(proc: ProcId, pipe: OwnedFd, shared: Rc<Shared>) -> Self {
        let (pieces, queue) = mpsc::channel(PIECES_MAX);
        tokio::task::spawn_local(feed(proc, pipe, queue, shared));
        Self { pieces }
    }

    /// Bytes from the launcher.
    pub(super) fn push(&self, frame: Frame) {
        if self.pieces.try_send(Piece::Frame(frame)).is_err() {
            tracing::debug!("standard input of a rank that no longer reads is dropped");
        }
    }

    /// A new uplink: tell the launcher how far this rank is.
    pub(super) fn announce(&self) {
        let _ = self.pieces.try_send(Piece::NewUplink);
    }
}

async fn feed(proc: ProcId, pipe: OwnedFd, mut queue: mpsc::Receiver<Piece>, shared: Rc<Shared>) {
    let mut pipe = pipe::Sender::from_owned_fd(pipe).ok();
    let mut seen = Dedup::new();
    // The first word is ours: it opens the way down and says that there is a reader.
    acknowledge(proc, 0, &shared).await;
    while let Some(piece) = queue.recv().await {
        if let Piece::Frame(frame) = piece {
            match seen.accept(frame.header.seq, frame.payload.len()) {
                Ok(Some(skip)) => write(&mut pipe, frame.payload.slice(skip..)).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(proc = proc.0, %error, "standard input of a rank is broken");
                    pipe = None;
                }
            }
            if frame.header.flags & FLAG_END != 0 {
                pipe = None;
            }
        }
        acknowledge(proc, seen.next(), &shared).await;
    }
}

/// What a rank does not want to read is taken all the same, so that the launcher's input never stalls because of it.
async fn write(pipe: &mut Option<pipe::Sender>, bytes: Bytes) {
    if let Some(open) = pipe
        && open.write_all(&bytes).await.is_err()
    {
        *pipe = None;
    }
}

async fn acknowledge(proc: ProcId, bytes: u64, shared: &Shared) {
    let Some(uplink) = shared.uplink() else {
        shared.want_uplink();
        return;
    };
    let Some(frame) = shared.message(&InputAck { bytes }) else { return };
    debug_assert_eq!(frame.header.kind, Kind::InputAck);
    let _ = uplink.send(frame.with(0, stream_channel(proc, Stream::Stdin), 0)).await;
}
