//! Why a rank did not start, for machines and for people.

use std::fmt;

use errno::{E2BIG, EACCES, EAGAIN, EBUSY, ECANCELED, EEXIST, ENOENT, ENOEXEC};
use muster_protocol::ProcId;
use muster_protocol::limits::RANKS_PER_HOST_MAX;
use muster_sys::stage::Stage;

/// Why a rank did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnFailure {
    /// Which rank.
    pub proc: ProcId,
    /// The step that failed.
    pub stage: Stage,
    /// The system's reason.
    pub errno: i32,
    /// The program as it was named.
    pub program: String,
    /// The working directory as it was named; absent when it was the agent's own.
    pub cwd: Option<String>,
}

impl SpawnFailure {
    /// The exit status that shells give for this: 127 for a program that was not found, 126 for one that cannot run
    /// (or not there). None when the program is not at fault.
    pub fn shell_code(&self) -> Option<u8> {
        match self.stage {
            Stage::Exec if self.errno == ENOENT => Some(127),
            Stage::Exec | Stage::Interpreter | Stage::Cwd => Some(126),
            _ => None,
        }
    }
}

/// The system's reasons that are told apart here; their numbers are the same on every Linux that agents are built for.
pub(super) mod errno {
    pub(in super::super) const ENOENT: i32 = 2;
    pub(in super::super) const EIO: i32 = 5;
    pub(in super::super) const E2BIG: i32 = 7;
    pub(in super::super) const ENOEXEC: i32 = 8;
    pub(in super::super) const EAGAIN: i32 = 11;
    pub(in super::super) const EACCES: i32 = 13;
    pub(in super::super) const EBUSY: i32 = 16;
    pub(in super::super) const EEXIST: i32 = 17;
    pub(in super::super) const ECANCELED: i32 = 125;
}

impl fmt::Display for SpawnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        let reason = std::io::Error::from_raw_os_error(self.errno);
        match (self.stage, self.errno) {
            (Stage::Exec, ENOENT) if program.contains('/') => {
                write!(f, "program {program:?} not found; is it in this host's image and file system?")
            }
            (Stage::Exec, ENOENT) => {
                write!(f, "program {program:?} not found in the PATH of the rank; give its path, or set PATH with -x")
            }
            (Stage::Exec, EACCES) => {
                write!(
                    f,
                    "program {program:?} cannot be executed: permission denied; is it a program, is its mode executable?"
                )
            }
            (Stage::Exec, ENOEXEC) => {
                write!(f, "program {program:?} cannot be executed: not built for this machine's architecture")
            }
            (Stage::Exec, E2BIG) => {
                write!(f, "program {program:?} cannot be executed: its arguments and environment are too long together")
            }
            (Stage::Interpreter, _) => {
                write!(
                    f,
                    "program {program:?} cannot be executed: the interpreter or loader that it names is missing here"
                )
            }
            (Stage::Cwd, _) => {
                let cwd = self.cwd.as_deref().unwrap_or(".");
                write!(f, "working directory {cwd:?} cannot be entered: {reason}; choose another with --wdir")
            }
            (Stage::Prepare, EEXIST) => {
                write!(
                    f,
                    "program {program:?} was not started: an earlier process of the same rank still lives on this host"
                )
            }
            (Stage::Prepare, EBUSY) => {
                write!(f, "program {program:?} was not started: this host is still killing the ranks of before")
            }
            (Stage::Prepare, ECANCELED) => {
                write!(f, "program {program:?} was not started: its rank was to end before its turn to start had come")
            }
            (Stage::Prepare, EAGAIN) => {
                write!(
                    f,
                    "program {program:?} was not started: this host runs {RANKS_PER_HOST_MAX} ranks, the most it may"
                )
            }
            (stage, _) => write!(f, "{stage} for program {program:?}: {reason}"),
        }
    }
}

impl std::error::Error for SpawnFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: Stage, errno: i32) -> SpawnFailure {
        SpawnFailure { proc: ProcId(3), stage, errno, program: "a.out".to_owned(), cwd: Some("/data".to_owned()) }
    }

    #[test]
    fn failures_give_the_codes_of_shells() {
        let code = |stage, errno| failure(stage, errno).shell_code();
        assert_eq!(code(Stage::Exec, ENOENT), Some(127));
        assert_eq!(code(Stage::Exec, EACCES), Some(126));
        assert_eq!(code(Stage::Interpreter, ENOENT), Some(126));
        assert_eq!(code(Stage::Cwd, ENOENT), Some(126));
        assert_eq!(code(Stage::Clone, EAGAIN), None);
    }

    #[test]
    fn failures_say_what_happened_to_what_and_what_to_do() {
        let text = |stage, errno| failure(stage, errno).to_string();
        assert_eq!(
            text(Stage::Exec, ENOENT),
            "program \"a.out\" not found in the PATH of the rank; give its path, or set PATH with -x"
        );
        assert_eq!(
            text(Stage::Cwd, ENOENT),
            "working directory \"/data\" cannot be entered: No such file or directory (os error 2); choose another with --wdir"
        );
        assert_eq!(
            text(Stage::Clone, EAGAIN),
            "cannot create a process for program \"a.out\": Resource temporarily unavailable (os error 11)"
        );
        assert_eq!(
            text(Stage::Prepare, EBUSY),
            "program \"a.out\" was not started: this host is still killing the ranks of before"
        );
        assert_eq!(
            text(Stage::Prepare, ECANCELED),
            "program \"a.out\" was not started: its rank was to end before its turn to start had come"
        );
    }
}
