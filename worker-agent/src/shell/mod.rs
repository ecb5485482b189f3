//! Remote shells: what stands in for `sshd` on the agent's side, and for `ssh` on the other.
//!
//! A shell has a connection of its own, beside those of a job: `server` runs the command behind a `guard`, `client` joins it
//! to the descriptors of whoever asked.

pub mod caller;
pub mod client;
pub mod desk;
pub mod guard;
pub mod rsh;
mod server;
mod session;
mod window;

pub use server::Shells;
