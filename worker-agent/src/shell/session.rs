//! One remote shell on the agent's side: a command's streams, its signals and its end.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use muster_protocol::frame::{FLAG_END, Kind, stream_channel};
use muster_protocol::limits::{FENCE_LEASE_MS, SHELL_WINDOW_BYTES};
use muster_protocol::message::{
    InputAck, Message, OutputAck, ShellEnd, ShellExit, ShellPing, ShellTell, Stamp, TerminalSize,
};
use muster_protocol::{Frame, HostIndex, ProcId, Stream};
use muster_sys::pipe::{self, grow, set_nonblocking};
use muster_sys::pty;
use muster_sys::stage::Stage;
use muster_sys::status::ExitStatus;
use muster_transport::connection::{Receiver, Sender};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe as async_pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::guard::{END, WORD_BYTES, Word};
use super::window::Window;

/// A client that is not heard of for so long is dead; it gives a sign of life every second.
pub(super) const SILENCE: Duration = Duration::from_millis(FENCE_LEASE_MS);
/// Time for the client to take the last frames and hang up.
const FAREWELL: Duration = Duration::from_secs(5);
/// Time without output after which a terminal whose command has ended has no more.
const TERMINAL_QUIET: Duration = Duration::from_millis(100);
/// Bytes read from a command at a time.
const READ_BYTES: usize = 256 << 10;
/// Room of the command's pipes.
const PIPE_BYTES: u32 = 1 << 20;
/// Exit status of a client whose command did not start, as ssh has it for its own failures.
pub(super) const NOT_STARTED: u8 = 255;

const SHELL: ProcId = ProcId(0);

/// The descriptors of a command.
pub(super) struct Ends {
    pub(super) theirs: [OwnedFd; 3],
    pub(super) ours: OurEnds,
}

pub(super) struct OurEnds {
    input: Option<async_pipe::Sender>,
    outputs: Vec<(Stream, async_pipe::Receiver)>,
    /// For its size.
    terminal: Option<OwnedFd>,
}

impl Ends {
    pub(super) fn open(terminal: Option<TerminalSize>, input: bool) -> io::Result<Self> {
        let sender = |fd: OwnedFd| {
            set_nonblocking(fd.as_fd(), true)?;
            async_pipe::Sender::from_owned_fd_unchecked(fd)
        };
        let receiver = |fd: OwnedFd| {
            set_nonblocking(fd.as_fd(), true)?;
            async_pipe::Receiver::from_owned_fd_unchecked(fd)
        };
        if let Some(size) = terminal {
            let pty = pty::open(as_size(size))?;
            let theirs = [pty.slave.try_clone()?, pty.slave.try_clone()?, pty.slave];
            let (typed, printed) = (sender(pty.master.try_clone()?)?, receiver(pty.master.try_clone()?)?);
            let outputs = vec![(Stream::Stdout, printed)];
            return Ok(Self { theirs, ours: OurEnds { input: Some(typed), outputs, terminal: Some(pty.master) } });
        }
        let (stdin, out, err) = (pipe::pipe()?, pipe::pipe()?, pipe::pipe()?);
        grow(out.write.as_fd(), PIPE_BYTES);
        grow(stdin.write.as_fd(), PIPE_BYTES);
        let input = if input { Some(sender(stdin.write)?) } else { None };
        let outputs = vec![(Stream::Stdout, receiver(out.read)?), (Stream::Stderr, receiver(err.read)?)];
        Ok(Self { theirs: [stdin.read, out.write, err.write], ours: OurEnds { input, outputs, terminal: None } })
    }
}

fn as_size(size: TerminalSize) -> pty::Size {
    pty::Size { rows: size.rows, columns: size.columns }
}

/// A command and its guard.
pub(super) struct Running {
    pub(super) pid: i32,
    pub(super) control: UnixStream,
    pub(super) ours: OurEnds,
    pub(super) shell: String,
}

/// The way to the client.
pub(super) struct Link {
    pub(super) sender: Sender,
    pub(super) stamp: Stamp,
    pub(super) me: HostIndex,
}

