#![forbid(unsafe_code)]
//! The agent on every host.
//!
//! Two halves with a message border between them: [`session`] speaks the protocol and decides, [`executor`] starts and ends
//! processes. [`agent`] is the loop around both, [`door`] lets launchers and parents in, [`setup`] reads the command line.

pub mod agent;
pub mod door;
pub mod executor;
pub mod file;
pub mod hold;
pub mod join;
pub mod listen;
mod patience;
mod promises;
mod quarantine;
mod rivals;
pub mod session;
pub mod setup;
pub mod shell;
mod signals;
pub mod sshd;
mod tally;
pub mod teller;
pub mod traces;
