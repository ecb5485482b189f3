//! What hosts are told of a process group, and whether one frame takes it.

use muster_protocol::limits::CONTROL_PAYLOAD_BYTES_MAX;
use muster_protocol::message::{Message, Run, Spec};
use thiserror::Error;

use super::machine::JobSetup;
use crate::hosts::HostList;
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
pub(super) fn settle_in(spec: &mut Spec, placed: &[Placed], hosts: &HostList) -> Vec<HostShare> {
    let shares = shares(placed, hosts.len());
    spec.members = shares.iter().map(|s| s.host).collect();
    let nodes = node_of_each(placed, hosts.len());
    if let Some(pmix) = &mut spec.pmix {
        let name = |share: &HostShare| hosts.get(share.host).map_or_else(String::new, |h| h.name.clone());
        pmix.nodes = shares.iter().map(name).collect();
        pmix.runs = runs(&nodes);
        // What MPI_UNIVERSE_SIZE tells those who start workers: as many ranks as there are slots.
        let slots: u64 = hosts.hosts().iter().map(|h| u64::from(h.slots)).sum();
        spec.universe_size = i32::try_from(slots.max(u64::from(spec.size))).unwrap_or(i32::MAX);
        pmix.apps = vec![0; spec.apps.len()];
        for one in placed {
            if let Some(ranks) = pmix.apps.get_mut(one.app as usize) {
                *ranks += 1;
            }
        }
    }
    spec.mapping = process_mapping(&nodes);
    shares
}

/// Neighbours on one node, counted.
fn runs(nodes: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for node in nodes {
        match runs.last_mut().filter(|run| run.node == *node) {
            Some(run) => run.ranks += 1,
            None => runs.push(Run { node: *node, ranks: 1 }),
        }
    }
    runs
}

/// Whether a spec that is filled in can be sent.
pub(super) fn check(spec: &Spec) -> Result<(), SpecTooLarge> {
    let bytes = spec.payload_bytes();
    if bytes > CONTROL_PAYLOAD_BYTES_MAX as usize { Err(SpecTooLarge { bytes }) } else { Ok(()) }
}

impl JobSetup {
    /// Whether hosts can be told of what the command line starts.
    pub fn check(&self) -> Result<(), SpecTooLarge> {
        self.worlds.iter().try_for_each(|world| {
            let mut spec = world.spec.clone();
            settle_in(&mut spec, &world.placed, &self.hosts);
            check(&spec)
        })
    }
}
