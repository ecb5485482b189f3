//! A process of somebody else's, told from another one that has its number later.

use std::io;

use crate::{kin, pidfd};

/// A process that lives, or did when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since the boot.
    pub start: u64,
    /// What it is called, at most 15 bytes of it.
    pub name: String,
}

impl Identity {
    /// Of the process that has this number now, if it lives.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = kin::stat(pid).ok().flatten().filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
        Some(Self { pid, start: stat.start, name: stat.name })
    }

    /// Of the parent of this process.
    pub fn of_parent() -> Option<Self> {
        Self::of(std::os::unix::process::parent_id().cast_signed())
    }

    /// Whether it lives still.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.start == self.start)
    }

    /// Sends it a signal, and nobody else.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match pidfd::open(self.pid)? {
            // What lives now under that number is what the descriptor means.
            Some(process) if self.lives() => pidfd::send(&process, signal),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_told_from_one_that_has_its_number_later() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let seen = Identity::of(child.id().cast_signed()).unwrap();
        assert!(seen.lives());
        let earlier = Identity { start: seen.start - 1, ..seen.clone() };
        assert!(!earlier.lives());
        earlier.signal(libc::SIGKILL).unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "somebody else's signal is not its");
        seen.signal(libc::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert!(!seen.lives() && Identity::of(seen.pid).is_none());
        seen.signal(libc::SIGKILL).unwrap();
    }
}
