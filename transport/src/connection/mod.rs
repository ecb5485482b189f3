//! Frames over any stream.
//!
//! ```text
//!   Sender ─┐                        ┌─ Receiver
//!   Sender ─┴─ bounded queue ─ writer │  reader
//!                                 └─ stream ─┘
//! ```
//! A [`Framed`] stream is what a handshake leaves behind; [`Framed::spawn`] gives it a writer task, so that sending never
//! waits for the network unless the queue is full. The writer takes everything that is queued into one write.

mod reader;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_protocol::frame::{Frame, FrameError, Kind};
use thiserror::Error;
use tokio::io::{AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use reader::FrameReader;

use crate::stream::BoxStream;
use crate::tls::SecureError;

/// Why no further frame comes from a connection.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// What arrives is not a frame, or too long.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame.
    #[error("the connection ended inside a frame, {missing} bytes short")]
    Truncated {
        /// Bytes that are known to be missing.
        missing: usize,
    },
    /// A good frame at the wrong time.
    #[error("a frame of kind {got:?} came where {expected:?} was due")]
    Unexpected {
        /// What was due.
        expected: Kind,
        /// What came.
        got: Kind,
    },
    /// The connection failed.
    #[error(transparent)]
    Failed(#[from] SecureError),
    /// This side gave the connection up.
    #[error("the connection was given up on this side")]
    Aborted,
}

/// Why a frame was not queued; it comes back to the caller.
#[derive(Debug, Error)]
pub enum TrySendError {
    /// The queue's limit is reached: the other side reads too slowly.
    #[error("the connection's queue is full")]
    Full(Frame),
    /// The connection has ended or is closing.
    #[error("the connection is closed")]
    Closed(Frame),
}

/// The connection has ended or is closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the connection is closed")]
pub struct Closed;

/// Bytes that have crossed a connection; any growth of `received` is a sign of life.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Bytes received so far, parts of frames included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes handed to the network so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A stream that carries frames and has no writer task yet.
pub type Framed = FrameReader<BoxStream>;

impl Framed {
    /// Writes one frame at once, for handshakes.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), SecureError> {
        let mut bytes = bytes::BytesMut::new();
        frame.encode_into(&mut bytes);
        let stream = self.get_mut();
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        self.traffic().add_sent(bytes.len());
        Ok(())
    }

    /// Moves the connection to the runtime that this is called in.
    pub fn rehome(&mut self) -> std::io::Result<()> {
        self.get_mut().rehome()
    }

    /// Splits the connection into its ends; up to `queue_frames` frames wait for the network.
    pub fn spawn(self, queue_frames: usize, tasks: &TaskTracker) -> (Sender, Receiver) {
        let traffic = self.traffic().clone();
        let (reader, write_half) = self.split();
        let (queue, queued) = mpsc::channel(queue_frames);
        let (close, abort) = (CancellationToken::new(), CancellationToken::new());
        let writer = writer::Writer { stream: write_half, queued, close: close.clone(), traffic: traffic.clone() };
        let gone = abort.clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = writer.run() => {}
            }
        });
        let last = Arc::new(close.clone().drop_guard());
        (Sender { queue, close, abort: abort.clone(), traffic, _last: last }, Receiver { reader, abort })
    }
}

/// The sending end; clones share one queue. When the last one is dropped, the connection is closed as by [`Sender::close`].
#[derive(Clone)]
pub struct Sender {
    queue: mpsc::Sender<Frame>,
    close: CancellationToken,
    abort: CancellationToken,
    traffic: Arc<Traffic>,
    /// Starts the time for draining even while the writer is stuck in a write.
    _last: Arc<DropGuard>,
}

impl Sender {
    /// Queues a frame if there is room.
    pub fn try_send(&self, frame: Frame) -> Result<(), TrySendError> {
        self.queue.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(frame) => TrySendError::Full(frame),
            mpsc::error::TrySendError::Closed(frame) => TrySendError::Closed(frame),
        })
    }

    /// Queues a frame, waiting for room. Cancelling the wait queues nothing.
    pub async fn send(&self, frame: Frame) -> Result<(), Closed> {
        self.queue.send(frame).await.map_err(|_| Closed)
    }

    /// Waits until the writer has ended, whoever ended it.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Takes no more frames, writes out what is queued, then says goodbye to the other side.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// Ends the connection at once, queued frames are lost. The receiver gets [`ReceiveError::Aborted`]; the stream itself
    /// goes when the receiver is dropped.
    pub fn abort(&self) {
        self.abort.cancel();
    }

    /// Frames that wait for the network.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// What has crossed the connection.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }
}

/// The receiving end.
pub struct Receiver {
    reader: FrameReader<ReadHalf<BoxStream>>,
    abort: CancellationToken,
}

impl Receiver {
    /// The next frame; `None` after the other side's goodbye. Cancelling the wait loses nothing.
    pub async fn recv(&mut self) -> Result<Option<Frame>, ReceiveError> {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => Err(ReceiveError::Aborted),
            frame = self.reader.next() => frame,
        }
    }
}
