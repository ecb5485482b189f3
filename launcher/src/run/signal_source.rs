//! Signals of the user and the system, by what they ask for.

use std::io;

use muster_sys::{signal_count, signals};
use tokio::net::unix::pipe::Receiver;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The end of the job.
    End(i32),
    /// To be passed on to the ranks.
    Pass(i32),
    /// A report of what the ranks wait for.
    Report,
    /// A pause.
    Suspend(i32),
    /// A look at the agents of this machine: one of them has ended.
    Children,
}

/// What a signal with a number asks for.
type Asks = fn(i32) -> Asked;

/// Each signal by name and what it asks for, the most urgent first. The last column: what whoever started us has set to be
/// ignored stays ignored, as for `nohup` or a shell's background job.
const HEARD: [(&str, Asks, bool); 9] = [
    ("SIGINT", Asked::End, true),
    ("SIGTERM", Asked::End, false),
    ("SIGHUP", Asked::End, true),
    ("SIGCHLD", |_| Asked::Children, false),
    ("SIGQUIT", |_| Asked::Report, true),
    ("SIGUSR1", Asked::Pass, false),
    ("SIGUSR2", Asked::Pass, false),
    ("SIGTSTP", Asked::Suspend, false),
    ("SIGCONT", Asked::Pass, false),
];

#[derive(Debug)]
struct Heard {
    signal: i32,
    asked: Asked,
    /// How often it has come and nothing was done about it.
    due: u32,
}

/// All signals that are heard.
pub(crate) struct SignalSource {
    bell: Receiver,
    heard: Vec<Heard>,
}

impl SignalSource {
    pub(crate) fn new() -> io::Result<Self> {
        let bell = Receiver::from_owned_fd(signal_count::bell()?)?;
        let mut heard = Vec::with_capacity(HEARD.len());
        for (name, asks, may_be_ignored) in HEARD {
            let signal = signals::number(name).ok_or_else(|| io::Error::other(format!("{name} has no number here")))?;
            if may_be_ignored && signals::is_ignored(signal) {
                continue;
            }
            signal_count::count(signal)?;
            heard.push(Heard { signal, asked: asks(signal), due: 0 });
        }
        Ok(Self { bell, heard })
    }

    /// The next one; cancelling the wait loses nothing.
    pub(crate) async fn next(&mut self) -> Asked {
        loop {
            if let Some(asked) = self.take() {
                return asked;
            }
            if let Err(error) = self.bell.readable().await {
                tracing::error!(%error, "signals are no longer heard");
                return std::future::pending().await;
            }
            // First emptied, then looked at: what comes in between rings again.
            while self.bell.try_read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
        }
    }

    fn take(&mut self) -> Option<Asked> {
        for one in &mut self.heard {
            one.due = one.due.saturating_add(signal_count::take(one.signal));
            if one.due > 0 {
                // Who asks for the end twice wants it at once; all else is no more when it is said twice.
                one.due = if matches!(one.asked, Asked::End(_)) { one.due - 1 } else { 0 };
                return Some(one.asked);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One test, since signals are the whole process's.
    #[tokio::test]
    async fn two_demands_for_the_end_before_anybody_looks_are_two() {
        let mut source = SignalSource::new().unwrap();
        let number = |name| signals::number(name).unwrap();
        let (end, pass) = (number("SIGINT"), number("SIGUSR1"));
        for signal in [pass, end, pass, end] {
            signals::raise(signal).unwrap();
        }
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(source.next().await);
        }
        assert_eq!(heard, [Asked::End(end), Asked::End(end), Asked::Pass(pass)]);
        let more = tokio::time::timeout(Duration::ZERO, source.next()).await;
        assert!(more.is_err(), "a signal that is only passed on is passed on once: {more:?}");
        // One that comes while it is waited for wakes the waiter.
        let raiser = tokio::spawn(async move { signals::raise(end).unwrap() });
        assert_eq!(source.next().await, Asked::End(end));
        raiser.await.unwrap();
    }
}
