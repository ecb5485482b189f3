//! How a job ends: the cause, the orders to end, and the last confirmations.

use muster_protocol::event::Event;
use muster_protocol::message::{End, Kill, Signal};
use muster_protocol::{HostIndex, HostSet};

use super::cause::Cause;
use super::collect::Collecting;
use super::machine::{Job, JobAct, Stage};
use crate::exit::Outcome;

/// Time after the hard kill in which every end should have been told, in milliseconds. Then hosts are asked to confirm anyway:
/// a rank may be stuck in the kernel, and an order or a report may have gone down with an inner agent.
const LAST_EXITS_MS: u64 = 2_000;

/// The longest grace after an abort, in milliseconds. `--help` and the exit policy say it, too.
const ABORT_GRACE_MS: u64 = 200;

/// How the ranks are being ended, for hosts that were not connected when it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Signal(i32),
    Kill(u64),
}

impl Job {
    /// The job must end, for this reason. Only the first one counts.
    pub fn fail(&mut self, cause: Cause) {
        let grace = match cause {
            // It asked for the end: its own cleaning up is done.
            Cause::Aborted { .. } => self.setup.grace_ms.min(ABORT_GRACE_MS),
            _ => self.setup.grace_ms,
        };
        if self.begin_end(cause) {
            self.give(Order::Kill(grace));
        }
        self.settle();
    }

    /// Output of ranks is lost, which is a failure also when all of them have ended well and only the hosts' last words are missing.
    pub fn lose_output(&mut self, cause: Cause) {
        if self.stage == Stage::Closing && self.cause.is_none() {
            self.emit(Event::Ending { cause: cause.to_string() });
            self.cause = Some(cause);
        } else {
            self.fail(cause);
        }
    }

    fn give(&mut self, order: Order) {
        self.order = Some(order);
        match order {
            Order::Signal(signal) => self.broadcast(&Signal { signal }),
            Order::Kill(grace_ms) => self.broadcast(&Kill { grace_ms }),
        }
    }

    /// Hosts that come when the job is ending, for the first time or again because their parent died, have not heard of it.
    pub(super) fn catch_up(&mut self, hosts: &HostSet) {
        let ended = |h: &HostIndex| self.table.hosts.get(h.0 as usize).is_none_or(|h| h.ended);
        let behind: Vec<HostIndex> = hosts.iter().filter(|h| !ended(h)).collect();
        for host in behind {
            match self.order {
                Some(Order::Signal(signal)) => self.send(host, &Signal { signal }),
                Some(Order::Kill(grace_ms)) => self.send(host, &Kill { grace_ms }),
                None => {}
            }
            if self.stage == Stage::Closing {
                let end = self.end_message();
                self.send(host, &end);
            }
        }
    }

    fn begin_end(&mut self, cause: Cause) -> bool {
        if self.stage >= Stage::Ending {
            return false;
        }
        let sentence = cause.to_string();
        // A status that a finished rank left behind came first.
        self.cause.get_or_insert(cause);
        self.emit(Event::Ending { cause: sentence });
        self.stage = Stage::Ending;
        true
    }

    /// A signal for the ranks that does not end the job by itself.
    pub fn pass_signal(&mut self, signal: i32) {
        self.broadcast(&Signal { signal });
        self.emit(Event::SignalForwarded { signal });
    }

    /// A signal that asks for the end: forwarded at first, then with force.
    pub fn end_signal(&mut self, signal: i32, now_ms: u64) {
        if self.stage >= Stage::Ending {
            self.kill_hard();
            return;
        }
        self.begin_end(Cause::Signal { signal });
        self.give(Order::Signal(signal));
        self.emit(Event::SignalForwarded { signal });
        self.kill_hard_at_ms = Some(now_ms.saturating_add(self.setup.grace_ms));
        self.settle();
    }

    fn kill_hard(&mut self) {
        self.kill_hard_at_ms = None;
        if self.stage != Stage::Over {
            // Counted anew, and without a grace, by the next tick.
            self.close_at_ms = None;
            self.setup.grace_ms = 0;
            self.give(Order::Kill(0));
        }
    }

    /// What has ended, or is ending, the job.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// Moves on when nothing is left to wait for.
    pub(super) fn settle(&mut self) {
        let idle = match self.stage {
            Stage::Connecting | Stage::Over | Stage::Closing => false,
            Stage::Running | Stage::Ending => self.table.alive == 0,
        };
        if idle {
            self.close();
        }
        if self.stage == Stage::Closing && self.table.confirmed() {
            self.stage = Stage::Over;
            (self.query, self.kill_hard_at_ms) = (None, None);
            let outcome = self.outcome();
            self.acts.push(JobAct::Over { outcome, cause: self.cause.clone() });
        }
    }

    /// Asks every host to confirm that nothing is left.
    fn close(&mut self) {
        self.stage = Stage::Closing;
        (self.kill_hard_at_ms, self.close_at_ms, self.collecting) = (None, None, None);
        if let Some(cause) = self.survival.nobody() {
            self.cause.get_or_insert(cause);
        }
        if self.cause.is_none() {
            self.cause = self.table.singletons();
        }
        let end = self.end_message();
        self.broadcast(&end);
    }

    fn end_message(&self) -> End {
        End { status: self.outcome().code() }
    }

    fn outcome(&self) -> Outcome {
        self.cause.as_ref().map_or(Outcome::Success, Cause::outcome)
    }

    /// When [`Job::tick`] is due next, in milliseconds.
    pub fn next_due_ms(&self) -> Option<u64> {
        let question = self.query.as_ref().map(|q| q.until_ms);
        // The end began without a look at the clock: the next tick counts from itself.
        let close = (self.stage == Stage::Ending).then(|| self.close_at_ms.unwrap_or(0));
        let collected = self.collecting.as_ref().map(Collecting::due_ms);
        let own = self.kill_hard_at_ms.into_iter().chain(question).chain(close).chain(collected);
        own.chain(self.share_due_ms()).chain(self.exchange.due_ms()).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.collect(now_ms);
        self.share_if_due(now_ms);
        self.exchange_tick(now_ms);
        if self.kill_hard_at_ms.is_some_and(|at| at <= now_ms) {
            self.kill_hard();
        }
        if self.query.as_ref().is_some_and(|q| q.until_ms <= now_ms) {
            self.finish_query();
        }
        if self.stage == Stage::Ending {
            let at = *self
                .close_at_ms
                .get_or_insert(now_ms.saturating_add(self.setup.grace_ms).saturating_add(LAST_EXITS_MS));
            if at <= now_ms {
                self.close();
                self.settle();
            }
        }
    }
}
