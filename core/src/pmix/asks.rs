//! What the library asks and only the root can answer, and the answers in the library's words.

use std::collections::BTreeSet;

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use muster_protocol::limits::CONTROL_PAYLOAD_BYTES_MAX;
use muster_protocol::message::{Answer, Ask, EnvVar, FoundItem, KeyValue, Part, Purpose, SpawnApp};
use muster_protocol::pmix::{FromPmix, GroupOp, Item, Proc, RANK_WILDCARD, SpawnProgram, ToPmix, Value};
use muster_protocol::{Group, Rank};

use super::action::Action;
use super::group::Local;
use super::server::Server;
use super::status;
use crate::kvs::{group_in_job, name_in_job};
use crate::plan::open_mpi::is_of_one_rank;

/// Room that a question's frame needs beside its data.
const FRAME_ROOM_BYTES: usize = 64 << 10;

/// A question that the root has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The group of the rank in whose name it was asked.
    pub(super) group: Group,
    /// How the library is told the answer.
    pub(super) asked: Asked,
}

/// How an answer is told to the library: by its number for the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// By a status.
    Done(u64),
    /// By data.
    Data(u64),
    /// By what was found of these keys.
    Found(u64, usize),
    /// By the name of a namespace.
    Spawned(u64),
    /// By the members of a group.
    Grouped(u64, Vec<Proc>),
}

impl Asked {
    /// The answer when there is none.
    pub(super) fn refused(&self, status: i32) -> ToPmix {
        match self {
            Self::Done(token) => ToPmix::Done { token: *token, status },
            Self::Data(token) => ToPmix::Data { token: *token, status, data: ByteVec::from(Vec::new()) },
            Self::Found(token, _) => ToPmix::Found { token: *token, status, items: Vec::new() },
            Self::Spawned(token) => ToPmix::Spawned { token: *token, status, namespace: String::new() },
            Self::Grouped(token, _) => ToPmix::Grouped {
                token: *token,
                status,
                members: Vec::new(),
                context: None,
                endpoint: ByteVec::from(Vec::new()),
            },
        }
    }
}

impl Server {
    pub(super) fn ask(&mut self, message: FromPmix, out: &mut Vec<Action>) {
        match message {
            FromPmix::Modex { token, proc } => {
                let Some(group) = self.names.get(&proc.namespace).copied() else {
                    return out.push(Action::Send(Asked::Data(token).refused(status::NOT_FOUND)));
                };
                self.upcall(None, Asked::Data(token), Ask::Fetch { group, rank: Rank(proc.rank) }, out);
            }
            FromPmix::Publish { token, proc, items, once } => {
                let items: Vec<KeyValue> = items.iter().map(key_value).collect();
                let bytes = items.iter().map(|i| i.key.len() + i.value.len()).sum::<usize>();
                if bytes + FRAME_ROOM_BYTES > CONTROL_PAYLOAD_BYTES_MAX as usize {
                    return out.push(Action::Send(Asked::Done(token).refused(status::ERROR)));
                }
                self.upcall(Some(&proc), Asked::Done(token), Ask::Put { items, once }, out);
            }
            FromPmix::Lookup { token, proc, keys, wait, timeout_s } => {
                let wait_ms = match (wait, timeout_s) {
                    (false, _) => Some(0),
                    (true, 0) => None,
                    (true, seconds) => Some(u64::from(seconds) * 1000),
                };
                let asked = Asked::Found(token, keys.len());
                self.upcall(Some(&proc), asked, Ask::Find { keys, wait_ms }, out);
            }
            FromPmix::Unpublish { token, proc, keys } => {
                self.upcall(Some(&proc), Asked::Done(token), Ask::Withdraw { keys }, out);
            }
            FromPmix::Spawn { token, parent, info, apps } => {
                let apps = apps.into_iter().map(|app| spawn_app(app, &info, &self.of_this_host)).collect();
                self.upcall(Some(&parent), Asked::Spawned(token), Ask::Spawn { apps, preput: Vec::new() }, out);
            }
            FromPmix::Connect { token, procs } => {
                self.gather(Purpose::Connect, "", &procs, (Bytes::new(), false), Asked::Done(token), out);
            }
            FromPmix::Disconnect { token, procs } => {
                self.gather(Purpose::Disconnect, "", &procs, (Bytes::new(), false), Asked::Done(token), out);
            }
            FromPmix::Group { token, op, id, procs, context, endpoint } => {
                let purpose = match op {
                    GroupOp::Construct => Purpose::Construct,
                    GroupOp::Destruct => Purpose::Destruct,
                };
                let brings = (Bytes::from(endpoint.to_vec()), context);
                self.gather(purpose, &id, &procs, brings, Asked::Grouped(token, procs.clone()), out);
            }
            // The rest is no question.
            _ => {}
        }
    }

