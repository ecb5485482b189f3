//! Between the words of the protocol, of PMI and of the executor.

use std::ffi::OsString;

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use muster_core::plan::{self, AppSpec};
use muster_core::pmi::{Answer as PmiAnswer, Phase as PmiPhase, SpawnRequest, Upcall};
use muster_protocol::message::{
    Answer, App, Ask, Bootstrap, EnvVar, KeyValue, OutOfMemory, Phase, ProcEnd, Rlimit, SpawnApp, StartStage,
    Survivor as WireSurvivor,
};

use crate::executor::border::{ExitStatus, Resource, ResourceLimit, SpawnFailure, Stage, Survivor};

/// What a rank is told when the root's answer belongs to another question.
const NO_ANSWER: &str = "the launcher gave no answer that fits";

pub(super) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A rank's question as it goes to the root.
pub(super) fn ask(call: Upcall) -> Ask {
    match call {
        Upcall::Publish { name, port } => Ask::Publish { name: text(&name), port: text(&port) },
        Upcall::Lookup { name } => Ask::Lookup { name: text(&name) },
        Upcall::Unpublish { name } => Ask::Unpublish { name: text(&name) },
        Upcall::Spawn(request) => spawn(request),
    }
}

fn spawn(request: SpawnRequest) -> Ask {
    let app = |segment: muster_core::pmi::SpawnSegment| SpawnApp {
        argv: std::iter::once(segment.program).chain(segment.args).collect(),
        count: segment.maxprocs,
        info: segment.info.into_iter().map(|(name, v)| EnvVar { name, value: Some(v) }).collect(),
        env: Vec::new(),
    };
    let pair = |(key, value): (Bytes, Bytes)| KeyValue { key: byte_vec(&key), value: byte_vec(&value) };
    Ask::Spawn {
        apps: request.segments.into_iter().map(app).collect(),
        preput: request.preput.into_iter().map(pair).collect(),
    }
}

fn byte_vec(bytes: &Bytes) -> ByteVec {
    ByteVec::from(bytes.to_vec())
}

/// What was asked decides how an answer is told to the rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Publish,
    Lookup,
    Unpublish,
    Spawn,
}

impl Asked {
    pub(super) fn of(call: &Upcall) -> Self {
        match call {
            Upcall::Publish { .. } => Self::Publish,
            Upcall::Lookup { .. } => Self::Lookup,
            Upcall::Unpublish { .. } => Self::Unpublish,
            Upcall::Spawn(_) => Self::Spawn,
        }
    }
}

/// The root's answer as the rank's PMI server takes it.
pub(super) fn answer(asked: Asked, answer: Answer) -> PmiAnswer {
    match (asked, answer) {
        (Asked::Publish, Answer::Done) => PmiAnswer::Published(Ok(())),
        (Asked::Publish, Answer::Denied { why }) => PmiAnswer::Published(Err(why)),
        (Asked::Publish, _) => PmiAnswer::Published(Err(NO_ANSWER.to_owned())),
        (Asked::Lookup, Answer::Found { port }) => PmiAnswer::Found(Some(Bytes::from(port))),
        (Asked::Lookup, _) => PmiAnswer::Found(None),
        (Asked::Unpublish, answer) => PmiAnswer::Unpublished(answer == Answer::Done),
        (Asked::Spawn, Answer::Spawned { kvsname, .. }) => PmiAnswer::Spawned { kvsname, errcodes: Vec::new() },
        (Asked::Spawn, Answer::Denied { why }) => PmiAnswer::SpawnFailed { reason: why },
        (Asked::Spawn, _) => PmiAnswer::SpawnFailed { reason: NO_ANSWER.to_owned() },
    }
}

/// The user's part of a program, as rank environments are made of it; `common` is what all programs of its group have.
pub(super) fn app_spec(common: &[EnvVar], app: &App) -> AppSpec {
    let mut spec = AppSpec { argv: app.argv.clone(), wdir: app.wdir.clone(), ..AppSpec::default() };
    for var in common.iter().chain(&app.env) {
        match &var.value {
            Some(value) => spec.env.push((var.name.clone(), value.clone())),
            None => spec.env_unset.push(var.name.clone()),
        }
    }
    spec
}

pub(super) fn bootstrap(bootstrap: Bootstrap) -> plan::Bootstrap {
    match bootstrap {
        Bootstrap::Pmi => plan::Bootstrap::Pmi,
        Bootstrap::Pmix => plan::Bootstrap::Pmix,
        Bootstrap::None => plan::Bootstrap::None,
    }
}

pub(super) fn argv(app: &App) -> Vec<OsString> {
    app.argv.iter().map(OsString::from).collect()
}

pub(super) fn phase(phase: PmiPhase) -> Phase {
    match phase {
        PmiPhase::Untouched => Phase::Untouched,
        PmiPhase::Initialised => Phase::Initialised,
        PmiPhase::Finalised => Phase::Finalised,
    }
}

pub(super) fn end(status: ExitStatus, memory: Option<OutOfMemory>) -> ProcEnd {
    match status {
        ExitStatus::Exited(code) => ProcEnd::Exited(code),
        ExitStatus::Signaled { signal, core } => ProcEnd::Signaled { signal, core, memory },
    }
}

pub(super) fn not_started(failure: &SpawnFailure) -> ProcEnd {
    let stage = match failure.stage {
        Stage::Cwd => StartStage::Wdir,
        Stage::Exec | Stage::Interpreter => StartStage::Exec,
        _ => StartStage::Setup,
    };
    // The shell's status for a missing program needs the error number of a missing file, whatever was missing.
    let errno = if failure.stage == Stage::Interpreter { 8 } else { failure.errno };
    ProcEnd::NotStarted { stage, errno, what: failure.to_string() }
}

pub(super) fn survivor(survivor: &Survivor) -> WireSurvivor {
    WireSurvivor { pid: survivor.pid as u32, name: survivor.name.clone() }
}

pub(super) fn limits(rlimits: &[Rlimit]) -> Vec<ResourceLimit> {
    let limit = |l: &Rlimit| {
        Resource::from_name(&l.resource).map(|resource| ResourceLimit { resource, soft: l.soft, hard: l.hard })
    };
    rlimits.iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use muster_core::pmi::NameError;

    use super::*;

    #[test]
    fn a_rank_hears_why_its_name_is_not_published() {
        for error in [NameError::Taken, NameError::Full, NameError::Length] {
            let told = answer(Asked::Publish, Answer::Denied { why: error.to_string() });
            assert_eq!(told, PmiAnswer::Published(Err(error.to_string())));
        }
        let other = answer(Asked::Publish, Answer::Found { port: "p".into() });
        assert_eq!(other, PmiAnswer::Published(Err(NO_ANSWER.to_owned())));
    }
}
