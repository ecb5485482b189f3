//! `muster exec`: runs somebody else's launcher on this machine and is its remote shell.
//!
//! ```text
//!  muster exec ─┬─ the command (mpirun …) ─ muster-rsh ─┐ one for each host, hands its descriptors over
//!               ├─ desk: a Unix socket ◀────────────────┘
//!               └─ lines: a connection to every agent, kept ready; each carries one command and is replaced
//! ```
//! What happens is told to [`muster_core::exec::Watch`], which decides; this module carries out.

mod command;
mod desk;
mod drive;
mod find;
mod lines;
mod params;
mod plan;
mod prepare;
mod workplace;

use muster_core::exit::Outcome;

use crate::cli::ExecOptions;
use crate::discover::Surroundings;
use crate::report;
use crate::run::Usage;

pub(crate) use find::is_here;
pub use plan::show;

/// Runs a command.
pub fn run(options: &ExecOptions, site: &Surroundings) -> anyhow::Result<Outcome> {
    report::notes(&options.notes);
    let prepared = prepare::prepare(options, site).map_err(|error| Usage(error.to_string()))?;
    report::notes(&prepared.hosts.notes);
    drive::run(options, prepared, site)
}
