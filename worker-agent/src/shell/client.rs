//! The side of a remote shell that asks: joins a command on a host to descriptors here.
//!
//! Descriptors may belong to others as well, so they are left as they are, blocking, and threads wait for them. The
//! connection is always read: what is not written yet is bounded by the streams' windows.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use muster_protocol::frame::{FLAG_END, Kind, stream_channel};
use muster_protocol::hello::Hello;
use muster_protocol::limits::{BULK_QUEUE_FRAMES_MAX, SHELL_WINDOW_BYTES, SILENCE_DEAD_MS};
use muster_protocol::message::{
    InputAck, Message, OutputAck, ShellEnd, ShellExit, ShellPing, ShellStart, ShellTell, Stamp,
};
use muster_protocol::{Frame, ProcId, Stream};
use muster_sys::pipe::pipe;
use muster_sys::poll::{Poller, Trigger};
use muster_transport::connection::{ReceiveError, Receiver, Sender};
use muster_transport::dial::Dialed;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::task::TaskTracker;

use super::window::Window;

/// Time between two signs of life.
const PING: Duration = Duration::from_secs(1);
/// A host that is not heard of for so long is lost.
const SILENCE: Duration = Duration::from_millis(SILENCE_DEAD_MS);
/// Signs of life that are later than this were late because this process did not run.
const STOPPED: Duration = Duration::from_millis(2_500);
/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

const STOP: u64 = 0;
const INPUT: u64 = 1;

