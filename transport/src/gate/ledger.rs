//! Who was turned away and why: counted always, logged once a minute for each source and reason.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_protocol::limits::REMEMBERED_REFUSALS_MAX;
use tokio::time::Instant;

/// Time for which the same reason from the same source is not logged again.
const QUIET: Duration = Duration::from_secs(60);

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )*) => {
        /// Why a connection was turned away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $( $(#[$doc])* $name, )* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$( Reason::$name, )*];

            /// The reason in words.
            pub fn text(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }
        }
    };
}

reasons! {
    /// It holds another job key.
    WrongKey = "its job key differs from ours",
    /// What it sends is not our protocol.
    Garbage = "it does not speak the agent protocol",
    /// It did not prove itself and say hello in time.
    TooSlow = "it did not prove itself in time",
    /// It gave way to a newer connection.
    Displaced = "too many connections had not proven themselves",
    /// It went away before it had proven itself: port scans and TCP readiness probes do that.
    Left = "it left before it had proven itself",
    /// The network failed.
    Failed = "the connection failed",
    /// It was proven, but its hello was refused.
    Refused = "its hello was refused",
}

/// Counts and logs refusals.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    logged: Mutex<HashMap<(Reason, IpAddr), (Instant, u64)>>,
}

impl Ledger {
    /// Connections taken from the network.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections turned away for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// Connections turned away for any reason.
    pub fn refused_in_all(&self) -> u64 {
        Reason::ALL.iter().map(|reason| self.refused(*reason)).sum()
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, reason: Reason, source: IpAddr, detail: &str) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
        if reason == Reason::Left {
            tracing::debug!(%source, "connection turned away: {}", reason.text());
            return;
        }
        if let Some(unlogged) = self.due(reason, source, Instant::now()) {
            tracing::warn!(%source, unlogged, detail, "connection turned away: {}", reason.text());
        }
    }

    /// Whether to log now; if so, how many were not logged since the last time.
    fn due(&self, reason: Reason, source: IpAddr, now: Instant) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, unlogged)) = logged.get_mut(&(reason, source)) {
            if now.saturating_duration_since(*at) < QUIET {
                *unlogged += 1;
                return None;
            }
            let before = *unlogged;
            (*at, *unlogged) = (now, 0);
            return Some(before);
        }
        if logged.len() >= REMEMBERED_REFUSALS_MAX {
            logged.retain(|_, (at, _)| now.saturating_duration_since(*at) < QUIET);
            if logged.len() >= REMEMBERED_REFUSALS_MAX {
                return None;
            }
        }
        logged.insert((reason, source), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_logged_once_a_minute_for_each_source() {
        let (ledger, start) = (Ledger::default(), Instant::now());
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(ledger.due(Reason::WrongKey, one, start), Some(0));
        assert_eq!(ledger.due(Reason::WrongKey, one, start), None);
        assert_eq!(ledger.due(Reason::WrongKey, one, start + QUIET / 2), None);
        assert_eq!(ledger.due(Reason::WrongKey, two, start), Some(0));
        assert_eq!(ledger.due(Reason::Garbage, one, start), Some(0));
        assert_eq!(ledger.due(Reason::WrongKey, one, start + QUIET), Some(2));
    }

    #[test]
    fn a_flood_of_sources_is_counted_but_not_remembered() {
        let (ledger, start) = (Ledger::default(), Instant::now());
        for n in 0..2 * REMEMBERED_REFUSALS_MAX as u32 {
            ledger.due(Reason::Garbage, IpAddr::from(n.to_be_bytes()), start);
        }
        assert_eq!(ledger.logged.lock().unwrap().len(), REMEMBERED_REFUSALS_MAX);
        assert_eq!(ledger.due(Reason::Garbage, IpAddr::from([200, 0, 0, 1]), start + QUIET), Some(0));
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let ledger = Ledger::default();
        for reason in Reason::ALL {
            ledger.refuse(*reason, IpAddr::from([10, 0, 0, 1]), "");
            assert_eq!(ledger.refused(*reason), 1);
        }
        assert_eq!(ledger.refused_in_all(), Reason::ALL.len() as u64);
    }
}
