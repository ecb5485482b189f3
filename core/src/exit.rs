//! The exit status of `muster`: what a shell, an operator or a script learns without reading.

use serde::Serialize;

/// How a job, or the attempt to start one, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every rank ended well.
    Success,
    /// The first rank that failed exited with this status, or called `MPI_Abort` with it.
    Rank(u8),
    /// The first rank that failed was killed by this signal, or the user ended the job by it.
    Signal(u8),
    /// The command line, a file it names, or what it asks for is wrong.
    Usage,
    /// An agent and the launcher do not have the same key or job.
    NotAuthorised,
    /// The program cannot be executed, or its working directory is missing.
    NotExecutable,
    /// There is no such program.
    NotFound,
    /// A host could not be reached in time.
    HostUnreachable,
    /// A host was lost while ranks ran.
    HostLost,
    /// Muster itself failed.
    Internal,
    /// `--timeout` was over.
    Timeout,
    /// The ranks made no progress. Reserved: nothing looks for that yet.
    Hang,
    /// The job was ended from outside to make room. Reserved: nobody can say so yet.
    Preempted,
}

impl Outcome {
    /// The exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Rank(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
            Self::Usage => 64,
            Self::NotAuthorised => 77,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::HostUnreachable => 240,
            Self::HostLost => 241,
            Self::Internal => 242,
            Self::Timeout => 243,
            Self::Hang => 244,
            Self::Preempted => 245,
        }
    }

    /// The outcome of a rank that exited by itself.
    pub fn exited(code: u8) -> Self {
        match code {
            0 => Self::Success,
            code => Self::Rank(code),
        }
    }

    /// The outcome of a rank that left the others waiting (exit without finalize, or before init): never a success, even when
    /// the rank itself says 0.
    pub fn deserted(code: u8) -> Self {
        Self::Rank(code.max(1))
    }

    /// The outcome of `MPI_Abort` with this code, which is an `int` of which a process can return one byte; a code whose byte is
    /// zero still is an abort.
    pub fn aborted(code: i32) -> Self {
        Self::Rank((code as u8).max(1))
    }

    /// The outcome of a rank that was killed by a signal.
    pub fn signaled(signal: i32) -> Self {
        Self::Signal(u8::try_from(signal).unwrap_or(u8::MAX))
    }

    /// Whether the same job may well succeed when it is started again unchanged.
    pub fn retryable(self) -> bool {
        self.code() >= 128
    }
}

/// Every status or range of statuses that `muster` exits with and what it means, in the order of the numbers.
pub fn table() -> &'static [(&'static str, &'static str)] {
    &[
        ("0", "every rank ended well"),
        (
            "1–255",
            "the status of the first rank that failed, or the code it gave to `MPI_Abort` (its low byte, at least 1)",
        ),
        ("64", "usage: the command line, a file it names, or what it asks for is wrong; nothing was started"),
        ("77", "not authorised: an agent and the launcher do not have the same key or the same job"),
        ("126", "the program cannot be executed, or its working directory is missing"),
        ("127", "there is no such program"),
        ("128+n", "the first rank that failed was killed by signal n, or the user ended the job by it"),
        ("240", "a host could not be reached within `--connect-timeout`"),
        ("241", "a host was lost while ranks ran"),
        ("242", "Muster itself failed"),
        ("243", "`--timeout` was over"),
        ("244", "reserved for ranks that make no progress; nothing exits with it yet"),
        ("245", "reserved for jobs that are ended from outside to make room; nothing exits with it yet"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable() {
        for (outcome, code) in [
            (Outcome::Success, 0),
            (Outcome::exited(0), 0),
            (Outcome::exited(3), 3),
            (Outcome::deserted(0), 1),
            (Outcome::deserted(9), 9),
            (Outcome::aborted(7), 7),
            (Outcome::aborted(256), 1),
            (Outcome::aborted(-1), 255),
            (Outcome::signaled(11), 139),
            (Outcome::signaled(15), 143),
            (Outcome::signaled(-5), 255),
            (Outcome::Usage, 64),
            (Outcome::NotAuthorised, 77),
            (Outcome::NotExecutable, 126),
            (Outcome::NotFound, 127),
            (Outcome::HostUnreachable, 240),
            (Outcome::HostLost, 241),
            (Outcome::Internal, 242),
            (Outcome::Timeout, 243),
            (Outcome::Hang, 244),
            (Outcome::Preempted, 245),
        ] {
            assert_eq!(outcome.code(), code, "{outcome:?}");
        }
    }

    #[test]
    fn our_own_trouble_is_retryable_and_the_users_is_not() {
        for outcome in
            [Outcome::HostUnreachable, Outcome::HostLost, Outcome::Internal, Outcome::Timeout, Outcome::Preempted]
        {
            assert!(outcome.retryable(), "{outcome:?}");
        }
        for outcome in [Outcome::Usage, Outcome::NotAuthorised, Outcome::NotFound, Outcome::exited(1)] {
            assert!(!outcome.retryable(), "{outcome:?}");
        }
    }

    #[test]
    fn the_document_has_exactly_this_table() {
        let document = include_str!("../../docs/exit-status.md");
        let rows: Vec<String> = document.lines().filter(|l| l.starts_with("| ")).skip(1).map(str::to_owned).collect();
        let want: Vec<String> = table().iter().map(|(code, meaning)| format!("| {code} | {meaning} |")).collect();
        assert_eq!(rows, want);
    }
}
