//! The tree: launcher at the root, agents below.
//!
//! [`TreeNode`] is one node of it, the root included: it decides which hosts to dial, where frames go, what is merged on the
//! way up, and what a lost child means. It is told what happened and answers with [`Act`]s; connections belong to the shell.
//!
//! The tree forms by arrival. A node that has more hosts below it than its radix splits them into branches; the first host of
//! a branch that answers becomes its head and is handed the others, so a host that is not up yet never delays those that are.

pub mod branch;
pub mod chunks;
mod fences;
mod losses;
pub mod node;
mod pleas;
mod reports;

pub use chunks::{ChunkError, Chunks};
pub use node::{Act, EdgeId, TreeNode};

#[cfg(test)]
mod due_tests;
