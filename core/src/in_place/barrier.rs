//! One agent's part, as a state machine: what the JobSet says goes in, what to do comes out.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::JobSetState;

/// Time between the first two looks at the JobSet while the barrier is up, in milliseconds: everybody waits for this.
const WAITING_MS: u64 = 1_000;
/// The longest such time, up to which it doubles: some pods take minutes, and all others ask meanwhile.
const WAITING_MAX_MS: u64 = 5_000;
/// Each pod's pauses are longer or shorter by up to this part of them, so that pods that have started together soon ask one by one.
const SPREAD_PERCENT: u64 = 25;
/// The same when ranks may run: every pod looks, and a restart takes longer than this anyway.
const SERVING_MS: u64 = 10_000;
/// The longest pause after failures, which double it.
const FAILING_MS: u64 = 30_000;

/// What shall be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Look at the JobSet.
    Look,
    /// Write this attempt to the pod, then look again.
    Register(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is known yet.
    Starting,
    /// The pod is to be told its attempt.
    Registering(u32),
    /// All others are waited for.
    Waiting(u32),
    /// The barrier is down.
    Serving(u32),
    /// There is no barrier.
    Bypassed,
    /// This attempt is over: the agent has to end.
    Over(u32),
}

/// Times are arguments, in milliseconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    phase: Phase,
    due_ms: u64,
    /// Looks since the attempt began that have found others missing.
    waits: u32,
    /// Failures since the last success.
    failures: u32,
    /// This pod's pauses, in percent of what they are on average.
    pace_percent: u64,
}

impl Barrier {
    /// A barrier that is up, at the start of an agent in the pod of this name.
    pub fn new(pod: &str, now_ms: u64) -> Self {
        // The same name has the same pace wherever this runs: this hasher has no secret.
        let mut hasher = DefaultHasher::new();
        pod.hash(&mut hasher);
        let pace_percent = 100 - SPREAD_PERCENT + hasher.finish() % (2 * SPREAD_PERCENT + 1);
        Self { phase: Phase::Starting, due_ms: now_ms, waits: 0, failures: 0, pace_percent }
    }

    /// The end of a pause.
    fn after(&self, pause_ms: u64, now_ms: u64) -> u64 {
        now_ms.saturating_add(pause_ms * self.pace_percent / 100)
    }

    /// What is to be done next, and when; none when nothing is left to do.
    pub fn next(&self) -> Option<(Act, u64)> {
        let act = match self.phase {
            Phase::Starting | Phase::Waiting(_) | Phase::Serving(_) => Act::Look,
            Phase::Registering(attempt) => Act::Register(attempt),
            Phase::Bypassed | Phase::Over(_) => return None,
        };
        Some((act, self.due_ms))
    }

    /// The JobSet was looked at.
    pub fn looked(&mut self, state: &JobSetState, now_ms: u64) {
        self.failures = 0;
        let over = |attempt: u32| state.previous.is_some_and(|previous| attempt <= previous);
        self.phase = match self.phase {
            Phase::Over(_) => self.phase,
            _ if state.bypass => Phase::Bypassed,
            // Chosen once: an agent that counted on by itself would restart all others for nothing.
            Phase::Starting => Phase::Registering(state.current.map_or(0, |current| current.saturating_add(1))),
            Phase::Registering(attempt) | Phase::Waiting(attempt) | Phase::Serving(attempt) if over(attempt) => {
                Phase::Over(attempt)
            }
            Phase::Waiting(attempt) if state.current == Some(attempt) => Phase::Serving(attempt),
            phase => phase,
        };
        self.due_ms = match self.phase {
            Phase::Registering(_) => now_ms,
            Phase::Serving(_) => self.after(SERVING_MS, now_ms),
            _ => {
                let pause_ms = WAITING_MS << self.waits.min(3);
                self.waits = self.waits.saturating_add(1);
                self.after(pause_ms.min(WAITING_MAX_MS), now_ms)
            }
        };
    }

    /// The pod has its attempt.
    pub fn registered(&mut self, now_ms: u64) {
        self.failures = 0;
        if let Phase::Registering(attempt) = self.phase {
            self.phase = Phase::Waiting(attempt);
            self.due_ms = now_ms;
        }
    }

    /// The API server did not do what it was asked for. A barrier that is down stays down.
    pub fn failed(&mut self, now_ms: u64) {
        let pause_ms = WAITING_MS << self.failures.min(5);
        self.failures = self.failures.saturating_add(1);
        self.due_ms = self.after(pause_ms.min(FAILING_MS), now_ms);
    }

    /// Whether jobs are taken.
    pub fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Serving(_) | Phase::Bypassed)
    }

    /// Whether the agent has to end, for its container to start again.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// What is waited for, for people.
    pub fn describe(&self) -> String {
        match self.phase {
            Phase::Starting => "waits for what the JobSet says about in-place restarts".to_owned(),
            Phase::Registering(attempt) => {
                format!("cannot tell its pod yet that it is in in-place restart attempt {attempt}")
            }
            Phase::Waiting(attempt) => {
                format!("waits until all pods of the JobSet are in in-place restart attempt {attempt}")
            }
            Phase::Serving(attempt) => format!("serves in in-place restart attempt {attempt}"),
            Phase::Bypassed => "serves; the JobSet has no in-place restarts".to_owned(),
            Phase::Over(attempt) => format!("ends, since in-place restart attempt {attempt} is over"),
        }
    }
}
