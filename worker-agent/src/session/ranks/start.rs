//! Starting this host's share of a process group.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use bytes::Bytes;
use muster_core::kvs::name_in_job;
use muster_core::plan::{RankFacts, base_env, own_env};
use muster_core::pmi::{GroupSetup, LocalRank, Server};
use muster_protocol::ProcId;
use muster_protocol::message::{App, Bootstrap, ProcEnd, Share, Spec, StartStage, StdinTo};

use super::super::convert;
use super::{LocalGroup, LocalProc, RankAct, Ranks};
use crate::executor::border::{Order, RankEnv, RankOrder, StdinSource};

/// What all ranks of a program on this host have in common. It may be large and they may be many, so they share it.
struct Common {
    argv: Arc<[OsString]>,
    env: Arc<[(OsString, OsString)]>,
}

impl Common {
    fn new(inherited: &[(OsString, OsString)], spec: &Spec, app: &App) -> Self {
        let env = base_env(inherited.iter().cloned(), &convert::app_spec(&spec.env, app));
        Self { argv: convert::argv(app).into(), env: env.into_iter().collect() }
    }

    /// The variables are in the order of their names, as the map had them.
    fn has(&self, name: &OsStr) -> bool {
        self.env.binary_search_by(|(n, _)| n.as_os_str().cmp(name)).is_ok()
    }
}

impl Ranks {
    pub(super) fn start(&mut self, share: Share) {
        let known = self.groups.contains_key(&share.group) || self.forgotten.contains(share.group);
        if known || self.ending {
            return;
        }
        let Some(spec) = self.specs.get(&share.group).cloned() else {
            tracing::error!(group = share.group.0, "a share came before its spec; it is not started");
            return;
        };
        self.used = true;
        let server = if spec.bootstrap == Bootstrap::Pmi { self.server(&spec, &share) } else { None };
        let before = self.procs.values().filter(|p| p.told.is_none()).count() as u32;
        let mut held = Vec::new();
        let mut procs = Vec::new();
        let mut commons = BTreeMap::new();
        for (local, one) in share.procs.iter().enumerate() {
            let proc = ProcId(spec.first_proc.0 + one.rank.0);
            procs.push(proc);
            let state = LocalProc {
                group: share.group,
                local,
                rank: one.rank,
                pid: None,
                pmi: false,
                exit: None,
                killed: None,
                told: None,
                departed_ms: None,
            };
            self.procs.insert(proc, state);
            match self.order(&spec, &share, local, proc, &mut commons) {
                Some(order) if spec.bootstrap == Bootstrap::Pmix => held.push(order),
                Some(order) => self.acts.push(RankAct::Order(Order::Spawn(Box::new(order)))),
                None => {
                    let what = format!("the launcher names program {} of {}", one.app, spec.apps.len());
                    let stage = StartStage::Setup;
                    self.finish(proc, ProcEnd::NotStarted { stage, errno: 0, what }, 0);
                }
            }
        }
        let pmix = spec.bootstrap == Bootstrap::Pmix;
        let group = share.group;
        let asked = std::collections::BTreeMap::new();
        self.groups.insert(group, LocalGroup { spec, server, procs, asked, held });
        if pmix {
            self.open_pmix(&share, before);
        }
    }

    pub(super) fn server(&self, spec: &Spec, share: &Share) -> Option<Server> {
        let preput = spec.preput.iter().map(|p| (Bytes::from(p.key.to_vec()), Bytes::from(p.value.to_vec()))).collect();
        let setup = GroupSetup {
            group: spec.group,
            size: spec.size,
            local: share.procs.iter().map(|p| LocalRank { rank: p.rank, appnum: p.app }).collect(),
            kvsname: spec.kvsname.clone(),
            mapping: spec.mapping.clone(),
            universe_size: u32::try_from(spec.universe_size).ok(),
            preput,
            spawner: spec.spawned_by.map(|by| name_in_job(&spec.kvsname, by)),
        };
        Server::new(setup).inspect_err(|error| tracing::error!(%error, "no PMI service for this group")).ok()
    }

    fn order(
        &self,
        spec: &Spec,
        share: &Share,
        local: usize,
        proc: ProcId,
        commons: &mut BTreeMap<u32, Common>,
    ) -> Option<RankOrder> {
        let one = share.procs.get(local)?;
        let app = spec.apps.get(one.app as usize)?;
        let common = commons.entry(one.app).or_insert_with(|| Common::new(&self.inherited, spec, app));
        let facts = RankFacts {
            job: &spec.job,
            generation: self.stamp.generation.0,
            rank: one.rank.0,
            size: spec.size,
            local_rank: local as u32,
            local_size: share.procs.len() as u32,
            node: share.node_rank,
            nodes: share.nodes,
            host: &share.host_name,
            reachable_as: &share.reachable_as,
            bootstrap: convert::bootstrap(spec.bootstrap),
            spawned: spec.spawned_by.is_some(),
            apps: spec.pmix.as_ref().map_or(&[], |p| &p.apps),
            kvsname: &spec.kvsname,
            universe: u32::try_from(spec.universe_size).unwrap_or(0),
            tolerant: spec.pmix.as_ref().is_some_and(|p| p.tolerant),
        };
        let own = own_env(&facts, |name| common.has(name));
        let stdin = match spec.stdin {
            StdinTo::All => StdinSource::Pipe,
            StdinTo::One(reader) if reader == proc => StdinSource::Pipe,
            _ => StdinSource::Null,
        };
        Some(RankOrder {
            proc,
            argv: common.argv.clone(),
            env: RankEnv { base: common.env.clone(), own },
            cwd: app.wdir.as_ref().map(Into::into),
            stdin,
            pmi: spec.bootstrap == Bootstrap::Pmi,
            cpus: (!one.cpus.is_empty()).then(|| one.cpus.clone()),
            limits: convert::limits(&spec.rlimits),
            umask: spec.umask,
        })
    }
}

