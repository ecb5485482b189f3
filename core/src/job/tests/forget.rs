//! Spawned groups that are over, and those that somebody may still ask about.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::message::{Answer, CallAnswer, Dead, Fetch, Forget, FoundItem, KeyValue, Part, Purpose};
use proptest::prelude::*;

use super::*;

const NOBODY: [u32; 0] = [];

/// Two hosts with a rank each, which have initialised.
fn parents(on_failure: OnFailure) -> Bench {
    let mut bench = Bench::with(2, 2, Bootstrap::Pmix, on_failure).all_joined();
    bench.started().init(0).init(1);
    bench
}

fn forgotten(bench: &Bench) -> Vec<u32> {
    let told = bench.down::<Forget>();
    assert!(told.iter().all(|(to, _)| *to == EVERY_HOST));
    told.into_iter().flat_map(|(_, m)| m.groups).flat_map(|s| s.first.0..s.first.0 + s.count).collect()
}

/// Hosts number their calls upward.
fn next_token(bench: &Bench) -> u64 {
    100 + bench.acts.len() as u64
}

fn spawn(bench: &mut Bench, by: u32, count: u32) -> Group {
    let token = next_token(bench);
    let host = bench.job.table.proc(ProcId(by)).map_or(0, |p| p.host.0);
    bench.tell(host, &call(by, token, Ask::Spawn { apps: vec![app(count, &[])], preput: vec![] }));
    Group(bench.job.table.groups_ever - 1)
}

fn whole(group: Group) -> Part {
    Part { group, rank: None }
}

/// Living processes of these groups, one on each host.
fn speakers(bench: &Bench, groups: &[Group]) -> BTreeMap<u32, u32> {
    let mut speakers = BTreeMap::new();
    for state in groups.iter().filter_map(|group| bench.job.table.groups.get(group)) {
        for proc in state.procs.iter().filter(|p| p.ended.is_none() && !p.lost) {
            speakers.entry(proc.host.0).or_insert(state.spec.first_proc.0 + proc.rank.0);
        }
    }
    speakers
}

/// Every host with a living participant comes.
fn meet(bench: &mut Bench, purpose: Purpose, groups: &[Group]) {
    let token = next_token(bench);
    for (host, proc) in speakers(bench, groups) {
        let parts = groups.iter().copied().map(whole).collect();
        let ask = Ask::Gather { purpose, name: String::new(), parts, data: vec![].into(), context: false };
        bench.tell(host, &call(proc, token, ask));
    }
}

fn end(bench: &mut Bench, group: Group) {
    let procs: Vec<u32> = bench.job.table.groups.get(&group).map_or_else(Vec::new, |state| {
        state.procs.iter().filter(|p| p.ended.is_none()).map(|p| state.spec.first_proc.0 + p.rank.0).collect()
    });
    for proc in procs {
        bench.returns(proc, 0);
    }
}

/// Nothing of any spawned group is left.
fn assert_nothing_left(bench: &Bench) {
    let job = &bench.job;
    assert_eq!(job.table.groups.keys().collect::<Vec<_>>(), [&Group(0)]);
    assert_eq!((job.table.firsts.len(), job.survival.is_told_of(Group(1))), (1, false));
    assert!(job.exchange.ties.is_empty());
    assert!(!job.exchange.pending.any_of(ProcId(2), ProcId(u32::MAX)));
    assert!((2..job.table.procs_ever).all(|proc| !job.answers.remembers(ProcId(proc))));
}

#[test]
fn a_job_spawns_and_disconnects_for_ever_and_the_hosts_forget() {
    for leaves in [Purpose::Disconnect, Purpose::Fence] {
        let mut bench = parents(OnFailure::End);
        for round in 0..500 {
            let group = spawn(&mut bench, round % 2, 3);
            meet(&mut bench, Purpose::Connect, &[Group(0), group]);
            meet(&mut bench, leaves, &[Group(0), group]);
            assert_eq!(forgotten(&bench).len(), round as usize);
            end(&mut bench, group);
        }
        assert_eq!(forgotten(&bench), (1..=500).collect::<Vec<_>>());
        assert_nothing_left(&bench);
    }
}

#[test]
fn a_group_that_has_ended_is_kept_while_somebody_is_connected_to_it() {
    let mut bench = parents(OnFailure::End);
    let (child, other) = (spawn(&mut bench, 0, 2), spawn(&mut bench, 0, 2));
    for group in [child, other] {
        meet(&mut bench, Purpose::Connect, &[Group(0), group]);
    }
    meet(&mut bench, Purpose::Connect, &[child, other]);
    end(&mut bench, child);
    assert_eq!(forgotten(&bench), NOBODY, "its parents may still want to leave it");
    meet(&mut bench, Purpose::Fence, &[Group(0), child]);
    assert_eq!(forgotten(&bench), NOBODY, "and so may the other group");
    end(&mut bench, other);
    assert_eq!(forgotten(&bench), [child.0], "nobody is left who could");
    meet(&mut bench, Purpose::Fence, &[Group(0), other]);
    assert_eq!(forgotten(&bench), [child.0, other.0]);
    assert_nothing_left(&bench);
}

