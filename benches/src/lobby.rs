//! Where the measured commands are started: in the launcher host's network and under its name, but among the machine's
//! own processes, so that the peer that only enters namespaces can name them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A measured command that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The thread that starts commands.
pub(crate) struct Lobby {
    orders: mpsc::Sender<Order>,
}

/// What a command did.
pub(crate) struct Ran {
    /// From before its start until it was over and its output read, in milliseconds.
    pub(crate) ms: f64,
    pub(crate) stdout: Vec<u8>,
}

impl Lobby {
    /// Enters the network and the name of the host whose first process this is, with its table of hosts.
    pub(crate) fn enter(init_pid: i32, hosts_file: &Path) -> Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        let (ready, entered) = mpsc::channel();
        let hosts_file = hosts_file.to_owned();
        thread::Builder::new().name("lobby".to_owned()).spawn(move || {
            let result = enter(init_pid, &hosts_file);
            let go_on = result.is_ok();
            if ready.send(result).is_ok() && go_on {
                for (mut command, answer) in queue {
                    // Nobody waits any more: the child is dropped and was not wanted.
                    let _ = answer.send(command.spawn());
                }
            }
        })?;
        entered.recv().context("the lobby's thread is gone")??;
        Ok(Self { orders })
    }

    /// Runs a command with this program; gives the time that it took, if its output has what it says when all has gone well.
    pub(crate) fn time(&self, mut command: Command, program: &Path, says: &str) -> Result<f64> {
        command.arg(program);
        let ran = self.run(command)?;
        ensure!(String::from_utf8_lossy(&ran.stdout).contains(says), "{says:?} is missing");
        Ok(ran.ms)
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, command: Command) -> Result<Child> {
        let what = format!("{command:?}");
        let (answer, child) = mpsc::channel();
        self.orders.send((command, answer)).ok().context("the lobby's thread is gone")?;
        child.recv().context("the lobby's thread is gone")?.with_context(|| format!("cannot start {what}"))
    }

    /// Runs a command to its good end.
    pub(crate) fn run(&self, command: Command) -> Result<Ran> {
        self.run_into(command, Vec::new())
    }

    /// Runs a command to its good end; its output goes into `space`, which may be large enough from the beginning.
    pub(crate) fn run_into(&self, command: Command, space: Vec<u8>) -> Result<Ran> {
        self.run_from(command, Stdio::null(), space)
    }

    /// As [`Lobby::run_into`], with something to read.
    pub(crate) fn run_from(&self, mut command: Command, stdin: Stdio, mut space: Vec<u8>) -> Result<Ran> {
        let what = format!("{command:?}");
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = self.spawn(command)?;
        let _guard = Guard::new(&child);
        let errors = child.stderr.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut text = String::new();
                // What cannot be read is missing in a message and nowhere else.
                let _ = pipe.read_to_string(&mut text);
                text
            })
        });
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_end(&mut space).with_context(|| format!("cannot read the output of {what}"))?;
        }
        let status = child.wait().with_context(|| format!("cannot wait for {what}"))?;
        let ms = since_ms(begun);
        if !status.success() {
            let errors = errors.and_then(|e| e.join().ok()).unwrap_or_default();
            bail!("{what}: {status}\n{errors}");
        }
        Ok(Ran { ms, stdout: space })
    }
}

/// Kills a child that goes on for too long, so that a measurement fails instead of hanging.
pub(crate) struct Guard {
    _over: mpsc::Sender<()>,
}

impl Guard {
    pub(crate) fn new(child: &Child) -> Self {
        let (over, is_over) = mpsc::channel::<()>();
        let pid = Pid::from_raw(child.id().cast_signed());
        thread::spawn(move || {
            if is_over.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self { _over: over }
    }
}

pub(crate) fn since_ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// A command with nothing but a path in its environment.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root");
    command.current_dir("/");
    command
}

fn enter(init_pid: i32, hosts_file: &Path) -> Result<()> {
    for (kind, flag) in [("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS)] {
        let path = format!("/proc/{init_pid}/ns/{kind}");
        let namespace = fs::File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(namespace, flag).with_context(|| format!("cannot enter {path}"))?;
    }
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context("cannot have mounts of its own")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make mounts private")?;
    mount(Some(hosts_file), "/etc/hosts", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("cannot mount the table of hosts")
}
