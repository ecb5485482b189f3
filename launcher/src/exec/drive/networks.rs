//! Networks in which hosts cannot reach each other, for launchers that use all that they find.

use std::net::{IpAddr, Ipv4Addr};

use muster_core::exec::{DeadEnds, Variable, dead_ends, excludes, is_of_all};
use muster_worker_agent::agent::network;

use super::Drive;
use crate::exec::params;

impl Drive<'_> {
    /// What the command gets so that it leaves them out: nothing where there are none.
    pub(super) fn excludes(&self, chosen: &[usize]) -> Vec<Variable> {
        let chosen = || chosen.iter().map(|at| &self.states[*at]);
        let here = network();
        let of_hosts = chosen().map(|state| if state.here { here.clone() } else { state.reached.network.clone() });
        let mut hosts: Vec<_> = of_hosts.collect();
        let reached: Vec<Ipv4Addr> = chosen().filter_map(|state| ipv4(state.reached.address?)).collect();
        // One of which nothing is known may have ranks that decide themselves, which would contradict what all are told.
        let all_known = hosts.iter().all(Option::is_some);
        let of_ranks = if all_known { dead_ends(&hosts, &reached) } else { Vec::new() };
        // No rank is here unless a host is. But the command's own processes are, and its daemons talk to them.
        hosts.push(here);
        let mut of_daemons = dead_ends(&hosts, &reached);
        of_daemons.retain(|network| is_of_all(*network, &hosts));
        let found = DeadEnds { of_ranks, of_daemons };
        if found == DeadEnds::default() {
            return Vec::new();
        }
        let argv = &self.options.argv;
        let Some(said) = params::said(self.site, argv) else { return Vec::new() };
        let set = excludes(&found, &self.family, argv, &said);
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
