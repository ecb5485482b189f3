//! `muster hosts`: the hosts whose agents answer now, for those who start ranks by other means and want to follow them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use muster_core::hosts::{HostList, HostSpec, HostfileError, HostfileProblem};
use muster_transport::dial::Dialer;
use muster_transport::resolve::Resolver;
use muster_transport::tls;
use muster_worker_agent::shell::rsh;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cli::HostsOptions;
use crate::discover::{DiscoverError, Surroundings, find_hosts, find_key, find_port};
use crate::exec::is_here;
use crate::report;
use crate::run::Usage;

/// Hosts that are asked at the same time: each needs a descriptor.
const ASKED_AT_ONCE: usize = 256;

/// Why nobody was asked.
#[derive(Debug, thiserror::Error)]
enum HostsError {
    /// Hosts, key or port.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// Nobody to ask.
    #[error("muster hosts asks the agents of hosts: name them with -H or -f")]
    NoHosts,
}

/// Prints a line for each host that serves, in the order of the list. That there is none is an answer, too.
pub fn show(options: &HostsOptions, site: &Surroundings) -> anyhow::Result<()> {
    let (hosts, dialer, port) = prepare(options, site).map_err(|error| Usage(error.to_string()))?;
    if let Err(error) = muster_sys::limits::raise_open_files() {
        tracing::info!(%error, "the limit on open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serving = runtime.block_on(ask(&hosts, &dialer, port, options));
    let mut text = String::new();
    for host in hosts.iter().zip(serving).filter_map(|(host, serves)| serves.then_some(host)) {
        // Writing to a string does not fail.
        let _ = match host.name.contains(':') {
            true => writeln!(text, "[{}]:{}", host.name, host.slots),
            false => writeln!(text, "{}:{}", host.name, host.slots),
        };
    }
    report::print(&text)
}

fn prepare(options: &HostsOptions, site: &Surroundings) -> Result<(Vec<HostSpec>, Dialer, u16), HostsError> {
    let hosts = match find_hosts(&options.hosts, site) {
        Ok(found) if found.local => return Err(HostsError::NoHosts),
        Ok(found) => found.hosts,
        // An operator whose workers are all gone, or not there yet, leaves such a file. Who follows it would take a failure for the
        // end, or go on with the hosts of before.
        Err(DiscoverError::Hostfile(HostfileError { problem: HostfileProblem::Empty, .. })) => HostList::new(),
        Err(error) => return Err(error.into()),
    };
    // Who asks each second does not want to hear the same each second.
    for note in options.notes.iter().chain(&hosts.notes) {
        tracing::info!("{note}");
    }
    let key = find_key(options.key_file.as_ref(), &hosts, site)?.key;
    let dialer = Dialer::new(Arc::new(Resolver::default()), Some(tls::connector(&key.identity())));
    Ok((hosts.hosts().to_vec(), dialer, find_port(options.port.as_ref(), site).value))
}

/// Whether each host serves: its agent answers in time, has the key and the job, and lets a remote shell in. Nobody asks for this
/// machine, on which commands run without an agent, if it goes by its name.
async fn ask(hosts: &[HostSpec], dialer: &Dialer, port: u16, options: &HostsOptions) -> Vec<bool> {
    let own = muster_sys::proc::hostname();
    let limit = Duration::from_millis(options.limit_ms);
    let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut serving: Vec<bool> = hosts.iter().map(|host| is_here(&host.name, &own)).collect();
    let mut answers = JoinSet::new();
    for (at, host) in hosts.iter().enumerate().filter(|(_, host)| !is_here(&host.name, &own)) {
        let (name, address) = (host.name.clone(), host.reachable_as().to_owned());
        let (port, hello) = (host.port.unwrap_or(port), rsh::hello(&host.name, options.job.clone()));
        let (dialer, places) = (dialer.clone(), Arc::clone(&places));
        answers.spawn(async move {
            let _place = places.acquire().await;
            let answer = dialer.dial(&address, port, &hello, limit).await;
            if let Err(error) = &answer {
                tracing::info!("{name} is left out: {}", error.failure);
            }
            (at, answer.is_ok())
        });
    }
    while let Some(answer) = answers.join_next().await {
        if let Ok((at, serves)) = answer
            && let Some(entry) = serving.get_mut(at)
        {
            *entry = serves;
        }
    }
    serving
}
