//! Commands to run on a host, and what they leave.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::terminal::Terminal;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a command reads.
#[derive(Debug, Clone, Default)]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
    /// What [`crate::Proc::write_stdin`] is given, until [`crate::Proc::close_stdin`].
    Piped,
    /// The test's own standard input.
    Inherit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Capture,
    Raw,
    Inherit,
}

/// A command: program, arguments and how it is run. The environment holds only `PATH`, `HOME` and what is added.
#[derive(Debug, Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    stdin: Stdin,
    stdout: Out,
    stderr: Out,
    timeout: Duration,
    session: bool,
    terminal: Option<Arc<OwnedFd>>,
}

impl Cmd {
    /// A command of this program.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_os_string(),
            args: Vec::new(),
            env: Vec::new(),
            dir: PathBuf::from("/"),
            stdin: Stdin::Null,
            stdout: Out::Capture,
            stderr: Out::Capture,
            timeout: DEFAULT_TIMEOUT,
            session: false,
            terminal: None,
        }
    }

    /// A line for `sh -c`.
    pub fn sh(script: &str) -> Self {
        Self::new("/bin/sh").args(["-c", script])
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_os_string());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_os_string()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_os_string(), value.as_ref().to_os_string()));
        self
    }

    /// Sets the working directory (`/` otherwise).
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Sets what it reads.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Leaves standard output to the test, which reads it from [`crate::Proc::take_stdout`] at its own pace.
    #[must_use]
    pub fn raw_stdout(mut self) -> Self {
        self.stdout = Out::Raw;
        self
    }

    /// Lets it read and write the test's own standard streams.
    #[must_use]
    pub fn inherit_stdio(mut self) -> Self {
        self.stdin = Stdin::Inherit;
        self.stdout = Out::Inherit;
        self.stderr = Out::Inherit;
        self
    }

    /// Runs it in a session of its own, as on a host of its own. The kernel shares the processor among sessions first, so
    /// that otherwise all agents of a cluster together get as much of it as one of their ranks.
    #[must_use]
    pub fn own_session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Runs it on a terminal, which is its session's: keys that interrupt reach it, and so does a change of size.
    #[must_use]
    pub fn on_terminal(mut self, terminal: &Terminal) -> Self {
        self.terminal = Some(terminal.line());
        self
    }

    /// Sets how long [`crate::Host::run`] lets it run (60 s otherwise).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Program and arguments, for a command that shall start it.
    pub fn words(&self) -> Vec<OsString> {
        std::iter::once(&self.program).chain(&self.args).cloned().collect()
    }

    pub(crate) fn timeout_value(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn stdin_value(&self) -> &Stdin {
        &self.stdin
    }

    pub(crate) fn leaves_stdout_raw(&self) -> bool {
        self.stdout == Out::Raw
    }

    pub(crate) fn to_command(&self) -> io::Result<Command> {
        let out = |o: Out| if o == Out::Inherit { Stdio::inherit() } else { Stdio::piped() };
        let setsid: &[&str] = if self.terminal.is_some() { &["setsid", "--ctty"] } else { &["setsid"] };
        let setsid = if self.session || self.terminal.is_some() { setsid } else { &[] };
        let mut words = setsid.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command.args(&self.args).current_dir(&self.dir).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(match self.stdin {
            Stdin::Null => Stdio::null(),
            Stdin::Bytes(_) | Stdin::Piped => Stdio::piped(),
            Stdin::Inherit => Stdio::inherit(),
        });
        command.stdout(out(self.stdout)).stderr(out(self.stderr));
        if let Some(line) = &self.terminal {
            command.stdin(line.try_clone()?).stdout(line.try_clone()?).stderr(line.try_clone()?);
        }
        Ok(command)
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.display()))
    }
}

/// How a command ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard error as text, without the launcher's lines about hosts it waits for: whether they come depends on how busy
    /// the machine is.
    pub fn said(&self) -> String {
        let text = self.stderr_text();
        text.split_inclusive('\n').filter(|line| !line.starts_with("muster: waiting for ")).collect()
    }

    /// The same output if the status is 0.
    ///
    /// # Errors
    /// With both streams in the message otherwise.
    pub fn ok(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{}\nstdout: {}\nstderr: {}", self.status, self.stdout_text(), self.stderr_text())
    }
}
