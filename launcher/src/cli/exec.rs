//! The command line of `muster exec`: our options, then somebody else's command, which is not looked into.

use muster_core::plan::JobSpec;

use super::build::{hosts, log, sourced, value};
use super::error::UsageError;
use super::options::{Command, ExecOptions};
use super::scan::{self, Setting, Word};
use super::sources::{Sources, strays};
use super::table::Id;
use super::{help, instead, values};
use crate::discover::Surroundings;

/// Whether this option of `muster run` means something for `muster exec`, too.
pub(super) fn takes(id: Id) -> bool {
    // Whose agents, and how they are reached, is said in one way.
    let of_the_command = matches!(
        id,
        Id::Placement
            | Id::MaxRestarts
            | Id::Timeout
            | Id::Grace
            | Id::TerminationMessage
            | Id::TrainerStatus
            | Id::Json
    );
    of_the_command || super::hosts::takes(id)
}

/// Reads what follows `exec`, or `plan exec`.
pub(super) fn command(plan: bool, words: Vec<Word>, site: &Surroundings) -> Result<Command, UsageError> {
    let (segment, argv) = scan::leading(words)?;
    if let Some(command) = instead(std::slice::from_ref(&segment), help::exec) {
        return Ok(command);
    }
    let asked = |id| segment.settings.iter().find(|s| s.opt.id == id);
    if let Some(other) = segment.settings.iter().find(|s| !takes(s.opt.id)) {
        return Err(UsageError::NotForExec { place: other.place.clone() });
    }
    let json = asked(Id::Json).map(|s| Ok((values::switch(s)?, s.place.clone()))).transpose()?;
    if let (Some((_, place)), false) = (&json, plan) {
        return Err(UsageError::PlanOnly(place.clone()));
    }
    let placement = asked(Id::Placement).map(strict).transpose()?;
    let sources = Sources::gather(&[segment], site)?;
    let default = JobSpec::default();
    let exec = Box::new(ExecOptions {
        job: value(&sources, Id::Job, values::job)?.unwrap_or(default.job),
        hosts: hosts(&sources)?,
        key_file: sourced(&sources, Id::KeyFile, values::text)?,
        port: sourced(&sources, Id::Port, values::port)?,
        connect_timeout_ms: value(&sources, Id::ConnectTimeout, values::some_time_ms)?
            .unwrap_or(default.connect_timeout_ms),
        timeout_ms: value(&sources, Id::Timeout, values::some_time_ms)?,
        grace_ms: value(&sources, Id::Grace, values::time_ms)?.unwrap_or(default.grace_ms),
        restarts: value(&sources, Id::MaxRestarts, |s| values::number(s, 0..=u32::MAX))?.unwrap_or(0),
        strict: placement.unwrap_or(false),
        termination_message: value(&sources, Id::TerminationMessage, values::text)?,
        trainer_status: value(&sources, Id::TrainerStatus, values::switch)?.unwrap_or(true),
        log: log(&sources)?,
        argv,
        notes: strays(site),
    });
    if exec.argv.is_empty() {
        return Err(UsageError::NoCommand);
    }
    Ok(if plan { Command::PlanExec { exec, json: json.is_some_and(|(on, _)| on) } } else { Command::Exec(exec) })
}

/// An order of ranks is the command's own business: only of the command line, where it can be meant for us, is it read.
fn strict(setting: &Setting) -> Result<bool, UsageError> {
    match setting.value.as_str() {
        "strict" => Ok(true),
        "warn" => Ok(false),
        _ => Err(setting.bad("is neither strict nor warn; the order of ranks is the command's own business")),
    }
}