#[test]
fn a_group_is_kept_for_what_is_asked_in_the_name_of_its_ranks_or_names_it() {
    let mut bench = parents(OnFailure::End);
    let child = spawn(&mut bench, 0, 2);
    // The host of child 0 asks for data of rank 1, and the hosts of ranks 0 and 1 are about to meet about the child.
    bench.tell(0, &call(2, 7, Ask::Fetch { group: Group(0), rank: Rank(1) }));
    let parts = vec![Part { group: Group(0), rank: Some(Rank(0)) }, Part { group: Group(0), rank: Some(Rank(1)) }];
    let parts: Vec<Part> = parts.into_iter().chain([whole(child)]).collect();
    let ask = |parts: Vec<Part>| Ask::Gather {
        purpose: Purpose::Fence,
        name: String::new(),
        parts,
        data: vec![].into(),
        context: false,
    };
    bench.tell(0, &call(0, 1, ask(parts.clone())));
    end(&mut bench, child);
    assert_eq!(forgotten(&bench), NOBODY);
    bench.tell(1, &call(1, 1, ask(parts)));
    assert_eq!(forgotten(&bench), NOBODY, "the data are still waited for");
    let ticket = bench.down::<Fetch>()[0].1.ticket;
    let fetched = muster_protocol::message::Fetched { ticket, status: 0, data: vec![1].into() };
    bench.tell(1, &fetched);
    assert_eq!(forgotten(&bench), [child.0]);
    assert_nothing_left(&bench);
}

#[test]
fn who_waits_for_data_of_a_group_that_is_over_hears_that_there_are_none() {
    let mut bench = parents(OnFailure::End);
    let child = spawn(&mut bench, 0, 2);
    bench.tell(0, &call(0, 3, Ask::Fetch { group: child, rank: Rank(1) }));
    end(&mut bench, child);
    assert_eq!(forgotten(&bench), [child.0]);
    let (_, answer) = bench.down::<CallAnswer>().pop().unwrap();
    assert!(matches!(answer.answer, Answer::Data { status: -46, .. }), "{answer:?}");
}

#[test]
fn what_a_group_has_published_outlives_it() {
    let mut bench = parents(OnFailure::End);
    let child = spawn(&mut bench, 0, 1);
    let host = bench.job.table.groups[&child].procs[0].host.0;
    let item = KeyValue { key: b"k".to_vec().into(), value: b"v".to_vec().into() };
    bench.tell(host, &call(2, 0, Ask::Put { items: vec![item.clone()], once: false }));
    end(&mut bench, child);
    assert_eq!(forgotten(&bench), [child.0]);
    bench.tell(0, &call(0, 5, Ask::Find { keys: vec!["k".into()], wait_ms: Some(0) }));
    let (_, answer) = bench.down::<CallAnswer>().pop().unwrap();
    let found = FoundItem { group: child, rank: Rank(0), item };
    assert_eq!(answer.answer, Answer::Items { items: vec![found] });
}

#[test]
fn children_that_die_with_their_host_are_forgotten_when_the_others_have_left_them() {
    let mut bench = parents(OnFailure::Continue);
    bench.tell(0, &call(0, 1, Ask::Spawn { apps: vec![app(2, &[("host", "h1")])], preput: vec![] }));
    let child = Group(1);
    bench.tell(1, &Initialised { group: child, rank: Rank(0) });
    meet(&mut bench, Purpose::Connect, &[Group(0), child]);
    bench.lose(1);
    assert_eq!(bench.down::<Dead>().into_iter().filter(|(_, m)| m.group == child).count(), 1);
    assert_eq!(forgotten(&bench), NOBODY);
    meet(&mut bench, Purpose::Fence, &[Group(0), child]);
    assert_eq!(forgotten(&bench), [child.0]);
    assert_nothing_left(&bench);
    // One that nobody is connected to.
    let lonely = spawn(&mut bench, 0, 2);
    assert!(bench.job.table.groups[&lonely].procs.iter().all(|p| p.host == HostIndex(0)));
    for proc in [4, 5] {
        bench.exit(proc, ProcEnd::Signaled { signal: 9, core: false, memory: None }, Phase::Initialised);
    }
    assert_eq!(forgotten(&bench), [child.0, lonely.0]);
    assert_nothing_left(&bench);
}

