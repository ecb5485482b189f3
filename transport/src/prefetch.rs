//! Large reads from the socket below TLS, which by itself reads four kibibytes at a time.
//!
//! The buffer exists only while bytes flow: an idle connection holds none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// First read after silence, in bytes: control traffic fits.
const SMALL_BYTES: usize = 2 << 10;
/// Reads while bytes keep coming.
const LARGE_BYTES: usize = 128 << 10;

pub(crate) struct Prefetch<S> {
    inner: S,
    buffer: BytesMut,
    chunk: usize,
}

impl<S> Prefetch<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, buffer: BytesMut::new(), chunk: SMALL_BYTES }
    }

    /// What it reads from.
    pub(crate) fn inner(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefetch<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            this.buffer.reserve(this.chunk);
            let read = {
                let future = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(&mut this.inner, &mut this.buffer));
                std::future::Future::poll(future, cx)
            };
            let Poll::Ready(read) = read else {
                this.buffer = BytesMut::new();
                this.chunk = SMALL_BYTES;
                return Poll::Pending;
            };
            if read? >= this.chunk {
                this.chunk = LARGE_BYTES;
            }
        }
        let n = out.remaining().min(this.buffer.len());
        out.put_slice(&this.buffer[..n]);
        this.buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefetch<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
