#![forbid(unsafe_code)]
//! `muster-agent`: starts ranks on this host for launchers that hold the job key.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use muster_core::exit::Outcome;
use muster_worker_agent::setup::{self, Options};
use muster_worker_agent::shell::{caller, guard, rsh};
use muster_worker_agent::sshd::{self, PidFile, Server};
use muster_worker_agent::teller;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let (program, arguments) = (arguments.next().unwrap_or_default(), arguments.collect::<Vec<_>>());
    if rsh::is_named(&program) {
        return rsh::run(&arguments);
    }
    if let Some((first, rest)) = arguments.split_first()
        && first == guard::GUARD
    {
        return guard::run(rest);
    }
    if let Some((first, rest)) = arguments.split_first()
        && first == caller::END_CALLER
    {
        return caller::run(rest);
    }
    let server = if sshd::is_named(&program) { sshd::server(&arguments) } else { own() };
    let Server { options, pid_file, notes } = match server {
        Ok(server) => server,
        Err(status) => return status,
    };
    setup::start_logging(options.log);
    notes.iter().for_each(|note| tracing::info!("{note}"));
    let pid_file = pid_file.and_then(PidFile::write);
    let status = obey(&options);
    drop(pid_file);
    teller::flush(Duration::from_secs(1));
    status
}

/// The agent's own command line.
fn own() -> Result<Server, ExitCode> {
    match Options::try_parse() {
        Ok(options) => Ok(Server { options, pid_file: None, notes: Vec::new() }),
        Err(error) => {
            // Help and version go to standard output and are no errors.
            let _ = error.print();
            let usage = Outcome::Usage.code();
            Err(ExitCode::from(if error.use_stderr() { usage } else { 0 }))
        }
    }
}

fn obey(options: &Options) -> ExitCode {
    if options.check {
        return match setup::check(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("not ready: {}", setup::sentence(&error));
                ExitCode::FAILURE
            }
        };
    }
    let config = match options.validate() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{}", setup::sentence(&error));
            return ExitCode::from(Outcome::Usage.code());
        }
    };
    match setup::serve(config) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            tracing::error!("{}", setup::sentence(&error));
            ExitCode::from(Outcome::Internal.code())
        }
    }
}
