//! How a process ended.

use std::fmt;

/// How a process ended, as the kernel tells its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called exit with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl ExitStatus {
    /// Reads the status word of `wait4`; a word that speaks of a stop or a continuation is none.
    pub fn from_wait(status: i32) -> Option<Self> {
        if libc::WIFEXITED(status) {
            // The kernel keeps eight bits.
            Some(Self::Exited((libc::WEXITSTATUS(status) & 0xff) as u8))
        } else if libc::WIFSIGNALED(status) {
            Some(Self::Signaled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) })
        } else {
            None
        }
    }

    /// Whether it exited with code 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    /// What a shell would show in `$?`: the code, or 128 and the signal.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled { signal, .. } => 128u8.saturating_add(u8::try_from(signal).unwrap_or(0)),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled { signal, core } => {
                write!(f, "killed by signal {signal}")?;
                if let Some(name) = crate::signals::name(*signal) {
                    write!(f, " ({name})")?;
                }
                if *core { f.write_str(", core dumped") } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_read() {
        assert_eq!(ExitStatus::from_wait(7 << 8), Some(ExitStatus::Exited(7)));
        assert_eq!(ExitStatus::from_wait(9), Some(ExitStatus::Signaled { signal: 9, core: false }));
        assert_eq!(ExitStatus::from_wait(11 | 0x80), Some(ExitStatus::Signaled { signal: 11, core: true }));
        // Stopped by SIGSTOP: not an end.
        assert_eq!(ExitStatus::from_wait(0x7f | (19 << 8)), None);
    }

    #[test]
    fn shells_and_people_read_it() {
        let segv = ExitStatus::Signaled { signal: 11, core: true };
        assert_eq!(segv.shell_code(), 139);
        assert_eq!(segv.to_string(), "killed by signal 11 (SIGSEGV), core dumped");
        assert_eq!(ExitStatus::Exited(3).shell_code(), 3);
        assert!(ExitStatus::Exited(0).success() && !segv.success());
    }
}
