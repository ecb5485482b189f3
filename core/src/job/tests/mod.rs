//! What the job makes of everything that happens. Here: a job on a bench.

mod calls;
mod causes;
mod collect;
mod ending;
mod forget;
mod hosts;
mod pmix;
mod property;
mod query;
mod spawned;
mod survival;
mod worlds;

use muster_protocol::event::Event;
use muster_protocol::frame::EVERY_HOST;
use muster_protocol::message::{
    App, Ask, Bootstrap, Call, Ended, EnvVar, Exits, Initialised, Joined, Kill, Lost, Message, Phase, ProcEnd,
    ProcExit, ProcStarted, SpawnApp, Spec, Stamp, Started, StdinTo,
};
use muster_protocol::{Epoch, Generation, Group, HostIndex, HostSet, ProcId, Rank};

use super::machine::Stage;
use super::{Cause, Job, JobAct, JobSetup, World};
use crate::exit::Outcome;
use crate::hosts::{HostList, HostSpec, Origin};
use crate::plan::{OnFailure, Placed};

const STAMP: Stamp = Stamp { epoch: Epoch(3), generation: Generation(0) };
const GRACE_MS: u64 = 5_000;

fn spec(size: u32, bootstrap: Bootstrap) -> Spec {
    Spec {
        group: Group(0),
        size,
        first_proc: ProcId(0),
        members: HostSet::new(),
        apps: vec![App { argv: vec!["p".into()], wdir: None, env: vec![] }],
        bootstrap,
        kvsname: "kvs_0".into(),
        mapping: None,
        universe_size: -1,
        preput: vec![],
        stdin: StdinTo::Nobody,
        umask: None,
        rlimits: vec![],
        window_bytes: 0,
        job: "j".into(),
        env: Vec::new(),
        pmix: None,
        spawned_by: None,
    }
}

/// A job and everything it did.
struct Bench {
    job: Job,
    acts: Vec<JobAct>,
}

impl Bench {
    /// So many hosts `h0`, `h1`, … with two slots each, and ranks dealt one by one.
    fn new(hosts: u32, ranks: u32, bootstrap: Bootstrap) -> Self {
        Self::with(hosts, ranks, bootstrap, OnFailure::End)
    }

    /// As [`Bench::new`], for a job that may go on.
    fn with(hosts: u32, ranks: u32, bootstrap: Bootstrap, on_failure: OnFailure) -> Self {
        let mut list = HostList::new();
        for i in 0..hosts {
            let (name, origin) = (format!("h{i}"), Origin::Default);
            list.add(HostSpec { name, address: None, slots: 2, max_slots: None, port: None, origin }).unwrap();
        }
        let placed = (0..ranks).map(|r| Placed { host: HostIndex(r % hosts), local_rank: r / hosts, app: 0 }).collect();
        let insists = bootstrap == Bootstrap::Pmi;
        let worlds = vec![World { spec: spec(ranks, bootstrap), placed, insists }];
        let job = Job::new(JobSetup { stamp: STAMP, hosts: list, worlds, on_failure, grace_ms: GRACE_MS });
        Self { job, acts: Vec::new() }
    }

    /// One rank on each of so many hosts, all running.
    fn running(ranks: u32) -> Self {
        Self::new(ranks, ranks, Bootstrap::Pmi).all_joined()
    }

    fn all_joined(mut self) -> Self {
        let hosts = self.job.table.hosts.len() as u32;
        self.join(&(0..hosts).collect::<Vec<_>>());
        self
    }

    fn collect(&mut self) -> &mut Self {
        self.acts.extend(self.job.take_acts());
        self
    }

    fn tell<M: Message>(&mut self, host: u32, message: &M) -> &mut Self {
        self.job.frame(&STAMP.frame(HostIndex(host), message));
        self.collect()
    }

    fn join(&mut self, hosts: &[u32]) -> &mut Self {
        self.tell(u32::MAX, &Joined { hosts: hosts.iter().map(|h| HostIndex(*h)).collect() })
    }

    /// All processes so far run.
    fn started(&mut self) -> &mut Self {
        let procs = (0..self.job.table.procs_ever).map(|p| ProcStarted { proc: ProcId(p), pid: 50 + p }).collect();
        self.tell(0, &Started { procs })
    }

    fn init(&mut self, rank: u32) -> &mut Self {
        self.tell(rank, &Initialised { group: Group(0), rank: Rank(rank) })
    }

    fn exit(&mut self, proc: u32, end: ProcEnd, phase: Phase) -> &mut Self {
        let killed = self.job.stage >= Stage::Ending;
        self.told_exit(proc, end, phase, killed)
    }

    /// An end as its host tells it.
    fn told_exit(&mut self, proc: u32, end: ProcEnd, phase: Phase, killed: bool) -> &mut Self {
        let host = self.job.table.proc(ProcId(proc)).map_or(0, |p| p.host.0);
        let exit = ProcExit { proc: ProcId(proc), end, phase, maxrss_kib: 0, killed };
        self.tell(host, &Exits { procs: vec![exit] })
    }

    fn returns(&mut self, proc: u32, code: u8) -> &mut Self {
        self.exit(proc, ProcEnd::Exited(code), Phase::Finalised)
    }

    fn dies(&mut self, proc: u32) -> &mut Self {
        self.exit(proc, ProcEnd::Signaled { signal: 15, core: false, memory: None }, Phase::Initialised)
    }

    fn ended(&mut self, host: u32) -> &mut Self {
        self.tell(host, &Ended { hosts: [HostIndex(host)].into_iter().collect(), streams: vec![], survivors: vec![] })
    }

    fn lose(&mut self, host: u32) -> &mut Self {
        self.tell(host, &Lost { host: HostIndex(host), why: "closed".into() })
    }

    /// The ranks that are left die and all hosts confirm.
    fn finish(&mut self) -> (Outcome, Option<String>) {
        for proc in 0..self.job.table.procs_ever {
            self.dies(proc);
        }
        for host in 0..self.job.table.hosts.len() {
            self.ended(host as u32);
        }
        let overs: Vec<_> = self.acts.iter().filter(|a| matches!(a, JobAct::Over { .. })).collect();
        let [JobAct::Over { outcome, cause }] = overs.as_slice() else { panic!("{overs:?}") };
        (*outcome, cause.as_ref().map(Cause::to_string))
    }

    /// Frames that went down, of one kind: to whom and what.
    fn down<M: Message>(&self) -> Vec<(HostIndex, M)> {
        let sent = |a: &JobAct| match a {
            JobAct::Down(f) if f.header.kind == M::KIND => Some((f.header.host, M::read(f).unwrap())),
            _ => None,
        };
        self.acts.iter().filter_map(sent).collect()
    }

    fn kills(&self) -> Vec<u64> {
        self.down::<Kill>().into_iter().filter(|(h, _)| *h == EVERY_HOST).map(|(_, k)| k.grace_ms).collect()
    }

    fn events(&self) -> Vec<&Event> {
        self.acts.iter().filter_map(|a| if let JobAct::Emit(e) = a { Some(e) } else { None }).collect()
    }
}

fn told(outcome: Outcome, cause: &str) -> (Outcome, Option<String>) {
    (outcome, Some(cause.to_owned()))
}

fn call(proc: u32, token: u64, ask: Ask) -> Call {
    Call { proc: ProcId(proc), token, ask }
}

fn app(count: u32, info: &[(&str, &str)]) -> SpawnApp {
    let info = info.iter().map(|(k, v)| EnvVar { name: (*k).into(), value: Some((*v).into()) }).collect();
    SpawnApp { argv: vec!["worker".into()], count, info, env: Vec::new() }
}