    pub(super) fn gather_fence(&mut self, token: u64, procs: &[Proc], data: Bytes, out: &mut Vec<Action>) {
        self.gather(Purpose::Fence, "", procs, (data, false), Asked::Data(token), out);
    }

    fn gather(
        &mut self,
        purpose: Purpose,
        name: &str,
        procs: &[Proc],
        (data, context): (Bytes, bool),
        asked: Asked,
        out: &mut Vec<Action>,
    ) {
        let part = |proc: &Proc| {
            let rank = (proc.rank != RANK_WILDCARD).then_some(Rank(proc.rank));
            Some(Part { group: self.group_named(&proc.namespace)?, rank })
        };
        let Some(mut parts) = procs.iter().map(part).collect::<Option<Vec<Part>>>() else {
            return out.push(Action::Send(asked.refused(status::NOT_FOUND)));
        };
        if data.len() + FRAME_ROOM_BYTES > CONTROL_PAYLOAD_BYTES_MAX as usize {
            return out.push(Action::Send(asked.refused(status::ERROR)));
        }
        // Hosts may name them in any order, and mean the same meeting.
        parts.sort_unstable();
        parts.dedup();
        let here = procs.iter().find(|proc| self.is_here(proc)).cloned();
        let ask = Ask::Gather { purpose, name: name.to_owned(), parts, data: data.to_vec().into(), context };
        self.upcall(here.as_ref(), asked, ask, out);
    }

    /// The group of a namespace, one that has been forgotten too: hosts do not hear of that at once, and if some told the root of a
    /// meeting with it and others did not, it would wait for these.
    fn group_named(&self, namespace: &str) -> Option<Group> {
        let forgotten = || group_in_job(&self.known.values().next()?.name, namespace);
        self.names.get(namespace).copied().or_else(forgotten)
    }

    fn is_here(&self, proc: &Proc) -> bool {
        let group = self.names.get(&proc.namespace).and_then(|group| self.groups.get(group));
        let meant = |rank: Rank| proc.rank == RANK_WILDCARD || rank.0 == proc.rank;
        group.is_some_and(|g| g.members.iter().any(|m| m.living && meant(m.rank)))
    }

    /// Asks the root, in the name of a rank here.
    fn upcall(&mut self, who: Option<&Proc>, asked: Asked, ask: Ask, out: &mut Vec<Action>) {
        let named = who.and_then(|proc| {
            let group = *self.names.get(&proc.namespace)?;
            let meant = |rank: Rank| proc.rank == RANK_WILDCARD || rank.0 == proc.rank;
            let living = self.groups.get(&group)?.members.iter().find(|m| m.living && meant(m.rank))?;
            Some((group, living.rank))
        });
        // Nobody is asked for in the name of the dead: the root forgets what they want.
        let any = || {
            let living = |l: &Local| l.members.iter().find(|m| m.living).map(|m| m.rank);
            self.groups.iter().find_map(|(group, local)| Some((*group, living(local)?)))
        };
        let Some((group, rank)) = named.or_else(any) else {
            return out.push(Action::Send(asked.refused(status::ERROR)));
        };
        let token = self.next_token;
        self.next_token += 1;
        self.asked.insert(token, Question { group, asked });
        out.push(Action::Upcall { group, rank, token, ask });
    }

