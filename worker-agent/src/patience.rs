//! How long an agent that was made for one launcher waits for it. Decides; reads no clock.

/// Time that such an agent waits for its launcher: for its first dial, and again after a dial that came to nothing.
const LAUNCHER_WAIT_MS: u64 = 60_000;

/// The wait of an agent for its launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    one_launcher: bool,
    since_ms: u64,
    /// A launcher has given it something to do, and it is done.
    served: bool,
}

impl Patience {
    pub(crate) fn new(one_launcher: bool, now_ms: u64) -> Self {
        Self { one_launcher, since_ms: now_ms, served: false }
    }

    /// A job is over here. A connection that was merely dropped was none: its launcher may dial again.
    pub(crate) fn job_over(&mut self, was_served: bool, now_ms: u64) {
        self.served |= was_served;
        self.since_ms = now_ms;
    }

    /// When the agent ends if nobody comes. While it has a job it waits for nobody.
    pub(crate) fn due_ms(&self, has_job: bool) -> Option<u64> {
        (self.one_launcher && !self.served && !has_job).then_some(self.since_ms + LAUNCHER_WAIT_MS)
    }

    /// Whether an agent without a job has nothing to wait for any more.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        self.one_launcher && (self.served || self.due_ms(false).is_some_and(|at| at <= now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_with_a_job_is_not_woken_to_look_for_a_launcher_however_long_the_job_runs() {
        let patience = Patience::new(true, 1_000);
        assert_eq!(patience.due_ms(false), Some(1_000 + LAUNCHER_WAIT_MS));
        assert_eq!(patience.due_ms(true), None);
        assert!(!patience.is_over(999 + LAUNCHER_WAIT_MS) && patience.is_over(1_000 + LAUNCHER_WAIT_MS));
    }

    #[test]
    fn a_dial_that_was_dropped_is_waited_for_again_and_a_launcher_that_was_served_is_not() {
        let mut patience = Patience::new(true, 0);
        patience.job_over(false, 50_000);
        assert_eq!(patience.due_ms(false), Some(50_000 + LAUNCHER_WAIT_MS));
        assert!(!patience.is_over(50_001));
        patience.job_over(true, 70_000);
        assert!(patience.is_over(70_000) && patience.due_ms(false).is_none());
    }

    #[test]
    fn an_agent_for_any_launcher_waits_for_ever() {
        let mut patience = Patience::new(false, 0);
        patience.job_over(true, 1);
        assert!(patience.due_ms(false).is_none() && !patience.is_over(u64::MAX));
    }
}
