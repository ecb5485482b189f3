#![forbid(unsafe_code)]
//! Whole clusters under simulated time and a simulated network.
//!
//! The launcher's and the agents' decisions are the real ones (`TreeNode`, `Job`, `Lease`); connections, clocks, processes and
//! the thin shells between them are modelled here. One seed decides everything that happens, so a run that goes wrong can be
//! run again.

pub mod agent;
pub mod blobs;
pub mod check;
pub mod faults;
pub mod queue;
pub mod ranks;
pub mod rng;
pub mod root;
pub mod scenario;
pub mod wires;
pub mod world;
