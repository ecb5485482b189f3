//! Launchers that want the same hosts at the same moment: who goes first, and how the other one gets out of the way.
//!
//! Each may hold some hosts and wait for the rest. All agents put launchers in the same order, so there is one that goes first
//! everywhere. An agent on which nothing has been started yet tells its own launcher when one comes that goes before it; that
//! launcher lets go of the host unless it is starting ranks already, which only it can know. Then the agent keeps itself free for
//! the other one for a while.

use std::cmp::Ordering;

use muster_protocol::Epoch;
use muster_protocol::hello::{Hello, Refusal};

/// Time for which a host that was let go waits for the launcher it was let go for, in milliseconds. That one dials at least
/// once a second.
const KEPT_FREE_MS: u64 = 3_000;

/// The order of launchers, the same on every host: who was started first goes first. Two of the very same microsecond have
/// different jobs, or are the same to all agents.
pub(crate) fn order(one: (Epoch, &str), other: (Epoch, &str)) -> Ordering {
    one.cmp(&other)
}

/// A launcher that was told to wait although it goes first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rival {
    epoch: Epoch,
    job: String,
    launcher: String,
    /// Until when this host is kept free for it, once it is free.
    until_ms: Option<u64>,
}

/// The launcher for which this host is to be free next.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    first: Option<Rival>,
}

impl Rivals {
    /// A launcher asks for this host while another one's job is here, of which nothing has been started. Says whether the
    /// other one is to be told.
    pub(crate) fn ask(&mut self, hello: &Hello, held_by: (Epoch, &str)) -> bool {
        let asks = (hello.epoch, hello.job.as_str());
        if order(asks, held_by).is_ge() {
            return false;
        }
        if self.first.as_ref().is_none_or(|first| order(asks, (first.epoch, &first.job)).is_le()) {
            let (job, launcher) = (hello.job.clone(), hello.from.clone());
            self.first = Some(Rival { epoch: hello.epoch, job, launcher, until_ms: None });
        }
        true
    }

    /// The job that was here is over. If it was let go, somebody else is waited for.
    pub(crate) fn job_over(&mut self, was_served: bool, now_ms: u64) {
        self.first.take_if(|_| was_served);
        if let Some(first) = &mut self.first {
            first.until_ms = Some(now_ms + KEPT_FREE_MS);
        }
    }

    /// Whether a launcher may have this host, which is free.
    pub(crate) fn judge(&mut self, hello: &Hello, now_ms: u64) -> Result<(), Refusal> {
        let Some(first) = &self.first else { return Ok(()) };
        let late = first.until_ms.is_none_or(|until| until <= now_ms);
        if late || order((hello.epoch, &hello.job), (first.epoch, &first.job)).is_le() {
            self.first = None;
            return Ok(());
        }
        Err(Refusal::Busy { job: first.job.clone(), launcher: first.launcher.clone() })
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::hello::{Lane, RELEASE, Role};
    use muster_protocol::{Generation, HostIndex};

    use super::*;

    fn hello(job: &str, epoch: u64) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            release: RELEASE.to_owned(),
            role: Role::Launcher,
            lane: Lane::Control,
            job: job.to_owned(),
            epoch: Epoch(epoch),
            from: format!("l-{epoch}"),
            incarnation: 1,
            you: HostIndex(0),
            your_name: "h0".to_owned(),
            generation: Generation(0),
        }
    }

    #[test]
    fn the_order_is_total_and_does_not_depend_on_who_came_first() {
        let all = [(Epoch(1), "b"), (Epoch(1), "c"), (Epoch(2), "a"), (Epoch(3), "a")];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(order(*one, *other), i.cmp(&j), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn whoever_goes_first_gets_the_host_that_was_let_go_and_others_hear_for_whom_they_wait() {
        let mut rivals = Rivals::default();
        let held = (Epoch(7), "x");
        assert!(!rivals.ask(&hello("y", 8), held), "it came later and waits");
        assert!(rivals.ask(&hello("y", 6), held));
        assert!(rivals.ask(&hello("z", 5), held), "one goes before both");
        assert!(rivals.ask(&hello("y", 6), held), "it asks again");
        rivals.job_over(false, 1_000);
        let busy = Err(Refusal::Busy { job: "z".to_owned(), launcher: "l-5".to_owned() });
        assert_eq!(rivals.judge(&hello("x", 7), 1_001), busy);
        assert_eq!(rivals.judge(&hello("y", 6), 1_001), busy);
        assert_eq!(rivals.judge(&hello("z", 5), 1_002), Ok(()));
        assert_eq!(rivals.judge(&hello("x", 7), 1_003), Ok(()), "nobody is waited for any more");
    }

    #[test]
    fn a_host_is_not_kept_free_for_ever_nor_after_a_job_that_ran() {
        let mut rivals = Rivals::default();
        rivals.ask(&hello("y", 6), (Epoch(7), "x"));
        rivals.job_over(false, 1_000);
        assert!(rivals.judge(&hello("x", 7), 999 + KEPT_FREE_MS).is_err());
        assert_eq!(rivals.judge(&hello("x", 7), 1_000 + KEPT_FREE_MS), Ok(()));
        rivals.ask(&hello("y", 6), (Epoch(7), "x"));
        rivals.job_over(true, 1_000);
        assert_eq!(rivals.judge(&hello("x", 7), 1_001), Ok(()));
    }
}
