//! The agent's command line, and the agent built from it. Everything is validated before a port is opened.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use muster_core::hosts::site::{PORT_DEFAULT, key_file_candidates, ssh_port, sshd_config_candidates};
use muster_core::plan::DEFAULT_JOB;
use muster_core::surroundings::{Finding, Place};
use muster_protocol::hello::{Hello, Lane, RELEASE, Role, VERSION_MAX, VERSION_MIN};
use muster_protocol::limits::KILL_GRACE_MS;
use muster_protocol::{Epoch, Generation, HostIndex};
use muster_sys::cgroup::ControlGroup;
use muster_transport::dial::Dialer;
use muster_transport::gate::Gate;
use muster_transport::identity::JobKey;
use muster_transport::resolve::Resolver;
use muster_transport::tls;
use tokio::sync::mpsc;

use crate::agent::{Agent, Settings, incarnation};
use crate::door::Door;
use crate::executor::{LocalExecutor, Report};
use crate::hold::{Hold, Part, SERVICE_ACCOUNT};
use crate::join::{JoinDoor, Target};
use crate::listen::Listen;
use crate::shell::rsh;
use crate::teller::Teller;
use crate::traces;

/// Starts ranks on this host for launchers that hold the job key.
#[derive(Debug, Clone, Parser)]
#[command(name = "muster-agent", version, max_term_width = 100)]
pub struct Options {
    /// Address to listen on, as IP, IP:PORT or :PORT; may be repeated. Without a key: 127.0.0.1, with one: every address
    #[arg(long, value_name = "ADDR", env = "MUSTER_OPT_LISTEN", value_delimiter = ',')]
    pub listen: Vec<Listen>,
    /// Port to listen on; else the one of the ssh server's configuration, else 2222
    #[arg(long, value_name = "PORT", env = "MUSTER_OPT_PORT")]
    pub port: Option<u16>,
    /// Join the launcher that listens there (muster run --listen) instead of waiting to be dialled
    #[arg(long, value_name = "HOST:PORT", env = "MUSTER_OPT_JOIN", conflicts_with_all = ["listen", "check"])]
    pub join: Option<String>,
    /// Name of this host in the list of the launcher that is joined; else the one that the operator lists it by, or its host name
    #[arg(long, value_name = "NAME", env = "MUSTER_OPT_NAME")]
    pub name: Option<String>,
    /// File whose bytes are the job key; else the ssh private key that the operators mount
    #[arg(long, value_name = "FILE", env = "MUSTER_OPT_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// Serve this job only
    #[arg(long, value_name = "NAME", env = "MUSTER_OPT_JOB")]
    pub job: Option<String>,
    /// End with the first job, or command of muster exec, that succeeds
    #[arg(long, env = "MUSTER_OPT_EXIT_WITH_JOB")]
    pub exit_with_job: bool,
    /// Time between SIGTERM and SIGKILL for ranks when the agent is told to end, in milliseconds
    #[arg(long, value_name = "MS", env = "MUSTER_OPT_GRACE_MS", default_value_t = KILL_GRACE_MS)]
    pub grace_ms: u64,
    /// Take part in the in-place restarts of a JobSet; needs JOBSET_NAME, POD_NAME, and the rights to get jobsets and patch pods
    #[arg(long, env = "MUSTER_OPT_IN_PLACE_RESTART", conflicts_with = "unix")]
    pub in_place_restart: bool,
    /// Folder with token, certificate authority and namespace for the API server
    #[arg(long, value_name = "DIR", env = "MUSTER_OPT_SERVICE_ACCOUNT", default_value = SERVICE_ACCOUNT, hide = true)]
    pub service_account: PathBuf,
    /// Ask the agent on this host whether it is ready: exit status 0 if it is, 1 if it is not
    #[arg(long)]
    pub check: bool,
    /// Least severe messages to log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", env = "MUSTER_OPT_LOG", default_value = "info")]
    pub log: tracing::Level,
    /// Serve one launcher on the Unix socket that is standard input and has this path, without a key
    #[arg(long, value_name = "PATH", hide = true)]
    pub unix: Option<PathBuf>,
}

