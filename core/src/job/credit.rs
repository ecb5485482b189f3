//! How much unacknowledged output a stream may have, so that all of them together stay within the budget at the root.

use muster_protocol::limits::{OUTPUT_BUDGET_BYTES, STREAM_WINDOW_BYTES_MAX, STREAM_WINDOW_BYTES_MIN};
use muster_protocol::message::Spec;

/// Standard output and error.
const STREAMS_OF_A_RANK: u64 = 2;

/// Window of each stream of the ranks of the command line, so many in all worlds: the whole budget is theirs.
pub fn of_first(ranks: u32) -> u32 {
    window(OUTPUT_BUDGET_BYTES, ranks)
}

/// Window of each stream of a group that is spawned beside these: half of what they leave, so that the next one finds something
/// too. When nothing is left each stream has the smallest window all the same: without one it would stop its rank.
pub(super) fn of_spawned<'a>(others: impl Iterator<Item = &'a Spec>, ranks: u32) -> u32 {
    let used: u64 = others.map(|s| STREAMS_OF_A_RANK * u64::from(s.size) * u64::from(s.window_bytes)).sum();
    window(OUTPUT_BUDGET_BYTES.saturating_sub(used) / 2, ranks)
}

fn window(budget_bytes: u64, ranks: u32) -> u32 {
    let share = budget_bytes / (STREAMS_OF_A_RANK * u64::from(ranks.max(1)));
    share.clamp(u64::from(STREAM_WINDOW_BYTES_MIN), u64::from(STREAM_WINDOW_BYTES_MAX)) as u32
}
