//! Handles of running commands. Every wait has a deadline.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cmd::{Cmd, Output, Stdin};

/// A child that its handle and the host's end both may wait for.
pub(crate) type SharedChild = Arc<Mutex<Child>>;

/// How long output may still come after its writer ended: a descendant may hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(1);

/// Bytes that a thread collects from a pipe until its end.
#[derive(Debug, Clone, Default)]
struct Capture(Arc<Mutex<(Vec<u8>, bool)>>);

impl Capture {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let capture = Self::default();
        let Some(mut pipe) = pipe else {
            capture.lock().1 = true;
            return capture;
        };
        let sink = capture.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                sink.lock().0.extend_from_slice(&buffer[..n]);
            }
            sink.lock().1 = true;
        });
        capture
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> Vec<u8> {
        self.lock().0.clone()
    }
}

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub struct Proc {
    child: SharedChild,
    pid: i32,
    what: String,
    stdin: Option<ChildStdin>,
    raw: Option<ChildStdout>,
    stdout: Capture,
    stderr: Capture,
}

impl Proc {
    pub(crate) fn adopt(mut child: Child, cmd: &Cmd, what: String) -> (Self, SharedChild) {
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let mut stdin = child.stdin.take();
        if let Stdin::Bytes(bytes) = cmd.stdin_value()
            && let Some(mut pipe) = stdin.take()
        {
            let bytes = bytes.clone();
            // A program that does not read all of its input is no failure of the harness.
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let mut stdout = child.stdout.take();
        let raw = if cmd.leaves_stdout_raw() { stdout.take() } else { None };
        let (stdout, stderr) = (Capture::of(stdout), Capture::of(child.stderr.take()));
        let child = Arc::new(Mutex::new(child));
        (Self { child: Arc::clone(&child), pid, what, stdin, raw, stdout, stderr }, child)
    }

    /// Process id, as the machine counts (the host itself counts its own).
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has already ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Under the lock: a child that was waited for no longer owns its number.
        let mut child = self.lock();
        if let Some(status) = child.try_wait().with_context(|| format!("{}: cannot look at it", self.what))? {
            bail!("{}: has already ended ({status})", self.what);
        }
        kill(Pid::from_raw(self.pid), signal).with_context(|| format!("{}: cannot send {signal}", self.what))
    }

    /// Writes to its standard input ([`Stdin::Piped`]).
    ///
    /// # Errors
    /// When it has no such pipe or closed it.
    pub fn write_stdin(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| anyhow!("{}: its standard input is not a pipe", self.what))?;
        stdin.write_all(bytes).and_then(|()| stdin.flush()).with_context(|| format!("{}: closed its input", self.what))
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The pipe of its standard output ([`Cmd::raw_stdout`]), once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.raw.take()
    }

    /// What it has written to standard output so far.
    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// What it has written to standard error so far.
    pub fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// Waits until `wanted` has appeared on either stream.
    ///
    /// # Errors
    /// When it has not within the timeout, or the command ended without it; with what it wrote instead.
    pub fn wait_for(&self, wanted: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = self.try_wait()?.is_some() && self.stdout.lock().1 && self.stderr.lock().1;
            if self.stdout_so_far().contains(wanted) || self.stderr_so_far().contains(wanted) {
                return Ok(());
            }
            if ended || Instant::now() > deadline {
                let why = if ended { "ended without" } else { "has not yet written" };
                bail!("{}: {why} {wanted:?}\n{}", self.what, self.so_far());
            }
            thread::sleep(POLL);
        }
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.lock().try_wait().with_context(|| format!("{}: cannot wait for it", self.what))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it is not over within the timeout; it goes on running.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{}: still running after {timeout:?}\n{}", self.what, self.so_far());
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for its end and returns what it wrote; ends its input first.
    ///
    /// # Errors
    /// When it is not over within the timeout; it is killed then.
    pub fn finish(mut self, timeout: Duration) -> Result<Output> {
        self.close_stdin();
        let status = self.wait(timeout)?;
        let deadline = Instant::now() + DRAIN;
        while !(self.stdout.lock().1 && self.stderr.lock().1) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        Ok(Output { status, stdout: self.stdout.bytes(), stderr: self.stderr.bytes() })
    }

    /// Kills it (SIGKILL) and waits for its end. Its descendants live on, as they would on any host.
    pub fn kill(&self) {
        let mut child = self.lock();
        // Both fail only when it is over already.
        let _ = child.kill();
        let _ = child.wait();
    }

    fn so_far(&self) -> String {
        format!("stdout: {}\nstderr: {}", self.stdout_so_far(), self.stderr_so_far())
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}
