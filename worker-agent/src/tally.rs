//! How many connections were turned away, told once a minute when there were more, and when the agent ends.

use std::fmt::Write as _;

use muster_transport::gate::{Ledger, Reason};

/// Time between two lines, in milliseconds.
const PERIOD_MS: u64 = 60_000;

/// What has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    told: u64,
    due_ms: u64,
}

/// Connections turned away, by reason.
pub(crate) fn counts(ledger: &Ledger) -> Vec<(Reason, u64)> {
    Reason::ALL.iter().map(|reason| (*reason, ledger.refused(*reason))).collect()
}

/// Port scans and readiness probes of the TCP kind come and go all day; they are counted, but are no news.
fn is_news((reason, _): &&(Reason, u64)) -> bool {
    *reason != Reason::Left
}

impl Tally {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { told: 0, due_ms: now_ms + PERIOD_MS }
    }

    pub(crate) fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// The line that is due now, if there is anything new.
    pub(crate) fn tick(&mut self, counts: &[(Reason, u64)], now_ms: u64) -> Option<String> {
        if now_ms < self.due_ms {
            return None;
        }
        self.due_ms = now_ms + PERIOD_MS;
        let news = counts.iter().filter(is_news).map(|(_, count)| count).sum();
        if news <= self.told {
            return None;
        }
        self.told = news;
        Self::total(counts)
    }

    /// All there is to tell.
    pub(crate) fn total(counts: &[(Reason, u64)]) -> Option<String> {
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let mut text = format!("connections turned away so far: {all}");
        for (reason, count) in counts.iter().filter(|(_, count)| *count > 0) {
            let _ = write!(text, "; {count} because {}", reason.text());
        }
        (all > 0).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_told_once_a_minute_when_they_have_grown() {
        let mut tally = Tally::new(1_000);
        let mut counts = vec![(Reason::WrongKey, 2), (Reason::Left, 5), (Reason::Garbage, 0)];
        assert_eq!(tally.tick(&counts, 1_000 + PERIOD_MS - 1), None);
        let line = "connections turned away so far: 7; 2 because its job key differs from ours; \
                    5 because it left before it had proven itself";
        assert_eq!(tally.tick(&counts, 1_000 + PERIOD_MS).as_deref(), Some(line));
        assert_eq!(tally.due_ms(), 1_000 + 2 * PERIOD_MS);
        assert_eq!(tally.tick(&counts, 1_000 + 2 * PERIOD_MS), None, "nothing new");
        counts[1].1 += 60;
        assert_eq!(tally.tick(&counts, 1_000 + 3 * PERIOD_MS), None, "probes of a port are no news");
        counts[2].1 += 1;
        assert!(tally.tick(&counts, 1_000 + 4 * PERIOD_MS).is_some_and(|l| l.contains("so far: 68;")));
    }

    #[test]
    fn at_the_end_everything_is_told_and_nothing_if_there_was_nothing() {
        assert_eq!(Tally::total(&[(Reason::WrongKey, 0)]), None);
        let line = "connections turned away so far: 1; 1 because it left before it had proven itself";
        assert_eq!(Tally::total(&[(Reason::Left, 1)]).as_deref(), Some(line));
    }
}
