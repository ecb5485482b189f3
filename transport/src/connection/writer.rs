//! Frames to bytes: everything that is queued goes out in one write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use muster_protocol::frame::Frame;
use muster_protocol::limits::HANDSHAKE_TIMEOUT_MS;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Traffic;
use crate::stream::BoxStream;

/// Bytes that go out in one write, about.
const BATCH_BYTES: usize = 256 << 10;
/// Larger payloads are written from where they are.
const COPY_BYTES_MAX: usize = 4 << 10;
/// Time for writing out what is queued when the connection is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);

pub(super) struct Writer {
    pub(super) stream: WriteHalf<BoxStream>,
    pub(super) queued: mpsc::Receiver<Frame>,
    pub(super) close: CancellationToken,
    pub(super) traffic: Arc<Traffic>,
}

impl Writer {
    /// Writes until every sender is gone, or the connection is closed and drained, or it fails.
    pub(super) async fn run(self) {
        let close = self.close.clone();
        let overdue = async {
            close.cancelled().await;
            sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            wrote = self.write_all() => if let Err(error) = wrote {
                // The receiver meets the same failure and tells the owner.
                tracing::debug!(%error, "connection stopped taking frames");
            },
            () = overdue => tracing::debug!("closed connection did not take what was queued in time"),
        }
    }

    async fn write_all(mut self) -> io::Result<()> {
        let mut batch = Batch::default();
        while let Some(frame) = self.next().await {
            batch.push(&frame);
            while batch.remaining() < BATCH_BYTES
                && let Ok(frame) = self.queued.try_recv()
            {
                batch.push(&frame);
            }
            batch.seal();
            let bytes = batch.remaining();
            self.stream.write_all_buf(&mut batch).await?;
            self.stream.flush().await?;
            self.traffic.add_sent(bytes);
            if self.queued.is_empty() {
                // An idle connection holds no memory.
                batch = Batch::default();
            }
        }
        self.stream.shutdown().await
    }

    async fn next(&mut self) -> Option<Frame> {
        if !self.queued.is_closed() {
            tokio::select! {
                biased;
                () = self.close.cancelled() => self.queued.close(),
                frame = self.queued.recv() => return frame,
            }
        }
        self.queued.recv().await
    }
}

/// Bytes to write, in pieces: small frames gathered, large payloads by reference.
#[derive(Default)]
struct Batch {
    pieces: VecDeque<Bytes>,
    sealed: usize,
    gathered: BytesMut,
}

impl Batch {
    fn push(&mut self, frame: &Frame) {
        self.gathered.put_slice(&frame.header.encode());
        if frame.payload.len() <= COPY_BYTES_MAX {
            self.gathered.put_slice(&frame.payload);
        } else {
            self.seal();
            self.sealed += frame.payload.len();
            self.pieces.push_back(frame.payload.clone());
        }
    }

    /// Makes what has been gathered a piece.
    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            self.sealed += self.gathered.len();
            self.pieces.push_back(self.gathered.split().freeze());
        }
    }
}

impl Buf for Batch {
    /// Counts what is not sealed too; nothing is written before all is.
    fn remaining(&self) -> usize {
        self.sealed + self.gathered.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            n += 1;
        }
        n
    }

    fn advance(&mut self, mut bytes: usize) {
        assert!(bytes <= self.sealed, "advanced past the end of a batch");
        self.sealed -= bytes;
        while bytes > 0
            && let Some(front) = self.pieces.front_mut()
        {
            let step = bytes.min(front.len());
            front.advance(step);
            bytes -= step;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::frame::{EVERY_HOST, Kind};
    use muster_protocol::{Epoch, Generation};

    use super::*;

    #[test]
    fn a_batch_is_the_frames_in_order_however_it_is_consumed() {
        let mut batch = Batch::default();
        let mut due = BytesMut::new();
        for (i, bytes) in [0, 10, COPY_BYTES_MAX, COPY_BYTES_MAX + 1, 3, 100_000, 7].into_iter().enumerate() {
            let payload = Bytes::from(vec![i as u8; bytes]);
            let frame = Frame::new(Kind::Output, EVERY_HOST, Epoch(1), Generation(2), payload).with(0, 0, i as u64);
            batch.push(&frame);
            frame.encode_into(&mut due);
        }
        batch.seal();
        assert_eq!(batch.remaining(), due.len());
        let mut got = Vec::new();
        for step in [1usize, 39, 41, 5_000, 64, 70_000].into_iter().cycle() {
            let mut slices = [IoSlice::new(&[]); 3];
            let n = batch.chunks_vectored(&mut slices);
            let all: Vec<u8> = slices[..n].iter().flat_map(|slice| slice.iter().copied()).collect();
            let step = step.min(all.len());
            got.extend_from_slice(&all[..step]);
            batch.advance(step);
            if !batch.has_remaining() {
                break;
            }
        }
        assert!(got == due);
    }
}
