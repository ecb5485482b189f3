//! All process groups of a job on one host, and what their ranks have asked the library for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use muster_protocol::limits::PMIX_TEXT_BYTES_MAX;
use muster_protocol::message::{Answer, DeadRank, PmixHost};
use muster_protocol::pmix::{FromPmix, Namespace, Proc, RANK_WILDCARD, ToPmix};
use muster_protocol::{Group, Rank};

use super::action::Action;
use super::asks::Question;
use super::company::{Machine, crowded, heard, told};
use super::group::{Local, Stage};
use super::status;
use super::version::agree;
use crate::pmi::Phase;

/// What the PMIx server is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Libraries to try, in order.
    pub libraries: Vec<String>,
    /// Folder for its files.
    pub folder: String,
    /// This host's name among the nodes.
    pub host: String,
    /// User and group id of the ranks.
    pub owner: (u32, u32),
    /// Folders of the job on this host.
    pub scratch: Vec<String>,
    /// What this host is a part of.
    pub machine: Machine,
}

/// The PMIx service of one job on one host; see the module above.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    version: Option<String>,
    /// Why there is none.
    dead: Option<String>,
    pub(super) groups: BTreeMap<Group, Local>,
    /// Names of all groups of the job, those without ranks here too.
    pub(super) names: HashMap<String, Group>,
    /// The same groups; of those with ranks elsewhere only, ranks here may be told by connect.
    pub(super) known: BTreeMap<Group, Namespace>,
    /// Ranks that those here have been told are dead.
    told_dead: BTreeMap<Group, BTreeSet<Rank>>,
    /// Variables that ranks have been given for what this host is like. Ranks that they spawn may be on another one.
    pub(super) of_this_host: BTreeSet<(String, String)>,
    /// What hosts with ranks of a group have said of themselves, with their names: those of one group are a part of the job's.
    hosts: BTreeMap<Group, Vec<(String, PmixHost)>>,
    /// Questions that the root has, by our number.
    pub(super) asked: BTreeMap<u64, Question>,
    pub(super) next_token: u64,
}

impl Server {
    /// A service whose process is about to start.
    pub fn new(setup: Setup, out: &mut Vec<Action>) -> Self {
        let Setup { libraries, folder, host, scratch, .. } = setup.clone();
        out.push(Action::Send(ToPmix::Start { libraries, folder, host, scratch }));
        Self {
            setup,
            version: None,
            dead: None,
            groups: BTreeMap::new(),
            names: HashMap::new(),
            known: BTreeMap::new(),
            told_dead: BTreeMap::new(),
            of_this_host: BTreeSet::new(),
            hosts: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_token: 0,
        }
    }

    /// A group of the job without ranks here: those that are here may connect to it.
    pub fn know(&mut self, group: Group, namespace: Namespace, out: &mut Vec<Action>) {
        if self.known.contains_key(&group) {
            return;
        }
        self.names.insert(namespace.name.clone(), group);
        self.known.insert(group, namespace);
        self.register(group, out);
    }

    /// Ranks of a group are to run here.
    pub fn open(&mut self, group: Group, namespace: Namespace, out: &mut Vec<Action>) {
        self.groups.insert(group, Local::new(group, namespace.local.iter().map(|l| Rank(l.rank)).collect()));
        self.know(group, namespace, out);
        if let Some(why) = self.dead.clone() {
            self.fail(group, &why, out);
        }
    }

    /// A group is over everywhere, and nobody will ask about it any more.
    pub fn forget(&mut self, group: Group, out: &mut Vec<Action>) {
        self.groups.remove(&group);
        self.told_dead.remove(&group);
        self.hosts.remove(&group);
        let Some(Namespace { name, .. }) = self.known.remove(&group) else { return };
        self.names.remove(&name);
        // What its ranks had asked for has no answer any more; the library keeps room for each question until it has one.
        let own = self.asked.iter().filter(|(_, open)| open.group == group).map(|(token, _)| *token);
        for token in own.collect::<Vec<_>>() {
            let open = self.asked.remove(&token);
            out.extend(open.map(|open| Action::Send(open.asked.refused(status::ERROR))));
        }
        if self.version.is_some() && self.dead.is_none() {
            out.push(Action::Send(ToPmix::Deregister { namespace: name }));
        }
    }

    /// Ranks here are given a variable for what this host is like.
    pub fn told_of_this_host(&mut self, name: &str, value: &str) {
        self.of_this_host.insert((name.to_owned(), value.to_owned()));
    }

    fn register(&mut self, group: Group, out: &mut Vec<Action>) {
        let Some(namespace) = self.known.get(&group).filter(|_| self.version.is_some() && self.dead.is_none()).cloned()
        else {
            return;
        };
        let (uid, gid) = self.setup.owner;
        out.push(Action::Send(ToPmix::Register { namespace, uid, gid }));
    }

    /// How far a local rank has come.
    pub fn phase(&self, group: Group, local: usize) -> Phase {
        let member = self.groups.get(&group).and_then(|g| g.members.get(local));
        member.map_or(Phase::Untouched, |m| m.phase)
    }

