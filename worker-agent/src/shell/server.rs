//! The agent's side of remote shells, on a thread of its own: it may wait for a start without delaying a job's heartbeats.

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use muster_core::shell::{Account, account};
use muster_protocol::Frame;
use muster_protocol::frame::Kind;
use muster_protocol::hello::Welcome;
use muster_protocol::limits::{BULK_QUEUE_FRAMES_MAX, HANDSHAKE_TIMEOUT_MS, SHELLS_CONNECTIONS_MAX};
use muster_protocol::message::{Message, ShellEnd, ShellPing, ShellStart, Stamp};
use muster_sys::children::Owner;
use muster_sys::pipe::{self, set_nonblocking};
use muster_sys::spawn::{SpawnOrder, Spawned, Spawner};
use muster_sys::{fdpass, reap};
use muster_transport::connection::Receiver;
use muster_transport::gate::Guest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe as async_pipe;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::guard::{GUARD, TERMINAL};
use super::session::{Ends, Link, NOT_STARTED, Running, SILENCE, part, session};

/// Time in which a client says what it wants.
const START_LIMIT: Duration = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);

/// Remote shells on this host. Dropping this ends all of them.
pub struct Shells {
    orders: mpsc::UnboundedSender<ShellOrder>,
    begun: watch::Sender<u64>,
    running: Arc<AtomicU32>,
}

/// A session that shall begin.
struct ShellOrder {
    guest: Box<Guest>,
    welcome: Welcome,
}

impl Shells {
    /// Starts the thread. `environment` is the agent's own, `told` what commands get besides it and their login's variables, `over`
    /// hears when a launcher's command has succeeded and those of others have ended, too.
    pub fn start(
        environment: Vec<(OsString, OsString)>,
        told: Vec<(&'static str, OsString)>,
        over: Arc<Notify>,
    ) -> io::Result<Self> {
        // Unbounded by type, bounded by the number of shells.
        let (orders, mut queue) = mpsc::unbounded_channel::<ShellOrder>();
        let begun = watch::Sender::new(0);
        let count = begun.clone();
        let running = Arc::<AtomicU32>::default();
        let over = Over { tell: over, said: Cell::new(false), running: running.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("shells".to_owned()).spawn(move || {
            let spawner = match Spawner::new(Owner::new()) {
                Ok(spawner) => spawner,
                Err(error) => return tracing::error!(%error, "this agent cannot run remote shells"),
            };
            let tasks = TaskTracker::new();
            let host = Rc::new(Host { spawner: RefCell::new(spawner), environment, told, tasks, begun: count, over });
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let mut sessions = JoinSet::new();
                while let Some(order) = queue.recv().await {
                    while sessions.try_join_next().is_some() {}
                    if sessions.len() >= SHELLS_CONNECTIONS_MAX {
                        tracing::warn!(
                            limit = SHELLS_CONNECTIONS_MAX,
                            "too many remote shells; one more is turned away"
                        );
                        continue;
                    }
                    sessions.spawn_local(host.clone().serve(*order.guest, order.welcome));
                }
            });
        })?;
        Ok(Self { orders, begun, running })
    }

    /// Commands that have begun here so far.
    pub fn begun(&self) -> u64 {
        *self.begun.borrow()
    }

    /// Commands that run here now.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
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
    told: Vec<(&'static str, OsString)>,
    tasks: TaskTracker,
    begun: watch::Sender<u64>,
    over: Over,
}

/// Whether a launcher's command has succeeded, and nobody's remote shell runs here any more.
struct Over {
    tell: Arc<Notify>,
    said: Cell<bool>,
    running: Arc<AtomicU32>,
}

impl Over {
    fn say(&self) {
        if !self.said.replace(true) {
            tracing::info!(
                running = self.running.load(Ordering::Relaxed),
                "a command has succeeded that may have used remote shells"
            );
        }
        self.look();
    }

    fn look(&self) {
        if self.said.get() && self.running.load(Ordering::Relaxed) == 0 {
            self.tell.notify_one();
        }
    }

    /// A remote shell runs until what this gives is dropped.
    fn run(&self) -> Runs<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Runs(self)
    }
}

struct Runs<'a>(&'a Over);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.look();
    }
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
        let link = Rc::new(Link { sender, stamp, me });
        let Some(first) = self.first_order(&link, &mut receiver).await else { return };
        let start = match ShellStart::read(&first) {
            Ok(start) if first.header.kind == Kind::ShellStart => start,
            _ => return tracing::warn!(from, "a remote shell did not say what to run"),
        };
        match self.begin(&start) {
            Ok(running) => {
                self.begun.send_modify(|begun| *begun += 1);
                tracing::info!(from, pid = running.pid, terminal = start.terminal.is_some(), "remote shell begins");
                let runs = self.over.run();
                session(link, running, receiver).await;
                drop(runs);
                tracing::info!(from, "remote shell ends");
            }
            Err(why) => {
                tracing::warn!(from, why, "remote shell does not begin");
                link.exit(ShellEnd::NotStarted { why, code: NOT_STARTED }).await;
                part(&link, receiver).await;
            }
        }
    }

    /// What a client wants. A launcher keeps a connection at hand for the next command, and gives signs of life meanwhile; it
    /// hears how many commands have begun here, its own and those of others. When the one that it has run is over it says so, and hears
    /// that it was understood.
    async fn first_order(&self, link: &Link, receiver: &mut Receiver) -> Option<Frame> {
        let (mut deadline, mut begun) = (Instant::now() + START_LIMIT, self.begun.subscribe());
        let mut waits = false;
        loop {
            let mut over = None;
            tokio::select! {
                frame = timeout_at(deadline, receiver.recv()) => {
                    let frame = frame.ok()?.ok()??;
                    if frame.header.kind != Kind::ShellPing {
                        return Some(frame);
                    }
                    over = ShellPing::read(&frame).ok()?.over.filter(|over| *over);
                    (deadline, waits) = (Instant::now() + SILENCE, true);
                }
                // At once, so that a host that is lost in the next moment is known to be needed.
                changed = begun.changed(), if waits => changed.ok()?,
            }
            let shells = Some(*begun.borrow_and_update());
            link.sender.send(link.message(&ShellPing { shells, over })).await.ok()?;
            if over.is_some() {
                self.over.say();
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
        let mut env: Vec<(&OsStr, &OsStr)> =
            environment.iter().map(|(n, v)| (OsStr::from_bytes(n), OsStr::from_bytes(v))).collect();
        env.extend(self.told.iter().map(|(name, value)| (OsStr::new(name), value.as_os_str())));
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        // Some images have no /dev; the guard hardly ever says a word.
        let null: OwnedFd = null.map(OwnedFd::from).or_else(|_| control.try_clone()).map_err(|e| e.to_string())?;
        let spawned = self.spawner.borrow_mut().spawn(&SpawnOrder {
            argv: &argv,
            env: &env,
            // The user's home, which may lie on a server that is dead, is entered by the guard: it waits for nobody else.
            cwd: Some(Path::new("/")),
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