/// One thing that may happen while a job spawns.
#[derive(Debug, Clone)]
enum Step {
    Spawn(usize, u32),
    Connect(usize, usize),
    Leave(usize, usize, bool),
    End(usize),
    Die(usize, u32),
    LoseHost,
}

fn step() -> impl Strategy<Value = Step> {
    let group = || 0usize..8;
    prop_oneof![
        4 => (group(), 1u32..4).prop_map(|(by, count)| Step::Spawn(by, count)),
        4 => (group(), group()).prop_map(|(a, b)| Step::Connect(a, b)),
        3 => (group(), group(), any::<bool>()).prop_map(|(a, b, fence)| Step::Leave(a, b, fence)),
        4 => group().prop_map(Step::End),
        1 => (group(), 0u32..3).prop_map(|(group, rank)| Step::Die(group, rank)),
        1 => Just(Step::LoseHost),
    ]
}

/// What a bystander knows of who is connected to whom.
#[derive(Default)]
struct Model {
    tied: BTreeMap<BTreeSet<Group>, u32>,
    forgotten: usize,
}

impl Model {
    fn apply(&mut self, bench: &mut Bench, step: &Step) {
        let groups: Vec<Group> = bench.job.table.groups.keys().copied().collect();
        let pick = |which: usize| groups[which % groups.len()];
        let alive = |bench: &Bench, group| bench.job.table.is_alive(group);
        match *step {
            Step::Spawn(by, count) => {
                let first = bench.job.table.groups[&pick(by)].spec.first_proc.0;
                if bench.job.table.proc(ProcId(first)).is_some_and(|p| p.ended.is_none() && !p.lost) {
                    spawn(bench, first, count);
                }
            }
            Step::Connect(a, b) if a % groups.len() != b % groups.len() => {
                let pair = [pick(a), pick(b)];
                if pair.iter().any(|group| alive(bench, *group)) {
                    *self.tied.entry(pair.into()).or_default() += 1;
                    meet(bench, Purpose::Connect, &pair);
                }
            }
            Step::Leave(a, b, fence) if a % groups.len() != b % groups.len() => {
                let pair = [pick(a), pick(b)];
                if pair.iter().any(|group| alive(bench, *group)) {
                    let times = self.tied.entry(pair.into()).or_default();
                    *times = times.saturating_sub(1);
                    meet(bench, if fence { Purpose::Fence } else { Purpose::Disconnect }, &pair);
                }
            }
            Step::End(which) if pick(which) != Group(0) => end(bench, pick(which)),
            Step::Die(which, rank) if pick(which) != Group(0) => {
                let state = &bench.job.table.groups[&pick(which)];
                let proc = state.spec.first_proc.0 + rank % state.spec.size;
                bench.exit(proc, ProcEnd::Signaled { signal: 9, core: false, memory: None }, Phase::Initialised);
            }
            Step::LoseHost => {
                bench.lose(1);
            }
            _ => {}
        }
    }

    /// Whether hosts may not forget a group.
    fn holds(&self, bench: &Bench, group: Group) -> bool {
        let other_lives = |pair: &BTreeSet<Group>| pair.iter().any(|g| *g != group && bench.job.table.is_alive(*g));
        bench.job.table.is_alive(group)
            || self.tied.iter().any(|(pair, times)| *times > 0 && pair.contains(&group) && other_lives(pair))
    }
}

proptest! {
    #[test]
    fn a_group_is_forgotten_once_as_soon_as_nobody_can_ask_about_it_and_not_before(
        steps in proptest::collection::vec(step(), 0..60)) {
        let mut bench = parents(OnFailure::Continue);
        let mut model = Model::default();
        for step in &steps {
            model.apply(&mut bench, step);
            let told = forgotten(&bench);
            for group in &told[model.forgotten..] {
                prop_assert!(!model.holds(&bench, Group(*group)), "{group} after {step:?}");
            }
            model.forgotten = told.len();
            for group in 1..bench.job.table.groups_ever {
                let count = told.iter().filter(|g| **g == group).count();
                prop_assert_eq!(count, usize::from(!model.holds(&bench, Group(group))), "{} after {:?}", group, step);
            }
            prop_assert!(bench.job.running());
        }
        // All that is left ends and leaves.
        for group in (1..bench.job.table.groups_ever).map(Group) {
            end(&mut bench, group);
        }
        let pairs: Vec<_> = model.tied.iter().filter(|(_, times)| **times > 0).collect();
        for (pair, times) in pairs {
            for _ in 0..*times {
                meet(&mut bench, Purpose::Disconnect, &pair.iter().copied().collect::<Vec<_>>());
            }
        }
        assert_nothing_left(&bench);
    }
}
