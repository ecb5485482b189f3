//! The guard: a process between the agent and the processes of one remote shell.
//!
//! Everything that the command leaves behind, double forks and daemons included, falls to its guard and not to the agent, so
//! sessions never see one another's processes. A guard has one socket, its standard input. It is told who is to be signalled,
//! tells how the command ended, and when the socket closes, however that came about, it kills what is left and ends.
//!
//! ```text
//! agent ── socket ── guard ── shell ── command …
//! ```

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use muster_sys::children::Owner;
use muster_sys::clock::boottime_ms;
use muster_sys::poll::{Poller, Trigger};
use muster_sys::spawn::{SpawnOrder, Spawned, Spawner};
use muster_sys::stage::Stage;
use muster_sys::status::ExitStatus;
use muster_sys::subreaper::{self, Strangers};
use muster_sys::{fdpass, reap, signals};

/// First argument of a process that is a guard.
pub const GUARD: &str = "guard";
/// Before the command: it gets its standard input as controlling terminal.
pub const TERMINAL: &str = "--terminal";
/// Sent instead of a signal: end everything.
pub const END: u8 = 0;

/// Time between the polite and the hard end of a session whose client is gone.
const GRACE_MS: u64 = 500;
/// Time between two looks for what is left.
const LOOK_MS: u64 = 20;
/// A guard that cannot kill what is left gives up.
const KILL_LIMIT_MS: u64 = 5_000;

const TOKEN_CONTROL: u64 = 0;
const TOKEN_CHILDREN: u64 = 1;

/// What a guard says, once: how the command ended, or why it never began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It ended.
    Ended(ExitStatus),
    /// It did not start.
    NotStarted {
        /// The step that failed.
        stage: Stage,
        /// The system's reason.
        errno: i32,
    },
}

/// Bytes of a [`Word`].
pub const WORD_BYTES: usize = 6;

impl Word {
    /// As it is sent.
    pub fn encode(self) -> [u8; WORD_BYTES] {
        let (kind, extra, number) = match self {
            Self::Ended(ExitStatus::Exited(code)) => (0, 0, i32::from(code)),
            Self::Ended(ExitStatus::Signaled { signal, core }) => (1, u8::from(core), signal),
            Self::NotStarted { stage, errno } => (2, stage.code(), errno),
        };
        let number = number.to_be_bytes();
        [kind, extra, number[0], number[1], number[2], number[3]]
    }

    /// Reads what [`Word::encode`] made.
    pub fn decode(bytes: [u8; WORD_BYTES]) -> Option<Self> {
        let [kind, extra, rest @ ..] = bytes;
        let number = i32::from_be_bytes(rest);
        Some(match kind {
            0 => Self::Ended(ExitStatus::Exited(u8::try_from(number).ok()?)),
            1 => Self::Ended(ExitStatus::Signaled { signal: number, core: extra == 1 }),
            2 => Self::NotStarted { stage: Stage::from_code(extra)?, errno: number },
            _ => return None,
        })
    }
}

/// Runs a guard: the arguments behind [`GUARD`] are [`TERMINAL`] or nothing, then the command.
pub fn run(arguments: &[OsString]) -> ExitCode {
    match Guard::start(arguments).and_then(Guard::watch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the guard of a remote shell fails");
            ExitCode::FAILURE
        }
    }
}

struct Guard {
    control: UnixStream,
    owner: Owner,
    /// Whoever started the command must live as long as it.
    _spawner: Spawner,
    /// The command, until it has ended.
    command: Option<i32>,
    ending: Option<Ending>,
}

struct Ending {
    hard_at_ms: u64,
    give_up_ms: u64,
}

impl Guard {
    fn start(arguments: &[OsString]) -> io::Result<Self> {
        // The agent's end is heard as the socket's end, and then there is still something to do.
        signals::outlive_parent()?;
        signals::ignore_broken_pipe();
        subreaper::become_subreaper()?;
        let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (terminal, argv) = match arguments.split_first() {
            Some((first, rest)) if first == TERMINAL => (true, rest),
            _ => (false, arguments),
        };
        let (_, ends) = fdpass::receive(&control, &mut [0; 1]).map_err(io::Error::other)?;
        let owner = Owner::new();
        let mut spawner = Spawner::new(owner)?;
        let command = match spawn(&mut spawner, argv, &ends, terminal) {
            Ok(Spawned { pid, .. }) => Some(pid),
            Err(word) => {
                (&control).write_all(&word.encode())?;
                None
            }
        };
        Ok(Self { control, owner, _spawner: spawner, command, ending: None })
    }

