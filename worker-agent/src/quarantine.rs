//! A host on which processes of a job could not be ended takes no other job before they are gone. Decides; touches nothing.

use muster_protocol::hello::Refusal;

use crate::executor::border::Survivor;

/// Time between two looks for processes that were left, in milliseconds, when nobody asks.
const LOOK_AGAIN_MS: u64 = 10_000;
/// Processes that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// What was left behind, and when it is looked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quarantine {
    job: String,
    survivors: Vec<Survivor>,
    looking: bool,
    look_ms: u64,
}

impl Quarantine {
    /// None when nothing is left of the job.
    pub(crate) fn after(job: &str, survivors: Vec<Survivor>, now_ms: u64) -> Option<Self> {
        let look_ms = now_ms + LOOK_AGAIN_MS;
        (!survivors.is_empty()).then(|| Self { job: job.to_owned(), survivors, looking: false, look_ms })
    }

    /// Why nobody is served.
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::Quarantined { job: self.job.clone(), survivors: self.names() }
    }

    /// The processes, for people.
    pub(crate) fn names(&self) -> String {
        let name = |s: &Survivor| match s.pid {
            // It cannot be seen; its name says why.
            0 => s.name.clone(),
            pid => format!("{pid} ({}, state {})", s.name, s.state),
        };
        let mut names: Vec<String> = self.survivors.iter().take(NAMED_MAX).map(name).collect();
        if let Some(more @ 1..) = self.survivors.len().checked_sub(NAMED_MAX) {
            names.push(format!("{more} more"));
        }
        names.join(", ")
    }

    /// When it is looked again.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        (!self.looking).then_some(self.look_ms)
    }

    /// Whether to order a sweep now: when it is time, or when somebody asks and none is under way.
    pub(crate) fn look(&mut self, asked: bool, now_ms: u64) -> bool {
        let look = !self.looking && (asked || self.look_ms <= now_ms);
        self.looking |= look;
        look
    }

    /// A sweep is over. Says whether the host is free again.
    pub(crate) fn swept(&mut self, survivors: Vec<Survivor>, now_ms: u64) -> bool {
        self.survivors = survivors;
        self.looking = false;
        self.look_ms = now_ms + LOOK_AGAIN_MS;
        self.survivors.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivor(pid: i32) -> Survivor {
        Survivor { pid, name: "python3".to_owned(), state: 'D' }
    }

    #[test]
    fn survivors_are_named_and_looked_for_until_they_are_gone() {
        assert_eq!(Quarantine::after("j", Vec::new(), 0), None);
        let mut held = Quarantine::after("j", vec![survivor(41), survivor(42)], 0).unwrap();
        let survivors = "41 (python3, state D), 42 (python3, state D)".to_owned();
        assert_eq!(held.refusal(), Refusal::Quarantined { job: "j".to_owned(), survivors });
        assert_eq!(held.due_ms(), Some(LOOK_AGAIN_MS));
        assert!(!held.look(false, LOOK_AGAIN_MS - 1) && held.look(false, LOOK_AGAIN_MS));
        assert_eq!(held.due_ms(), None);
        assert!(!held.look(true, LOOK_AGAIN_MS + 1), "one is under way");
        assert!(!held.swept(vec![survivor(42)], 20_000));
        assert_eq!((held.names().as_str(), held.due_ms()), ("42 (python3, state D)", Some(20_000 + LOOK_AGAIN_MS)));
        assert!(held.look(true, 20_001), "somebody asks");
        assert!(held.swept(Vec::new(), 21_000));
    }

    #[test]
    fn many_are_counted_and_who_cannot_be_seen_has_no_number() {
        let many = Quarantine::after("j", (1..=10).map(survivor).collect(), 0).unwrap();
        assert!(many.names().ends_with("8 (python3, state D), 2 more"), "{}", many.names());
        let unseen = Survivor { pid: 0, name: "unknown, nobody can be seen: no /proc".to_owned(), state: '?' };
        let unseen = Quarantine::after("j", vec![unseen], 0).unwrap();
        assert_eq!(unseen.names(), "unknown, nobody can be seen: no /proc");
    }
}
