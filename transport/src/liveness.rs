//! How long a peer has been silent, and what to do about it. No clock inside: the caller passes the time.

use muster_protocol::limits::{SILENCE_DEAD_MS, SILENCE_PROBE_MS};

/// What a peer's silence calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Heard from lately.
    Ok,
    /// Silent for long enough to ask by a connection of its own, which a starved host can still answer.
    Probe,
    /// Silent for too long, and the probe found nobody either.
    Dead,
}

/// The silence of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    heard_ms: u64,
    probe_failed: bool,
}

impl Liveness {
    /// A peer that was heard right now.
    pub fn new(now_ms: u64) -> Self {
        Self { heard_ms: now_ms, probe_failed: false }
    }

    /// Any byte from the peer counts, and so does an answered probe. An earlier time than the last one changes nothing.
    pub fn heard(&mut self, now_ms: u64) {
        if now_ms >= self.heard_ms {
            *self = Self::new(now_ms);
        }
    }

    /// The probe that [`Verdict::Probe`] asked for found nobody.
    pub fn probe_failed(&mut self) {
        self.probe_failed = true;
    }

    /// Time since the peer was last heard.
    pub fn silence_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }

    /// What the silence calls for. Never [`Verdict::Dead`] without a failed probe: a starved host is slow, not dead.
    pub fn verdict(&self, now_ms: u64) -> Verdict {
        match self.silence_ms(now_ms) {
            silence if silence >= SILENCE_DEAD_MS && self.probe_failed => Verdict::Dead,
            silence if silence >= SILENCE_PROBE_MS => Verdict::Probe,
            _ => Verdict::Ok,
        }
    }

    /// When the verdict may change next if nothing is heard.
    pub fn next_check_ms(&self, now_ms: u64) -> Option<u64> {
        [SILENCE_PROBE_MS, SILENCE_DEAD_MS].into_iter().map(|limit| self.heard_ms + limit).find(|at| *at > now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_leads_to_a_probe_and_a_failed_probe_to_death() {
        let mut peer = Liveness::new(100);
        assert_eq!(peer.verdict(100 + SILENCE_PROBE_MS - 1), Verdict::Ok);
        assert_eq!(peer.next_check_ms(100), Some(100 + SILENCE_PROBE_MS));
        assert_eq!(peer.verdict(100 + SILENCE_PROBE_MS), Verdict::Probe);
        peer.probe_failed();
        assert_eq!(peer.verdict(100 + SILENCE_DEAD_MS - 1), Verdict::Probe);
        assert_eq!(peer.verdict(100 + SILENCE_DEAD_MS), Verdict::Dead);
        assert_eq!(peer.next_check_ms(100 + SILENCE_DEAD_MS), None);
    }

    #[test]
    fn a_host_that_answers_probes_is_slow_not_dead() {
        let mut peer = Liveness::new(0);
        assert_eq!(peer.verdict(100 * SILENCE_DEAD_MS), Verdict::Probe);
        peer.probe_failed();
        peer.heard(100 * SILENCE_DEAD_MS);
        assert_eq!(peer.verdict(100 * SILENCE_DEAD_MS + SILENCE_PROBE_MS), Verdict::Probe, "the failure is forgotten");
        assert_eq!(peer.verdict(101 * SILENCE_DEAD_MS), Verdict::Probe);
    }

    #[test]
    fn time_that_runs_backwards_is_harmless() {
        let mut peer = Liveness::new(5_000);
        peer.heard(4_000);
        assert_eq!(peer.silence_ms(4_500), 0);
        assert_eq!(peer.verdict(5_000 + SILENCE_PROBE_MS), Verdict::Probe);
    }
}
