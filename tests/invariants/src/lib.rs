#![forbid(unsafe_code)]
//! Reads the workspace as text, for tests of what no compiler checks: which crate may use what, and how large things get.

pub mod code;
pub mod files;
pub mod rules;
