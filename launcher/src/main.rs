#![forbid(unsafe_code)]
//! `muster`: starts and keeps alive the ranks of collective jobs.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::Parser;
use muster_core::exit::Outcome;
use muster_launcher::cli::{self, Command};
use muster_launcher::discover::Surroundings;
use muster_launcher::run::local::AGENT_WORD;
use muster_launcher::run::{Usage, tracing_level};
use muster_launcher::{exec, hosts, key, plan, report, run};
use muster_worker_agent::setup;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let argv0 = args.next().unwrap_or_else(|| OsString::from("muster"));
    let args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|word| word == AGENT_WORD) {
        return agent(args);
    }
    let site = Surroundings::of_this_process();
    let outcome = match cli::parse(&argv0, args, &site) {
        Ok(command) => obey(command, &site).unwrap_or_else(|error| {
            report::say(&format!("muster: {}", setup::sentence(&error)));
            if error.is::<Usage>() { Outcome::Usage } else { Outcome::Internal }
        }),
        Err(error) => {
            report::say(&format!("muster: {error}"));
            Outcome::Usage
        }
    };
    report::flush();
    ExitCode::from(outcome.code())
}

fn obey(command: Command, site: &Surroundings) -> anyhow::Result<Outcome> {
    match command {
        Command::Run(options) => {
            setup::start_logging(tracing_level(options.log));
            let ended = run::run(&options, site)?;
            if let Some(cause) = &ended.cause {
                report::failure(cause);
            }
            drop(ended.last_words);
            return Ok(ended.outcome);
        }
        Command::Exec(options) => {
            setup::start_logging(tracing_level(options.log));
            return exec::run(&options, site);
        }
        Command::PlanExec { exec, json } => exec::show(&exec, json, site)?,
        Command::Plan { run, json } => plan::show(&run, json, site)?,
        Command::Hosts(options) => {
            setup::start_logging(tracing_level(options.log));
            hosts::show(&options, site)?;
        }
        Command::KeyNew { file } => key::new(file.as_deref())?,
        Command::Help(text) => report::print(&text)?,
        Command::Version => report::print(&format!("muster {}\n", env!("CARGO_PKG_VERSION")))?,
    }
    Ok(Outcome::Success)
}

/// This program once more, as an agent of a launcher on this machine.
fn agent(args: Vec<OsString>) -> ExitCode {
    let options = setup::Options::parse_from(
        std::iter::once(OsStr::new("muster-agent").to_owned()).chain(args.into_iter().skip(1)),
    );
    setup::start_logging(options.log);
    let status = match options.validate().and_then(setup::serve) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            tracing::error!("{}", setup::sentence(&error));
            ExitCode::from(Outcome::Internal.code())
        }
    };
    report::flush();
    status
}
