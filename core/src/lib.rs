#![forbid(unsafe_code)]
//! Decisions without I/O.
//!
//! Everything here takes what happened as arguments and returns what shall be done as values: no clock, no socket, no file,
//! no random number, no environment. So it can be tested by properties and run under simulated time, and the programs around
//! it stay thin.

pub mod exec;
pub mod exit;
pub mod fence;
pub mod forgotten;
pub mod hosts;
pub mod in_place;
pub mod job;
pub mod kvs;
pub mod memory;
pub mod params;
pub mod plan;
pub mod pmi;
pub mod pmix;
pub mod shell;
pub mod status;
pub mod surroundings;
pub mod tree;
