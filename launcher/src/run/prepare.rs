//! From options to everything a run needs: hosts, key, plan and what the ranks of each world have in common.

use muster_core::hosts::HostList;
use muster_core::job::{JobSetup, SpecTooLarge, World, credit};
use muster_core::plan::{self, AppSpec, OnFailure, Plan, StdinTarget};
use muster_protocol::message::{App, EnvVar, HostEntry, PmixPlan, Rlimit, Spec, Stamp, StdinTo};
use muster_protocol::{Epoch, Generation, Group, HostIndex, HostSet, ProcId};
use muster_transport::identity::JobKey;

use super::program;
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
    /// A program does not say how its ranks find each other.
    #[error(transparent)]
    Ambiguous(#[from] plan::detect::Ambiguous),
    /// Nobody can be told of failures.
    #[error(
        "--on-failure continue tells ranks of failures by PMIx, and some of these get PMI; programs of Open MPI 5 take --bootstrap pmix, \
         those that use no MPI --bootstrap none"
    )]
    CannotContinue,
    /// Hosts cannot be told what to run.
    #[error(transparent)]
    TooLarge(#[from] SpecTooLarge),
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
    let signs = program::find(&options.spec, site)?;
    let plan = Plan::make(&options.spec, &signs, &found.hosts)?;
    if plan.on_failure == OnFailure::Continue && plan.worlds.iter().any(|world| world.bootstrap.serves_pmi()) {
        return Err(PrepareError::CannotContinue);
    }
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
        worlds: worlds(options, &plan, epoch),
        on_failure: options.spec.on_failure,
        grace_ms: options.spec.grace_ms,
        hosts: found.hosts,
    };
    setup.check()?;
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

/// The worlds of the plan: process groups whose processes are numbered on from one to the next.
fn worlds(options: &RunOptions, plan: &Plan, epoch: Epoch) -> Vec<World> {
    let mut first_proc = 0;
    let world = |(group, world): (u32, &plan::World)| {
        let placed = world.placed.clone();
        let ids = (Group(group), ProcId(first_proc));
        first_proc += placed.len() as u32;
        World { spec: spec_of(options, plan, world, ids, epoch), placed, insists: world.insists }
    };
    (0..).zip(&plan.worlds).map(world).collect()
}

fn spec_of(
    options: &RunOptions,
    plan: &Plan,
    world: &plan::World,
    (group, first_proc): (Group, ProcId),
    epoch: Epoch,
) -> Spec {
    let spec = &options.spec;
    let stdin = match spec.stdin {
        StdinTarget::None => StdinTo::Nobody,
        StdinTarget::All => StdinTo::All,
        // Processes of the first world have the numbers of their ranks.
        StdinTarget::Rank(rank) => StdinTo::One(ProcId(rank)),
    };
    let mut apps: Vec<App> = world.apps.iter().filter_map(|at| spec.apps.get(*at as usize)).map(app).collect();
    let env = take_common(&mut apps);
    Spec {
        group,
        size: world.placed.len() as u32,
        first_proc,
        members: HostSet::new(),
        apps,
        bootstrap: world.served(),
        // Short: old clients take its longest form from the room for values.
        kvsname: match world.served() {
            // Whoever knows a PMIx namespace can act as one of its ranks.
            muster_protocol::message::Bootstrap::Pmix => format!("muster-{}_{group}", JobKey::unguessable()),
            _ => format!("kvs_{:x}_{group}", epoch.0),
        },
        mapping: None,
        universe_size: -1,
        preput: Vec::new(),
        stdin,
        umask: spec.umask,
        rlimits: spec.rlimits.iter().map(rlimit).collect(),
        window_bytes: credit::of_first(plan.world),
        job: spec.job.clone(),
        env,
        pmix: (world.bootstrap == plan::Bootstrap::Pmix).then(|| PmixPlan {
            library: spec.pmix_library.clone(),
            tolerant: spec.on_failure == OnFailure::Continue,
            preferred: world.pmix_preferred.clone(),
            ..PmixPlan::default()
        }),
        spawned_by: None,
    }
}

/// Takes out the variables that every program begins with: the launcher's whole environment may be among them, and it is sent to
/// hosts once instead of for each program.
fn take_common(apps: &mut [App]) -> Vec<EnvVar> {
    let Some((first, others)) = apps.split_first_mut() else { return Vec::new() };
    let alike = |app: &App| first.env.iter().zip(&app.env).take_while(|(a, b)| a == b).count();
    let shared = others.iter().map(alike).min().unwrap_or(first.env.len());
    for app in others {
        app.env.drain(..shared);
    }
    first.env.drain(..shared).collect()
}