impl Link {
    pub(super) fn message<M: Message>(&self, message: &M) -> Frame {
        self.stamp.frame(self.me, message)
    }

    pub(super) async fn exit(&self, end: ShellEnd) {
        let _ = self.sender.send(self.message(&ShellExit { end })).await;
    }
}

/// The windows of a command's two streams.
#[derive(Default)]
struct Windows {
    out: Window,
    err: Window,
}

impl Windows {
    fn of(&self, stream: Stream) -> &Window {
        if stream == Stream::Stderr { &self.err } else { &self.out }
    }
}

/// Runs until the command has ended and its output is sent, or the client is gone.
pub(super) async fn session(link: Rc<Link>, running: Running, receiver: Receiver) {
    let Running { control, ours, shell, .. } = running;
    let windows = Rc::new(Windows::default());
    let (input_queue, input) = mpsc::unbounded_channel();
    let (mut words, orders) = control.into_split();
    let taken = Rc::<Cell<u64>>::default();
    let feeder = tokio::task::spawn_local(feed(link.clone(), ours.input, input, taken.clone()));
    let has_terminal = ours.terminal.is_some();
    let mut hearing = Hearing {
        link: link.clone(),
        windows: windows.clone(),
        input_queue,
        received: 0,
        taken,
        orders,
        terminal: ours.terminal,
    };
    // Dropped with the client they end, however full their windows are.
    let mut pumps = JoinSet::new();
    for (stream, pipe) in ours.outputs {
        pumps.spawn_local(pump(link.clone(), windows.clone(), stream, pipe));
    }
    let mut word = [0; WORD_BYTES];
    let finished = async {
        let ended = words.read_exact(&mut word).await.is_ok();
        // Who has a terminal loses it with the command; who has pipes may leave them to others, as with ssh.
        if has_terminal {
            run_dry(&mut pumps, windows.of(Stream::Stdout)).await;
        } else {
            while pumps.join_next().await.is_some() {}
        }
        end_of(ended.then_some(word), &shell)
    };
    let mut receiver = receiver;
    let end = tokio::select! {
        end = finished => Some(end),
        () = hearing.hear(&mut receiver) => None,
    };
    feeder.abort();
    match end {
        Some(end) => {
            link.exit(end).await;
            // What the command has left in the background lives on behind its guard, as under any login.
            tokio::task::spawn_local(hold(words, hearing.orders));
            part(&link, receiver).await;
        }
        None => {
            let _ = hearing.orders.write_all(&[END]).await;
            link.sender.abort();
        }
    }
}

/// Waits for the rest of a terminal's output: until it is at its end, or nothing has come for a moment although there is room.
async fn run_dry(pumps: &mut JoinSet<()>, window: &Window) {
    loop {
        let before = window.sent();
        match timeout(TERMINAL_QUIET, pumps.join_next()).await {
            Ok(_) => return,
            Err(_) if window.sent() == before && window.has_room() => return,
            Err(_) => {}
        }
    }
}

/// Keeps the guard's socket open until the guard has ended.
async fn hold(mut words: tokio::net::unix::OwnedReadHalf, _orders: tokio::net::unix::OwnedWriteHalf) {
    let _ = words.read_u8().await;
}

/// Lets the client take what is under way.
pub(super) async fn part(link: &Link, mut receiver: Receiver) {
    link.sender.close();
    let _ = timeout(FAREWELL, async { while let Ok(Some(_)) = receiver.recv().await {} }).await;
}

fn end_of(word: Option<[u8; WORD_BYTES]>, shell: &str) -> ShellEnd {
    match word.and_then(Word::decode) {
        Some(Word::Ended(ExitStatus::Exited(code))) => ShellEnd::Exited { code },
        Some(Word::Ended(ExitStatus::Signaled { signal, core })) => {
            ShellEnd::Signaled { signal: u8::try_from(signal).unwrap_or(0), core }
        }
        Some(Word::NotStarted { stage, errno }) => {
            let reason = io::Error::from_raw_os_error(errno);
            let why = if stage == Stage::Exec {
                format!("the user's shell {shell} cannot be run: {reason}")
            } else {
                format!("the command cannot be started: {stage}: {reason}")
            };
            ShellEnd::NotStarted { why, code: NOT_STARTED }
        }
        None => ShellEnd::NotStarted { why: "the guard of the command was killed".to_owned(), code: NOT_STARTED },
    }
}

