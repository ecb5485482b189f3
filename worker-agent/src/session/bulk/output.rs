//! One stream of a rank: from its pipe into frames, as far as the window allows, and again after a new parent.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use muster_protocol::frame::{Kind, stream_channel};
use muster_protocol::limits::BULK_PAYLOAD_BYTES_MAX;
use muster_protocol::{Frame, ProcId, Stream};
use muster_transport::credit::Unacked;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::plane::Shared;

/// What one stream has read, sent and been acknowledged.
pub(super) struct OutputState {
    pub(super) proc: ProcId,
    pub(super) stream: Stream,
    window: u64,
    unacked: Unacked,
    /// Offset of the next byte to send over the present uplink.
    cursor: u64,
    pub(super) at_end: bool,
}

/// A stream, shared by the task that reads it and the one that hears acknowledgements.
pub(super) struct Output {
    pub(super) state: RefCell<OutputState>,
    /// An acknowledgement, a new uplink or the order to stop has come.
    pub(super) changed: Notify,
}

impl Output {
    pub(super) fn new(proc: ProcId, stream: Stream, window_bytes: u32) -> Rc<Self> {
        let state = OutputState {
            proc,
            stream,
            window: u64::from(window_bytes),
            unacked: Unacked::new(),
            cursor: 0,
            at_end: false,
        };
        Rc::new(Self { state: RefCell::new(state), changed: Notify::new() })
    }

    /// The root has written everything below this offset.
    pub(super) fn acked(&self, offset: u64) {
        let mut state = self.state.borrow_mut();
        if let Err(error) = state.unacked.ack(offset) {
            tracing::warn!(proc = state.proc.0, %error, "an acknowledgement is ignored");
        }
        drop(state);
        self.changed.notify_one();
    }

    /// There is a new uplink: what is not acknowledged goes over it again.
    pub(super) fn replay(&self) {
        let mut state = self.state.borrow_mut();
        state.cursor = state.unacked.start();
        drop(state);
        self.changed.notify_one();
    }

    /// Bytes read in all.
    pub(super) fn total(&self) -> u64 {
        self.state.borrow().unacked.end()
    }

    fn next_piece(&self) -> Option<(u64, Bytes)> {
        let state = self.state.borrow();
        state.unacked.replay_from(state.cursor).ok()?.next()
    }

    fn room(&self) -> usize {
        let state = self.state.borrow();
        let room = state.window.saturating_sub(state.unacked.len());
        room.min(u64::from(BULK_PAYLOAD_BYTES_MAX)) as usize
    }
}

/// Reads the stream to its end and sends it.
pub(super) async fn pump(output: Rc<Output>, pipe: OwnedFd, shared: Rc<Shared>) {
    let mut pipe = match pipe::Receiver::from_owned_fd(pipe) {
        Ok(pipe) => Some(pipe),
        Err(error) => {
            tracing::error!(%error, "a rank's output cannot be read");
            None
        }
    };
    loop {
        if let Some((offset, bytes)) = output.next_piece() {
            send(&output, offset, bytes, &shared).await;
            continue;
        }
        let Some(open) = &pipe else {
            finished(&output, &shared);
            output.changed.notified().await;
            continue;
        };
        let room = output.room();
        if room == 0 {
            output.changed.notified().await;
            continue;
        }
        if shared.finishing_late() {
            // Somebody who is not of the job still holds the pipe.
            pipe = None;
            continue;
        }
        let ready = tokio::select! {
            ready = open.readable() => ready.is_ok(),
            () = output.changed.notified() => continue,
        };
        if !ready || !read(&output, open, room, &shared) {
            pipe = None;
        }
    }
}

/// Takes what the pipe has; says whether there may be more.
fn read(output: &Output, pipe: &pipe::Receiver, room: usize, shared: &Shared) -> bool {
    let mut scratch = shared.scratch.borrow_mut();
    match pipe.try_read(&mut scratch[..room]) {
        Ok(0) => false,
        Ok(bytes) => {
            let mut state = output.state.borrow_mut();
            state.unacked.push(Bytes::copy_from_slice(&scratch[..bytes]));
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

async fn send(output: &Output, offset: u64, bytes: Bytes, shared: &Shared) {
    let Some(uplink) = shared.uplink() else {
        shared.want_uplink();
        output.changed.notified().await;
        return;
    };
    let (proc, stream) = {
        let mut state = output.state.borrow_mut();
        state.cursor = offset + bytes.len() as u64;
        (state.proc, state.stream)
    };
    let Some(frame) = shared.frame(Kind::Output, bytes) else { return };
    let frame: Frame = frame.with(0, stream_channel(proc, stream), offset);
    // A connection that is gone is replaced, and then everything unacknowledged is sent again.
    let _ = uplink.send(frame).await;
}

fn finished(output: &Output, shared: &Shared) {
    if !std::mem::replace(&mut output.state.borrow_mut().at_end, true) {
        shared.report_if_finished();
    }
}