fn rlimit(limit: &plan::LimitSpec) -> Rlimit {
    Rlimit { resource: limit.resource.clone(), soft: limit.soft, hard: limit.hard }
}

fn app(app: &AppSpec) -> App {
    let unset = app.env_unset.iter().map(|name| EnvVar { name: name.clone(), value: None });
    let set = app.env.iter().map(|(name, value)| EnvVar { name: name.clone(), value: Some(value.clone()) });
    App { argv: app.argv.clone(), wdir: app.wdir.clone(), env: unset.chain(set).collect() }
}

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};
    use std::path::Path;

    use super::*;
    use crate::cli::{self, Command};

    fn prepared(args: &[&str], variables: &[(&str, &str)]) -> Result<Prepared, PrepareError> {
        let site = Surroundings::new(variables.iter().map(|(n, v)| (n.into(), v.into())), Path::new("/nowhere"), 4);
        let words = ["run", "--local"].iter().chain(args).map(OsString::from);
        let Command::Run(options) = cli::parse(OsStr::new("muster"), words, &site).unwrap() else { panic!("{args:?}") };
        prepare(&options, &site, Epoch(7))
    }

    #[test]
    fn variables_of_all_programs_are_sent_once_and_before_their_own() {
        let args = ["-genv", "A", "1", "-unset-env", "B", "-n", "1", "x", ":", "-n", "1", "-env", "C", "2", "y"];
        let spec = prepared(&args, &[]).unwrap().setup.worlds.remove(0).spec;
        let var = |name: &str, value: Option<&str>| EnvVar { name: name.into(), value: value.map(Into::into) };
        assert_eq!(spec.env, [var("B", None), var("A", Some("1"))]);
        let own: Vec<_> = spec.apps.into_iter().map(|app| app.env).collect();
        assert_eq!(own, [vec![], vec![var("C", Some("2"))]]);
    }

    #[test]
    fn programs_of_different_bootstraps_are_worlds_of_their_own() {
        let args = "--bootstrap pmix -n 2 x : --bootstrap none -n 1 monitor : -n 1 y : --bootstrap pmi -n 1 z";
        let refused = |args: &str| prepared(&args.split(' ').collect::<Vec<_>>(), &[]).err().map(|e| e.to_string());
        let why = refused(&format!("--oversubscribe {args}")).expect("nobody knows y");
        assert!(why.starts_with("nothing tells the bootstrap of program 3 (y), and the others differ: "), "{why}");
        let args = args.replace("-n 1 y", "--bootstrap pmix -n 1 y");
        let args: Vec<&str> = ["--oversubscribe", "--stdin", "2"].into_iter().chain(args.split(' ')).collect();
        let setup = prepared(&args, &[]).unwrap().setup;
        let shape = |world: &World| {
            let programs: Vec<&str> = world.spec.apps.iter().map(|app| app.argv[0].as_str()).collect();
            let spec = &world.spec;
            // What comes before is nobody's to guess with PMIx.
            let name = spec.kvsname.rsplit_once('_').unwrap().1.to_owned();
            (spec.group.0, spec.first_proc.0, spec.size, name, programs.join(" "), world.insists)
        };
        let worlds: Vec<_> = setup.worlds.iter().map(shape).collect();
        let want = [(0, 0, 3, "x y", true), (1, 3, 1, "monitor", false), (2, 4, 1, "z", true)].map(
            |(group, first, size, programs, insists)| {
                (group, first, size, group.to_string(), programs.to_owned(), insists)
            },
        );
        assert_eq!(worlds, want);
        assert!(setup.worlds.iter().all(|world| world.spec.stdin == StdinTo::One(ProcId(2))));
        assert!(refused("--on-failure continue --bootstrap pmix x : --bootstrap pmi -n 1 y").is_some());
        assert!(refused("--on-failure continue --bootstrap pmix -n 1 x : --bootstrap none -n 1 y").is_none());
    }

    #[test]
    fn what_no_frame_takes_is_told_before_anything_starts() {
        let large = "v".repeat(1_500_000);
        // For three programs, but only once.
        let args = ["-genvall", "-n", "1", "x", ":", "-n", "1", "y", ":", "-n", "1", "z"];
        assert!(prepared(&args, &[("LARGE", &large)]).is_ok());
        let refused = prepared(&["-n", "1", "x", &large, &large, &large], &[]).err().unwrap().to_string();
        let (start, end) = refused.split_once(" bytes, ").unwrap();
        let bytes: usize =
            start.strip_prefix("the programs with their arguments and variables take ").unwrap().parse().unwrap();
        assert!((4_500_000..4_501_000).contains(&bytes), "{bytes}");
        let want = "and hosts are told at most 4194304; pass fewer or smaller ones, or put them into a file that the ranks read";
        assert_eq!(end, want);
    }
}
