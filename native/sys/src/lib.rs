//! The unsafe floor of the agent: processes, descriptors, clocks and signals of Linux.
//!
//! Everything that needs `unsafe` for the agent and the launcher is here, behind safe functions. No runtime, no threads of
//! its own, no global state but what the kernel keeps per process anyway (signal dispositions, children, limits).

pub mod affinity;
pub mod cgroup;
pub mod children;
pub mod clock;
pub mod fdpass;
pub mod identity;
pub mod interfaces;
mod kin;
pub mod limits;
mod pidfd;
pub mod pipe;
pub mod poll;
pub mod proc;
pub mod pty;
pub mod reap;
pub mod signal_count;
pub mod signals;
pub mod spawn;
pub mod stage;
pub mod status;
pub mod subreaper;
pub mod sysv;
pub mod terminal;
