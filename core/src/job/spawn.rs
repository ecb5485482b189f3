//! `MPI_Comm_spawn`: more ranks on the job's hosts.

use muster_protocol::limits::RANKS_PER_HOST_MAX;
use muster_protocol::message::{App, KeyValue, SpawnApp, Spec};
use muster_protocol::{Group, HostIndex, HostSet, ProcId};

use crate::hosts::HostList;
use crate::kvs::name_in_job;
use crate::plan::{Placed, Placement, Request, place};

/// Info keys that name hosts.
const HOST_KEYS: [&str; 2] = ["host", "hosts"];
/// An info key that says in which order hosts are filled, as `mpirun --map-by` does.
const MAP_KEYS: [&str; 1] = ["map-by"];
/// An info key that names a file with hosts. It would have to be read on the asking rank's host, and to start ranks elsewhere than
/// they were sent is worse than to refuse.
const FILE_KEY: &str = "hostfile";

fn info<'a>(app: &'a SpawnApp, keys: &[&str]) -> Option<&'a str> {
    app.info.iter().find(|i| keys.contains(&i.name.as_str())).and_then(|i| i.value.as_deref())
}

/// Places the ranks of a spawn request. Free slots are used first; hosts named in the request's info are used whatever they run.
/// Hosts that are gone get none.
pub(super) fn place_spawned(
    hosts: &HostList,
    used: &[u32],
    gone: &HostSet,
    apps: &[SpawnApp],
) -> Result<Vec<Placed>, String> {
    if apps.is_empty() {
        return Err("the spawn request names no program".to_owned());
    }
    let mut used = used.to_vec();
    let mut local = vec![0; hosts.len()];
    let mut placed = Vec::new();
    for (position, app) in apps.iter().enumerate() {
        if let Some(file) = info(app, &[FILE_KEY]) {
            return Err(format!(
                "the info key {FILE_KEY:?} ({file:?}) of a spawn request is not supported; name the hosts with \"host\""
            ));
        }
        let chosen = match info(app, &HOST_KEYS) {
            Some(names) => on_named(hosts, gone, names, app.count)?,
            None => on_free(hosts, &used, gone, app.count, order(app)?)?,
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

/// The order of hosts that a program asks for; to start ranks elsewhere than they were sent is worse than to refuse.
fn order(app: &SpawnApp) -> Result<Placement, String> {
    match info(app, &MAP_KEYS).map(|by| by.split(':').next().unwrap_or(by)) {
        None | Some("slot" | "core" | "hwthread") => Ok(Placement::Block),
        Some("node") => Ok(Placement::Cyclic),
        Some(other) => Err(format!("map-by {other:?} of a spawn request is not supported; there are slot and node")),
    }
}

fn on_free(
    hosts: &HostList,
    used: &[u32],
    gone: &HostSet,
    count: u32,
    placement: Placement,
) -> Result<Vec<HostIndex>, String> {
    let usable: Vec<usize> = (0..hosts.len()).filter(|i| !gone.contains(HostIndex(*i as u32))).collect();
    let mut list = HostList::new();
    for i in &usable {
        list.add(hosts.hosts()[*i].clone()).map_err(|e| e.to_string())?;
    }
    let used: Vec<u32> = usable.iter().map(|i| used[*i]).collect();
    let counts = [Some(count)];
    let request = Request { counts: &counts, placement, ppn: None, oversubscribe: true, used: &used };
    let placed = place(&list, &request).map_err(|e| e.to_string())?;
    Ok(placed.iter().map(|p| HostIndex(usable[p.host.0 as usize] as u32)).collect())
}

/// `names` is `a,b` or `a:2,b`; the list is gone through again and again until there are hosts for all ranks.
fn on_named(hosts: &HostList, gone: &HostSet, names: &str, count: u32) -> Result<Vec<HostIndex>, String> {
    if count == 0 {
        return Err("the spawn request asks for 0 ranks of a program".to_owned());
    }
    let chosen = listed(hosts, names, count as usize)?;
    if chosen.is_empty() {
        return Err("the spawn request names no host".to_owned());
    }
    if let Some(lost) = chosen.iter().find(|host| gone.contains(**host)) {
        let name = hosts.get(*lost).map_or("a host", |h| &h.name);
        return Err(format!("host {name:?} of the spawn request is lost"));
    }
    Ok(chosen.into_iter().cycle().take(count as usize).collect())
}

/// The hosts that are named, in their order and as often as they are to be used; as many as are needed.
fn listed(hosts: &HostList, names: &str, needed: usize) -> Result<Vec<HostIndex>, String> {
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
        let more = (slots as usize).min(needed - chosen.len());
        chosen.extend(std::iter::repeat_n(HostIndex(at as u32), more));
    }
    Ok(chosen)
}

/// The spec of a spawned group: what the group of the rank that asks has, with the request's programs and key-values. `program` is
/// that of this rank: its children inherit what it was given.
pub(super) fn spec_of(
    (parent, program): (&Spec, usize),
    (group, first_proc): (Group, ProcId),
    apps: &[SpawnApp],
    preput: Vec<KeyValue>,
) -> Spec {
    let own = parent.apps.get(program);
    let app = |spawned: &SpawnApp| App {
        argv: with_path(spawned),
        wdir: info(spawned, &["wdir"]).map(str::to_owned).or_else(|| own?.wdir.clone()),
        env: spawned.env.clone(),
    };
    Spec {
        group,
        size: apps.iter().map(|a| a.count).sum(),
        first_proc,
        apps: apps.iter().map(app).collect(),
        kvsname: name_in_job(&parent.kvsname, group),
        preput,
        // Standard input belongs to the ranks of the command line.
        stdin: muster_protocol::message::StdinTo::Nobody,
        env: own.map_or_else(Vec::new, |own| parent.env.iter().chain(&own.env).cloned().collect()),
        spawned_by: Some(parent.group),
        ..parent.clone()
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

#[cfg(test)]
mod tests {
    use muster_protocol::message::EnvVar;

    use super::*;
    use crate::hosts::{HostSpec, Origin};

    #[test]
    fn a_path_is_where_a_bare_name_is_looked_for() {
        let spawned = |program: &str, path: Option<&str>| {
            let info = path.map(|dir| EnvVar { name: "path".into(), value: Some(dir.into()) }).into_iter().collect();
            with_path(&SpawnApp { argv: vec![program.into(), "x".into()], count: 1, info, env: Vec::new() })
        };
        assert_eq!(spawned("child", Some(":/opt/bin:/usr/bin")), ["/opt/bin/child", "x"]);
        assert_eq!(spawned("./child", Some("/opt/bin")), ["./child", "x"]);
        assert_eq!(spawned("child", None), ["child", "x"]);
    }

    #[test]
    fn a_list_with_more_slots_than_ranks_is_read_to_its_end_and_takes_no_more_room() {
        let mut hosts = HostList::new();
        for name in ["a", "b"] {
            let (name, origin) = (name.to_owned(), Origin::Default);
            hosts.add(HostSpec { name, address: None, slots: 1, max_slots: None, port: None, origin }).unwrap();
        }
        let names = |chosen: Vec<HostIndex>| chosen.iter().map(|h| h.0).collect::<Vec<_>>();
        let many = vec!["b:4000000"; 100].join(",");
        assert_eq!(names(listed(&hosts, &format!("a:2,{many}"), 4).unwrap()), [0, 0, 1, 1]);
        assert!(listed(&hosts, &format!("{many},c"), 4).is_err(), "every name is looked at");
    }
}
