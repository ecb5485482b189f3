//! Ranks that the kernel has killed for want of memory.
//!
//! It says so nowhere but in a counter of their control group, which the agent reads when its first rank starts and whenever one has
//! been killed. A kill explains one end: whoever else is killed by the same signal has been killed by somebody else.

use muster_protocol::message::OutOfMemory;

/// The only signal that the kernel kills with then.
const SIGKILL: i32 = 9;

/// The kills on one host since its ranks were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kills {
    /// What the counter said before the first rank; none where there is no counter.
    before: Option<u64>,
    /// Ends that were explained since.
    explained: u64,
}

impl Kills {
    /// The first rank is about to start, and the counter says this.
    pub fn begin(counter: Option<u64>) -> Self {
        Self { before: counter, explained: 0 }
    }

    /// A signal that nobody here has sent has ended a rank. Gives what explains that, if the counter, which is read for SIGKILL
    /// only, has gone on: it comes with the group's limit.
    pub fn explain(&mut self, signal: i32, read: impl FnOnce() -> Option<(u64, Option<u64>)>) -> Option<OutOfMemory> {
        let before = self.before.filter(|_| signal == SIGKILL)?;
        let (counter, limit_bytes) = read()?;
        let killed = counter.saturating_sub(before);
        if killed <= self.explained {
            return None;
        }
        self.explained += 1;
        Some(OutOfMemory { killed, limit_bytes })
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

    #[test]
    fn every_kill_explains_one_end() {
        let told = |killed| Some(OutOfMemory { killed, limit_bytes: Some(4096) });
        let mut kills = Kills::begin(Some(5));
        assert_eq!(kills.explain(9, || Some((5, Some(4096)))), None, "somebody else's");
        assert_eq!(kills.explain(9, || Some((6, Some(4096)))), told(1));
        assert_eq!(kills.explain(9, || Some((6, Some(4096)))), None);
        // Two are killed before the first of them is reaped.
        assert_eq!(kills.explain(9, || Some((8, Some(4096)))), told(3));
        assert_eq!(kills.explain(9, || Some((8, Some(4096)))), told(3));
        assert_eq!(kills.explain(9, || Some((8, Some(4096)))), None);
    }

    #[test]
    fn without_a_counter_nothing_is_explained_and_other_signals_need_none() {
        assert_eq!(Kills::default().explain(9, || Some((8, None))), None);
        assert_eq!(Kills::begin(Some(0)).explain(9, || None), None);
        assert_eq!(Kills::begin(Some(0)).explain(11, || unreachable!("it is not looked at")), None);
        assert_eq!(Kills::begin(Some(7)).explain(9, || Some((1, None))), None, "the group is another one now");
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
