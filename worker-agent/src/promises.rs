//! Which launchers have had their turn here, so that an old one is not served again after a newer one.

use std::collections::VecDeque;

use muster_protocol::Epoch;
use muster_protocol::hello::Refusal;
use muster_protocol::limits::REMEMBERED_LAUNCHERS_MAX;

/// Launchers that were given this host, newest last.
///
/// Only such a launcher can be an old one that comes again. One with a lower epoch that was never served is merely late: it
/// may have waited for its turn while launchers that started after it, of jobs with the same name, had theirs.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    served: VecDeque<(String, Epoch)>,
}

impl Promises {
    /// A launcher has given this host something to do.
    pub(crate) fn keep(&mut self, job: &str, epoch: Epoch) {
        self.served.retain(|(name, served)| (name.as_str(), *served) != (job, epoch));
        if self.served.len() == REMEMBERED_LAUNCHERS_MAX {
            self.served.pop_front();
        }
        self.served.push_back((job.to_owned(), epoch));
    }

    /// Whether a launcher may be served.
    pub(crate) fn judge(&self, job: &str, epoch: Epoch) -> Result<(), Refusal> {
        let same = || self.served.iter().filter(|(name, _)| name == job).map(|(_, served)| *served);
        match same().max() {
            Some(promised) if promised > epoch && same().any(|served| served == epoch) => {
                Err(Refusal::StaleEpoch { promised })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_that_was_served_is_refused_after_a_newer_one_of_its_job() {
        let mut promises = Promises::default();
        promises.keep("j", Epoch(5));
        assert_eq!(promises.judge("j", Epoch(5)), Ok(()));
        promises.keep("j", Epoch(9));
        promises.keep("k", Epoch(20));
        assert_eq!(promises.judge("j", Epoch(5)), Err(Refusal::StaleEpoch { promised: Epoch(9) }));
        assert_eq!(promises.judge("j", Epoch(9)), Ok(()));
        assert_eq!(promises.judge("j", Epoch(12)), Ok(()));
        assert_eq!(promises.judge("k", Epoch(20)), Ok(()));
    }

    #[test]
    fn a_launcher_that_has_waited_for_its_turn_is_served_though_younger_ones_were_before_it() {
        let mut promises = Promises::default();
        promises.keep("j", Epoch(9));
        assert_eq!(promises.judge("j", Epoch(5)), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_knows_each_launcher_once() {
        let mut promises = Promises::default();
        for _ in 0..3 {
            promises.keep("j", Epoch(1));
        }
        assert_eq!(promises.served.len(), 1);
        for epoch in 0..2 * REMEMBERED_LAUNCHERS_MAX as u64 {
            promises.keep("j", Epoch(epoch));
        }
        assert_eq!(promises.served.len(), REMEMBERED_LAUNCHERS_MAX);
        assert!(promises.judge("j", Epoch(2 * REMEMBERED_LAUNCHERS_MAX as u64 - 2)).is_err());
    }
}
