//! From options to hosts, key and remote shell.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use muster_core::exec::{Family, asks_for_version};
use muster_core::hosts::HostList;
use muster_transport::identity::JobKey;

use crate::cli::ExecOptions;
use crate::discover::{DiscoverError, Surroundings, find_hosts, find_key, find_port};

/// Time that a launcher has to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// Name of the remote shell, which is installed beside this program.
const SHELL: &str = "muster-rsh";

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    /// Hosts, key or port.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// Nobody to reach.
    #[error("muster exec needs hosts: name them with -H or -f; without other hosts the command can be run as it is")]
    NoHosts,
    /// The remote shell is not where it belongs.
    #[error(
        "muster-rsh is neither beside {program} nor on PATH; install it with muster, on every host under the same path"
    )]
    NoShell {
        /// This program.
        program: String,
    },
}

/// What a command begins with.
pub(super) struct Prepared {
    /// The hosts.
    pub hosts: HostList,
    /// Ports of their agents, unless a host has one of its own.
    pub port: u16,
    /// The key.
    pub key: JobKey,
    /// Its file.
    pub key_file: PathBuf,
    /// The remote shell.
    pub shell: PathBuf,
    /// Which launcher the command is.
    pub family: Family,
}

/// Finds everything.
pub(super) fn prepare(options: &ExecOptions, site: &Surroundings) -> Result<Prepared, PrepareError> {
    let hosts = hosts(options, site)?;
    let key = find_key(options.key_file.as_ref(), &hosts, site)?;
    let port = find_port(options.port.as_ref(), site).value;
    let key_file = std::path::absolute(&key.path).unwrap_or(key.path);
    Ok(Prepared { port, key: key.key, key_file, shell: shell(site)?, family: family(&options.argv), hosts })
}

/// Finds the hosts.
pub(super) fn hosts(options: &ExecOptions, site: &Surroundings) -> Result<HostList, PrepareError> {
    let found = find_hosts(&options.hosts, site)?;
    if found.local { Err(PrepareError::NoHosts) } else { Ok(found.hosts) }
}

/// Finds the remote shell.
pub(super) fn shell(site: &Surroundings) -> Result<PathBuf, PrepareError> {
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.parent().map(|folder| folder.join(SHELL));
    let on_path = site.var("PATH").unwrap_or_default().split(':').map(|folder| PathBuf::from(folder).join(SHELL));
    let mut candidates = beside.into_iter().chain(on_path).filter(|path| path.is_absolute());
    candidates
        .find(|path| path.is_file())
        .ok_or_else(|| PrepareError::NoShell { program: program.display().to_string() })
}

/// Asks the command which launcher it is.
pub(super) fn family(argv: &[String]) -> Family {
    let Some(program) = argv.first() else { return Family::Unknown };
    let said = if asks_for_version(program) { version(program) } else { None };
    Family::of(program, said.as_deref())
}

fn version(program: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().ok()?;
    let pid = child.id().cast_signed();
    let (said, heard) = std::sync::mpsc::channel();
    // Whatever it has started may keep its output open for ever.
    std::thread::spawn(move || said.send(child.wait_with_output()));
    let Ok(output) = heard.recv_timeout(VERSION_LIMIT) else {
        let _ = muster_sys::signals::send(pid, muster_sys::signals::KILL);
        return None;
    };
    Some(String::from_utf8_lossy(&output.ok()?.stdout).into_owned())
}
