//! When a report may leave: never soon after another that has arrived, and the last state in any case.

use muster_protocol::limits::STATUS_PERIOD_MS;

/// Times are arguments, in milliseconds of one clock.
///
/// The first report comes a period after the start as well: most jobs are running by then, and one that is over sooner sends
/// only its end, without waiting for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    not_before_ms: u64,
    /// Something has changed since the last report.
    changed: bool,
    /// The latest report has arrived.
    heard: bool,
    /// Nothing will change any more.
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Wanted { due_ms: u64 },
    Sent,
}

impl Throttle {
    /// A throttle for a command that starts now.
    pub fn new(now_ms: u64) -> Self {
        Self { not_before_ms: now_ms.saturating_add(STATUS_PERIOD_MS), changed: false, heard: false, last: None }
    }

    /// There is something to tell.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// There is something to tell for the last time. Where nobody was heard the last time, or has spoken at all, nothing is waited for.
    pub fn last(&mut self, now_ms: u64) {
        let due_ms = if self.heard { now_ms.max(self.not_before_ms) } else { now_ms };
        self.last.get_or_insert(Last::Wanted { due_ms });
    }

    /// When a report shall leave; none when there is nothing to tell.
    pub fn due_ms(&self) -> Option<u64> {
        match self.last {
            Some(Last::Wanted { due_ms }) => Some(due_ms),
            Some(Last::Sent) => None,
            None => self.changed.then_some(self.not_before_ms),
        }
    }

    /// A report leaves, with all that has changed until now.
    pub fn leaves(&mut self) {
        self.changed = false;
        if let Some(last) = &mut self.last {
            *last = Last::Sent;
        }
    }

    /// It has arrived, or it has not: then it is tried again, but for the last one.
    pub fn ended(&mut self, arrived: bool, now_ms: u64) {
        self.not_before_ms = now_ms.saturating_add(STATUS_PERIOD_MS);
        self.changed |= !arrived;
        self.heard = arrived;
    }

    /// Nothing will leave any more.
    pub fn is_over(&self) -> bool {
        self.last == Some(Last::Sent)
    }
}
