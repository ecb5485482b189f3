//! The remote shell: what stands in for `ssh` and `rsh` when an MPI launcher starts its daemons.

mod args;
mod login;

pub use args::{ArgsError, Request, Terminal, parse};
pub use login::{Account, account};
