//! What an agent tells of its host and of itself.

use muster_protocol::hello::{HostAddress, HostFacts, HostNetwork};
use muster_protocol::limits::HOST_ADDRESSES_MAX;
use muster_sys::{interfaces, proc};

/// What this host has.
pub(super) fn facts() -> HostFacts {
    HostFacts {
        hostname: proc::hostname(),
        cores: proc::cpu_count() as u32,
        memory_bytes: 0,
        boot_id: proc::boot_id().unwrap_or_default(),
        shells: None,
        network: None,
    }
}

/// Where this host is on its networks now; nothing when a part of it is not known.
pub fn network() -> Option<HostNetwork> {
    let digits: String = proc::boot_id()?.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let machine = u64::from_str_radix(&digits, 16).ok()?;
    let found = interfaces::ipv4().ok().filter(|found| found.len() <= HOST_ADDRESSES_MAX)?;
    let addresses = found.iter().map(|(address, prefix)| HostAddress { ipv4: u32::from(*address), prefix: *prefix });
    Some(HostNetwork { namespace: machine ^ interfaces::namespace()?, addresses: addresses.collect() })
}

/// A number that another process, or this one after a restart, does not have.
pub fn incarnation() -> u64 {
    muster_sys::clock::monotonic_ns() ^ u64::from(std::process::id()) << 44
}
