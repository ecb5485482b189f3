//! Ranks that the kernel has killed for want of memory.
//!
//! It says so nowhere but in a counter of their control group, which the agent reads when its first rank starts and whenever one has
//! been killed. A kill explains one end at most. The counter does not say whom it has counted: the kill of another process of the
//! group, such as a rank's child or a command of a remote shell, explains nobody's end when it happens, and so may be taken for
//! the reason when somebody sends a rank of the same job SIGKILL later.
//!
//! Nor does it say whose memory was used up. A limit is named only if it was reached since the first rank started; else that was
//! further up, as a pod's or the node's.

use muster_protocol::message::OutOfMemory;

/// The only signal that the kernel kills with then.
const SIGKILL: i32 = 9;

/// What the control group of a host counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Its processes that were killed.
    pub kills: u64,
    /// How often its limit was reached; 0 where it has none.
    pub limit_hits: u64,
}

/// The kills on one host since its ranks were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kills {
    /// What the counters said before the first rank; none where there are none.
    before: Option<Counters>,
    /// Ends that were explained since.
    explained: u64,
}

impl Kills {
    /// The first rank is about to start, and the counters say this.
    pub fn begin(counters: Option<Counters>) -> Self {
        Self { before: counters, explained: 0 }
    }

    /// A signal that nobody here has sent has ended a rank. Gives what explains that, if the counter of kills has gone on. The
    /// counters are read for SIGKILL only; they come with the group's limit.
    pub fn explain(
        &mut self,
        signal: i32,
        read: impl FnOnce() -> Option<(Counters, Option<u64>)>,
    ) -> Option<OutOfMemory> {
        let before = self.before.filter(|_| signal == SIGKILL)?;
        let (now, limit_bytes) = read()?;
        let killed = now.kills.saturating_sub(before.kills);
        if killed <= self.explained {
            return None;
        }
        self.explained += 1;
        Some(OutOfMemory { killed, limit_bytes: limit_bytes.filter(|_| now.limit_hits > before.limit_hits) })
    }
}

/// What it says to people, after who was killed where.
pub fn sentence(memory: OutOfMemory) -> String {
    let OutOfMemory { killed, limit_bytes } = memory;
    let processes = if killed == 1 { "process" } else { "processes" };
    let (limit, raise) = match limit_bytes {
        Some(bytes) => (format!(" (limit {})", size(bytes)), "raise its memory limit or "),
        None => (String::new(), ""),
    };
    format!(
        "out of memory, the kernel has killed {killed} {processes} of the host's control group{limit}; {raise}start fewer ranks there"
    )
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = Some(next);
    }
    format!("{value:.1} {}", unit.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counters(kills: u64, limit_hits: u64) -> Counters {
        Counters { kills, limit_hits }
    }

    #[test]
    fn every_kill_explains_one_end() {
        let told = |killed| Some(OutOfMemory { killed, limit_bytes: Some(4096) });
        let mut kills = Kills::begin(Some(counters(5, 2)));
        let mut explain = |killed| kills.explain(9, || Some((counters(killed, 3), Some(4096))));
        assert_eq!(explain(5), None, "somebody else's");
        assert_eq!(explain(6), told(1));
        assert_eq!(explain(6), None);
        // Two are killed before the first of them is reaped.
        assert_eq!(explain(8), told(3));
        assert_eq!(explain(8), told(3));
        assert_eq!(explain(8), None);
    }

    #[test]
    fn a_limit_is_named_only_when_it_was_reached_since_the_first_rank() {
        for (hits_before, hits, limit_bytes, named) in [
            (0, 1, Some(4096), Some(4096)),
            (7, 9, Some(4096), Some(4096)),
            (0, 0, Some(4096), None),
            (7, 7, Some(4096), None),
            // The group is another one now, or its counters were set back.
            (7, 1, Some(4096), None),
            (0, 1, None, None),
        ] {
            let told =
                Kills::begin(Some(counters(2, hits_before))).explain(9, || Some((counters(3, hits), limit_bytes)));
            assert_eq!(
                told,
                Some(OutOfMemory { killed: 1, limit_bytes: named }),
                "{hits_before} {hits} {limit_bytes:?}"
            );
        }
        // Without a kill it explains nothing.
        assert_eq!(Kills::begin(Some(counters(2, 0))).explain(9, || Some((counters(2, 1), Some(4096)))), None);
    }

    #[test]
    fn without_a_counter_nothing_is_explained_and_other_signals_need_none() {
        let none = Some(Counters::default());
        assert_eq!(Kills::default().explain(9, || Some((counters(8, 0), None))), None);
        assert_eq!(Kills::begin(none).explain(9, || None), None);
        assert_eq!(Kills::begin(none).explain(11, || unreachable!("it is not looked at")), None);
        let other = || Some((counters(1, 0), None));
        assert_eq!(Kills::begin(Some(counters(7, 0))).explain(9, other), None, "the group is another one now");
    }

    #[test]
    fn people_are_told_how_many_how_much_and_what_to_do() {
        let told = |killed, limit_bytes| sentence(OutOfMemory { killed, limit_bytes });
        assert_eq!(
            told(1, Some(4 << 30)),
            "out of memory, the kernel has killed 1 process of the host's control group (limit 4.0 GiB); raise its memory limit or \
             start fewer ranks there"
        );
        assert_eq!(
            told(2, None),
            "out of memory, the kernel has killed 2 processes of the host's control group; start fewer ranks there"
        );
        let sizes = [
            (0, "0.0 KiB"),
            (512, "0.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (3 << 39, "1.5 TiB"),
            (1 << 60, "1048576.0 TiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
