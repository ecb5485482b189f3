//! Ranks that use PMIx: their server is a process of its own beside them, and this is the agent's side of it.

use std::ffi::OsString;

use muster_core::kvs::name_in_job;
use muster_core::params::Params;
use muster_core::plan::circumstances::{Circumstances, conditionals};
use muster_core::plan::open_mpi::SHARED_MEMORY_FOLDERS;
use muster_core::plan::{AppSpec, base_env};
use muster_core::pmi;
use muster_core::pmix::{Action, Machine, Server, Setup, Stream, status};
use muster_protocol::limits::{CONTROL_PAYLOAD_BYTES_MAX, RANKS_PER_HOST_MAX};
use muster_protocol::message::{
    AbortCause, Call, Dead, EnvVar, FenceState, Fetch, Fetched, Initialised, PmixPlan, ProcEnd, Say, Share, Spec,
    StartStage,
};
use muster_protocol::pmix::{FromPmix, LocalRank, Namespace, Proc, ToPmix, packed};
use muster_protocol::{Group, ProcId};

use super::{RankAct, Ranks};
use crate::executor::border::{Order, RankEnv, RankOrder, StdinSource};

/// The executor's name for the PMIx server; no rank has it.
pub(in crate::session) const PMIX_PROC: ProcId = ProcId(u32::MAX);

/// Where things are on this host.
#[derive(Debug, Clone, Default)]
pub(in crate::session) struct PmixSite {
    /// The program that hosts a PMIx server.
    pub(in crate::session) program: OsString,
    /// Libraries to try, in order, when none is named.
    pub(in crate::session) libraries: Vec<String>,
    /// Folder for files of server and ranks, of this job alone.
    pub(in crate::session) folder: String,
    /// Folder for shared memory of the ranks, of this job alone; without it they use the default.
    pub(in crate::session) shared_memory: Option<String>,
    /// User and group id of the ranks.
    pub(in crate::session) owner: (u32, u32),
    /// What this host is a part of.
    pub(in crate::session) machine: Machine,
    /// Whether there is a device of a fabric here.
    pub(in crate::session) fabric: bool,
    /// What Open MPI's files on this host say.
    pub(in crate::session) params: Params,
}

/// Room that a frame needs beside its data.
const FRAME_ROOM_BYTES: usize = 64 << 10;
/// The error number of a start that was called off.
const ECANCELED: i32 = 125;

/// The PMIx service of this host.
pub(super) struct Pmix {
    server: Server,
    heard: Stream,
    /// What is to be said when the process runs.
    unsaid: Option<Vec<ToPmix>>,
    /// How its process has ended.
    end: Option<ProcEnd>,
    /// Its socket has.
    closed: bool,
}

impl Pmix {
    pub(super) fn phase(&self, group: Group, local: usize) -> pmi::Phase {
        self.server.phase(group, local)
    }

    pub(super) fn fence_state(&self, group: Group) -> Option<FenceState> {
        let (seq, arrived) = self.server.waiting(group)?;
        Some(FenceState { group, seq, arrived, absent: Vec::new() })
    }
}

impl Ranks {
    /// A group of the job may have ranks elsewhere only.
    pub(super) fn know_pmix(&mut self, spec: &Spec) {
        let elsewhere = self.pmix.is_some() && !spec.members.contains(self.me);
        if elsewhere && let Some(namespace) = self.namespace(spec, None) {
            self.with_pmix(|server, out| server.know(spec.group, namespace, out));
        }
    }

    /// Ranks of a group are to run here; `before` ranks of others do already.
    pub(super) fn open_pmix(&mut self, share: &Share, before: u32) {
        let Some(spec) = self.specs.get(&share.group).cloned() else { return };
        if self.pmix.is_none() {
            self.begin_pmix(&spec, share);
        }
        let Some(namespace) = self.namespace(&spec, Some((share, before))) else {
            return self.pmix_failed(share.group, "the launcher has not said where the ranks of the group run");
        };
        self.with_pmix(|server, out| server.open(share.group, namespace, out));
    }

