//! The agent's side of remote shells, on a thread of its own: it may wait for a start without delaying a job's heartbeats.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use muster_core::shell::{Account, account};
use muster_protocol::frame::{FLAG_END, Kind, stream_channel};
use muster_protocol::hello::Welcome;
use muster_protocol::limits::{BULK_QUEUE_FRAMES_MAX, FENCE_LEASE_MS, HANDSHAKE_TIMEOUT_MS};
use muster_protocol::message::{
    InputAck, Message, OutputAck, ShellEnd, ShellExit, ShellPing, ShellStart, ShellTell, Stamp, TerminalSize,
};
use muster_protocol::{Frame, HostIndex, ProcId, Stream};
use muster_sys::children::Owner;
use muster_sys::pipe::{self, grow, set_nonblocking};
use muster_sys::pty;
use muster_sys::spawn::{SpawnOrder, Spawned, Spawner};
use muster_sys::stage::Stage;
use muster_sys::status::ExitStatus;
use muster_sys::{fdpass, reap};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::gate::Guest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe as async_pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::guard::{END, GUARD, TERMINAL, WORD_BYTES, Word};
use super::window::Window;

/// A client that is not heard of for so long is dead; it gives a sign of life every second.
const SILENCE: Duration = Duration::from_millis(FENCE_LEASE_MS);
/// Time in which a client says what it wants.
const START_LIMIT: Duration = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
/// Time for the client to take the last frames and hang up.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes read from a command at a time.
const READ_BYTES: usize = 64 << 10;
/// Room of the command's pipes.
const PIPE_BYTES: u32 = 1 << 20;
/// Exit status of a client whose command did not start, as ssh has it for its own failures.
const NOT_STARTED: u8 = 255;

const SHELL: ProcId = ProcId(0);

/// Remote shells on this host. Dropping this ends all of them.
pub struct Shells {
    orders: mpsc::UnboundedSender<ShellOrder>,
}

/// A session that shall begin.
struct ShellOrder {
    guest: Box<Guest>,
    welcome: Welcome,
}

impl Shells {
    /// Starts the thread. `environment` is the agent's own.
    pub fn start(environment: Vec<(OsString, OsString)>) -> io::Result<Self> {
        // Unbounded by type, bounded by the gate, which lets in so many connections at a time.
        let (orders, mut queue) = mpsc::unbounded_channel::<ShellOrder>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("shells".to_owned()).spawn(move || {
            let spawner = match Spawner::new(Owner::new()) {
                Ok(spawner) => spawner,
                Err(error) => return tracing::error!(%error, "this agent cannot run remote shells"),
            };
            let host = Rc::new(Host { spawner: RefCell::new(spawner), environment, tasks: TaskTracker::new() });
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                while let Some(order) = queue.recv().await {
                    tokio::task::spawn_local(host.clone().serve(*order.guest, order.welcome));
                }
            });
        })?;
        Ok(Self { orders })
    }

    /// Serves a client.
    pub fn serve(&self, guest: Guest, welcome: Welcome) {
        // Without the thread the guest is dropped, and its client told so by the end of the connection.
        let _ = self.orders.send(ShellOrder { guest: Box::new(guest), welcome });
    }
}

/// What all sessions share.
struct Host {
    spawner: RefCell<Spawner>,
    environment: Vec<(OsString, OsString)>,
    tasks: TaskTracker,
}

impl Host {
    async fn serve(self: Rc<Self>, mut guest: Guest, welcome: Welcome) {
        let (stamp, from) =
            (Stamp { epoch: guest.hello.epoch, generation: guest.hello.generation }, guest.hello.from.clone());
        let me = guest.hello.you;
        if let Err(error) = guest.rehome() {
            tracing::debug!(%error, "a shell's connection stays with the thread that accepted it");
        }
        let (sender, mut receiver) = guest.welcome(welcome, BULK_QUEUE_FRAMES_MAX, &self.tasks);
        let Ok(Ok(Some(first))) = timeout(START_LIMIT, receiver.recv()).await else { return };
        let start = match ShellStart::read(&first) {
            Ok(start) if first.header.kind == Kind::ShellStart => start,
            _ => return tracing::warn!(from, "a remote shell did not say what to run"),
        };
        let link = Rc::new(Link { sender, stamp, me });
        match self.begin(&start) {
            Ok(running) => {
                tracing::info!(from, pid = running.pid, terminal = start.terminal.is_some(), "remote shell begins");
                session(link, running, receiver).await;
                tracing::info!(from, "remote shell ends");
            }
            Err(why) => {
                tracing::warn!(from, why, "remote shell does not begin");
                link.exit(ShellEnd::NotStarted { why, code: NOT_STARTED }).await;
                part(&link, receiver).await;
            }
        }
    }

    /// Starts the guard, and the command behind it.
    fn begin(&self, start: &ShellStart) -> Result<Running, String> {
        let account = self.account();
        if let Some(user) = start.user.as_ref().filter(|user| !account.is(user)) {
            let own = account.name.as_deref().unwrap_or("somebody without a name");
            return Err(format!("the agent runs as {own} and cannot become {user}"));
        }
        let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let ends = Ends::open(start.terminal, start.input).map_err(failed("cannot make the command's descriptors"))?;
        let (control, theirs) = pipe::socketpair().map_err(failed("cannot make a socket"))?;
        let pid = self.spawn_guard(&account, start, theirs)?;
        let control = StdUnixStream::from(control);
        let passed = [ends.theirs[0].as_fd(), ends.theirs[1].as_fd(), ends.theirs[2].as_fd()];
        fdpass::send(&control, &[1], &passed).map_err(|error| error.to_string())?;
        set_nonblocking(control.as_fd(), true).map_err(failed("cannot watch the command"))?;
        let control = UnixStream::from_std(control).map_err(failed("cannot watch the command"))?;
        Ok(Running { pid, control, ours: ends.ours, shell: account.shell })
    }