/// Where the command's streams lead.
pub struct Ends {
    /// Its standard input; empty when absent.
    pub stdin: Option<OwnedFd>,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

/// Why the end of a command is not known.
#[derive(Debug, Error)]
pub enum Broken {
    /// No sign of life.
    #[error("no sign of life for {} s; is the host down, or the network cut?", SILENCE.as_secs())]
    Silent,
    /// The connection ended before the command.
    #[error("its agent closed the connection before the command had ended; was it killed?")]
    Closed,
    /// The connection failed.
    #[error("the connection to its agent broke: {0}")]
    Failed(ReceiveError),
    /// Something that makes no sense came.
    #[error("its agent sent something that cannot be understood: {0}")]
    Nonsense(String),
    /// Nobody could wait for a descriptor.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// Output cannot be written here.
    #[error("cannot write {what}: {source}")]
    Output {
        /// Which stream.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// What the threads say.
enum Said {
    /// Bytes of standard input; none is the end.
    Read(Bytes),
    /// So many bytes of a stream were written.
    Written(Stream, usize),
    Failed(Stream, io::Error),
}

/// Runs a command over a connection. `tell` brings signals and sizes for it.
pub async fn run(
    dialed: Dialed,
    hello: &Hello,
    start: &ShellStart,
    ends: Ends,
    tell: mpsc::UnboundedReceiver<ShellTell>,
) -> Result<ShellEnd, Broken> {
    let line = dialed.spawn(BULK_QUEUE_FRAMES_MAX, &TaskTracker::new());
    run_over(line, hello, start, ends, tell).await
}

/// As [`run`], over a connection that may have been idle for a while.
pub async fn run_over(
    (sender, receiver): (Sender, Receiver),
    hello: &Hello,
    start: &ShellStart,
    ends: Ends,
    tell: mpsc::UnboundedReceiver<ShellTell>,
) -> Result<ShellEnd, Broken> {
    let (said, heard) = mpsc::unbounded_channel();
    let stop = pipe().map_err(Broken::Thread)?;
    let mut client = Client {
        stamp: Stamp { epoch: hello.epoch, generation: hello.generation },
        host: hello.you,
        writers: [
            writer(Stream::Stdout, ends.stdout, said.clone()).map_err(Broken::Thread)?,
            writer(Stream::Stderr, ends.stderr, said.clone()).map_err(Broken::Thread)?,
        ],
        written: [0; 2],
        waiting: 0,
        input: ends.stdin.map(|stdin| reader(stdin, stop.read, said)).transpose().map_err(Broken::Thread)?,
        _stop: stop.write,
        window: Window::default(),
        asked: false,
        sender,
    };
    client.send(client.stamp.frame(client.host, start)).await?;
    let result = client.converse(receiver, heard, tell).await;
    match result {
        Ok(_) => client.sender.close(),
        Err(_) => client.sender.abort(),
    }
    result
}

struct Client {
    stamp: Stamp,
    host: muster_protocol::HostIndex,
    sender: Sender,
    writers: [std_mpsc::Sender<Bytes>; 2],
    written: [u64; 2],
    /// Bytes handed to the writers and not written yet.
    waiting: usize,
    /// Asks for the next piece of standard input; gone at its end.
    input: Option<std_mpsc::Sender<usize>>,
    /// Its end is the reading thread's.
    _stop: OwnedFd,
    window: Window,
    /// A piece of standard input is on its way from the thread.
    asked: bool,
}

fn at(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

impl Client {
    async fn converse(
        &mut self,
        mut receiver: Receiver,
        mut heard: mpsc::UnboundedReceiver<Said>,
        mut tell: mpsc::UnboundedReceiver<ShellTell>,
    ) -> Result<ShellEnd, Broken> {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut pinged, mut end) = (Instant::now(), Instant::now(), None);
        loop {
            if self.waiting == 0
                && let Some(end) = end.take()
            {
                return Ok(end);
            }
            tokio::select! {
                frame = timeout_at(last + SILENCE, receiver.recv()), if end.is_none() => {
                    last = Instant::now();
                    let frame = match frame {
                        Ok(frame) => frame.map_err(Broken::Failed)?.ok_or(Broken::Closed)?,
                        // Who was stopped (Ctrl-Z) has not asked, and so cannot have been answered.
                        Err(_) if pinged.elapsed() > STOPPED => continue,
                        Err(_) => return Err(Broken::Silent),
                    };
                    end = self.take(frame)?;
                }
                Some(said) = heard.recv() => self.hear(said).await?,
                room = self.window.room(), if self.input.is_some() && !self.asked && end.is_none() => {
                    if let Some(input) = &self.input {
                        self.asked = input.send(room.min(READ_BYTES)).is_ok();
                    }
                }
                Some(message) = tell.recv() => self.send(self.stamp.frame(self.host, &message)).await?,
                _ = ping.tick() => {
                    if pinged.elapsed() > STOPPED {
                        last = Instant::now();
                    }
                    pinged = Instant::now();
                    // Behind a full queue there is life enough.
                    let _ = self.sender.try_send(self.stamp.frame(self.host, &ShellPing::default()));
                }
            }
        }
    }

    async fn send(&self, frame: Frame) -> Result<(), Broken> {
        self.sender.send(frame).await.map_err(|_| Broken::Closed)
    }

    /// A frame of the agent; says how the command has ended when it has.
    fn take(&mut self, frame: Frame) -> Result<Option<ShellEnd>, Broken> {
        let nonsense = |why: String| Broken::Nonsense(why);
        match frame.header.kind {
            Kind::Output => {
                let (_, stream) = frame.header.stream().map_err(|e| nonsense(e.to_string()))?;
                self.waiting += frame.payload.len();
                if self.waiting as u64 > 2 * SHELL_WINDOW_BYTES {
                    return Err(nonsense("more output than its windows allow".to_owned()));
                }
                // A writer that has failed has said so.
                let _ = self.writers[at(stream)].send(frame.payload);
            }
            Kind::InputAck => {
                self.window.acknowledge(InputAck::read(&frame).map_err(|e| nonsense(e.to_string()))?.bytes);
            }
            Kind::ShellExit => {
                return ShellExit::read(&frame).map(|exit| Some(exit.end)).map_err(|e| nonsense(e.to_string()));
            }
            _ => {}
        }
        Ok(None)
    }

    async fn hear(&mut self, said: Said) -> Result<(), Broken> {
        match said {
            Said::Written(stream, bytes) => {
                self.waiting -= bytes;
                self.written[at(stream)] += bytes as u64;
                let ack = self.stamp.frame(self.host, &OutputAck { bytes: self.written[at(stream)] });
                self.send(ack.with(0, stream_channel(ProcId(0), stream), 0)).await
            }
            Said::Failed(stream, source) => {
                let what = if stream == Stream::Stderr { "standard error" } else { "standard output" };
                Err(Broken::Output { what, source })
            }
            Said::Read(bytes) => {
                self.asked = false;
                let flags = if bytes.is_empty() {
                    self.input = None;
                    FLAG_END
                } else {
                    0
                };
                let offset = self.window.send(bytes.len());
                let frame = self.stamp.raw(Kind::Input, self.host, bytes);
                self.send(frame.with(flags, stream_channel(ProcId(0), Stream::Stdin), offset)).await
            }
        }
    }
}

/// A thread that writes a stream.
fn writer(stream: Stream, to: OwnedFd, said: mpsc::UnboundedSender<Said>) -> io::Result<std_mpsc::Sender<Bytes>> {
    let (pieces, queue) = std_mpsc::channel::<Bytes>();
    let mut to = File::from(to);
    let work = move || {
        for piece in queue {
            let word = match write_fully(&mut to, &piece) {
                Ok(()) => Said::Written(stream, piece.len()),
                Err(error) => Said::Failed(stream, error),
            };
            if said.send(word).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("writer".to_owned()).stack_size(64 << 10).spawn(work)?;
    Ok(pieces)
}

/// Writes everything, also to a descriptor that somebody else made non-blocking.
fn write_fully(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A thread that reads standard input, so many bytes at most as it is asked for each time. It ends when `stop` closes, without
/// taking anything more: others may read the same descriptor.
fn reader(from: OwnedFd, stop: OwnedFd, said: mpsc::UnboundedSender<Said>) -> io::Result<std_mpsc::Sender<usize>> {
    let (requests, queue) = std_mpsc::channel::<usize>();
    let poller = Poller::new()?;
    poller.add(stop.as_fd(), STOP, Trigger::Level)?;
    // A file is always ready, and cannot be waited for.
    let waits = poller.add(from.as_fd(), INPUT, Trigger::Level).is_ok();
    let mut from = File::from(from);
    let work = move || {
        let mut buffer = BytesMut::new();
        let mut ready = Vec::new();
        let _stop = stop;
        for room in queue {
            if waits && !has_input(&poller, &mut ready) {
                return;
            }
            buffer.resize(room, 0);
            let bytes = loop {
                match from.read(&mut buffer) {
                    Ok(bytes) => break bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                    // What cannot be read is at its end.
                    Err(_) => break 0,
                }
            };
            buffer.truncate(bytes);
            if said.send(Said::Read(buffer.split().freeze())).is_err() || bytes == 0 {
                return;
            }
        }
    };
    thread::Builder::new().name("reader".to_owned()).stack_size(64 << 10).spawn(work)?;
    Ok(requests)
}

/// Waits until there is something to read; says whether it is still wanted.
fn has_input(poller: &Poller, ready: &mut Vec<u64>) -> bool {
    while poller.wait(ready, None).is_ok() && !ready.contains(&STOP) {
        if ready.contains(&INPUT) {
            return true;
        }
    }
    false
}
