//! Networks in which hosts cannot reach each other, for launchers that use all that they find.

use std::net::{IpAddr, Ipv4Addr};

use muster_core::exec::{Variable, dead_ends, excludes};
use muster_worker_agent::agent::network;

use super::Drive;
use crate::exec::params;

impl Drive<'_> {
    /// What the command gets so that it leaves them out: nothing where there are none.
    pub(super) fn excludes(&self, chosen: &[usize]) -> Vec<Variable> {
        let chosen = || chosen.iter().map(|at| &self.states[*at]);
        // The command's own processes are here, and talk to those of all hosts.
        let here = network();
        let of_hosts = chosen().map(|state| if state.here { here.clone() } else { state.reached.network.clone() });
        let hosts: Vec<_> = of_hosts.chain([here.clone()]).collect();
        let reached: Vec<Ipv4Addr> = chosen().filter_map(|state| ipv4(state.reached.address?)).collect();
        let found = dead_ends(&hosts, &reached);
        if found.networks.is_empty() {
            return Vec::new();
        }
        let argv = &self.options.argv;
        let said = params::said(self.site, argv);
        let set = excludes(&found, &self.family, argv, &said.iter().map(String::as_str).collect::<Vec<_>>());
        for Variable { name, value, reason, .. } in &set {
            tracing::info!(name, value, "{reason}");
        }
        set
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address.to_canonical() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
