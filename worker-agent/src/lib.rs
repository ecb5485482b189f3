#![forbid(unsafe_code)]
//! The agent on every host, as a library.

pub mod executor;