/// Validated options.
pub struct Config {
    settings: Settings,
    addresses: Vec<SocketAddr>,
    key: Option<JobKey>,
    unix: Option<PathBuf>,
    join: Option<Target>,
    part: Option<Part>,
    surroundings: (Finding, Place),
}

impl Options {
    /// Reads what the options name.
    pub fn validate(&self) -> anyhow::Result<Config> {
        let key = if self.unix.is_some() { None } else { self.key()? };
        let port = self.port.unwrap_or_else(configured_port);
        let everywhere = if key.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let listen = if self.listen.is_empty() { vec![IpAddr::V4(everywhere).into()] } else { self.listen.clone() };
        if key.is_none() && self.unix.is_none() {
            if listen.iter().any(|a| !a.ip.is_loopback()) {
                bail!(
                    "no job key: without one the agent listens on loopback only; give --key-file, or --listen 127.0.0.1"
                );
            }
            tracing::warn!("no job key: listening on loopback only");
        }
        let settings = Settings {
            job: self.job.clone(),
            exit_with_job: self.exit_with_job,
            one_launcher: self.unix.is_some(),
            grace_ms: self.grace_ms,
            shell_variables: self.shell_variables(port),
        };
        let addresses = listen.into_iter().map(|one| one.or_port(port)).collect();
        let traces = traces::of_this_process();
        let place = traces.place();
        let join = self.join.as_ref().map(|target| self.target(target, &place)).transpose()?;
        if join.is_some() && key.is_none() {
            bail!("no job key: a launcher can only be joined with its key; give --key-file");
        }
        // Who only asks whether the agent is ready does not take its part.
        let takes_part = self.in_place_restart && !self.check;
        let part = takes_part.then(|| Part::find(&self.service_account, &traces).context("--in-place-restart"));
        Ok(Config {
            part: part.transpose()?,
            settings,
            addresses,
            key,
            unix: self.unix.clone(),
            join,
            surroundings: (traces.control_plane(), place),
        })
    }

    fn target(&self, target: &str, place: &Place) -> anyhow::Result<Target> {
        let parts = target.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let Some((host, port)) = parts.filter(|(host, port)| !host.is_empty() && *port != 0) else {
            bail!("--join {target:?}: expected HOST:PORT, as in launcher-0:2300");
        };
        Ok(Target {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            name: self.name.clone().or_else(|| place.listed_as.clone()).unwrap_or_else(muster_sys::proc::hostname),
            job: self.job.clone().unwrap_or_else(|| DEFAULT_JOB.to_owned()),
            incarnation: incarnation(),
        })
    }

