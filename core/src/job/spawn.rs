//! `MPI_Comm_spawn`: more ranks on the job's hosts.

use muster_protocol::limits::RANKS_PER_HOST_MAX;
use muster_protocol::message::{App, EnvVar, KeyValue, SpawnApp, Spec};
use muster_protocol::{Group, HostIndex, ProcId};

use crate::hosts::HostList;
use crate::plan::{Placed, Placement, Request, place};

/// Info keys that name hosts.
const HOST_KEYS: [&str; 2] = ["host", "hosts"];

fn info<'a>(app: &'a SpawnApp, keys: &[&str]) -> Option<&'a str> {
    app.info.iter().find(|i| keys.contains(&i.name.as_str())).and_then(|i| i.value.as_deref())
}

/// Places the ranks of a spawn request. Free slots are used first; hosts named in the request's info are used whatever they run.
pub(super) fn place_spawned(hosts: &HostList, used: &[u32], apps: &[SpawnApp]) -> Result<Vec<Placed>, String> {
    if apps.is_empty() {
        return Err("the spawn request names no program".to_owned());
    }
    let mut used = used.to_vec();
    let mut local = vec![0; hosts.len()];
    let mut placed = Vec::new();
    for (position, app) in apps.iter().enumerate() {
        let chosen = match info(app, &HOST_KEYS) {
            Some(names) => on_named(hosts, names, app.count)?,
            None => on_free(hosts, &used, app.count)?,
        };
        for host in chosen {
            let at = host.0 as usize;
            if used[at] >= RANKS_PER_HOST_MAX {
                let name = hosts.get(host).map_or("a host", |h| &h.name);
                return Err(format!(
                    "{name} would run more than {RANKS_PER_HOST_MAX} ranks; spawn fewer or on more hosts"
                ));
            }
            placed.push(Placed { host, local_rank: local[at], app: position as u32 });
            local[at] += 1;
            used[at] += 1;
        }
    }
    Ok(placed)
}

fn on_free(hosts: &HostList, used: &[u32], count: u32) -> Result<Vec<HostIndex>, String> {
    let counts = [Some(count)];
    let request = Request { counts: &counts, placement: Placement::Block, ppn: None, oversubscribe: true, used };
    let placed = place(hosts, &request).map_err(|e| e.to_string())?;
    Ok(placed.iter().map(|p| p.host).collect())
}

/// `names` is `a,b` or `a:2,b`; the list is gone through again and again until there are hosts for all ranks.
fn on_named(hosts: &HostList, names: &str, count: u32) -> Result<Vec<HostIndex>, String> {
    if count == 0 {
        return Err("the spawn request asks for 0 ranks of a program".to_owned());
    }
    let mut chosen = Vec::new();
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let known = |name: &str| hosts.hosts().iter().position(|h| h.name == name || h.reachable_as() == name);
        let with_slots = || {
            let (name, slots) = name.rsplit_once(':')?;
            Some((known(name)?, slots.parse::<u32>().ok().filter(|n| *n > 0)?))
        };
        let (at, slots) = known(name)
            .map(|at| (at, 1))
            .or_else(with_slots)
            .ok_or_else(|| format!("host {name:?} of the spawn request is not a host of this job"))?;
        chosen.extend(std::iter::repeat_n(HostIndex(at as u32), slots.min(count) as usize));
    }
    if chosen.is_empty() {
        return Err("the spawn request names no host".to_owned());
    }
    Ok(chosen.into_iter().cycle().take(count as usize).collect())
}

/// The spec of a spawned group: what the first group has, with the request's programs and key-values.
pub(super) fn spec_of(
    first: &Spec,
    group: Group,
    first_proc: ProcId,
    apps: &[SpawnApp],
    preput: Vec<KeyValue>,
) -> Spec {
    let parent = first.apps.first();
    let app = |spawned: &SpawnApp| App {
        argv: with_path(spawned),
        wdir: info(spawned, &["wdir"]).map(str::to_owned).or_else(|| parent.and_then(|p| p.wdir.clone())),
        env: parent.map_or_else(Vec::<EnvVar>::new, |p| p.env.clone()),
    };
    Spec {
        group,
        size: apps.iter().map(|a| a.count).sum(),
        first_proc,
        apps: apps.iter().map(app).collect(),
        kvsname: format!("{}_{group}", first.kvsname.rsplit_once('_').map_or(first.kvsname.as_str(), |(base, _)| base)),
        preput,
        // Standard input belongs to the ranks of the command line.
        stdin: muster_protocol::message::StdinTo::Nobody,
        ..first.clone()
    }
}

/// The `path` info key: where to look for a program without a slash.
fn with_path(app: &SpawnApp) -> Vec<String> {
    let mut argv = app.argv.clone();
    if let (Some(dir), Some(program)) = (info(app, &["path"]), argv.first_mut())
        && !program.contains('/')
        && let Some(dir) = dir.split(':').find(|d| !d.is_empty())
    {
        *program = format!("{dir}/{program}");
    }
    argv
}
