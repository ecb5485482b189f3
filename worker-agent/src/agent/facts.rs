//! What an agent tells of its host and of itself.

use muster_protocol::hello::HostFacts;

/// What this host has.
pub(super) fn facts() -> HostFacts {
    HostFacts {
        hostname: muster_sys::proc::hostname(),
        cores: muster_sys::proc::cpu_count() as u32,
        memory_bytes: 0,
        boot_id: muster_sys::proc::boot_id().unwrap_or_default(),
        shells: None,
    }
}

/// A number that another process, or this one after a restart, does not have.
pub fn incarnation() -> u64 {
    muster_sys::clock::monotonic_ns() ^ u64::from(std::process::id()) << 44
}