/// One of the command's streams, to its end.
async fn pump(link: Rc<Link>, windows: Rc<Windows>, stream: Stream, mut pipe: async_pipe::Receiver) {
    let window = windows.of(stream);
    let mut buffer = BytesMut::new();
    loop {
        let room = window.room().await.min(READ_BYTES);
        buffer.reserve(READ_BYTES);
        // A terminal whose programs are gone is an error instead of an end.
        let Ok(bytes @ 1..) = pipe.read_buf(&mut bytes::BufMut::limit(&mut buffer, room)).await else { return };
        let offset = window.send(bytes);
        let frame = link.stamp.raw(Kind::Output, link.me, buffer.split().freeze());
        if link.sender.send(frame.with(0, stream_channel(SHELL, stream), offset)).await.is_err() {
            return;
        }
    }
}

/// Feeds the command; an empty piece is the end.
async fn feed(
    link: Rc<Link>,
    input: Option<async_pipe::Sender>,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    taken: Rc<Cell<u64>>,
) {
    let mut input = input;
    while let Some(piece) = queue.recv().await {
        if piece.is_empty() {
            input = None;
            continue;
        }
        if let Some(pipe) = &mut input
            && pipe.write_all(&piece).await.is_err()
        {
            // It reads no more; what comes is taken all the same, so that the client can end.
            input = None;
        }
        taken.set(taken.get() + piece.len() as u64);
        let ack = link.message(&InputAck { bytes: taken.get() }).with(0, stream_channel(SHELL, Stream::Stdin), 0);
        if link.sender.send(ack).await.is_err() {
            return;
        }
    }
}

/// What comes from the client.
struct Hearing {
    link: Rc<Link>,
    windows: Rc<Windows>,
    /// Unbounded by type, bounded by the client's window; what passes it is a broken client, and its end.
    input_queue: mpsc::UnboundedSender<Bytes>,
    /// Bytes that came for the command, and how many of them it has taken.
    received: u64,
    taken: Rc<Cell<u64>>,
    orders: tokio::net::unix::OwnedWriteHalf,
    terminal: Option<OwnedFd>,
}

impl Hearing {
    /// Returns when the client is gone.
    async fn hear(&mut self, receiver: &mut Receiver) {
        while let Ok(Ok(Some(frame))) = timeout(SILENCE, receiver.recv()).await {
            if self.take(frame).await.is_none() {
                return;
            }
        }
    }

    /// Nothing when the frame cannot be understood.
    async fn take(&mut self, frame: Frame) -> Option<()> {
        match frame.header.kind {
            Kind::ShellPing => {
                // Behind output that waits; whoever reads output knows that we live.
                let _ = self.link.sender.try_send(self.link.message(&ShellPing::default()));
            }
            Kind::OutputAck => {
                let (_, stream) = frame.header.stream().ok()?;
                self.windows.of(stream).acknowledge(OutputAck::read(&frame).ok()?.bytes);
            }
            Kind::Input => {
                let at_end = frame.header.flags & FLAG_END != 0;
                self.received += frame.payload.len() as u64;
                if self.received - self.taken.get() > SHELL_WINDOW_BYTES {
                    tracing::warn!("the client of a remote shell sends more than its window allows");
                    return None;
                }
                if !frame.payload.is_empty() {
                    let _ = self.input_queue.send(frame.payload);
                }
                if at_end {
                    let _ = self.input_queue.send(Bytes::new());
                }
            }
            Kind::ShellTell => match ShellTell::read(&frame).ok()? {
                ShellTell::Resize { size } => {
                    if let Some(terminal) = &self.terminal {
                        let _ = pty::set_size(terminal.as_fd(), as_size(size));
                    }
                }
                ShellTell::Signal { signal } if signal != END => {
                    let _ = self.orders.write_all(&[signal]).await;
                }
                ShellTell::Signal { .. } => {}
            },
            _ => {}
        }
        Some(())
    }
}
