//! Results as a table, on the terminal and in the README.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::pairs::{Demand, median};
use crate::rows::{Measured, Outcome};
use crate::scheduler::OneGroup;

/// What follows in the file is replaced by each full run.
const MARK: &str = "<!-- results: written by scripts/bench.sh -->";

pub(crate) const HEAD: &str = "| what | against | ours | theirs | ratio of medians | median of pairs | must be | |\n\
                               |---|---|---|---|---|---|---|---|\n";

/// One line of the table.
pub(crate) fn line(outcome: &Outcome) -> String {
    let Outcome { what, against, measured } = outcome;
    let verdict = |good: bool| if good { "PASS" } else { "red" };
    match measured {
        Measured::Pairs(pairs, demand) => format!(
            "| {what} | {against} | {} | {} | {:.3} | {:.3} | {} | {} |",
            values(&pairs.ours, pairs.unit),
            values(&pairs.theirs, pairs.unit),
            pairs.ratio_of_medians(*demand),
            pairs.median_of_ratios(*demand),
            demand.text(),
            if matches!(demand, Demand::None) { "" } else { verdict(pairs.meet(*demand)) },
        ),
        Measured::Value { value, limit, unit } => format!(
            "| {what} | {against} | {value:.2} {unit} | — | — | — | ≤ {limit} {unit} | {} |",
            verdict(value <= limit)
        ),
    }
}

fn values(all: &[f64], unit: &str) -> String {
    let (low, high) = (all.iter().copied().fold(f64::MAX, f64::min), all.iter().copied().fold(0.0, f64::max));
    format!("{:.1} {unit} ({low:.1}–{high:.1})", median(all))
}

/// Puts the results into the file, in place of the earlier ones.
pub(crate) fn write(path: &Path, pairs: usize, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let head = text.split_once(MARK).map_or(text.as_str(), |(head, _)| head);
    let mut new = format!("{head}{MARK}\n\n`scripts/bench.sh --pairs {pairs}`, {}\n\n{HEAD}", surroundings());
    new.push_str(table);
    std::fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))
}

/// When and on what.
pub(crate) fn surroundings() -> String {
    let mut text = said_by("date", &["+%F %R %Z"]);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, m)| m);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "; {model}, {cores} cores; Linux {}, {}; load {load} at the end",
        said_by("uname", &["-r"]),
        OneGroup::describe()
    );
    text
}

fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}
