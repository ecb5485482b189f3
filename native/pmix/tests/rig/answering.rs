//! What agents would answer together, for few ranks and without failures.

use std::collections::HashMap;

use minicbor::bytes::ByteVec;
use muster_protocol::pmix::{FromPmix, GroupOp, Item, LocalRank, Namespace, Proc, Run, ToPmix};

use super::Rig;

/// `PMIX_SUCCESS`.
const SUCCESS: i32 = 0;
/// `PMIX_ERR_NOT_FOUND`.
const NOT_FOUND: i32 = -46;

/// `PMIX_ERR_PROC_ABORTED_BY_SIG`.
const ABORTED_BY_SIGNAL: i32 = -402;

/// What the servers have told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) connected: Vec<Proc>,
    pub(crate) finalised: Vec<Proc>,
    pub(crate) aborts: Vec<(Proc, i32, String)>,
    pub(crate) log: String,
    pub(crate) fences: usize,
    pub(crate) modexes: usize,
    pub(crate) spawns: usize,
    pub(crate) groups: usize,
    pub(crate) ended: usize,
    pub(crate) drained: usize,
}

/// A server, its number for an operation, and what its ranks bring.
type Contribution = (usize, u64, Vec<u8>);

/// What waits for others.
#[derive(Debug, Default)]
pub(super) struct State {
    collectives: HashMap<(u8, Vec<Proc>), Vec<Contribution>>,
    published: Vec<(Proc, Item, bool)>,
    lookups: Vec<(usize, u64, Vec<String>)>,
    /// Who has asked for what a rank elsewhere has put.
    fetches: Vec<(usize, u64)>,
    contexts: u64,
    spawned: u32,
}

/// Sorts of collective operations; those of different sorts are not one.
const FENCE: u8 = 0;
const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const CONSTRUCT: u8 = 3;

impl Rig {
    pub(crate) fn answer(&mut self, server: usize, message: FromPmix) {
        match message {
            FromPmix::Connected { proc } => self.told.connected.push(proc),
            FromPmix::Finalised { proc } => self.told.finalised.push(proc),
            FromPmix::Drained { .. } => self.told.drained += 1,
            FromPmix::NotRegistered { namespace, why } => panic!("{namespace} is not registered: {why}"),
            FromPmix::Abort { proc, status, message } => {
                self.told.aborts.push((proc, status, message));
                self.kill_ranks();
            }
            FromPmix::Fence { token, procs, data, .. } => {
                self.told.fences += 1;
                self.collect(FENCE, procs, (server, token, data.into()));
            }
            FromPmix::Connect { token, procs } => self.collect(CONNECT, procs, (server, token, vec![])),
            FromPmix::Disconnect { token, procs } => self.collect(DISCONNECT, procs, (server, token, vec![])),
            FromPmix::Modex { token, proc } => {
                self.told.modexes += 1;
                let home = self.homes.get(&(proc.namespace.clone(), proc.rank));
                let home = *home.unwrap_or_else(|| panic!("server {server} asks for {proc:?}, of {:?}", self.homes));
                self.answering.fetches.push((server, token));
                let number = self.answering.fetches.len() as u64 - 1;
                self.say(home, &ToPmix::Fetch { token: number, proc });
            }
            FromPmix::Fetched { token, status, data } => {
                let (asker, token) = self.answering.fetches[token as usize];
                self.say(asker, &ToPmix::Data { token, status, data });
            }
            FromPmix::Log { token, text, .. } => {
                self.told.log.push_str(&String::from_utf8_lossy(&text));
                self.say(server, &ToPmix::Done { token, status: SUCCESS });
            }
            FromPmix::Spawn { token, parent, apps, .. } => self.spawn(server, token, &parent, &apps),
            FromPmix::Group { token, op, procs, endpoint, .. } => {
                self.told.groups += 1;
                assert_eq!(op, GroupOp::Construct, "the end of a group concerns nobody else");
                self.collect(CONSTRUCT, procs, (server, token, endpoint.into()));
            }
            FromPmix::Publish { .. } | FromPmix::Lookup { .. } | FromPmix::Unpublish { .. } => {
                self.names(server, message);
            }
            other @ (FromPmix::Ready { .. } | FromPmix::Failed { .. } | FromPmix::Registered { .. }) => {
                panic!("server {server} says {other:?} now")
            }
        }
    }

    /// Tells everybody that a rank is dead, and waits for it no more.
    pub(super) fn announce(&mut self, key: &(String, u32)) {
        self.homes.remove(key);
        let proc = Proc { namespace: key.0.clone(), rank: key.1 };
        for server in 0..self.servers.len() {
            self.say(server, &ToPmix::Notify { event: ABORTED_BY_SIGNAL, procs: vec![proc.clone()] });
        }
        let keys: Vec<_> = self.answering.collectives.keys().cloned().collect();
        for (sort, procs) in keys {
            self.end_collective(sort, procs);
        }
    }

