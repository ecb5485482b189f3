//! `muster exec`: what makes a command that starts daemons through a remote shell use ours, and whether it did.

mod dead_ends;
mod env;
mod excludes;
mod failure;
mod family;
mod used;
mod watch;

pub use dead_ends::{Network, dead_ends, is_of_all};
pub use env::{Site, Variable, hydra_hostfile, openmpi_hostfile, variables};
pub use excludes::{DeadEnds, excludes, possible_excludes, speaks_of_interfaces};
pub use failure::{End, Failure};
pub use family::{Family, asks_for_version};
pub use used::{Use, idle_note, wanted_ranks};
pub use watch::{Act, DAEMON_MS, LOST_HARD_MS, LOST_POLITE_MS, Watch};
