//! The remote shell: what stands in for `ssh`, `rsh` and `sshd` when an MPI launcher starts its daemons.

mod args;
mod caller;
mod login;
mod sshd;

pub use args::{ArgsError, Request, Terminal, parse};
pub use caller::would_wait;
pub use login::{Account, account};
pub use sshd::{ServerArgsError, ServerRequest};
