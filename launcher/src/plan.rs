//! `muster plan`: what `muster run` would start where, without starting anything.

use crate::cli::RunOptions;
use crate::discover::Surroundings;
use crate::report;
use crate::run::Usage;
use crate::run::prepare::place;

/// Prints the plan.
pub fn show(options: &RunOptions, json: bool, site: &Surroundings) -> anyhow::Result<()> {
    report::notes(&options.notes);
    let (found, plan) = place(options, site).map_err(|e| Usage(e.to_string()))?;
    report::notes(&found.hosts.notes);
    let sheet = plan.sheet();
    let text = if json { serde_json::to_string_pretty(&sheet)? + "\n" } else { sheet.to_string() };
    report::print(&text)
}
