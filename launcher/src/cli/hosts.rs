//! The command line of `muster hosts`: the options that say where hosts are and how to reach them.

use muster_core::plan::JobSpec;
use muster_protocol::limits::SILENCE_DEAD_MS;

use super::build::{hosts, log, sourced, value};
use super::error::UsageError;
use super::options::{Command, HostsOptions};
use super::scan::{self, Word};
use super::sources::{Sources, strays};
use super::table::Id;
use super::{help, instead, values};
use crate::discover::Surroundings;

/// Time for a host to answer in, unless said: as long as a host may be silent anywhere before it counts as dead, so that an agent
/// that is starved for a moment is not taken for one that is gone.
const LIMIT_MS: u64 = SILENCE_DEAD_MS;

/// Whether this option of `muster run` means something for `muster hosts`, too.
pub(super) fn takes(id: Id) -> bool {
    matches!(
        id,
        Id::Hosts
            | Id::Hostfile
            | Id::KeyFile
            | Id::Job
            | Id::Port
            | Id::ConnectTimeout
            | Id::Log
            | Id::Verbose
            | Id::Config
            | Id::Help
            | Id::Version
    )
}

/// Reads what follows `hosts`.
pub(super) fn command(words: Vec<Word>, site: &Surroundings) -> Result<Command, UsageError> {
    let (segment, argv) = scan::leading(words)?;
    if let Some(command) = instead(std::slice::from_ref(&segment), help::hosts) {
        return Ok(command);
    }
    let asked = |id| segment.settings.iter().find(|s| s.opt.id == id);
    if let Some(other) = segment.settings.iter().find(|s| !takes(s.opt.id)) {
        return Err(UsageError::NotForHosts { place: other.place.clone() });
    }
    if let Some(word) = argv.into_iter().next() {
        return Err(UsageError::Unexpected { command: "hosts", given: word });
    }
    // Of the command line only: elsewhere it says how long a job waits for its hosts, which is minutes.
    let limit_ms = asked(Id::ConnectTimeout).map(values::some_time_ms).transpose()?.unwrap_or(LIMIT_MS);
    let sources = Sources::gather(&[segment], site)?;
    Ok(Command::Hosts(Box::new(HostsOptions {
        job: value(&sources, Id::Job, values::job)?.unwrap_or(JobSpec::default().job),
        hosts: hosts(&sources)?,
        key_file: sourced(&sources, Id::KeyFile, values::text)?,
        port: sourced(&sources, Id::Port, values::port)?,
        limit_ms,
        log: log(&sources)?,
        notes: strays(site),
    })))
}