    /// What the command line or its environment has told this agent, its siblings were told as well.
    fn shell_variables(&self, port: u16) -> Vec<(&'static str, OsString)> {
        let key = self.key_file.as_ref().map(|file| (rsh::KEY_FILE, std::path::absolute(file).unwrap_or(file.clone())));
        let mut all: Vec<(&'static str, OsString)> = key.into_iter().map(|(n, f)| (n, f.into_os_string())).collect();
        all.push((rsh::PORT, port.to_string().into()));
        all.extend(self.job.as_ref().map(|job| (rsh::JOB, OsString::from(job))));
        all
    }

    fn key(&self) -> anyhow::Result<Option<JobKey>> {
        if let Some(path) = &self.key_file {
            return Ok(Some(JobKey::read(path).context("--key-file")?));
        }
        let home = std::env::var("HOME").ok();
        let mounted = key_file_candidates(home.as_deref()).into_iter().find(|path| Path::new(path).exists());
        mounted.map(|path| JobKey::read(Path::new(&path)).context("no --key-file given")).transpose()
    }
}

fn configured_port() -> u16 {
    let home = std::env::var("HOME").ok();
    let read = |path: String| ssh_port(&String::from_utf8_lossy(&std::fs::read(path).ok()?));
    sshd_config_candidates(home.as_deref()).into_iter().find_map(read).unwrap_or(PORT_DEFAULT)
}

/// One line for those who read the log of a pod. Agents of a launcher on the same machine have nothing to tell that it does not.
fn tell_surroundings(config: &Config) {
    if config.unix.is_none() {
        let (Finding { control_plane, reason }, place) = &config.surroundings;
        tracing::info!(control_plane = control_plane.name(), reason, place = place.describe(), "surroundings");
        if ControlGroup::here().is_killed_as_a_whole() {
            tracing::info!(
                "memory.oom.group is set for this agent's control group: when its memory is used up, the kernel kills the agent with \
                 the ranks, and the launcher reports a lost host"
            );
        }
    }
}

/// Runs an agent until it is told to end, and says with which status.
pub fn serve(config: Config) -> anyhow::Result<u8> {
    muster_sys::signals::ignore_broken_pipe();
    if let Err(error) = muster_sys::limits::raise_open_files() {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
    tell_surroundings(&config);
    // Unbounded by type, bounded by the rules of the border: a few reports for each rank ordered.
    let (reports, inbox) = mpsc::unbounded_channel::<Report>();
    let executor = LocalExecutor::start(Box::new(move |report| {
        // Nobody hears a report after the loop has ended; its ranks end with the executor.
        let _ = reports.send(report);
    }))?;
    let executor = Arc::new(executor);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let identity = config.key.as_ref().map(JobKey::identity);
        let dialer = Dialer::new(Arc::new(Resolver::default()), identity.as_ref().map(tls::connector));
        let door = match (&config.unix, &config.join) {
            (_, Some(target)) => Door::Join(JoinDoor::start(dialer.clone(), target.clone())),
            (Some(path), None) => {
                let listener = std::io::stdin().as_fd().try_clone_to_owned()?;
                Door::local(listener, path).context("standard input is no listening Unix socket")?
            }
            (None, None) => {
                Door::Network(Box::new(Gate::listen(&config.addresses, identity.as_ref().map(tls::acceptor))?))
            }
        };
        let hold = config.part.map_or_else(Hold::none, Hold::start);
        let agent = Agent::new(config.settings, door, hold, dialer, executor.clone(), inbox)?;
        Ok::<u8, anyhow::Error>(agent.run().await?)
    });
    drop(runtime);
    if let Ok(executor) = Arc::try_unwrap(executor) {
        executor.join();
    }
    result
}

/// Asks the agent on this host whether it is ready.
pub fn check(options: &Options) -> anyhow::Result<()> {
    let config = options.validate()?;
    let address = config.addresses.first().context("nothing to listen on")?;
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        release: RELEASE.to_owned(),
        role: Role::Probe,
        lane: Lane::Control,
        job: config.settings.job.clone().unwrap_or_else(|| DEFAULT_JOB.to_owned()),
        epoch: Epoch(0),
        from: "readiness check".to_owned(),
        incarnation: incarnation(),
        you: HostIndex(0),
        your_name: "localhost".to_owned(),
        generation: Generation(0),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let identity = config.key.as_ref().map(JobKey::identity);
        let dialer = Dialer::new(Arc::new(Resolver::default()), identity.as_ref().map(tls::connector));
        dialer.dial(&ip.to_string(), address.port(), &hello, Duration::from_secs(5)).await
    })?;
    Ok(())
}

/// An error with its causes, as one sentence: many errors name their cause already.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// Logs to standard error.
pub fn start_logging(level: tracing::Level) {
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(Teller::default).with_ansi(false);
    // A second subscriber in one process is a test's; the first one stays.
    let _ = subscriber.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_one_address_goes_before_the_common_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "0123456789abcdef").unwrap();
        let words =
            ["muster-agent", "--port", "9", "--listen", "127.0.0.1:7,127.0.0.1", "--listen", ":8", "--key-file"];
        let args = words.iter().map(std::ffi::OsStr::new).chain([key.as_os_str()]);
        let config = Options::try_parse_from(args).unwrap().validate().unwrap();
        let addresses: Vec<String> = config.addresses.iter().map(SocketAddr::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:7", "127.0.0.1:9", "0.0.0.0:8"]);
    }
}
