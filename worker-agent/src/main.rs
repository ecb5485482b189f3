#![forbid(unsafe_code)]
//! `muster-agent`: starts ranks on this host for launchers that hold the job key.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use muster_core::exit::Outcome;
use muster_worker_agent::setup::{self, Options};
use muster_worker_agent::shell::{guard, rsh};
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
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version go to standard output and are no errors.
            let _ = error.print();
            let usage = Outcome::Usage.code();
            return ExitCode::from(if error.use_stderr() { usage } else { 0 });
        }
    };
    setup::start_logging(options.log);
    let status = obey(&options);
    teller::flush(Duration::from_secs(1));
    status
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", setup::sentence(&error));
            ExitCode::from(Outcome::Internal.code())
        }
    }
}
