//! `muster plan exec`: what a command would get in its environment, and why.

use std::fmt::Write as _;
use std::path::Path;

use muster_core::exec::{Family, Variable, possible_excludes};
use muster_core::hosts::HostList;
use serde::Serialize;

use super::params;
use super::prepare::{family, hosts, shell};
use super::workplace::{Agents, Places};
use crate::cli::ExecOptions;
use crate::discover::{Surroundings, find_key, find_port};
use crate::plan::Whereabouts;
use crate::report;
use crate::run::Usage;

/// Stands for the folder that a real command gets.
const FOLDER: &str = "/tmp/muster-…";

#[derive(Serialize)]
struct Sheet<'a> {
    command: &'a [String],
    launcher: String,
    hosts: &'a HostList,
    variables: Vec<Variable>,
    /// What it gets besides if agents tell of such networks when it starts: names with reasons.
    networks: Vec<(&'static str, &'static str)>,
    surroundings: Whereabouts,
}

/// Prints it.
pub fn show(options: &ExecOptions, json: bool, site: &Surroundings) -> anyhow::Result<()> {
    report::notes(&options.notes);
    let usage = |error: super::prepare::PrepareError| Usage(error.to_string());
    let hosts = hosts(options, site).map_err(usage)?;
    report::notes(&hosts.notes);
    let port = find_port(options.port.as_ref(), site).value;
    // A plan needs no key; a command does not start without.
    let key_file =
        find_key(options.key_file.as_ref(), &hosts, site).map_or_else(|_| "(none found)".into(), |key| key.path);
    let agents = Agents { shell: shell(site).map_err(usage)?, key_file, port, job: options.job.clone() };
    let places = Places::new(agents, Path::new(FOLDER));
    let family = family(&options.argv);
    let said = params::said(site, &options.argv);
    let networks = said.map(|said| possible_excludes(&family, &options.argv, &said)).unwrap_or_default();
    let sheet = Sheet {
        command: &options.argv,
        launcher: family.to_string(),
        variables: places.variables(&hosts, false, site),
        networks,
        hosts: &hosts,
        surroundings: Whereabouts::look(site, &muster_sys::proc::hostname()),
    };
    let text = if json { serde_json::to_string_pretty(&sheet)? + "\n" } else { sheet.text(&family) };
    report::print(&text)
}

impl Sheet<'_> {
    fn text(&self, family: &Family) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = write!(out, "{}", self.surroundings.text());
        let _ = writeln!(out, "command: {}", self.command.join(" "));
        let _ = writeln!(out, "launcher: {}", self.launcher);
        if *family == Family::Unknown {
            let _ = writeln!(out, "  it gets the same environment; whether it uses it is not known");
        }
        let _ = writeln!(out, "hosts:");
        for host in self.hosts.hosts() {
            let _ = writeln!(out, "  {} slots={}", host.name, host.slots);
        }
        let _ = writeln!(out, "variables of the command:");
        for variable in &self.variables {
            let _ = writeln!(out, "  {}={}", variable.name, variable.value);
            let kept = if variable.kept { " (kept: it was set already)" } else { "" };
            let _ = writeln!(out, "      {}{kept}", variable.reason);
        }
        if !self.networks.is_empty() {
            let _ = writeln!(out, "and, if agents tell of such networks when it starts (a plan asks nobody):");
        }
        for (name, reason) in &self.networks {
            let _ = writeln!(out, "  {name}\n      {reason}");
        }
        out
    }
}
