//! What carries bytes: TCP under TLS, Unix sockets, memory. All look the same from above.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use muster_protocol::limits::FENCE_LEASE_MS;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};

/// Time without traffic after which the kernel begins to ask whether the other side is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Questions without an answer that end the connection.
const KEEPALIVE_RETRIES: u32 = 3;

/// A two-way stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Moves the stream to the runtime that this is called in: from here on that one's thread hears when it is ready, without
    /// waking another one first. Nobody may be waiting for it meanwhile.
    fn rehome(&mut self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn rehome(&mut self) -> io::Result<()> {
        // The copy is the same socket; the original's entry with the old runtime goes with it.
        let copy = self.as_fd().try_clone_to_owned()?;
        *self = Self::from_std(copy.into())?;
        Ok(())
    }
}

impl Stream for UnixStream {
    fn rehome(&mut self) -> io::Result<()> {
        let copy = self.as_fd().try_clone_to_owned()?;
        *self = Self::from_std(copy.into())?;
        Ok(())
    }
}

/// Memory has no runtime.
impl Stream for DuplexStream {
    fn rehome(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for BoxStream {
    fn rehome(&mut self) -> io::Result<()> {
        (**self).rehome()
    }
}

/// A stream of which nobody needs to know what carries it.
pub type BoxStream = Box<dyn Stream>;

/// Forgets what carries a stream.
pub fn boxed(stream: impl Stream + 'static) -> BoxStream {
    Box::new(stream)
}

/// A Unix socket as a stream. No TLS: whoever holds it got it from us, or passed the mode bits of the socket's folder.
pub fn unix(stream: UnixStream) -> BoxStream {
    boxed(stream)
}

/// Two ends of a stream in memory that holds up to `bytes` in each direction.
pub fn memory(bytes: usize) -> (BoxStream, BoxStream) {
    let (one, other) = tokio::io::duplex(bytes);
    (boxed(one), boxed(other))
}

/// Sets what every TCP connection of ours has: no delay for small frames, and an end for connections to nowhere.
///
/// Liveness is decided above, within seconds; the kernel's timers only make sure that no socket outlives its peer for the
/// quarter of an hour that is the default.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_millis(FENCE_LEASE_MS)))
}
