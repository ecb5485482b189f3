//! From settings to a job.

use muster_core::hosts::Origin;
use muster_core::plan::{AppSpec, JobSpec, OutputSpec};
use muster_protocol::limits::{LOCAL_AGENTS_MAX, RANKS_PER_HOST_MAX, TREE_RADIX_MAX};

use super::environment::Exports;
use super::error::UsageError;
use super::options::{HostChoice, LogLevel, RunOptions, Sourced};
use super::scan::{Segment, Setting};
use super::sources::{Sources, strays};
use super::table::Id;
use super::values;
use crate::discover::Surroundings;

/// Puts the options of a run together.
pub(super) fn run_options(segments: Vec<Segment>, site: &Surroundings) -> Result<RunOptions, UsageError> {
    let sources = Sources::gather(&segments, site)?;
    // Options are judged before the missing program: who mistypes one seldom gets as far as a program.
    let spec = job_spec(&sources)?;
    let mut run = RunOptions {
        spec,
        hosts: hosts(&sources)?,
        key_file: sourced(&sources, Id::KeyFile, values::text)?,
        port: sourced(&sources, Id::Port, values::port)?,
        listen: sourced(&sources, Id::Listen, values::listen)?,
        events: sourced(&sources, Id::Events, values::text)?,
        termination_message: value(&sources, Id::TerminationMessage, values::text)?,
        trainer_status: value(&sources, Id::TrainerStatus, values::switch)?.unwrap_or(true),
        log: log(&sources)?,
        notes: Vec::new(),
    };
    let mut exports = Exports::new(&sources, site)?;
    run.spec.apps = apps(segments, &sources, &mut exports)?;
    run.notes = exports.into_notes();
    run.notes.extend(strays(site));
    Ok(run)
}

pub(super) fn value<T>(
    sources: &Sources,
    id: Id,
    read: impl Fn(&Setting) -> Result<T, UsageError>,
) -> Result<Option<T>, UsageError> {
    sources.last(id).map(read).transpose()
}

pub(super) fn sourced<T>(
    sources: &Sources,
    id: Id,
    read: impl Fn(&Setting) -> Result<T, UsageError>,
) -> Result<Option<Sourced<T>>, UsageError> {
    sources.last(id).map(|s| Ok(Sourced { value: read(s)?, origin: s.origin.clone() })).transpose()
}

fn job_spec(sources: &Sources) -> Result<JobSpec, UsageError> {
    value(sources, Id::MaxRestarts, |s| match values::number(s, 0..=u32::MAX)? {
        0 => Ok(()),
        _ => Err(s.bad("asks for restarts, which are not in this release; only 0 is accepted")),
    })?;
    let default = JobSpec::default();
    Ok(JobSpec {
        job: value(sources, Id::Job, values::job)?.unwrap_or(default.job),
        apps: Vec::new(),
        placement: value(sources, Id::Placement, values::placement)?.unwrap_or_default(),
        ppn: value(sources, Id::Ppn, |s| values::number(s, 1..=RANKS_PER_HOST_MAX))?,
        oversubscribe: value(sources, Id::Oversubscribe, values::switch)?.unwrap_or_default(),
        on_failure: value(sources, Id::OnFailure, values::on_failure)?.unwrap_or_default(),
        pmix_library: value(sources, Id::PmixLib, values::text)?,
        stdin: value(sources, Id::Stdin, values::stdin)?.unwrap_or_default(),
        output: OutputSpec {
            label: value(sources, Id::Label, values::switch)?.unwrap_or_default(),
            dir: value(sources, Id::OutputDir, values::text)?,
        },
        timeout_ms: value(sources, Id::Timeout, values::some_time_ms)?,
        grace_ms: value(sources, Id::Grace, values::time_ms)?.unwrap_or(default.grace_ms),
        connect_timeout_ms: value(sources, Id::ConnectTimeout, values::some_time_ms)?
            .unwrap_or(default.connect_timeout_ms),
        lease_ms: default.lease_ms,
        umask: value(sources, Id::Umask, values::umask)?,
        rlimits: value(sources, Id::Rlimit, values::rlimits)?.unwrap_or_default(),
        radix: value(sources, Id::Radix, |s| values::number(s, 2..=TREE_RADIX_MAX))?.unwrap_or(default.radix),
    })
}

/// What is said about hosts in the highest place that says anything.
pub(super) fn hosts(sources: &Sources) -> Result<HostChoice, UsageError> {
    let given = sources.group(&[Id::Hosts, Id::Hostfile, Id::Local]);
    let Some(last) = given.last() else { return Ok(HostChoice::Unsaid) };
    if let Some(other) = given.iter().find(|s| s.opt.id != last.opt.id) {
        return Err(UsageError::Conflict { first: other.place.clone(), second: last.place.clone() });
    }
    let origin: Origin = last.origin.clone();
    Ok(match last.opt.id {
        Id::Hosts => {
            let parts: Vec<&str> = given.iter().map(|s| s.value.as_str()).collect();
            HostChoice::List(Sourced { value: parts.join(","), origin })
        }
        Id::Hostfile => HostChoice::File(Sourced { value: values::text(last)?, origin }),
        _ if last.value.is_empty() => HostChoice::Local(Sourced { value: 1, origin }),
        _ => HostChoice::Local(Sourced { value: values::number(last, 1..=LOCAL_AGENTS_MAX)?, origin }),
    })
}

pub(super) fn log(sources: &Sources) -> Result<LogLevel, UsageError> {
    let verbose = sources.all(&[Id::Verbose]).map(values::switch).collect::<Result<Vec<_>, _>>()?;
    let asked = match verbose.iter().filter(|on| **on).count() {
        0 => LogLevel::default(),
        1 => LogLevel::Info,
        _ => LogLevel::Debug,
    };
    Ok(value(sources, Id::Log, values::log_level)?.unwrap_or(asked))
}

fn apps(segments: Vec<Segment>, sources: &Sources, exports: &mut Exports<'_>) -> Result<Vec<AppSpec>, UsageError> {
    let several = segments.len() > 1;
    let mut apps = Vec::with_capacity(segments.len());
    for (i, segment) in segments.into_iter().enumerate() {
        if segment.argv.is_empty() {
            return Err(if several { UsageError::NoProgramBetween { position: i + 1 } } else { UsageError::NoProgram });
        }
        let own = |id| segment.settings.iter().rev().find(|s| s.opt.id == id).or_else(|| sources.common(id));
        apps.push(AppSpec {
            n: own(Id::Np).map(|s| values::number(s, 1..=muster_protocol::limits::PROCS_MAX)).transpose()?,
            bootstrap: own(Id::Bootstrap).map(values::bootstrap).transpose()?.unwrap_or_default(),
            wdir: own(Id::Wdir).map(values::text).transpose()?,
            env: exports.of(&segment)?,
            env_unset: exports.unset(),
            argv: segment.argv,
        });
    }
    Ok(apps)
}
