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
    /// The shortest lease that the root has ever given: the ordinary one. A launcher that is suspended gives a long one.
    ordinary_ms: Option<u64>,
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
        self.ordinary_ms = Some(self.ordinary_ms.map_or(beat.lease_ms, |shortest| shortest.min(beat.lease_ms)));
    }

    /// The connection towards the root is gone. A lease that was given because the launcher was suspended goes back to the
    /// ordinary one, counted from now, since a suspended launcher keeps its connections. Returns what tells those below, if
    /// it has become shorter.
    pub fn cut_off(&mut self, now_ms: u64) -> Option<Heartbeat> {
        let lease_ms = self.ordinary_ms?;
        let ends = now_ms.saturating_add(lease_ms);
        if self.ends_ms? <= ends {
            return None;
        }
        self.ends_ms = Some(ends);
        let offset = self.seen_ms.iter().copied().min()?;
        // The root's clock, as far as it is known here: those below reckon with it.
        let sent_ms = u64::try_from(i128::from(now_ms) - offset).unwrap_or(0).max(self.newest_ms?);
        Some(Heartbeat { sent_ms, lease_ms })
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
    fn without_a_connection_to_a_suspended_launcher_the_ordinary_lease_counts_here_and_below() {
        let (mut near, mut far) = (Lease::default(), Lease::default());
        for beat in [(1_000, 15_000), (2_000, 86_400_000)].map(|(sent_ms, lease_ms)| Heartbeat { sent_ms, lease_ms }) {
            near.renew(&beat, beat.sent_ms + 500_000);
            far.renew(&beat, beat.sent_ms + 900_000);
        }
        assert!(near.kill_at_ms() > Some(86_000_000));
        // A minute after the launcher was suspended it is killed.
        let beat = near.cut_off(562_000).unwrap();
        assert_eq!(near.kill_at_ms(), Some(562_000 + 13_000));
        assert_eq!(beat, Heartbeat { sent_ms: 62_000, lease_ms: 15_000 });
        far.renew(&beat, 962_003);
        assert_eq!(far.kill_at_ms(), Some(962_000 + 13_000));
        assert_eq!(near.cut_off(563_000), None, "it is not prolonged by a second loss");
        // A launcher that comes back says anew what counts.
        near.renew(&Heartbeat { sent_ms: 63_000, lease_ms: 15_000 }, 563_000);
        assert_eq!(near.kill_at_ms(), Some(563_000 + 13_000));
    }

    #[test]
    fn an_ordinary_lease_is_not_touched_by_the_loss_of_the_connection() {
        let mut lease = Lease::default();
        assert_eq!(lease.cut_off(5), None);
        lease.begin(0);
        assert_eq!(lease.cut_off(5), None);
        lease.renew(&Heartbeat { sent_ms: 1_000, lease_ms: 15_000 }, 1_000);
        assert_eq!(lease.cut_off(9_000), None);
        assert_eq!(lease.kill_at_ms(), Some(1_000 + 13_000));
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