    /// Whether the ranks of a group here wait in a fence of all its ranks: its number, and who does. Before the last of them has
    /// arrived the library says nothing.
    pub fn waiting(&self, group: Group) -> Option<(u64, Vec<Rank>)> {
        let local = self.groups.get(&group)?;
        local.in_flight.as_ref()?;
        let living = local.members.iter().filter(|m| m.living && m.phase == Phase::Initialised);
        Some((local.seq, living.map(|m| m.rank).collect()))
    }

    /// The PMIx server says something.
    pub fn input(&mut self, message: FromPmix, out: &mut Vec<Action>) {
        match message {
            FromPmix::Ready { version, .. } => {
                self.version = Some(version);
                let groups: Vec<Group> = self.known.keys().copied().collect();
                for group in groups {
                    self.register(group, out);
                }
            }
            FromPmix::Failed { why } => self.died(&why, out),
            FromPmix::Registered { namespace, environments } => self.registered(&namespace, environments, out),
            FromPmix::NotRegistered { namespace, why } => {
                if let Some(group) = self.names.get(&namespace).copied() {
                    self.fail(group, &why, out);
                }
            }
            FromPmix::Connected { proc } => self.connected(&proc, out),
            FromPmix::Finalised { proc } => {
                if let Some((_, member)) = self.member_mut(&proc) {
                    member.phase = Phase::Finalised;
                }
            }
            FromPmix::Abort { proc, status, message } => {
                if let Some(group) = self.names.get(&proc.namespace).copied() {
                    // Open MPI 4 has no words of its own and sends these.
                    let mut message = if message == "N/A" { String::new() } else { message };
                    let end =
                        (0..=PMIX_TEXT_BYTES_MAX.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
                    message.truncate(end.unwrap_or_default());
                    out.push(Action::Abort { group, rank: Rank(proc.rank), code: status, message });
                }
            }
            FromPmix::Log { token, proc, text } => {
                if let Some(group) = self.names.get(&proc.namespace).copied() {
                    out.push(Action::Say {
                        group,
                        rank: Rank(proc.rank),
                        text: Bytes::from(text[..text.len().min(PMIX_TEXT_BYTES_MAX)].to_vec()),
                    });
                }
                out.push(Action::Send(ToPmix::Done { token, status: status::SUCCESS }));
            }
            FromPmix::Drained { proc } => {
                if let Some(group) = self.names.get(&proc.namespace).copied() {
                    out.push(Action::Drained(group, Rank(proc.rank)));
                }
            }
            FromPmix::Fence { token, procs, data, .. } => self.fence(token, &procs, Bytes::from(data.to_vec()), out),
            other => self.ask(other, out),
        }
    }

    /// The process of the PMIx server has ended, or cannot be started.
    pub fn died(&mut self, why: &str, out: &mut Vec<Action>) {
        if self.dead.is_none() {
            self.dead = Some(why.to_owned());
            let groups: Vec<Group> = self.groups.keys().copied().collect();
            for group in groups {
                self.fail(group, why, out);
            }
            self.drain_all(out);
        }
    }

    fn fail(&mut self, group: Group, why: &str, out: &mut Vec<Action>) {
        if let Some(local) = self.groups.get_mut(&group).filter(|l| l.stage != Stage::Failed) {
            local.stage = Stage::Failed;
            out.push(Action::Failed(group, why.to_owned()));
        }
    }

    fn registered(
        &mut self,
        namespace: &str,
        environments: Vec<Vec<muster_protocol::message::EnvVar>>,
        out: &mut Vec<Action>,
    ) {
        let Some(group) = self.names.get(namespace).copied() else { return };
        let Some(local) = self.groups.get_mut(&group).filter(|l| l.stage == Stage::Waiting) else { return };
        local.stage = Stage::Comparing(environments);
        local.in_flight = Some(None);
        let seq = local.seq;
        let facts = PmixHost {
            version: self.version.clone().unwrap_or_else(|| "an unknown version".to_owned()),
            machine: self.setup.machine.id,
            ranks: self.ranks_here(group),
            share: self.setup.machine.share,
        };
        out.push(Action::Fence { group, seq, blob: told(&self.setup.host, &facts) });
    }

    /// Ranks of this group and of those before it.
    fn ranks_here(&self, group: Group) -> u32 {
        self.known.get(&group).map_or(0, |n| n.first_node_rank.saturating_add(n.local.len() as u32))
    }

    fn connected(&mut self, proc: &Proc, out: &mut Vec<Action>) {
        let Some((group, member)) = self.member_mut(proc) else { return };
        if member.phase != Phase::Untouched {
            return;
        }
        let rank = member.rank;
        member.phase = Phase::Initialised;
        let spoken = |l: &Local| l.members.iter().filter(|m| m.phase != Phase::Untouched).count();
        if self.groups.get(&group).map(spoken) == Some(1) {
            out.push(Action::FirstInit(group, rank));
        }
    }

    fn member_mut(&mut self, proc: &Proc) -> Option<(Group, &mut super::group::Member)> {
        let group = *self.names.get(&proc.namespace)?;
        Some((group, self.groups.get_mut(&group)?.member_mut(proc.rank)?))
    }

    /// All participants here have arrived at a fence. One of a whole group goes over the tree, others over the root.
    fn fence(&mut self, token: u64, procs: &[Proc], data: Bytes, out: &mut Vec<Action>) {
        let whole = match procs {
            [one] if one.rank == RANK_WILDCARD => self.names.get(&one.namespace).copied(),
            _ => None,
        };
        let Some(local) = whole.and_then(|group| self.groups.get_mut(&group)) else {
            return self.gather_fence(token, procs, data, out);
        };
        local.waiting.push_back((token, data));
        Self::go_on(local, out);
    }

    fn go_on(local: &mut Local, out: &mut Vec<Action>) {
        let group = local.group;
        if let Some((seq, blob)) = local.next_fence() {
            out.push(Action::Fence { group, seq, blob });
        }
    }

    /// A fence of a whole group is over. A result that was taken in before is ignored.
    pub fn fence_done(&mut self, group: Group, seq: u64, result: Bytes, out: &mut Vec<Action>) {
        let Some(local) = self.groups.get_mut(&group).filter(|l| l.seq == seq) else { return };
        let Some(what) = local.in_flight.take() else { return };
        local.seq += 1;
        let Some(token) = what else { return self.compared(group, &result, out) };
        let (status, data) = (status::SUCCESS, result.to_vec().into());
        out.push(Action::Send(ToPmix::Data { token, status, data }));
        Self::go_on(local, out);
    }

    fn compared(&mut self, group: Group, result: &Bytes, out: &mut Vec<Action>) {
        let hosts = match heard(result).and_then(|hosts| agree(&hosts).map(|()| hosts)) {
            Ok(hosts) => hosts,
            Err(error) => return self.fail(group, &error.to_string(), out),
        };
        self.hosts.insert(group, hosts);
        let mut largest: BTreeMap<&str, &PmixHost> = BTreeMap::new();
        for (name, host) in self.hosts.values().flatten() {
            let known = largest.entry(name).or_insert(host);
            // Several groups may start at the same time; whoever counts more ranks knows of both.
            if host.ranks > known.ranks {
                *known = host;
            }
        }
        let crowded = crowded(&self.setup.machine, self.ranks_here(group), largest.values().copied());
        let Some(local) = self.groups.get_mut(&group) else { return };
        if let Stage::Comparing(environments) = std::mem::replace(&mut local.stage, Stage::Started) {
            out.push(Action::Start { group, environments, crowded });
        }
    }

    /// A rank's process has ended. What it has said before may still be on its way: [`Action::Drained`] follows.
    pub fn exited(&mut self, group: Group, local: usize, out: &mut Vec<Action>) {
        let Some(member) = self.groups.get_mut(&group).and_then(|g| g.members.get_mut(local)) else { return };
        member.living = false;
        let rank = member.rank;
        match self.known.get(&group).filter(|_| self.dead.is_none() && self.version.is_some()) {
            Some(namespace) => {
                let proc = Proc { namespace: namespace.name.clone(), rank: rank.0 };
                out.push(Action::Send(ToPmix::Ended { proc }));
            }
            None => out.push(Action::Drained(group, rank)),
        }
    }

    /// Ranks have died and the job goes on: those that live here are told, once of each.
    pub fn dead(&mut self, group: Group, ranks: &[DeadRank], out: &mut Vec<Action>) {
        let somebody = self.groups.values().flat_map(|g| &g.members).any(|m| m.living && m.phase != Phase::Finalised);
        let Some(namespace) = self.known.get(&group).map(|n| n.name.clone()) else { return };
        let told = self.told_dead.entry(group).or_default();
        let news: Vec<&DeadRank> = ranks.iter().filter(|dead| told.insert(dead.rank)).collect();
        for (violent, event) in [(true, status::ABORTED_BY_SIGNAL), (false, status::TERMINATED_WITHOUT_SYNC)] {
            let dead = news.iter().filter(|dead| dead.violent == violent);
            let procs: Vec<Proc> = dead.map(|d| Proc { namespace: namespace.clone(), rank: d.rank.0 }).collect();
            if somebody && !procs.is_empty() {
                out.push(Action::Send(ToPmix::Notify { event, procs }));
            }
        }
    }

    /// Ranks that have ended will say nothing more.
    fn drain_all(&mut self, out: &mut Vec<Action>) {
        for local in self.groups.values() {
            let gone = local.members.iter().filter(|m| !m.living);
            out.extend(gone.map(|m| Action::Drained(local.group, m.rank)));
        }
    }

    /// The root has answered.
    pub fn answer(&mut self, token: u64, answer: Answer, out: &mut Vec<Action>) {
        if let Some(question) = self.asked.remove(&token) {
            out.push(Action::Send(self.reply(question.asked, answer)));
        }
    }
}
