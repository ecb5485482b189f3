//! The steps between "start this" and the program running, so that a failure can be told from another.

use std::fmt;

/// The step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Arguments, environment or descriptors could not be prepared (a NUL byte, no free descriptor, too many ranks).
    Prepare = 1,
    /// The kernel gave no new process.
    Clone = 2,
    /// The new process could not get a session of its own.
    Session = 3,
    /// The new process could not be tied to the life of its parent, or its parent was gone already.
    ParentDeath = 4,
    /// New privileges could not be renounced.
    NoNewPrivileges = 5,
    /// The cores could not be set.
    Affinity = 6,
    /// The working directory could not be entered.
    Cwd = 7,
    /// Standard streams or the inherited descriptor could not be put in place.
    Descriptors = 8,
    /// A resource limit could not be set.
    Rlimit = 9,
    /// The program was not found or could not be executed.
    Exec = 10,
    /// The program is there; the interpreter or loader that it names is not.
    Interpreter = 11,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::Prepare,
        Self::Clone,
        Self::Session,
        Self::ParentDeath,
        Self::NoNewPrivileges,
        Self::Affinity,
        Self::Cwd,
        Self::Descriptors,
        Self::Rlimit,
        Self::Exec,
        Self::Interpreter,
    ];

    /// The stage with this number, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.code() == code)
    }

    /// The number that stands for this stage where it crosses a border.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "cannot prepare the start",
            Self::Clone => "cannot create a process",
            Self::Session => "cannot create a session",
            Self::ParentDeath => "cannot tie the process to its agent",
            Self::NoNewPrivileges => "cannot renounce new privileges",
            Self::Affinity => "cannot bind to the given cores",
            Self::Cwd => "cannot enter the working directory",
            Self::Descriptors => "cannot hand over descriptors",
            Self::Rlimit => "cannot set a resource limit",
            Self::Exec => "cannot execute",
            Self::Interpreter => "the program's interpreter or loader is missing",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_own_number() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_code(stage.code()), Some(stage));
        }
        assert_eq!(Stage::from_code(0), None);
    }
}
