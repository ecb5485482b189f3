//! What hosts are told of a process group, and whether one frame takes it.

use muster_protocol::limits::CONTROL_PAYLOAD_BYTES_MAX;
use muster_protocol::message::{Message, Spec};
use thiserror::Error;

use super::machine::JobSetup;
use crate::plan::{HostShare, Placed, node_of_each, shares};
use crate::pmi::process_mapping;

/// What ranks have in common is too much for one frame, and hosts would take the launcher that sends it for broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the programs with their arguments and variables take {bytes} bytes, and hosts are told at most \
     {CONTROL_PAYLOAD_BYTES_MAX}; pass fewer or smaller ones, or put them into a file that the ranks read"
)]
pub struct SpecTooLarge {
    /// What it takes.
    pub bytes: usize,
}

/// Fills in where the ranks of a group run; gives each host's share.
pub(super) fn settle_in(spec: &mut Spec, placed: &[Placed], hosts: usize) -> Vec<HostShare> {
    let shares = shares(placed, hosts);
    spec.members = shares.iter().map(|s| s.host).collect();
    spec.mapping = process_mapping(&node_of_each(placed, hosts));
    shares
}

/// Whether a spec that is filled in can be sent.
pub(super) fn check(spec: &Spec) -> Result<(), SpecTooLarge> {
    let bytes = spec.payload_bytes();
    if bytes > CONTROL_PAYLOAD_BYTES_MAX as usize { Err(SpecTooLarge { bytes }) } else { Ok(()) }
}

impl JobSetup {
    /// Whether hosts can be told of the first group.
    pub fn check(&self) -> Result<(), SpecTooLarge> {
        let mut spec = self.spec.clone();
        settle_in(&mut spec, &self.placed, self.hosts.len());
        check(&spec)
    }
}
