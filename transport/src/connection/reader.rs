//! Bytes to frames.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use muster_protocol::frame::{Frame, HEADER_BYTES, Header, Kind};
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf, WriteHalf};

use super::{Framed, ReceiveError, Traffic};
use crate::stream::BoxStream;
use crate::tls::SecureError;

/// First read after silence, in bytes; grows while bytes keep coming.
const CHUNK_BYTES_MIN: usize = 2 << 10;
/// Largest read that is not for one known payload.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Payloads up to this size are copied, so that a frame in a queue does not hold on to a whole chunk.
const COPY_BYTES_MAX: usize = 1 << 10;
/// From this size on, what is missing of a payload is read by itself, so that it is never moved afterwards.
const EXACT_BYTES_MIN: usize = 16 << 10;

/// Reads frames. All state is in here and every read is one poll, so that dropping a waiting future loses nothing.
pub struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
    header: Option<Header>,
    chunk: usize,
    only: Option<Kind>,
    traffic: Arc<Traffic>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader at the beginning of a frame.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: BytesMut::new(),
            header: None,
            chunk: CHUNK_BYTES_MIN,
            only: None,
            traffic: Arc::default(),
        }
    }

    /// The next frame; `None` when the stream ends between two frames. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next frame, which must be of this kind: another one is refused by its header, before its payload is read.
    pub async fn next_of(&mut self, kind: Kind) -> Result<Option<Frame>, ReceiveError> {
        self.only = Some(kind);
        let frame = self.next().await;
        self.only = None;
        frame
    }

    /// What has crossed the connection.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Polls for the next frame.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReceiveError>> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            let missing = self.missing();
            let Poll::Ready(read) = self.poll_fill(missing, cx) else {
                if self.buffer.is_empty() && self.header.is_none() {
                    // An idle connection holds no memory.
                    self.buffer = BytesMut::new();
                    self.chunk = CHUNK_BYTES_MIN;
                }
                return Poll::Pending;
            };
            match read.map_err(SecureError::from)? {
                0 if self.buffer.is_empty() && self.header.is_none() => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(ReceiveError::Truncated { missing })),
                n => self.traffic.add_received(n),
            }
        }
    }

    /// Cuts the next frame out of the buffer if it is complete.
    fn take_frame(&mut self) -> Result<Option<Frame>, ReceiveError> {
        if self.header.is_none() {
            let Some(raw) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
            let header = Header::decode(raw)?;
            if let Some(expected) = self.only.filter(|only| *only != header.kind) {
                return Err(ReceiveError::Unexpected { expected, got: header.kind });
            }
            self.buffer.advance(HEADER_BYTES);
            self.header = Some(header);
        }
        let length = self.header.map_or(0, |header| header.length as usize);
        if self.buffer.len() < length {
            return Ok(None);
        }
        let payload = if length <= COPY_BYTES_MAX {
            let copy = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            copy
        } else {
            self.buffer.split_to(length).freeze()
        };
        Ok(self.header.take().map(|header| Frame { header, payload }))
    }

    /// Bytes without which there is no next frame.
    fn missing(&self) -> usize {
        let needed = self.header.map_or(HEADER_BYTES, |header| header.length as usize);
        needed - self.buffer.len()
    }

    fn poll_fill(&mut self, missing: usize, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if missing >= EXACT_BYTES_MIN {
            self.buffer.reserve(missing);
            let mut exact = (&mut self.buffer).limit(missing);
            return pin!(self.inner.read_buf(&mut exact)).poll(cx);
        }
        self.buffer.reserve(self.chunk.max(missing));
        let read = pin!(self.inner.read_buf(&mut self.buffer)).poll(cx);
        if let Poll::Ready(Ok(n)) = read
            && n >= self.chunk / 2
        {
            self.chunk = (self.chunk * 4).min(CHUNK_BYTES_MAX);
        }
        read
    }
}

impl Framed {
    /// The two directions, with what has been read ahead.
    pub(super) fn split(self) -> (FrameReader<ReadHalf<BoxStream>>, WriteHalf<BoxStream>) {
        let Self { inner, buffer, header, chunk, only, traffic } = self;
        let (read, write) = tokio::io::split(inner);
        (FrameReader { inner: read, buffer, header, chunk, only, traffic }, write)
    }
}