    /// The root's answer in the library's words.
    pub(super) fn reply(&self, asked: Asked, answer: Answer) -> ToPmix {
        match (asked, answer) {
            (Asked::Done(token), Answer::Done | Answer::Gathered { .. }) => {
                ToPmix::Done { token, status: status::SUCCESS }
            }
            (Asked::Data(token), Answer::Data { status, data }) => ToPmix::Data { token, status, data },
            (Asked::Data(token), Answer::Gathered { data, .. }) => {
                ToPmix::Data { token, status: status::SUCCESS, data }
            }
            (Asked::Found(token, wanted), Answer::Items { items }) => {
                let missing = if items.is_empty() { status::NOT_FOUND } else { status::SUCCESS };
                let status = if items.len() < wanted { missing } else { status::SUCCESS };
                let items = items.into_iter().filter_map(|found| self.found(found)).collect();
                ToPmix::Found { token, status, items }
            }
            (Asked::Spawned(token), Answer::Spawned { kvsname, .. }) => {
                ToPmix::Spawned { token, status: status::SUCCESS, namespace: kvsname }
            }
            (Asked::Grouped(token, members), Answer::Gathered { data, context }) => {
                ToPmix::Grouped { token, status: status::SUCCESS, members, context, endpoint: data }
            }
            (asked, _) => asked.refused(status::ERROR),
        }
    }

    fn found(&self, found: FoundItem) -> Option<(Proc, Item)> {
        let namespace = self.name_of(found.group)?;
        let value = minicbor::decode::<Value>(&found.item.value).ok()?;
        let key = String::from_utf8(found.item.key.to_vec()).ok()?;
        Some((Proc { namespace, rank: found.rank.0 }, Item { key, value }))
    }

    /// The namespace of a group, also of one that is over: what its ranks have published stays.
    fn name_of(&self, group: Group) -> Option<String> {
        let known = || self.known.values().next().map(|namespace| name_in_job(&namespace.name, group));
        self.known.get(&group).map(|namespace| namespace.name.clone()).or_else(known)
    }

    /// Another host wants what a rank here has put.
    pub fn fetch(&self, ticket: u64, group: Group, rank: Rank, out: &mut Vec<Action>) {
        if let Some(namespace) = self.known.get(&group).map(|n| n.name.clone()) {
            out.push(Action::Send(ToPmix::Fetch { token: ticket, proc: Proc { namespace, rank: rank.0 } }));
        }
    }
}

fn key_value(item: &Item) -> KeyValue {
    let value = minicbor::to_vec(&item.value).expect("encoding into memory cannot fail");
    KeyValue { key: item.key.clone().into_bytes().into(), value: value.into() }
}

/// Info keys of PMIx that say what those of MPI say.
const INFO_NAMES: [(&str, &str); 6] = [
    ("pmix.host", "host"),
    ("pmix.addhost", "host"),
    ("pmix.hostfile", "hostfile"),
    ("pmix.addhostfile", "hostfile"),
    ("pmix.wdir", "wdir"),
    ("pmix.mapby", "map-by"),
];

fn spawn_app(app: SpawnProgram, common: &[EnvVar], of_this_host: &BTreeSet<(String, String)>) -> SpawnApp {
    let named = |var: &EnvVar| {
        let name = INFO_NAMES.iter().find(|(pmix, _)| *pmix == var.name).map_or(var.name.as_str(), |(_, mpi)| mpi);
        EnvVar { name: name.to_owned(), value: var.value.clone() }
    };
    let mut info: Vec<EnvVar> = app.info.iter().chain(common).map(named).collect();
    if let Some(wdir) = app.wdir {
        info.push(EnvVar { name: "wdir".to_owned(), value: Some(wdir) });
    }
    let variable = |text: &String| {
        let (name, value) = text.split_once('=').filter(|(name, _)| !is_of_one_rank(name))?;
        if of_this_host.iter().any(|(own, told)| own == name && told == value) {
            return None;
        }
        Some(EnvVar { name: name.to_owned(), value: Some(value.to_owned()) })
    };
    let argv = match app.argv.split_first() {
        Some((_, rest)) => std::iter::once(app.program).chain(rest.iter().cloned()).collect(),
        None => vec![app.program],
    };
    SpawnApp { argv, count: app.count, info, env: app.env.iter().filter_map(variable).collect() }
}