    fn account(&self) -> Account {
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        let home = self.environment.iter().find(|(name, _)| name == "HOME").and_then(|(_, home)| home.to_str());
        account(&String::from_utf8_lossy(&passwd), muster_sys::proc::uid(), home)
    }

    fn spawn_guard(&self, account: &Account, start: &ShellStart, control: OwnedFd) -> Result<i32, String> {
        let mut argv: Vec<OsString> = vec!["/proc/self/exe".into(), GUARD.into()];
        argv.extend(start.terminal.map(|_| OsString::from(TERMINAL)));
        let command = start.command.as_ref().map(|command| command.as_slice());
        argv.extend(account.argv(command).into_iter().map(OsString::from_vec));
        let own = self.environment.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let environment = account.environment(own, start.term.as_deref());
        let env: Vec<(&OsStr, &OsStr)> =
            environment.iter().map(|(n, v)| (OsStr::from_bytes(n), OsStr::from_bytes(v))).collect();
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        // Some images have no /dev; the guard hardly ever says a word.
        let null: OwnedFd = null.map(OwnedFd::from).or_else(|_| control.try_clone()).map_err(|e| e.to_string())?;
        let home = Path::new(&account.home);
        let spawned = self.spawner.borrow_mut().spawn(&SpawnOrder {
            argv: &argv,
            env: &env,
            cwd: Some(if home.is_dir() { home } else { Path::new("/") }),
            stdin: control.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            extra: None,
            cpus: None,
            limits: &[],
            umask: None,
            terminal: false,
        });
        let Spawned { pid, pidfd } = spawned.map_err(|error| format!("cannot start a guard: {error}"))?;
        tokio::task::spawn_local(wait_for(pid, pidfd));
        Ok(pid)
    }
}

/// Reaps a guard when it ends: when nothing of its session is left.
async fn wait_for(pid: i32, pidfd: OwnedFd) {
    if let Ok(ended) = async_pipe::Receiver::from_owned_fd_unchecked(pidfd) {
        let _ = ended.readable().await;
    }
    if let Err(error) = reap::reap(pid) {
        tracing::warn!(pid, %error, "the guard of a remote shell was not reaped");
    }
}

/// The descriptors of a command.
struct Ends {
    theirs: [OwnedFd; 3],
    ours: OurEnds,
}

struct OurEnds {
    input: Option<async_pipe::Sender>,
    outputs: Vec<(Stream, async_pipe::Receiver)>,
    /// For its size.
    terminal: Option<OwnedFd>,
}

impl Ends {
    fn open(terminal: Option<TerminalSize>, input: bool) -> io::Result<Self> {
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
struct Running {
    pid: i32,
    control: UnixStream,
    ours: OurEnds,
    shell: String,
}

/// The way to the client.
struct Link {
    sender: Sender,
    stamp: Stamp,
    me: HostIndex,
}

impl Link {
    fn message<M: Message>(&self, message: &M) -> Frame {
        self.stamp.frame(self.me, message)
    }

    async fn exit(&self, end: ShellEnd) {
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
async fn session(link: Rc<Link>, running: Running, receiver: Receiver) {
    let Running { control, ours, shell, .. } = running;
    let windows = Rc::new(Windows::default());
    let (input_queue, input) = mpsc::unbounded_channel();
    let (mut words, orders) = control.into_split();
    let feeder = tokio::task::spawn_local(feed(link.clone(), ours.input, input));
    let has_terminal = ours.terminal.is_some();
    let mut hearing =
        Hearing { link: link.clone(), windows: windows.clone(), input_queue, orders, terminal: ours.terminal };
    let pumps: Vec<_> = ours
        .outputs
        .into_iter()
        .map(|(stream, pipe)| tokio::task::spawn_local(pump(link.clone(), windows.clone(), stream, pipe)))
        .collect();
    let mut word = [0; WORD_BYTES];
    let finished = async {
        let ended = words.read_exact(&mut word).await.is_ok();
        for pump in pumps {
            // Who has a terminal loses it with the command; who has pipes may leave them to others, as with ssh.
            if has_terminal {
                let _ = timeout(Duration::from_millis(100), pump).await;
            } else {
                let _ = pump.await;
            }
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

/// Keeps the guard's socket open until the guard has ended.
async fn hold(mut words: tokio::net::unix::OwnedReadHalf, _orders: tokio::net::unix::OwnedWriteHalf) {
    let _ = words.read_u8().await;
}

/// Lets the client take what is under way.
async fn part(link: &Link, mut receiver: Receiver) {
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
async fn feed(link: Rc<Link>, input: Option<async_pipe::Sender>, mut queue: mpsc::UnboundedReceiver<Bytes>) {
    let mut input = input;
    let mut taken = 0;
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
        taken += piece.len() as u64;
        let ack = link.message(&InputAck { bytes: taken }).with(0, stream_channel(SHELL, Stream::Stdin), 0);
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
                let _ = self.link.sender.try_send(self.link.message(&ShellPing {}));
            }
            Kind::OutputAck => {
                let (_, stream) = frame.header.stream().ok()?;
                self.windows.of(stream).acknowledge(OutputAck::read(&frame).ok()?.bytes);
            }
            Kind::Input => {
                let at_end = frame.header.flags & FLAG_END != 0;
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
