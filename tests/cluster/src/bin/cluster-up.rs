#![forbid(unsafe_code)]
//! Makes a cluster, runs one command on its launcher host, and ends with the command's status.
//!
//! `cluster-up [--hosts N] [--agents] [--outside] -- COMMAND…`: hosts are `h0`, `h1`, …; `--agents` starts `muster-agent`
//! on each. With `--outside` the command runs on the machine itself, in its environment, and enters hosts by its own means.
//! The command finds the job key's path in `MUSTER_DEMO_KEY`, and the first process of each host, as the machine counts, in
//! `MUSTER_DEMO_PIDS` (`h0=123 h1=124 launcher=125`).

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use muster_cluster::{Cluster, Cmd};

const USAGE: &str = "usage: cluster-up [--hosts N] [--agents] [--outside] -- COMMAND...";
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

struct Options {
    hosts: usize,
    agents: bool,
    outside: bool,
    command: Vec<String>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { hosts: 4, agents: false, outside: false, command: Vec::new() };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--hosts" => {
                let value = args.next().context(USAGE)?;
                options.hosts = value.parse().with_context(|| format!("--hosts takes a number, not {value:?}"))?;
            }
            "--agents" => options.agents = true,
            "--outside" => options.outside = true,
            "--" => options.command = args.by_ref().collect(),
            other => bail!("unknown argument {other:?}\n{USAGE}"),
        }
    }
    if options.command.is_empty() {
        bail!("no command\n{USAGE}");
    }
    Ok(options)
}

fn pids(cluster: &Cluster) -> String {
    let hosts = (0..cluster.len()).map(|i| cluster.host(i)).chain([cluster.launcher()]);
    hosts.map(|host| format!("{}={}", host.name(), host.init_pid())).collect::<Vec<_>>().join(" ")
}

fn run() -> Result<u8> {
    let options = parse(std::env::args().skip(1))?;
    let cluster = Cluster::builder().hosts(options.hosts).start()?;
    let agents = if options.agents { cluster.start_agents(&[])? } else { Vec::new() };
    let (program, args) = options.command.split_first().context(USAGE)?;
    let status = if options.outside {
        let mut command = std::process::Command::new(program);
        command.args(args).env("MUSTER_DEMO_KEY", cluster.key_file()).env("MUSTER_DEMO_PIDS", pids(&cluster));
        command.status().with_context(|| format!("cannot start {program}"))?
    } else {
        let cmd = Cmd::new(program).args(args).env("MUSTER_DEMO_KEY", cluster.key_file()).inherit_stdio();
        cluster.launcher().spawn(cmd.env("MUSTER_DEMO_PIDS", pids(&cluster)))?.wait(NO_LIMIT)?
    };
    drop(agents);
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).context("the command has no status")?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Where standard error is gone, the exit status still tells.
            let _ = writeln!(std::io::stderr(), "cluster-up: {error:#}");
            ExitCode::FAILURE
        }
    }
}
