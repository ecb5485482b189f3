//! The rows: what is measured against what, and what must come of it.

mod exec;
mod fence;
mod idle;
mod kill;
mod many;
mod output;
mod pmix;
mod rsh;
mod start;

use anyhow::{Result, bail};

use crate::pairs::{Demand, Pairs};

pub(crate) use many::spawn_one_by_one;

/// What one row came to.
pub(crate) struct Outcome {
    pub(crate) what: String,
    pub(crate) against: &'static str,
    pub(crate) measured: Measured,
}

pub(crate) enum Measured {
    /// In turns with a peer.
    Pairs(Pairs, Demand),
    /// A value and its limit.
    Value { value: f64, limit: f64, unit: &'static str },
}

/// Names of the rows, as the command line takes them.
pub(crate) const NAMES: [&str; 12] =
    ["start", "kill", "output", "fence", "many", "idle", "exec", "rsh", "cut", "pmix", "pmix-fence", "pmix-memory"];

/// Measures a row.
pub(crate) fn measure(name: &str, pairs: usize) -> Result<Vec<Outcome>> {
    match name {
        "start" => start::measure(pairs),
        "kill" => kill::measure(pairs),
        "output" => output::measure(pairs),
        "fence" => fence::measure(pairs),
        "many" => many::measure(pairs),
        "idle" => idle::measure(),
        "exec" => exec::measure(pairs),
        "rsh" => rsh::measure(pairs),
        "cut" => exec::measure_cut(pairs),
        "pmix" => pmix::measure(pairs),
        "pmix-fence" => pmix::measure_fence(pairs),
        "pmix-memory" => pmix::measure_memory(pairs),
        other => bail!("there is no row {other:?}; there are {}", NAMES.join(", ")),
    }
}