    fn begin_pmix(&mut self, spec: &Spec, share: &Share) {
        let PmixPlan { library: only, preferred, .. } = spec.pmix.clone().unwrap_or_default();
        let usual = || preferred.iter().chain(&self.site.libraries).cloned().collect();
        let setup = Setup {
            libraries: only.map_or_else(usual, |library| vec![library]),
            folder: self.site.folder.clone(),
            host: share.host_name.clone(),
            owner: self.site.owner,
            scratch: std::iter::once(self.site.folder.clone()).chain(self.site.shared_memory.clone()).collect(),
            machine: self.site.machine,
        };
        let mut actions = Vec::new();
        let server = Server::new(setup, &mut actions);
        self.pmix = Some(Pmix { server, heard: Stream::default(), unsaid: Some(Vec::new()), end: None, closed: false });
        self.carry_out_pmix(actions);
        let env = base_env(self.inherited.iter().cloned(), &AppSpec::default());
        let order = RankOrder {
            proc: PMIX_PROC,
            argv: vec![self.site.program.clone()].into(),
            env: RankEnv { base: env.into_iter().collect(), own: Vec::new() },
            cwd: None,
            stdin: StdinSource::Null,
            pmi: true,
            cpus: None,
            limits: Vec::new(),
            umask: None,
        };
        self.acts.push(RankAct::PmixStart(Box::new(order)));
        let others: Vec<Spec> = self.specs.values().filter(|s| s.group != spec.group).cloned().collect();
        for other in others {
            self.know_pmix(&other);
        }
    }

    fn namespace(&self, spec: &Spec, here: Option<(&Share, u32)>) -> Option<Namespace> {
        let plan = spec.pmix.as_ref()?;
        let parent =
            plan.parent.map(|(group, rank)| Proc { namespace: name_in_job(&spec.kvsname, group), rank: rank.0 });
        let local =
            |p: &muster_protocol::message::ProcShare| LocalRank { rank: p.rank.0, app: p.app, cpus: p.cpus.clone() };
        Some(Namespace {
            name: spec.kvsname.clone(),
            size: spec.size,
            universe: u32::try_from(spec.universe_size).unwrap_or(spec.size).max(spec.size),
            nodes: plan.nodes.clone(),
            runs: plan.runs.clone(),
            node: here.map_or(0, |(share, _)| share.node_rank),
            apps: plan.apps.clone(),
            local: here.map_or_else(Vec::new, |(share, _)| share.procs.iter().map(local).collect()),
            parent,
            first_node_rank: here.map_or(0, |(_, before)| before.min(RANKS_PER_HOST_MAX)),
            folder: format!("{}/{}", self.site.folder, spec.group),
        })
    }

    pub(super) fn with_pmix(&mut self, call: impl FnOnce(&mut Server, &mut Vec<Action>)) {
        let Some(pmix) = self.pmix.as_mut() else { return };
        let mut actions = Vec::new();
        call(&mut pmix.server, &mut actions);
        self.carry_out_pmix(actions);
    }

    /// Bytes from the PMIx server.
    pub(super) fn pmix_input(&mut self, bytes: &[u8]) {
        let Some(pmix) = self.pmix.as_mut() else { return };
        pmix.heard.push(bytes);
        loop {
            let Some(pmix) = self.pmix.as_mut() else { return };
            match pmix.heard.next_message::<FromPmix>() {
                Ok(None) => return,
                Ok(Some(FromPmix::Fetched { token, status, data })) => {
                    let fits = data.len() + FRAME_ROOM_BYTES <= CONTROL_PAYLOAD_BYTES_MAX as usize;
                    let (status, data) = if fits { (status, data) } else { (status::ERROR, Vec::new().into()) };
                    self.up(&Fetched { ticket: token, status, data });
                }
                Ok(Some(message)) => self.with_pmix(|server, out| server.input(message, out)),
                Err(error) => return self.pmix_died(&format!("the PMIx server of this host talks nonsense: {error}")),
            }
        }
    }