    fn collect(&mut self, sort: u8, procs: Vec<Proc>, contribution: Contribution) {
        self.answering.collectives.entry((sort, procs.clone())).or_default().push(contribution);
        self.end_collective(sort, procs);
    }

    /// Ends a collective operation if every node with a participant has come to it.
    fn end_collective(&mut self, sort: u8, procs: Vec<Proc>) {
        let takes_part = |key: &(String, u32), proc: &Proc| {
            proc.namespace == key.0 && (proc.rank == key.1 || proc.rank == muster_protocol::pmix::RANK_WILDCARD)
        };
        let mut nodes: Vec<usize> = self
            .homes
            .iter()
            .filter(|(key, _)| procs.iter().any(|proc| takes_part(key, proc)))
            .map(|(_, node)| *node)
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        let key = (sort, procs);
        if self.answering.collectives.get(&key).map_or(0, Vec::len) < nodes.len() {
            return;
        }
        let all = self.answering.collectives.remove(&key).unwrap_or_default();
        let data: Vec<u8> = all.iter().flat_map(|(_, _, data)| data.clone()).collect();
        self.answering.contexts += 1;
        let context = (sort == CONSTRUCT).then_some(99 + self.answering.contexts);
        for (server, token, _) in all {
            let (status, data) = (SUCCESS, ByteVec::from(data.clone()));
            let answer = match sort {
                FENCE => ToPmix::Data { token, status, data },
                CONSTRUCT => ToPmix::Grouped { token, status, members: key.1.clone(), context, endpoint: data },
                _ => ToPmix::Done { token, status },
            };
            self.say(server, &answer);
        }
    }

    fn names(&mut self, server: usize, message: FromPmix) {
        match message {
            FromPmix::Publish { token, proc, items, once } => {
                self.answering.published.extend(items.into_iter().map(|item| (proc.clone(), item, once)));
                self.say(server, &ToPmix::Done { token, status: SUCCESS });
            }
            FromPmix::Lookup { token, keys, wait, .. } => {
                self.answering.lookups.push((server, token, keys.clone()));
                self.answer_lookups();
                if !wait && self.answering.lookups.contains(&(server, token, keys)) {
                    self.answering.lookups.retain(|lookup| (lookup.0, lookup.1) != (server, token));
                    self.say(server, &ToPmix::Found { token, status: NOT_FOUND, items: vec![] });
                }
            }
            FromPmix::Unpublish { token, keys, .. } => {
                self.answering.published.retain(|(_, item, _)| !keys.contains(&item.key));
                self.say(server, &ToPmix::Done { token, status: SUCCESS });
            }
            other => panic!("{other:?} is about no name"),
        }
        self.answer_lookups();
    }

    fn answer_lookups(&mut self) {
        for (server, token, keys) in std::mem::take(&mut self.answering.lookups) {
            let known = |key: &String| self.answering.published.iter().any(|(_, item, _)| item.key == *key);
            if !keys.iter().all(known) {
                self.answering.lookups.push((server, token, keys));
                continue;
            }
            let asked = |(_, item, _): &&(Proc, Item, bool)| keys.contains(&item.key);
            let items: Vec<_> =
                self.answering.published.iter().filter(asked).map(|(p, i, _)| (p.clone(), i.clone())).collect();
            self.answering.published.retain(|(_, item, once)| !once || !keys.contains(&item.key));
            self.say(server, &ToPmix::Found { token, status: SUCCESS, items });
        }
    }

    /// All on the first node.
    fn spawn(&mut self, server: usize, token: u64, parent: &Proc, apps: &[muster_protocol::pmix::SpawnProgram]) {
        self.told.spawns += 1;
        self.answering.spawned += 1;
        let app = &apps[0];
        let name = format!("spawned-{}", self.answering.spawned);
        let namespace = Namespace {
            name: name.clone(),
            size: app.count,
            universe: app.count,
            nodes: (0..self.servers.len()).map(|node| format!("node-{node}")).collect(),
            runs: vec![Run { node: 0, ranks: app.count }],
            node: 0,
            apps: vec![app.count],
            local: Vec::<LocalRank>::new(),
            parent: Some(parent.clone()),
            first_node_rank: 2,
            folder: name.clone(),
        };
        let variable = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let before = self.extra.len();
        self.extra.extend(app.env.iter().filter_map(variable));
        let arguments = app.argv.get(1..).unwrap_or_default().to_vec();
        self.launch(&namespace, std::path::Path::new(&app.program), &arguments);
        self.extra.truncate(before);
        self.say(server, &ToPmix::Spawned { token, status: SUCCESS, namespace: name });
    }
}
