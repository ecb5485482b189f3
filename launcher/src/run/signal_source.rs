//! Signals of the user and the system, by what they ask for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Cannot be caught; what a suspended program receives in the end.
pub(super) const SIGSTOP: i32 = 19;
/// Lets a stopped program go on.
pub(super) const SIGCONT: i32 = 18;
const SIGTSTP: i32 = 20;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The end of the job.
    End(i32),
    /// To be passed on to the ranks.
    Pass(i32),
    /// A report of what the ranks wait for.
    Report,
    /// A pause.
    Suspend(i32),
}

/// All signals that are heard.
pub(super) struct SignalSource {
    interrupt: Option<Signal>,
    terminate: Signal,
    hangup: Option<Signal>,
    quit: Option<Signal>,
    user1: Signal,
    user2: Signal,
    stop: Signal,
    go_on: Signal,
}

impl SignalSource {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unless_ignored(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: unless_ignored(SignalKind::hangup())?,
            quit: unless_ignored(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            stop: signal(SignalKind::from_raw(SIGTSTP))?,
            go_on: signal(SignalKind::from_raw(SIGCONT))?,
        })
    }

    /// The next one; cancelling the wait loses nothing.
    pub(super) async fn next(&mut self) -> Asked {
        let end = |kind: SignalKind| Asked::End(kind.as_raw_value());
        let pass = |kind: SignalKind| Asked::Pass(kind.as_raw_value());
        tokio::select! {
            Some(()) = heard(&mut self.interrupt) => end(SignalKind::interrupt()),
            Some(()) = self.terminate.recv() => end(SignalKind::terminate()),
            Some(()) = heard(&mut self.hangup) => end(SignalKind::hangup()),
            Some(()) = heard(&mut self.quit) => Asked::Report,
            Some(()) = self.user1.recv() => pass(SignalKind::user_defined1()),
            Some(()) = self.user2.recv() => pass(SignalKind::user_defined2()),
            Some(()) = self.stop.recv() => Asked::Suspend(SIGTSTP),
            Some(()) = self.go_on.recv() => Asked::Pass(SIGCONT),
            else => std::future::pending().await,
        }
    }
}

/// A signal that whoever started us has set to be ignored stays ignored: `nohup`, or a shell's background job.
fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    if muster_sys::signals::is_ignored(kind.as_raw_value()) { Ok(None) } else { signal(kind).map(Some) }
}

/// Never, for a signal that is ignored.
async fn heard(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}
