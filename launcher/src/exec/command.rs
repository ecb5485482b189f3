//! The command itself: started on this machine, in a session of its own, and ended with everything that descends from it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use muster_core::exec::{End, Variable};
use muster_core::exit::Outcome;
use muster_sys::children::Owner;
use muster_sys::spawn::{SpawnError, SpawnOrder, Spawner};
use muster_sys::stage::Stage;
use muster_sys::status::ExitStatus;
use muster_sys::subreaper::{self, Strangers};
use muster_sys::{reap, signals};
use tokio::net::unix::pipe;

use crate::discover::Surroundings;

/// The launcher's settings, which mean nothing to the command's processes.
const OPTION_PREFIX: &str = "MUSTER_OPT_";

/// Starts commands and ends what they leave.
pub(super) struct Commands {
    owner: Owner,
    spawner: Spawner,
    strangers: Strangers,
}

/// A command that runs.
pub(super) struct Running {
    pid: i32,
    ended: pipe::Receiver,
}

impl Commands {
    /// From here on orphans of the command fall to this process.
    pub(super) fn new() -> io::Result<Self> {
        subreaper::become_subreaper()?;
        let owner = Owner::new();
        Ok(Self { owner, spawner: Spawner::new(owner)?, strangers: Strangers::here()? })
    }

    /// Starts a command with our own descriptors.
    pub(super) fn start(
        &mut self,
        argv: &[String],
        variables: &[Variable],
        site: &Surroundings,
    ) -> Result<Running, (String, Outcome)> {
        let failed =
            |error: &dyn std::fmt::Display| (format!("cannot start {:?}: {error}", argv[0]), Outcome::Internal);
        let words: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let own = site.vars().filter(|(name, _)| !name.starts_with(OPTION_PREFIX));
        let own = own.filter(|(name, _)| !variables.iter().any(|v| v.name == *name));
        let set = variables.iter().map(|v| (v.name, v.value.as_str()));
        let env: Vec<(&OsStr, &OsStr)> = own.chain(set).map(|(n, v)| (OsStr::new(n), OsStr::new(v))).collect();
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let spawned = self.spawner.spawn(&SpawnOrder {
            argv: &words,
            env: &env,
            cwd: None,
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
            extra: None,
            cpus: None,
            limits: &[],
            umask: None,
            terminal: false,
        });
        let spawned = spawned.map_err(|error| (said(&argv[0], error), outcome(error)))?;
        let ended = watched(spawned.pidfd).map_err(|error| failed(&error))?;
        Ok(Running { pid: spawned.pid, ended })
    }

    /// Kills what still descends from this process. Says whether anything was there.
    pub(super) fn sweep(&self) -> bool {
        let left = subreaper::kill_round(self.owner, &self.strangers);
        let _ = reap::reap_adopted();
        left.is_ok_and(|left| left > 0)
    }
}

fn watched(pidfd: OwnedFd) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd_unchecked(pidfd)
}

fn said(program: &str, error: SpawnError) -> String {
    let reason = io::Error::from_raw_os_error(error.errno);
    match error.stage {
        Stage::Exec if reason.kind() == io::ErrorKind::NotFound => {
            format!("the command {program:?} is not found; is it on PATH?")
        }
        Stage::Exec => format!("the command {program:?} cannot be executed: {reason}"),
        Stage::Interpreter => format!("the command {program:?} is there, the interpreter that it names is not"),
        stage => format!("cannot start {program:?}: {stage}: {reason}"),
    }
}

fn outcome(error: SpawnError) -> Outcome {
    match error.stage {
        Stage::Exec if error.errno == 2 => Outcome::NotFound,
        Stage::Exec | Stage::Interpreter | Stage::Cwd => Outcome::NotExecutable,
        _ => Outcome::Internal,
    }
}

impl Running {
    /// Waits for its end; cancelling the wait loses nothing.
    pub(super) async fn ended(&self) -> End {
        let _ = self.ended.readable().await;
        match reap::try_reap(self.pid) {
            Ok(Some(reaped)) => match reaped.status {
                ExitStatus::Exited(code) => End::Exited(code),
                ExitStatus::Signaled { signal, .. } => End::Signaled(signal),
            },
            // Nobody else waits for it; what the kernel does not tell cannot be passed on.
            _ => End::Exited(u8::MAX),
        }
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: i32) {
        let _ = signals::send(self.pid, signal);
    }

    /// Kills it and everything that descends from it.
    pub(super) fn kill(&self) {
        if let Err(error) = subreaper::kill_tree(self.pid) {
            tracing::warn!(%error, "a process of the command cannot be killed");
        }
    }
}
