//! A remote shell: one connection of its own, one command. Its streams travel in `Output` and `Input` frames of process 0.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TerminalSize {
    /// Lines.
    #[n(0)]
    pub rows: u16,
    /// Characters in a line.
    #[n(1)]
    pub columns: u16,
}

/// Run this; the first frame after the welcome.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShellStart {
    /// The command line for the user's shell; without one it is an interactive shell.
    #[n(0)]
    pub command: Option<ByteVec>,
    /// As whom; nobody else than the agent's own user is possible.
    #[n(1)]
    pub user: Option<String>,
    /// A terminal of this size instead of pipes; standard error is part of standard output then.
    #[n(2)]
    pub terminal: Option<TerminalSize>,
    /// The terminal's kind, for `TERM`.
    #[n(3)]
    pub term: Option<String>,
    /// Whether there will be standard input; else it is empty.
    #[n(4)]
    pub input: bool,
}

/// Something for the command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ShellTell {
    /// Its terminal has another size now.
    #[n(0)]
    Resize {
        /// The size.
        #[n(0)]
        size: TerminalSize,
    },
    /// A signal for its process group.
    #[n(1)]
    Signal {
        /// Number of the signal.
        #[n(0)]
        signal: u8,
    },
}

/// A sign of life; the agent answers each one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct ShellPing {
    /// The agent's: commands that remote shells have begun there since it started.
    #[n(0)]
    pub shells: Option<u64>,
    /// The launcher's, before a [`ShellStart`]: the command that it has run with its remote shells has succeeded. The agent's answer
    /// repeats it.
    #[n(1)]
    pub over: Option<bool>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ShellEnd {
    /// It exited.
    #[n(0)]
    Exited {
        /// Exit status.
        #[n(0)]
        code: u8,
    },
    /// A signal ended it.
    #[n(1)]
    Signaled {
        /// Number of the signal.
        #[n(0)]
        signal: u8,
        /// Whether a core was dumped.
        #[n(1)]
        core: bool,
    },
    /// It did not start.
    #[n(2)]
    NotStarted {
        /// Why, for people.
        #[n(0)]
        why: String,
        /// Exit status for the client.
        #[n(1)]
        code: u8,
    },
}

/// The command has ended and all its output was sent before; the last frame of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShellExit {
    /// How it ended.
    #[n(0)]
    pub end: ShellEnd,
}
