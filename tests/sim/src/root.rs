//! The launcher: what its shell does around the root of the tree and the job.

use std::collections::BTreeSet;

use muster_core::exit::Outcome;
use muster_core::hosts::{HostList, HostSpec, Origin};
use muster_core::job::{Cause, Job, JobAct, JobSetup, World};
use muster_core::plan::{OnFailure, Placed};
use muster_core::tree::{Act, TreeNode};
use muster_protocol::event::Event;
use muster_protocol::frame::Kind;
use muster_protocol::message::{Adopt, App, Bootstrap, HostEntry, Spec, Stamp, StdinTo};
use muster_protocol::{Epoch, Generation, Group, HostIndex, HostSet, ProcId};

use crate::scenario::Scenario;

/// Stamp of every job here.
pub const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };

/// The launcher.
#[derive(Debug)]
pub struct Root {
    /// The root of the tree.
    pub tree: TreeNode,
    /// The job.
    pub job: Job,
    radix: u32,
    /// How it ended, once for every time it said so, and when.
    pub over: Vec<(u64, Outcome, Option<Cause>)>,
    /// Everything it told the world, and when.
    pub events: Vec<(u64, Event)>,
    /// Kinds of the frames that came up, and from which host.
    pub heard: Vec<(Kind, HostIndex)>,
    /// What it did after it had said that the job is over.
    pub after_over: Vec<String>,
    /// Processes whose output it still waits for.
    pub owed: BTreeSet<ProcId>,
    /// It has closed its connections.
    pub gone: bool,
}

impl Root {
    /// A launcher that begins to connect.
    pub fn new(scenario: &Scenario) -> Self {
        let mut tree = TreeNode::new(None, STAMP);
        let hosts = (0..scenario.hosts).map(entry).collect();
        tree.adopt(Adopt { hosts, radix: scenario.radix }, 0);
        let setup = setup(scenario);
        let mute = (0..)
            .zip(setup.worlds.iter().flat_map(|world| &world.placed))
            .filter(|(_, at)| scenario.mute.contains(&at.host));
        let owed = mute.map(|(proc, _)| ProcId(proc)).collect();
        let job = Job::new(setup);
        let radix = scenario.radix;
        Self {
            tree,
            job,
            radix,
            over: Vec::new(),
            events: Vec::new(),
            heard: Vec::new(),
            after_over: Vec::new(),
            owed,
            gone: false,
        }
    }

    /// Decides everything that follows from what happened. What is to be done on the network is added to `acts`.
    pub fn settle(&mut self, now_us: u64, acts: &mut Vec<Act>) -> Vec<Event> {
        let mut news = Vec::new();
        loop {
            let tree_acts = self.tree.take_acts();
            let idle = tree_acts.is_empty();
            for act in tree_acts {
                match act {
                    Act::Up(frame) => {
                        self.heard.push((frame.header.kind, frame.header.host));
                        self.job.frame(&frame);
                    }
                    other => acts.push(other),
                }
            }
            let job_acts = self.job.take_acts();
            if idle && job_acts.is_empty() {
                return news;
            }
            for act in job_acts {
                if !self.over.is_empty() && !matches!(act, JobAct::OutputLost(_)) {
                    self.after_over.push(format!("{act:?}"));
                }
                match act {
                    JobAct::Down(frame) => self.tree.from_parent(frame, now_us / 1_000),
                    JobAct::Emit(event) => {
                        news.push(event.clone());
                        self.events.push((now_us, event));
                    }
                    JobAct::Redial(host) => {
                        let order = Adopt { hosts: vec![entry(host.0)], radix: self.radix };
                        self.tree.adopt(order, now_us / 1_000);
                    }
                    JobAct::Over { outcome, cause } => self.over.push((now_us, outcome, cause)),
                    JobAct::OutputLost(procs) => self.owed.retain(|proc| !procs.contains(proc)),
                    JobAct::StreamsEnd(_) | JobAct::NewGroup(..) => {}
                }
            }
        }
    }
}

fn entry(index: u32) -> HostEntry {
    HostEntry { index: HostIndex(index), name: host_name(index), port: 2222, address: None }
}

/// A host's name.
pub fn host_name(index: u32) -> String {
    format!("h{index}")
}

fn setup(scenario: &Scenario) -> JobSetup {
    let mut hosts = HostList::new();
    let mut placed = Vec::new();
    for i in 0..scenario.hosts {
        let spec = HostSpec {
            name: host_name(i),
            address: None,
            slots: scenario.ranks_per_host,
            max_slots: None,
            port: None,
            origin: Origin::Default,
        };
        hosts.add(spec).expect("a short list of different names is a host list");
        if i % scenario.idle_every != scenario.idle_every - 1 || scenario.hosts == 1 {
            placed.extend((0..scenario.ranks_per_host).map(|r| Placed { host: HostIndex(i), local_rank: r, app: 0 }));
        }
    }
    JobSetup {
        stamp: STAMP,
        hosts,
        worlds: vec![World { spec: spec(placed.len() as u32), placed, insists: true }],
        on_failure: OnFailure::End,
        grace_ms: scenario.grace_ms,
    }
}

fn spec(size: u32) -> Spec {
    Spec {
        group: Group(0),
        size,
        first_proc: ProcId(0),
        members: HostSet::new(),
        apps: vec![App { argv: vec!["program".to_owned()], wdir: None, env: Vec::new() }],
        bootstrap: Bootstrap::Pmi,
        kvsname: "kvs_0".to_owned(),
        mapping: None,
        universe_size: -1,
        preput: Vec::new(),
        stdin: StdinTo::Nobody,
        umask: None,
        rlimits: Vec::new(),
        window_bytes: 0,
        job: "sim".to_owned(),
        env: Vec::new(),
        pmix: None,
        spawned_by: None,
    }
}
