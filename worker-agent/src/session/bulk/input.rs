//! A rank's standard input: bytes from the launcher into a pipe, acknowledged when the pipe has taken them.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use muster_protocol::frame::{FLAG_ANNOUNCE, FLAG_END, stream_channel};
use muster_protocol::limits::STDIN_WINDOW_BYTES;
use muster_protocol::message::InputAck;
use muster_protocol::{Frame, ProcId, Stream};
use muster_transport::credit::{CreditError, Dedup, Unacked};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::plane::Shared;

/// Bytes after which an acknowledgement is due even though more is waiting: less than a pipe holds, also one that is filled with
/// odd pieces, so that a rank that reads nothing is heard of, too.
const ACK_BYTES: u64 = 16 << 10;

/// A rank's standard input, shared by the task that writes it and the one that hears the launcher.
pub(super) struct Input {
    proc: ProcId,
    state: RefCell<State>,
    /// Bytes, the end, a new uplink.
    changed: Notify,
}

#[derive(Default)]
struct State {
    seen: Dedup,
    /// What the pipe has not taken; its start is what the pipe has taken in all.
    waiting: Unacked,
    /// The launcher has heard that the pipe has taken this much.
    told: u64,
    at_end: bool,
    /// The launcher is to send again from where the pipe is.
    announce: bool,
    /// Something did not fit into the window and is to be asked for again once there is room.
    refused: bool,
}

impl Input {
    /// Input of a rank that has been given nothing. Its first word is ours: it says that there is a reader, and where.
    pub(super) fn new(proc: ProcId) -> Rc<Self> {
        let state = State { announce: true, ..State::default() };
        Rc::new(Self { proc, state: RefCell::new(state), changed: Notify::new() })
    }

    /// Bytes from the launcher.
    pub(super) fn push(&self, frame: Frame) {
        match self.state.borrow_mut().take(frame) {
            Ok(()) => {}
            // Those before them were lost with a connection; all of them come again after the announcement.
            Err(error @ CreditError::Gap { .. }) => tracing::debug!(proc = self.proc.0, %error, "input is too early"),
            Err(error) => tracing::warn!(proc = self.proc.0, %error, "standard input of a rank is not taken"),
        }
        self.changed.notify_one();
    }

    /// A new uplink: tell the launcher how far this rank is.
    pub(super) fn announce(&self) {
        self.state.borrow_mut().announce = true;
        self.changed.notify_one();
    }

    /// Whether the launcher may have something for this rank.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.borrow();
        !(state.at_end && state.waiting.is_empty())
    }

    /// What to tell the launcher now: flags and offset.
    fn due(&self) -> Option<(u16, u64)> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.waiting.is_empty() && std::mem::take(&mut state.refused) {
            state.announce = true;
        }
        let taken = state.waiting.start();
        let fresh = taken - state.told;
        let due = state.announce || fresh >= ACK_BYTES || (fresh > 0 && state.waiting.is_empty());
        state.told = if due { taken } else { state.told };
        due.then(|| if std::mem::take(&mut state.announce) { (FLAG_ANNOUNCE, taken) } else { (0, taken) })
    }

    fn next_piece(&self) -> Option<Bytes> {
        self.state.borrow().waiting.piece_from(0).map(|(_, piece)| piece)
    }

    fn taken(&self, bytes: usize) {
        let mut state = self.state.borrow_mut();
        let end = state.waiting.start() + bytes as u64;
        if let Err(error) = state.waiting.ack(end) {
            tracing::error!(proc = self.proc.0, %error, "a pipe has taken more than there was");
        }
    }
}

impl State {
    fn take(&mut self, frame: Frame) -> Result<(), CreditError> {
        let (offset, len) = (frame.header.seq, frame.payload.len());
        let end = offset.checked_add(len as u64).ok_or(CreditError::Overflow(offset))?;
        if end.saturating_sub(self.seen.next()) > self.waiting.room(STDIN_WINDOW_BYTES) {
            // A launcher that keeps to the window never comes here.
            tracing::warn!(offset, len, "standard input beyond the window is refused until the rank has read");
            self.refused = true;
            return Ok(());
        }
        if let Some(skip) = self.seen.accept(offset, len)? {
            self.waiting.push(frame.payload.slice(skip..));
        }
        self.at_end |= frame.header.flags & FLAG_END != 0 && end == self.seen.next();
        Ok(())
    }
}

/// Feeds a rank until its job is forgotten.
///
/// What a rank does not want to read is taken all the same, so that the launcher's input never stalls because of it.
pub(super) async fn feed(input: Rc<Input>, pipe: OwnedFd, shared: Rc<Shared>) {
    let mut pipe = pipe::Sender::from_owned_fd(pipe).ok();
    loop {
        if let Some((flags, bytes)) = input.due() {
            acknowledge(input.proc, flags, bytes, &shared).await;
            continue;
        }
        let Some(piece) = input.next_piece() else {
            if !input.is_open() {
                pipe = None;
            }
            input.changed.notified().await;
            continue;
        };
        let Some(open) = &pipe else {
            input.taken(piece.len());
            continue;
        };
        let ready = tokio::select! {
            ready = open.writable() => ready,
            () = input.changed.notified() => continue,
        };
        match ready.and_then(|()| open.try_write(&piece)) {
            Ok(bytes) => input.taken(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => pipe = None,
        }
    }
}

/// Without an uplink nothing is said: the next one begins with an announcement.
async fn acknowledge(proc: ProcId, flags: u16, bytes: u64, shared: &Shared) {
    let Some(uplink) = shared.uplink() else {
        shared.want_uplink();
        return;
    };
    let Some(frame) = shared.message(&InputAck { bytes }) else { return };
    let _ = uplink.send(frame.with(flags, stream_channel(proc, Stream::Stdin), 0)).await;
}