    fn watch(mut self) -> io::Result<()> {
        let poller = Poller::new()?;
        poller.add(self.control.as_fd(), TOKEN_CONTROL, Trigger::Level)?;
        poller.add(signals::child_bell()?, TOKEN_CHILDREN, Trigger::Edge)?;
        let mut ready = Vec::new();
        loop {
            self.reap()?;
            if !reap::has_children()? {
                return Ok(());
            }
            let timeout = self.ending.as_ref().map(|_| LOOK_MS);
            poller.wait(&mut ready, timeout)?;
            if ready.contains(&TOKEN_CONTROL) && self.ending.is_none() {
                self.obey();
            }
            if self.ending.is_some() {
                // Nothing more is heard, and a closed socket would be heard all the time.
                let _ = poller.remove(self.control.as_fd());
            }
            if self.end() {
                return Err(io::Error::other("processes of a remote shell cannot be ended"));
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        if let Some(pid) = self.command
            && let Some(reaped) = reap::try_reap(pid)?
        {
            self.command = None;
            // The agent may be gone; then nobody wants to know.
            let _ = (&self.control).write_all(&Word::Ended(reaped.status).encode());
        }
        reap::reap_adopted().map(drop)
    }

    /// Does what the agent says: a signal's number, or the end.
    fn obey(&mut self) {
        let mut orders = [0; 16];
        let n = (&self.control).read(&mut orders).unwrap_or(0);
        for order in orders[..n].iter().copied().filter(|order| *order != END) {
            if let Some(pid) = self.command {
                let _ = signals::send_group(pid, i32::from(order));
            }
        }
        if n == 0 || orders[..n].contains(&END) {
            let now = boottime_ms();
            self.ending = Some(Ending { hard_at_ms: now + GRACE_MS, give_up_ms: now + KILL_LIMIT_MS });
            if let Some(pid) = self.command {
                let _ = signals::send_group(pid, signals::TERMINATE);
                let _ = signals::send_group(pid, signals::CONTINUE);
            }
        }
    }

    /// Kills what is left when it is time to. Says whether it is in vain.
    fn end(&mut self) -> bool {
        let now = boottime_ms();
        let Some(ending) = &self.ending else { return false };
        // Without the command nobody is left who would end in order.
        if now >= ending.hard_at_ms || self.command.is_none() {
            let _ = subreaper::kill_round(self.owner, &Strangers::default());
        }
        now >= ending.give_up_ms
    }
}

fn spawn(spawner: &mut Spawner, argv: &[OsString], ends: &[OwnedFd], terminal: bool) -> Result<Spawned, Word> {
    let [stdin, stdout, stderr] = ends else {
        return Err(Word::NotStarted { stage: Stage::Descriptors, errno: 0 });
    };
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let env: Vec<(&OsStr, &OsStr)> = environment.iter().map(|(n, v)| (n.as_os_str(), v.as_os_str())).collect();
    // A home that is not there is no reason to run nothing.
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_dir());
    spawner
        .spawn(&SpawnOrder {
            argv,
            env: &env,
            cwd: home.as_deref(),
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
            extra: None,
            cpus: None,
            limits: &[],
            umask: None,
            terminal,
        })
        .map_err(|error| Word::NotStarted { stage: error.stage, errno: error.errno })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_said() {
        for word in [
            Word::Ended(ExitStatus::Exited(0)),
            Word::Ended(ExitStatus::Exited(255)),
            Word::Ended(ExitStatus::Signaled { signal: 11, core: true }),
            Word::Ended(ExitStatus::Signaled { signal: 9, core: false }),
            Word::NotStarted { stage: Stage::Exec, errno: 2 },
        ] {
            assert_eq!(Word::decode(word.encode()), Some(word));
        }
        assert_eq!(Word::decode([0, 0, 0, 0, 1, 0]), None, "a code of 256");
        assert_eq!(Word::decode([3, 0, 0, 0, 0, 0]), None);
    }
}
