//! What a namespace's ranks can ask about it: the info array that it is registered with.

use muster_protocol::pmix::{LocalRank, Namespace};

use crate::info::{BadValue, Infos, proc};
use crate::maps::{BadPlan, Maps};

/// Why a namespace cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNamespace {
    /// Its numbers do not fit together.
    #[error(transparent)]
    Plan(#[from] BadPlan),
    /// Something of it cannot be said to the library.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// It has ranks here, but its map knows none.
    #[error("namespace {namespace} has ranks here, but its nodes do not say so")]
    NotHere {
        /// It.
        namespace: String,
    },
}

/// Folders that Open MPI's ranks put their files into.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// Of the namespace.
    pub top: &'a str,
    /// For its files.
    pub session: &'a str,
}

/// Everything that is said about a namespace.
///
/// # Errors
/// When its parts do not fit together or cannot be said.
pub fn infos(
    namespace: &Namespace,
    folders: Option<Folders<'_>>,
    maps: &Maps,
    maps_typed: bool,
) -> Result<Infos, BadNamespace> {
    let mut infos = Infos::new();
    infos.text(c"pmix.jobid", &namespace.name)?;
    infos.number(c"pmix.job.size", namespace.size);
    infos.number(c"pmix.univ.size", namespace.universe);
    infos.number(c"pmix.max.size", namespace.size);
    infos.number(c"pmix.num.nodes", maps.count);
    infos.number(c"pmix.job.napps", namespace.apps.len() as u32);
    infos.map(c"pmix.nmap", &maps.nodes, maps_typed)?;
    infos.map(c"pmix.pmap", &maps.procs, maps_typed)?;
    if let Some(folders) = folders {
        infos.text(c"pmix.tmpdir", folders.top)?;
        infos.text(c"pmix.nsdir", folders.session)?;
    }
    // Whoever starts the ranks removes what they leave.
    infos.flag(c"pmix.tdir.rmclean", false);
    infos.flag(c"pmix.spawned", namespace.parent.is_some());
    if let Some(parent) = &namespace.parent {
        infos.proc(c"pmix.parent", proc(&parent.namespace, parent.rank)?);
    }
    // Open MPI 5 asks for these two by names of its own.
    infos.text(c"OMPI_APP_SIZES", &joined(&namespace.apps, " "))?;
    infos.text(c"OMPI_FIRST_RANKS", &joined(&first_ranks(&namespace.apps), " "))?;
    if !namespace.local.is_empty() {
        let here = maps.here.ok_or_else(|| BadNamespace::NotHere { namespace: namespace.name.clone() })?;
        add_local(&mut infos, namespace, here)?;
    }
    Ok(infos)
}

/// What concerns this host alone, each of its ranks included. Of other hosts' ranks the library derives all that is asked for from
/// the maps, so that this does not grow with the job.
fn add_local(infos: &mut Infos, namespace: &Namespace, here: u32) -> Result<(), BadNamespace> {
    let local = &namespace.local;
    let ranks: Vec<u32> = local.iter().map(|rank| rank.rank).collect();
    infos.number(c"pmix.local.size", local.len() as u32);
    infos.number(c"pmix.node.size", local.len() as u32 + namespace.first_node_rank);
    infos.text(c"pmix.lpeers", &joined(&ranks, ","))?;
    infos.rank(c"pmix.lldr", ranks.iter().copied().min().unwrap_or(0));
    let host = namespace.nodes.get(namespace.node as usize).map_or("", String::as_str);
    for (position, rank) in local.iter().enumerate() {
        infos.infos(c"pmix.pdata", of_rank(namespace, rank, position as u32, host, here)?);
    }
    Ok(())
}

fn of_rank(
    namespace: &Namespace,
    rank: &LocalRank,
    position: u32,
    host: &str,
    here: u32,
) -> Result<Infos, BadNamespace> {
    let mut infos = Infos::new();
    // The rank must be the first.
    infos.rank(c"pmix.rank", rank.rank);
    infos.number(c"pmix.appnum", rank.app);
    infos.short(c"pmix.lrank", position);
    infos.short(c"pmix.nrank", namespace.first_node_rank + position);
    infos.rank(c"pmix.grank", rank.rank);
    let first = first_ranks(&namespace.apps).get(rank.app as usize).copied().unwrap_or(0);
    infos.rank(c"pmix.apprank", rank.rank.saturating_sub(first));
    infos.text(c"pmix.hname", host)?;
    infos.number(c"pmix.nodeid", here);
    Ok(infos)
}

