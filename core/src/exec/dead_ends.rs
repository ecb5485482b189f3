//! Networks that connect nobody: a host in one reaches itself where it means another. Bridges of container runtimes are such, and
//! the inner side of address translation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use muster_protocol::hello::{HostAddress, HostNetwork};

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    first: u32,
    prefix: u8,
}

impl Network {
    fn of(address: HostAddress) -> Option<Self> {
        let rest = u32::BITS.checked_sub(u32::from(address.prefix))?;
        // That of all addresses is nobody's.
        let mask = u32::MAX.checked_shl(rest)?;
        Some(Self { first: address.ipv4 & mask, prefix: address.prefix })
    }

    fn has(self, ipv4: u32) -> bool {
        Self::of(HostAddress { ipv4, prefix: self.prefix }) == Some(self)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

/// The networks in which two of these hosts hold the same address. `reached` are addresses by which hosts were reached: a network of
/// one of those does connect. So does one in which a host that shares an address holds another one of its own. Hosts of which
/// nothing is known bring nothing.
pub fn dead_ends(hosts: &[Option<HostNetwork>], reached: &[Ipv4Addr]) -> Vec<Network> {
    let mut known: BTreeMap<u64, BTreeSet<HostAddress>> = BTreeMap::new();
    for host in hosts.iter().flatten() {
        known.entry(host.namespace).or_default().extend(&host.addresses);
    }
    let mut holders: BTreeMap<u32, usize> = BTreeMap::new();
    for addresses in known.values() {
        let of_host: BTreeSet<u32> = addresses.iter().map(|address| address.ipv4).collect();
        of_host.into_iter().for_each(|ipv4| *holders.entry(ipv4).or_default() += 1);
    }
    let is_shared = |address: &&HostAddress| holders.get(&address.ipv4).is_some_and(|holders| *holders > 1);
    let connects = |network: &Network| {
        let by_an_own_address = known.values().any(|addresses| {
            let mut inside = addresses.iter().filter(|address| network.has(address.ipv4));
            inside.clone().any(|address| is_shared(&address)) && inside.any(|address| !is_shared(&address))
        });
        by_an_own_address || reached.iter().any(|address| network.has(u32::from(*address)))
    };
    let shared = known.values().flatten().filter(is_shared);
    let mut networks: BTreeSet<Network> = shared.filter_map(|address| Network::of(*address)).collect();
    networks.retain(|network| !connects(network));
    let is_left_out = |address: &HostAddress| networks.iter().any(|network| network.has(address.ipv4));
    // With none left a host is reached by nobody; something else is meant then.
    if known.values().any(|addresses| !addresses.is_empty() && addresses.iter().all(is_left_out)) {
        return Vec::new();
    }
    networks.into_iter().collect()
}

/// Whether every one of these hosts is known to be in a network.
pub fn is_of_all(network: Network, hosts: &[Option<HostNetwork>]) -> bool {
    let is_in = |host: &HostNetwork| host.addresses.iter().any(|address| network.has(address.ipv4));
    hosts.iter().all(|host| host.as_ref().is_some_and(is_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1 10.0.0.1/24 172.17.0.1/16` is a host in namespace 1, `?` one of which nothing is known.
    fn host(text: &str) -> Option<HostNetwork> {
        let mut words = text.split(' ');
        let namespace = words.next()?.parse().ok()?;
        let address = |word: &str| {
            let (address, prefix) = word.split_once('/').expect("a prefix");
            let ipv4 = u32::from(address.parse::<Ipv4Addr>().expect("an address"));
            HostAddress { ipv4, prefix: prefix.parse().expect("a number") }
        };
        Some(HostNetwork { namespace, addresses: words.map(address).collect() })
    }

    fn list(networks: &[Network]) -> String {
        networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn networks_in_which_two_hosts_hold_the_same_address_connect_nobody() {
        let (docker, vm) = ("172.17.0.1/16", "10.0.2.15/24");
        let with = |namespace: u8, last: u8, more: &str| format!("{namespace} 10.1.0.{last}/16 {more}");
        let (a, b, c) = (with(1, 1, docker), with(2, 2, docker), with(3, 3, docker));
        let plain = "3 10.1.0.3/16".to_owned();
        for (hosts, reached, want, why) in [
            (vec![plain.clone(), "4 10.1.0.4/16".into()], "10.1.0.3", ("", ""), "the usual case"),
            (vec![a.clone(), b.clone(), c], "10.1.0.2", ("172.17.0.0/16", "172.17.0.0/16"), "a bridge everywhere"),
            (vec![a.clone(), b.clone(), plain], "10.1.0.2", ("172.17.0.0/16", ""), "a bridge on some hosts"),
            (vec![a.clone(), b.clone(), "?".into()], "10.1.0.2", ("172.17.0.0/16", ""), "a host that tells nothing"),
            (vec![a.clone(), with(1, 1, docker)], "10.1.0.1", ("", ""), "two agents of one machine"),
            (vec![a.clone(), with(2, 2, "172.17.0.2/16")], "10.1.0.2", ("", ""), "addresses of their own"),
            (vec![a.clone(), b.clone()], "172.17.0.1", ("", ""), "hosts were reached by it"),
            (vec![with(1, 1, vm), with(2, 2, vm)], "10.1.0.2", ("10.0.2.0/24", "10.0.2.0/24"), "address translation"),
            (vec![format!("1 {vm}"), format!("2 {vm}")], "192.0.2.1", ("", ""), "nothing else is left"),
            (vec![a.clone(), format!("2 {docker}")], "10.1.0.1", ("", ""), "a host has nothing else"),
            (
                vec![with(1, 1, "10.2.0.1/24 10.2.0.9/24"), with(2, 2, "10.2.0.2/24 10.2.0.9/24")],
                "10.1.0.2",
                ("", ""),
                "an address of a service that several hosts answer for",
            ),
            (
                vec![with(1, 1, "10.9.0.9/32"), with(2, 2, "10.9.0.9/32")],
                "10.1.0.2",
                ("10.9.0.9/32", "10.9.0.9/32"),
                "the same without a network around it",
            ),
            (
                vec![a.clone(), with(2, 2, "172.17.0.1/24")],
                "10.1.0.2",
                ("172.17.0.0/16 172.17.0.0/24", "172.17.0.0/16 172.17.0.0/24"),
                "of other sizes",
            ),
            (vec![with(1, 1, "1.2.3.4/0"), with(2, 2, "1.2.3.4/33")], "10.1.0.2", ("", ""), "no networks"),
        ] {
            let hosts: Vec<_> = hosts.iter().map(|text| host(text)).collect();
            let found = dead_ends(&hosts, &[reached.parse().expect("an address")]);
            let of_all: Vec<_> = found.iter().copied().filter(|network| is_of_all(*network, &hosts)).collect();
            assert_eq!((list(&found).as_str(), list(&of_all).as_str()), want, "{why}");
        }
        assert_eq!(dead_ends(&[], &[]), []);
    }
}
