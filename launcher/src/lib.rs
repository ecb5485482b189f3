#![forbid(unsafe_code)]
//! placeholder
pub mod cli;
pub mod discover;
