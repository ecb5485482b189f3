//! One stream of a rank: from its pipe into frames, as far as the window allows, and again after a new parent.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::{BufMut, Bytes};
use muster_protocol::frame::{Kind, stream_channel};
use muster_protocol::limits::BULK_PAYLOAD_BYTES_MAX;
use muster_protocol::{Frame, ProcId, Stream};
use muster_transport::connection::Sender;
use muster_transport::credit::Unacked;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::plane::Shared;

/// Bytes read from a pipe at a time: what the caches hold beats what saves calls.
const READ_BYTES: usize = 64 << 10;
/// Bytes up to which a piece is copied out of the buffer it was read into.
const COPY_BYTES_MAX: usize = 4 << 10;

/// Bytes that a pipe can hold at most, unless its user is privileged. So much is read from a pipe that somebody who is not of
/// the job keeps open, so that nothing of the job is missing.
const PIPE_BYTES_MAX: usize = 1 << 20;

/// What one stream has read, sent and been acknowledged.
struct OutputState {
    unacked: Unacked,
    /// Offset of the next byte to send over the present uplink, or less if that has been acknowledged meanwhile.
    cursor: u64,
    at_end: bool,
}

/// A stream, shared by the task that reads it and the one that hears acknowledgements.
pub(super) struct Output {
    proc: ProcId,
    stream: Stream,
    window_bytes: u32,
    state: RefCell<OutputState>,
    /// An acknowledgement, a new uplink or the order to stop has come.
    changed: Notify,
}

impl Output {
    pub(super) fn new(proc: ProcId, stream: Stream, window_bytes: u32) -> Rc<Self> {
        let state = RefCell::new(OutputState { unacked: Unacked::new(), cursor: 0, at_end: false });
        Rc::new(Self { proc, stream, window_bytes, state, changed: Notify::new() })
    }

    /// The root has written everything below this offset.
    pub(super) fn acked(&self, offset: u64) {
        if let Err(error) = self.state.borrow_mut().unacked.ack(offset) {
            tracing::warn!(proc = self.proc.0, %error, "an acknowledgement is ignored");
        }
        self.changed.notify_one();
    }

    /// There is a new uplink: what is not acknowledged goes over it again.
    pub(super) fn replay(&self) {
        self.state.borrow_mut().cursor = 0;
        self.changed.notify_one();
    }

    /// Look around: something that concerns every stream has changed.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Bytes read in all.
    pub(super) fn total(&self) -> u64 {
        self.state.borrow().unacked.end()
    }

    /// Whether it has been read to its end and sent.
    pub(super) fn at_end(&self) -> bool {
        self.state.borrow().at_end
    }

    /// Whether the root has not written all of it that has been read.
    pub(super) fn is_owed(&self) -> bool {
        !self.state.borrow().unacked.is_empty()
    }

    fn next_piece(&self) -> Option<(u64, Bytes)> {
        let state = self.state.borrow();
        state.unacked.piece_from(state.cursor)
    }

    fn room(&self) -> usize {
        self.state.borrow().unacked.room(self.window_bytes).min(u64::from(BULK_PAYLOAD_BYTES_MAX)) as usize
    }

    /// Takes what the pipe has.
    fn read(&self, pipe: &pipe::Receiver, room: usize, shared: &Shared) -> Taken {
        let mut scratch = shared.scratch.borrow_mut();
        scratch.clear();
        scratch.reserve(READ_BYTES);
        match pipe.try_read_buf(&mut (&mut *scratch).limit(room.min(READ_BYTES))) {
            Ok(0) => Taken::End,
            Ok(bytes) => {
                // Little is copied, so that it does not hold on to the whole buffer.
                let taken = scratch.split();
                let kept = if bytes <= COPY_BYTES_MAX { Bytes::copy_from_slice(&taken) } else { taken.freeze() };
                self.state.borrow_mut().unacked.push(kept);
                Taken::Bytes(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Taken::Nothing,
            Err(error) => {
                tracing::warn!(proc = self.proc.0, %error, "a rank's output cannot be read any further");
                Taken::End
            }
        }
    }

    async fn send(&self, uplink: Sender, offset: u64, bytes: Bytes, shared: &Shared) {
        self.state.borrow_mut().cursor = offset + bytes.len() as u64;
        let Some(frame) = shared.frame(Kind::Output, bytes) else { return };
        let frame: Frame = frame.with(0, stream_channel(self.proc, self.stream), offset);
        // A connection that is gone is replaced, and then everything unacknowledged is sent again.
        let _ = uplink.send(frame).await;
    }
}

/// What a look into a pipe brings.
enum Taken {
    Bytes(usize),
    Nothing,
    End,
}

/// Reads the stream to its end and sends it; ends when all of it has been acknowledged.
pub(super) async fn pump(output: Rc<Output>, pipe: OwnedFd, shared: Rc<Shared>) {
    let mut pipe = match pipe::Receiver::from_owned_fd(pipe) {
        Ok(pipe) => Some(pipe),
        Err(error) => {
            tracing::error!(%error, "a rank's output cannot be read");
            None
        }
    };
    let mut late_bytes = PIPE_BYTES_MAX;
    loop {
        match (output.next_piece(), shared.uplink()) {
            (Some((offset, bytes)), Some(uplink)) => {
                output.send(uplink, offset, bytes, &shared).await;
                continue;
            }
            (Some(_), None) => shared.want_uplink(),
            (None, _) if pipe.is_none() => {
                if !std::mem::replace(&mut output.state.borrow_mut().at_end, true) {
                    shared.report_if_finished();
                }
                if !output.is_owed() {
                    return;
                }
            }
            (None, _) => {}
        }
        let room = output.room();
        let Some(open) = pipe.as_ref().filter(|_| room > 0) else {
            output.changed.notified().await;
            continue;
        };
        if shared.is_late() {
            match output.read(open, room.min(late_bytes), &shared) {
                Taken::Bytes(bytes) if bytes < late_bytes => late_bytes -= bytes,
                // Somebody who is not of the job still holds the pipe.
                _ => pipe = None,
            }
            continue;
        }
        let ready = tokio::select! {
            ready = open.readable() => ready.is_ok(),
            () = output.changed.notified() => continue,
        };
        if !ready || matches!(output.read(open, room, &shared), Taken::End) {
            pipe = None;
        }
    }
}