    /// Its process runs.
    pub(super) fn pmix_runs(&mut self) {
        let unsaid = self.pmix.as_mut().and_then(|pmix| pmix.unsaid.take());
        for message in unsaid.unwrap_or_default() {
            self.say_pmix(&message);
        }
    }

    /// Its process has ended. What it wrote to its socket before must be heard first: it may have said why.
    pub(super) fn pmix_ended(&mut self, end: ProcEnd) {
        let Some(pmix) = self.pmix.as_mut() else { return };
        pmix.end = Some(end);
        if pmix.closed {
            self.pmix_is_gone();
        } else {
            self.acts.push(RankAct::PmiDrain(PMIX_PROC));
        }
    }

    /// Its socket has ended.
    pub(super) fn pmix_closed(&mut self) {
        let Some(pmix) = self.pmix.as_mut() else { return };
        pmix.closed = true;
        if pmix.end.is_some() {
            self.pmix_is_gone();
        }
    }

    fn pmix_is_gone(&mut self) {
        let how = match self.pmix.as_mut().and_then(|pmix| pmix.end.take()) {
            Some(ProcEnd::Exited(code)) => format!("exited with status {code}"),
            Some(ProcEnd::Signaled { signal, memory, .. }) => {
                let why =
                    memory.map_or_else(String::new, |memory| format!(" ({})", muster_core::memory::sentence(memory)));
                format!("died of {}{why}", muster_core::job::signal_name(signal))
            }
            _ => "did not start".to_owned(),
        };
        self.pmix_died(&format!("the PMIx server of this host {how}; the agent's log may have its last words"));
    }

    /// There is no PMIx service here any more.
    pub(in crate::session) fn pmix_died(&mut self, why: &str) {
        self.with_pmix(|server, out| server.died(why, out));
    }

    fn say_pmix(&mut self, message: &ToPmix) {
        match packed(message) {
            Ok(bytes) => self.acts.push(RankAct::PmiSend(PMIX_PROC, bytes.into())),
            Err(error) => self.pmix_died(&error.to_string()),
        }
    }

