//! What every target needs: cases from seeds, and ways to spoil good bytes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::Numbers;

/// Runs cases until the time is over, each from a seed of its own.
pub(super) fn fuzz(name: &str, mut case: impl FnMut(u64)) {
    let mut run = |seed: u64| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(seed))) {
            resume_unwind(Box::new(format!("{name}: run again with MUSTER_FUZZ_SEED={seed}: {}", text(&*panic))));
        }
    };
    if let Some(seed) = std::env::var("MUSTER_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed);
    }
    let seconds = std::env::var("MUSTER_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    // Other cases in every run; a failure names its seed.
    let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()) << 20;
    let mut seed = first;
    while seed < first + 20 || Instant::now() < until {
        run(seed);
        seed += 1;
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

/// A good stream, then something that is done to it.
pub(super) fn mutated(numbers: &mut Numbers, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..1 + numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            1 if !bytes.is_empty() => bytes[at] = numbers.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let junk = numbers.below(200);
                let junk = numbers.bytes(junk);
                bytes.splice(at..at, junk);
            }
            4 => {
                let end = (at + numbers.below(100)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + numbers.below(100)).min(bytes.len());
                bytes.extend_from_within(at..end);
            }
        }
    }
    bytes
}
