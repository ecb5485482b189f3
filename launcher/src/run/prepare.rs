//! From options to everything a run needs: hosts, key, plan and the first group's spec.

use muster_core::hosts::HostList;
use muster_core::job::JobSetup;
use muster_core::plan::{self, AppSpec, Plan, StdinTarget};
use muster_protocol::limits::{OUTPUT_BUDGET_BYTES, STREAM_WINDOW_BYTES_MAX, STREAM_WINDOW_BYTES_MIN};
use muster_protocol::message::{App, Bootstrap, EnvVar, HostEntry, Rlimit, Spec, Stamp, StdinTo};
use muster_protocol::{Epoch, Generation, Group, HostIndex, HostSet, ProcId};
use muster_transport::identity::JobKey;

use crate::cli::RunOptions;
use crate::discover::{DiscoverError, Found, Surroundings, find_hosts, find_key, find_port};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Hosts, key or port.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The ranks do not fit.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// More hosts than a job can have.
    #[error("{hosts} hosts are more than the {max} of one job")]
    TooManyHosts {
        /// Hosts found.
        hosts: usize,
        /// The limit.
        max: u32,
    },
}

/// What a run begins with.
pub struct Prepared {
    /// The job's state machine begins with this.
    pub setup: JobSetup,
    /// Where every host is dialled; addresses of local agents are filled in when they run.
    pub entries: Vec<HostEntry>,
    /// The key; none for local agents.
    pub key: Option<JobKey>,
    /// Whether agents of this machine are to be started.
    pub local: bool,
    /// The plan.
    pub plan: Plan,
}

/// Finds the hosts and plans what runs where; needs no key.
pub fn place(options: &RunOptions, site: &Surroundings) -> Result<(Found, Plan), PrepareError> {
    let found = find_hosts(&options.hosts, site)?;
    let max = muster_protocol::limits::HOSTS_MAX;
    if found.hosts.len() > max as usize {
        return Err(PrepareError::TooManyHosts { hosts: found.hosts.len(), max });
    }
    let plan = Plan::make(&options.spec, &found.hosts)?;
    Ok((found, plan))
}

/// Finds and plans.
pub fn prepare(options: &RunOptions, site: &Surroundings, epoch: Epoch) -> Result<Prepared, PrepareError> {
    let (found, plan) = place(options, site)?;
    let key = if found.local { None } else { Some(find_key(options.key_file.as_ref(), &found.hosts, site)?.key) };
    let port = find_port(options.port.as_ref(), site).value;
    let stamp = Stamp { epoch, generation: Generation(0) };
    let setup = JobSetup {
        stamp,
        spec: first_spec(options, &plan, epoch),
        placed: plan.ranks.clone(),
        pmi_required: options.spec.bootstrap == plan::Bootstrap::Pmi,
        grace_ms: options.spec.grace_ms,
        hosts: found.hosts,
    };
    let entries = entries(&setup.hosts, port);
    Ok(Prepared { setup, entries, key, local: found.local, plan })
}

fn entries(hosts: &HostList, port: u16) -> Vec<HostEntry> {
    let entry = |(i, host): (usize, &muster_core::hosts::HostSpec)| HostEntry {
        index: HostIndex(i as u32),
        name: host.name.clone(),
        port: host.port.unwrap_or(port),
        address: host.address.clone(),
    };
    hosts.hosts().iter().enumerate().map(entry).collect()
}

fn first_spec(options: &RunOptions, plan: &Plan, epoch: Epoch) -> Spec {
    let spec = &options.spec;
    let stdin = match spec.stdin {
        StdinTarget::None => StdinTo::Nobody,
        StdinTarget::All => StdinTo::All,
        StdinTarget::Rank(rank) => StdinTo::One(ProcId(rank)),
    };
    Spec {
        group: Group(0),
        size: plan.world,
        first_proc: ProcId(0),
        members: HostSet::new(),
        apps: spec.apps.iter().map(app).collect(),
        bootstrap: if spec.bootstrap.serves_pmi() { Bootstrap::Pmi } else { Bootstrap::None },
        // Short: old clients take its longest form from the room for values.
        kvsname: format!("kvs_{:x}_0", epoch.0),
        mapping: None,
        universe_size: -1,
        preput: Vec::new(),
        stdin,
        umask: spec.umask,
        rlimits: spec.rlimits.iter().map(rlimit).collect(),
        window_bytes: window_bytes(plan.world),
        job: spec.job.clone(),
    }
}

fn rlimit(limit: &plan::LimitSpec) -> Rlimit {
    Rlimit { resource: limit.resource.clone(), soft: limit.soft, hard: limit.hard }
}

/// One stream's part of the output budget.
fn window_bytes(world: u32) -> u32 {
    let share = OUTPUT_BUDGET_BYTES / (2 * u64::from(world.max(1)));
    share.clamp(u64::from(STREAM_WINDOW_BYTES_MIN), u64::from(STREAM_WINDOW_BYTES_MAX)) as u32
}

fn app(app: &AppSpec) -> App {
    let unset = app.env_unset.iter().map(|name| EnvVar { name: name.clone(), value: None });
    let set = app.env.iter().map(|(name, value)| EnvVar { name: name.clone(), value: Some(value.clone()) });
    App { argv: app.argv.clone(), wdir: app.wdir.clone(), env: unset.chain(set).collect() }
}