/// The first rank of each program.
fn first_ranks(apps: &[u32]) -> Vec<u32> {
    let mut next = 0u32;
    let mut first = Vec::with_capacity(apps.len());
    for size in apps {
        first.push(next);
        next = next.saturating_add(*size);
    }
    first
}

fn joined(numbers: &[u32], between: &str) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use muster_protocol::pmix::{Proc, Run};

    use super::*;
    use crate::values;

    fn example() -> Namespace {
        let rank = |rank, app| LocalRank { rank, app, cpus: vec![] };
        Namespace {
            name: "job.1".into(),
            size: 5,
            universe: 8,
            nodes: vec!["a".into(), "idle".into(), "b".into()],
            runs: vec![Run { node: 0, ranks: 2 }, Run { node: 2, ranks: 3 }],
            node: 2,
            apps: vec![3, 2],
            local: vec![rank(2, 0), rank(3, 1), rank(4, 1)],
            parent: Some(Proc { namespace: "job.0".into(), rank: 0 }),
            first_node_rank: 4,
            folder: "job.1".into(),
        }
    }

    fn shown(namespace: &Namespace) -> Vec<String> {
        let folders = Folders { top: "/t", session: "/t/s" };
        let maps = Maps::of(namespace).expect("it fits together");
        let infos = infos(namespace, Some(folders), &maps, true).expect("it fits together");
        // SAFETY: what `Infos` has built is valid.
        infos.list().iter().map(|info| unsafe { values::shown(info) }).collect()
    }

    #[test]
    fn everything_that_open_mpi_asks_for() {
        assert_eq!(
            shown(&example()),
            [
                "pmix.jobid=job.1",
                "pmix.job.size=5",
                "pmix.univ.size=8",
                "pmix.max.size=5",
                "pmix.num.nodes=2",
                "pmix.job.napps=2",
                "pmix.nmap=regex(a,b)",
                "pmix.pmap=regex(0,1;2,3,4)",
                "pmix.tmpdir=/t",
                "pmix.nsdir=/t/s",
                "pmix.tdir.rmclean=false",
                "pmix.spawned=true",
                "pmix.parent=job.0:0",
                "OMPI_APP_SIZES=3 2",
                "OMPI_FIRST_RANKS=0 3",
                "pmix.local.size=3",
                "pmix.node.size=7",
                "pmix.lpeers=2,3,4",
                "pmix.lldr=2",
                "pmix.pdata={pmix.rank=2 pmix.appnum=0 pmix.lrank=0 pmix.nrank=4 pmix.grank=2 pmix.apprank=2 pmix.hname=b pmix.nodeid=1}",
                "pmix.pdata={pmix.rank=3 pmix.appnum=1 pmix.lrank=1 pmix.nrank=5 pmix.grank=3 pmix.apprank=0 pmix.hname=b pmix.nodeid=1}",
                "pmix.pdata={pmix.rank=4 pmix.appnum=1 pmix.lrank=2 pmix.nrank=6 pmix.grank=4 pmix.apprank=1 pmix.hname=b pmix.nodeid=1}",
            ]
        );
    }

    #[test]
    fn a_host_without_ranks_has_nothing_local() {
        let elsewhere = Namespace { node: 1, local: vec![], parent: None, ..example() };
        let shown = shown(&elsewhere);
        assert_eq!(shown.last().map(String::as_str), Some("OMPI_FIRST_RANKS=0 3"));
        assert!(shown.contains(&"pmix.spawned=false".to_owned()));
    }

    #[test]
    fn ranks_on_a_host_that_has_none_are_refused() {
        let lost = Namespace { node: 1, ..example() };
        let error = infos(&lost, None, &Maps::of(&lost).expect("it fits together"), true).err().expect("refused");
        assert_eq!(error.to_string(), "namespace job.1 has ranks here, but its nodes do not say so");
    }
}