    fn carry_out_pmix(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(message) => match self.pmix.as_mut().and_then(|pmix| pmix.unsaid.as_mut()) {
                    Some(unsaid) => unsaid.push(message),
                    None => self.say_pmix(&message),
                },
                Action::Start { group, environments, crowded } => self.start_held(group, environments, crowded),
                Action::FirstInit(group, rank) => self.up(&Initialised { group, rank }),
                Action::Fence { group, seq, blob } => self.acts.push(RankAct::Fence(group, seq, blob)),
                Action::Upcall { group, rank, token, ask } => {
                    if let Some(proc) = self.proc_of(group, rank) {
                        self.up(&Call { proc, token, ask });
                    }
                }
                Action::Abort { group, rank, code, message } => {
                    self.abort(group, rank, AbortCause::Asked { code, message });
                }
                Action::Say { group, rank, text } => {
                    if let Some(proc) = self.proc_of(group, rank) {
                        self.up(&Say { proc, text: text.to_vec().into() });
                    }
                }
                Action::Drained(group, rank) => {
                    let proc = self.proc_of(group, rank);
                    let end = proc.and_then(|proc| self.procs.get(&proc)?.exit.clone());
                    if let (Some(proc), Some((end, maxrss_kib))) = (proc, end) {
                        self.finish(proc, end, maxrss_kib);
                    }
                }
                Action::Failed(group, why) => self.pmix_failed(group, &why),
            }
        }
    }

    fn proc_of(&self, group: Group, rank: muster_protocol::Rank) -> Option<ProcId> {
        Some(ProcId(self.specs.get(&group)?.first_proc.0 + rank.0))
    }

    /// The server knows the ranks of a group, so they start.
    fn start_held(&mut self, group: Group, environments: Vec<Vec<EnvVar>>, crowded: bool) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        let held = std::mem::take(&mut state.held);
        if self.ending {
            return;
        }
        let PmixSite { shared_memory: memory, params, fabric, .. } = &self.site;
        let here = Circumstances { crowded, fabric: *fabric, params: Some(params) };
        for (mut order, variables) in held.into_iter().zip(environments) {
            for var in variables {
                order.env.own.push((var.name.into(), var.value.unwrap_or_default().into()));
            }
            if let Some(folder) = memory {
                keep_shared_memory_in(&mut order, folder);
            }
            for (name, value) in tell_circumstances(&mut order, &here) {
                if let Some(pmix) = &mut self.pmix {
                    pmix.server.told_of_this_host(name, &value);
                }
            }
            self.acts.push(RankAct::Order(Order::Spawn(Box::new(order))));
        }
    }

    /// There is no PMIx service for a group: ranks that have not started never will, those that run end with the job.
    fn pmix_failed(&mut self, group: Group, why: &str) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        let held = std::mem::take(&mut state.held);
        let spec = &state.spec;
        let (first, size) = (spec.first_proc, spec.size);
        if held.is_empty() {
            let rank = self.procs.values().find(|p| p.group == group && p.told.is_none()).map(|p| p.rank);
            if let Some(rank) = rank.filter(|_| !self.ending && !self.killed) {
                self.abort(group, rank, AbortCause::Unserved { message: why.to_owned() });
            }
            return;
        }
        tracing::error!(group = group.0, first = first.0, size, why, "ranks cannot be started");
        for order in held {
            let what = why.to_owned();
            self.finish(order.proc, ProcEnd::NotStarted { stage: StartStage::Setup, errno: 0, what }, 0);
        }
    }

    /// Makes this host ready for the job: its folders, and what Open MPI's files say to ranks with these variables.
    pub(in crate::session) fn prepare_pmix(
        &mut self,
        make: impl FnOnce(&mut PmixSite, &[(OsString, OsString)]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let first = self.groups.values().find_map(|group| group.held.first());
        make(&mut self.site, first.map_or(&[], |order| &order.env.base))
    }

    /// Removes them, if there are any.
    pub(in crate::session) fn remove_pmix_folders(&self, remove: impl FnOnce(&PmixSite)) {
        if self.pmix.is_some() {
            remove(&self.site);
        }
    }

    /// Ranks that wait for the server shall not start any more.
    pub(super) fn cancel_held(&mut self) {
        let held: Vec<RankOrder> = self.groups.values_mut().flat_map(|g| std::mem::take(&mut g.held)).collect();
        for order in held {
            let what = "its host ends what it runs".to_owned();
            self.finish(order.proc, ProcEnd::NotStarted { stage: StartStage::Setup, errno: ECANCELED, what }, 0);
        }
    }

    /// Ranks have died and the job goes on.
    pub(super) fn dead_pmix(&mut self, dead: &Dead) {
        self.with_pmix(|server, out| server.dead(dead.group, &dead.ranks, out));
    }

    /// The root wants to know what a rank here has put.
    pub(super) fn fetch_pmix(&mut self, fetch: &Fetch) {
        self.with_pmix(|server, out| server.fetch(fetch.ticket, fetch.group, fetch.rank, out));
    }
}

/// Open MPI names its segments after host and local rank only: two agents on one machine would share them. In a folder of the job
/// they do not, and nothing is left when ranks are killed.
fn keep_shared_memory_in(order: &mut RankOrder, folder: &str) {
    for name in SHARED_MEMORY_FOLDERS {
        let name = OsString::from(name);
        if !order.env.base.iter().any(|(n, _)| *n == name) {
            order.env.own.push((name, folder.into()));
        }
    }
}

/// What has turned out to be so on this host, unless people have said otherwise; gives what was added.
fn tell_circumstances(order: &mut RankOrder, here: &Circumstances<'_>) -> Vec<(&'static str, String)> {
    let RankEnv { base, own } = &mut order.env;
    let said = base.iter().filter_map(|(name, _)| name.to_str());
    let planned = |name: &str| {
        let (_, value) = own.iter().find(|(n, _)| n == name)?;
        value.to_str().map(str::to_owned)
    };
    let found = conditionals(here, said, planned);
    for (name, value) in &found {
        own.retain(|(n, _)| n != name);
        own.push(((*name).into(), value.into()));
    }
    found
}
