//! The command line: `mpiexec`'s manners, one table of options, three places for values.

mod build;
mod configfile;
mod environment;
mod error;
mod exec;
mod help;
mod hosts;
mod options;
mod scan;
mod sources;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::{OsStr, OsString};
use std::path::Path;

pub use error::UsageError;
pub use options::{Command, ExecOptions, HostChoice, HostsOptions, LogLevel, RunOptions, Sourced};

use crate::discover::Surroundings;
use scan::{Segment, Word};
use table::Id;

/// Names under which the program is `muster run`.
const MPIEXEC_NAMES: &[&str] = &["mpiexec", "mpirun", "mpiexec.muster", "mpirun.muster"];
/// Commands of this release.
const COMMANDS: &[&str] = &["run", "exec", "plan", "hosts", "key", "version", "help"];
/// Commands that later releases have.
const LATER: &[&str] = &["topo", "doctor", "bench", "status", "logs"];

/// Reads a command line. `argv0` is the name the program was called by, `args` what follows it.
pub fn parse(
    argv0: &OsStr,
    args: impl IntoIterator<Item = OsString>,
    site: &Surroundings,
) -> Result<Command, UsageError> {
    let mut words = Vec::new();
    for (i, arg) in args.into_iter().enumerate() {
        let text = arg
            .into_string()
            .map_err(|raw| UsageError::NotUtf8 { position: i + 1, shown: raw.to_string_lossy().into_owned() })?;
        words.push(Word { text, at: None });
    }
    let called = Path::new(argv0).file_name().and_then(OsStr::to_str).unwrap_or_default();
    if MPIEXEC_NAMES.contains(&called) {
        return run("run", words, site);
    }
    if words.is_empty() {
        return Ok(Command::Help(help::overview()));
    }
    let command = words.remove(0).text;
    match command.as_str() {
        "run" => run("run", words, site),
        "exec" => exec::command(false, words, site),
        "plan" if words.first().is_some_and(|w| w.text == "exec") => exec::command(true, words.split_off(1), site),
        "plan" => run("plan", words, site),
        "hosts" => hosts::command(words, site),
        "key" => key(words),
        "version" | "--version" | "-version" | "-V" => nothing_more("version", &words, Command::Version),
        "help" | "--help" | "-help" | "-h" => help_on(&words),
        later if LATER.contains(&later) => Err(UsageError::NotInRelease { command }),
        other => {
            let suggestion = error::nearest(other, COMMANDS.iter().copied()).map(|c| format!("muster {c}"));
            // Who leaves out the command and starts with options or a program most likely means a run.
            let suggestion = suggestion.or_else(|| other.starts_with('-').then(|| format!("muster run {other}")));
            Err(UsageError::UnknownCommand { given: command, suggestion })
        }
    }
}

fn run(command: &'static str, words: Vec<Word>, site: &Surroundings) -> Result<Command, UsageError> {
    let segments = scan::scan(words)?;
    if let Some(command) = instead(&segments, help::run) {
        return Ok(command);
    }
    let asked = |id| segments.iter().flat_map(|s: &Segment| &s.settings).find(|s| s.opt.id == id);
    let json = asked(Id::Json).map(|s| Ok((values::switch(s)?, s.place.clone()))).transpose()?;
    if let (Some((_, place)), "run") = (&json, command) {
        return Err(UsageError::PlanOnly(place.clone()));
    }
    let run = Box::new(build::run_options(segments, site)?);
    Ok(match command {
        "plan" => Command::Plan { run, json: json.is_some_and(|(on, _)| on) },
        _ => Command::Run(run),
    })
}

/// What is done instead when options ask for help or the version.
fn instead(segments: &[Segment], help: fn() -> String) -> Option<Command> {
    let asked = |id| segments.iter().flat_map(|s| &s.settings).any(|s| s.opt.id == id);
    if asked(Id::Help) {
        return Some(Command::Help(help()));
    }
    asked(Id::Version).then_some(Command::Version)
}

fn key(words: Vec<Word>) -> Result<Command, UsageError> {
    let mut words = words.into_iter().map(|w| w.text);
    match words.next().as_deref() {
        Some("new") => {}
        None | Some("--help" | "-h" | "-help") => return Ok(Command::Help(help::key())),
        Some(other) => return Err(UsageError::Unexpected { command: "key", given: other.to_owned() }),
    }
    let file = words.next();
    match (file.as_deref(), words.next()) {
        (Some("--help" | "-h" | "-help"), _) => Ok(Command::Help(help::key())),
        (Some(option), _) if option.starts_with('-') && option != "-" => {
            Err(UsageError::Unexpected { command: "key", given: option.to_owned() })
        }
        (_, Some(more)) => Err(UsageError::Unexpected { command: "key", given: more }),
        (_, None) => Ok(Command::KeyNew { file: file.filter(|f| f != "-") }),
    }
}

fn help_on(words: &[Word]) -> Result<Command, UsageError> {
    match words.first().map(|w| w.text.as_str()) {
        None => Ok(Command::Help(help::overview())),
        Some("run" | "plan" | "mpiexec") => Ok(Command::Help(help::run())),
        Some("exec") => Ok(Command::Help(help::exec())),
        Some("hosts") => Ok(Command::Help(help::hosts())),
        Some("key") => Ok(Command::Help(help::key())),
        Some(other) => Err(UsageError::Unexpected { command: "help", given: other.to_owned() }),
    }
}

fn nothing_more(command: &'static str, words: &[Word], then: Command) -> Result<Command, UsageError> {
    match words.first() {
        None => Ok(then),
        Some(word) => Err(UsageError::Unexpected { command, given: word.text.clone() }),
    }
}
