//! The two clocks that leases and measurements need.

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime only writes to `now`, which outlives the call.
    let rc = unsafe { libc::clock_gettime(clock, &mut now) };
    // Both clocks exist on every Linux that has a 64-bit user space.
    assert_eq!(rc, 0, "the kernel has no clock {clock}");
    now
}

/// Milliseconds since boot, time in suspension included: a lease must run out while a machine sleeps.
pub fn boottime_ms() -> u64 {
    let now = read(libc::CLOCK_BOOTTIME);
    now.tv_sec.cast_unsigned() * 1_000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Nanoseconds of the monotonic clock, for measurements.
pub fn monotonic_ns() -> u64 {
    let now = read(libc::CLOCK_MONOTONIC);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward() {
        let (b, m) = (boottime_ms(), monotonic_ns());
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(boottime_ms() >= b + 2);
        assert!(monotonic_ns() >= m + 2_000_000);
    }
}
