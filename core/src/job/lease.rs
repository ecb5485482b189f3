//! The fence lease: how long ranks may live without hearing from the root.
//!
//! The lease counts from the moment the root *sent* its heartbeat, not from its arrival: a heartbeat that was stuck in a
//! queue must not prolong it. The two clocks have an unknown offset, so the smallest difference seen lately between arrival
//! and sending stands for it; it is too large by the fastest delivery, which is the error of the lease. Only lately: clocks
//! drift, and over days even two good ones come apart by more than a lease.

use std::collections::VecDeque;

use muster_protocol::limits::{FENCE_LEASE_MS, LEASE_KILL_RESERVE_MS};
use muster_protocol::message::Heartbeat;

/// Heartbeats whose fastest delivery gives the offset of the clocks: about a minute, in which bad clocks drift milliseconds.
const HEARTBEATS_LOOKED_AT: usize = 60;

/// One agent's view of its lease. All times are boot-time clocks in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    /// Differences between arrival and sending, newest last.
    seen_ms: VecDeque<i128>,
    /// When the newest heartbeat was sent, on the root's clock.
    newest_ms: Option<u64>,
    ends_ms: Option<u64>,
}

impl Lease {
    /// Ranks are about to start. They are not without a lease until the first heartbeat: the launcher may die before it.
    pub fn begin(&mut self, now_ms: u64) {
        self.ends_ms.get_or_insert(now_ms.saturating_add(FENCE_LEASE_MS));
    }

    /// A heartbeat arrived.
    pub fn renew(&mut self, beat: &Heartbeat, now_ms: u64) {
        let seen = i128::from(now_ms) - i128::from(beat.sent_ms);
        if self.seen_ms.len() == HEARTBEATS_LOOKED_AT {
            self.seen_ms.pop_front();
        }
        self.seen_ms.push_back(seen);
        let offset = self.seen_ms.iter().copied().min().unwrap_or(seen);
        let sent_here = i128::from(beat.sent_ms) + offset;
        let ends = u64::try_from(sent_here + i128::from(beat.lease_ms)).unwrap_or(0);
        // The newest heartbeat decides, also when it shortens the lease: after a suspended launcher goes on, for example.
        if self.newest_ms.is_none_or(|newest| beat.sent_ms >= newest) {
            self.newest_ms = Some(beat.sent_ms);
            self.ends_ms = Some(ends);
        }
    }

    /// When killing must begin, so that everything is dead when the lease ends.
    pub fn kill_at_ms(&self) -> Option<u64> {
        self.ends_ms.map(|ends| ends.saturating_sub(LEASE_KILL_RESERVE_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delayed_heartbeat_does_not_prolong_the_lease() {
        let mut lease = Lease::default();
        lease.renew(&Heartbeat { sent_ms: 1_000, lease_ms: 15_000 }, 501_001);
        assert_eq!(lease.kill_at_ms(), Some(501_001 + 13_000));
        // Sent two seconds after the first one, arrived nine seconds after it.
        lease.renew(&Heartbeat { sent_ms: 3_000, lease_ms: 15_000 }, 510_000);
        assert_eq!(lease.kill_at_ms(), Some(503_001 + 13_000));
    }

    #[test]
    fn ranks_have_a_lease_before_the_first_heartbeat() {
        let mut lease = Lease::default();
        assert_eq!(lease.kill_at_ms(), None);
        lease.begin(1_000);
        lease.begin(2_000);
        assert_eq!(lease.kill_at_ms(), Some(1_000 + FENCE_LEASE_MS - LEASE_KILL_RESERVE_MS));
        lease.renew(&Heartbeat { sent_ms: 0, lease_ms: 1_000 }, 3_000);
        assert_eq!(lease.kill_at_ms(), Some(3_000 + 1_000 - LEASE_KILL_RESERVE_MS));
    }

    #[test]
    fn clocks_that_drift_do_not_eat_the_lease() {
        let mut lease = Lease::default();
        // The root's clock loses 100 ms in every 1000 s, for three weeks.
        for second in 0..1_800_000u64 {
            let (now_ms, sent_ms) = (second * 1_000 + second / 10, second * 1_000);
            lease.renew(&Heartbeat { sent_ms, lease_ms: 15_000 }, now_ms);
            assert!(lease.kill_at_ms() > Some(now_ms + 12_900), "second {second}");
        }
    }

    #[test]
    fn a_faster_delivery_corrects_the_offset_and_an_old_heartbeat_changes_nothing() {
        let mut lease = Lease::default();
        lease.renew(&Heartbeat { sent_ms: 0, lease_ms: 15_000 }, 700);
        lease.renew(&Heartbeat { sent_ms: 1_000, lease_ms: 15_000 }, 1_002);
        assert_eq!(lease.kill_at_ms(), Some(1_002 + 13_000));
        lease.renew(&Heartbeat { sent_ms: 500, lease_ms: 15_000 }, 2_000);
        assert_eq!(lease.kill_at_ms(), Some(1_002 + 13_000));
    }
}