#[cfg(test)]
mod tests {
    use muster_core::plan::{self, rank_env};
    use muster_protocol::message::{EnvVar, ProcShare, Stamp};
    use muster_protocol::{Epoch, Generation, Group, HostIndex, HostSet, Rank};

    use super::super::PmixSite;
    use super::*;

    fn app(program: &str, vars: &[(&str, &str)]) -> App {
        let var = |(name, value): &(&str, &str)| EnvVar { name: (*name).into(), value: Some((*value).into()) };
        App { argv: vec![program.into()], wdir: None, env: vars.iter().map(var).collect() }
    }

    fn spec(apps: Vec<App>) -> Spec {
        Spec {
            group: Group(0),
            size: 3,
            first_proc: ProcId(0),
            members: HostSet::first(1),
            apps,
            bootstrap: Bootstrap::None,
            kvsname: "kvs".into(),
            mapping: None,
            universe_size: -1,
            preput: Vec::new(),
            stdin: StdinTo::Nobody,
            umask: None,
            rlimits: Vec::new(),
            window_bytes: 1 << 16,
            job: "j".into(),
            env: Vec::new(),
            pmix: None,
            spawned_by: None,
        }
    }

    fn share(apps: &[u32]) -> Share {
        let proc = |(rank, app): (usize, &u32)| ProcShare { rank: Rank(rank as u32), app: *app, cpus: Vec::new() };
        Share {
            group: Group(0),
            procs: apps.iter().enumerate().map(proc).collect(),
            node_rank: 0,
            nodes: 1,
            host_name: "h0".into(),
            reachable_as: "h0".into(),
        }
    }

    #[test]
    fn ranks_of_a_program_share_what_they_have_in_common_and_each_gets_the_environment_of_the_plan() {
        let inherited: Vec<(OsString, OsString)> =
            [("PATH", "/bin"), ("HOME", "/"), ("PMI_RANK", "9")].map(|(n, v)| (n.into(), v.into())).to_vec();
        let stamp = Stamp { epoch: Epoch(1), generation: Generation(2) };
        let mut ranks = Ranks::new(HostIndex(0), stamp, inherited.clone(), PmixSite::default());
        let apps = [app("a", &[("X", "1"), ("GFORTRAN_UNBUFFERED_PRECONNECTED", "n")]), app("b", &[("PATH", "/b")])];
        let mut spec = spec(apps.to_vec());
        spec.env = app("", &[("PATH", "/usr/bin"), ("Y", "2")]).env;
        ranks.specs.insert(Group(0), spec.clone());
        ranks.start(share(&[0, 1, 0]));
        let orders: Vec<RankOrder> = ranks
            .take_acts()
            .into_iter()
            .filter_map(|act| if let RankAct::Order(Order::Spawn(order)) = act { Some(*order) } else { None })
            .collect();
        assert_eq!(orders.len(), 3);
        assert!(Arc::ptr_eq(&orders[0].env.base, &orders[2].env.base) && Arc::ptr_eq(&orders[0].argv, &orders[2].argv));
        for (rank, order) in orders.iter().enumerate() {
            let facts = RankFacts {
                job: "j",
                generation: 2,
                rank: rank as u32,
                size: 3,
                local_rank: rank as u32,
                local_size: 3,
                node: 0,
                nodes: 1,
                host: "h0",
                reachable_as: "h0",
                bootstrap: plan::Bootstrap::None,
                spawned: false,
                apps: &[],
                kvsname: "kvs",
                universe: 0,
                tolerant: false,
            };
            let app = &spec.apps[rank % 2];
            let mut got: Vec<_> = order.env.joined().into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            got.sort();
            let want: Vec<_> =
                rank_env(inherited.clone(), &convert::app_spec(&spec.env, app), &facts).into_iter().collect();
            let path = if rank % 2 == 0 { "/usr/bin" } else { "/b" };
            assert!(got.contains(&("PATH".into(), path.into())) && got.contains(&("Y".into(), "2".into())), "{got:?}");
            assert_eq!((got, order.argv.to_vec()), (want, convert::argv(app)), "rank {rank}");
        }
    }
}
