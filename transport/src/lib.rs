#![forbid(unsafe_code)]
//! Secure connections between a launcher and its agents.
//!
//! From the bottom up: [`identity`] turns the job key into a key pair, [`tls`] proves it both ways, [`stream`] hides what
//! carries the bytes, [`connection`] turns bytes into frames, [`resolve`] finds addresses without the C library, [`gate`]
//! accepts and [`dial`] connects. [`credit`] is arithmetic without I/O that its owners drive.
//!
//! Nothing here needs a particular runtime flavour: the agents run it on current-thread runtimes.

pub mod connection;
pub mod credit;
pub mod dial;
pub mod gate;
pub mod identity;
mod prefetch;
pub mod resolve;
pub mod stream;
pub mod tls;
