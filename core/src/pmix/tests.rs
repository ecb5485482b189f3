//! One host's PMIx service, without a process and without a tree.

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use muster_protocol::message::{Answer, Ask, DeadRank, EnvVar, FoundItem, KeyValue, Part, PmixHost, Purpose, Run};
use muster_protocol::pmix::{
    FromPmix, GroupOp, Item, LocalRank, Namespace, Proc, RANK_WILDCARD, SpawnProgram, ToPmix, Value,
};
use muster_protocol::{Group, Rank};

use super::company;
use super::*;
use crate::pmi::Phase;

const G: Group = Group(0);

fn namespace(name: &str, local: &[u32]) -> Namespace {
    let rank = |rank: &u32| LocalRank { rank: *rank, app: 0, cpus: Vec::new() };
    Namespace {
        name: name.into(),
        size: 4,
        universe: 4,
        nodes: vec!["a".into(), "b".into()],
        runs: vec![Run { node: 0, ranks: 2 }, Run { node: 1, ranks: 2 }],
        node: 0,
        apps: vec![4],
        local: local.iter().map(rank).collect(),
        parent: None,
        first_node_rank: 0,
        folder: "f/0".into(),
    }
}

fn proc(rank: u32) -> Proc {
    Proc { namespace: "ns".into(), rank }
}

fn all() -> Vec<Proc> {
    vec![proc(RANK_WILDCARD)]
}

fn bytes(text: &str) -> ByteVec {
    ByteVec::from(text.as_bytes().to_vec())
}

/// A host with two ranks, on a machine of its own with four cores.
fn told(host: &str, version: &str) -> Bytes {
    let machine = if host == "a" { 5 } else { 6 };
    company::told(host, &PmixHost { version: version.into(), machine, ranks: 2, share: 0 })
}

/// The server with what it has asked of its agent.
struct Bench {
    server: Server,
    out: Vec<Action>,
}

impl Bench {
    /// Nothing is said yet.
    fn silent() -> Self {
        let setup = Setup {
            libraries: vec!["l".into()],
            folder: "f".into(),
            host: "a".into(),
            owner: (7, 8),
            scratch: vec!["f".into()],
            machine: Machine { id: 5, cores: 4, share: 0, usable: 4 },
        };
        let mut out = Vec::new();
        let server = Server::new(setup, &mut out);
        Self { server, out }
    }

    /// Ranks 0 and 1 of four run here.
    fn running() -> Self {
        let mut bench = Self::silent();
        bench.server.open(G, namespace("ns", &[0, 1]), &mut bench.out);
        bench.says(FromPmix::Ready { version: "4.2.2".into(), library: "l".into() });
        bench.says(FromPmix::Registered { namespace: "ns".into(), environments: vec![Vec::new(), Vec::new()] });
        bench.fence(0, told("b", "4.2.2"));
        assert!(matches!(bench.take().last(), Some(Action::Start { group: G, .. })));
        bench
    }

    fn says(&mut self, message: FromPmix) -> &mut Self {
        self.server.input(message, &mut self.out);
        self
    }

    fn fence(&mut self, seq: u64, result: Bytes) -> &mut Self {
        self.server.fence_done(G, seq, result, &mut self.out);
        self
    }

    fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    /// Asks, and gives the token and the question that go to the root.
    fn asks(&mut self, message: FromPmix) -> (u64, Ask) {
        self.says(message);
        match self.take().as_slice() {
            [Action::Upcall { group: G, token, ask, .. }] => (*token, ask.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn answered(&mut self, token: u64, answer: Answer) -> ToPmix {
        self.server.answer(token, answer, &mut self.out);
        match self.take().as_slice() {
            [Action::Send(message)] => message.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_namespace_that_is_not_registered_ends_its_group_and_no_other() {
    let mut bench = Bench::running();
    bench.server.open(Group(1), Namespace { folder: "f/1".into(), ..namespace("other", &[0]) }, &mut bench.out);
    bench.take();
    bench.says(FromPmix::NotRegistered { namespace: "other".into(), why: "no room".into() });
    assert_eq!(bench.take(), [Action::Failed(Group(1), "no room".into())]);
    bench.says(FromPmix::NotRegistered { namespace: "nobody's".into(), why: "no room".into() });
    assert_eq!(bench.take(), []);
    // The other goes on.
    bench.says(FromPmix::Drained { proc: proc(1) });
    assert_eq!(bench.take(), [Action::Drained(G, Rank(1))]);
}

#[test]
fn ranks_start_when_the_library_knows_them_and_the_hosts_have_compared_theirs() {
    let mut bench = Bench::silent();
    let start =
        ToPmix::Start { libraries: vec!["l".into()], folder: "f".into(), host: "a".into(), scratch: vec!["f".into()] };
    assert_eq!(bench.take(), [Action::Send(start)]);
    bench.server.open(G, namespace("ns", &[0, 1]), &mut bench.out);
    assert_eq!(bench.take(), [], "the server does not run yet");
    bench.says(FromPmix::Ready { version: "4.2.2".into(), library: "l".into() });
    let register = ToPmix::Register { namespace: namespace("ns", &[0, 1]), uid: 7, gid: 8 };
    assert_eq!(bench.take(), [Action::Send(register)]);
    let environments = vec![vec![EnvVar { name: "PMIX_RANK".into(), value: Some("0".into()) }], Vec::new()];
    bench.says(FromPmix::Registered { namespace: "ns".into(), environments: environments.clone() });
    assert_eq!(bench.take(), [Action::Fence { group: G, seq: 0, blob: told("a", "4.2.2") }]);
    let result = [told("a", "4.2.2"), told("b", "4.2.9")].concat();
    bench.fence(0, result.clone().into());
    assert_eq!(bench.take(), [Action::Start { group: G, environments, crowded: false }]);
    // It comes again after a change in the tree.
    assert_eq!(bench.fence(0, result.into()).take(), []);
}

#[test]
fn spawned_ranks_share_cores_with_those_of_hosts_that_have_none_of_them() {
    let mut bench = Bench::silent();
    bench.server.open(G, namespace("ns", &[0, 1]), &mut bench.out);
    bench.says(FromPmix::Ready { version: "4.2.2".into(), library: "l".into() });
    bench.says(FromPmix::Registered { namespace: "ns".into(), environments: vec![Vec::new(), Vec::new()] });
    bench.take();
    // Another part of the same machine, which has four cores.
    let on =
        |host: &str, ranks| company::told(host, &PmixHost { version: "4.2.2".into(), machine: 5, ranks, share: 0 });
    bench.fence(0, [on("a", 2), on("c", 2)].concat().into());
    assert!(matches!(bench.take().last(), Some(Action::Start { crowded: false, .. })));
    let mut spawn = |group: u32, told: &[Bytes]| {
        let name = format!("spawned {group}");
        let spawned = Namespace { folder: name.clone(), first_node_rank: 2, ..namespace(&name, &[0]) };
        bench.server.open(Group(group), spawned, &mut bench.out);
        bench.says(FromPmix::Registered { namespace: name, environments: vec![Vec::new()] });
        bench.server.fence_done(Group(group), 0, told.concat().into(), &mut bench.out);
        let crowded = match bench.take().last() {
            Some(Action::Start { crowded, .. }) => *crowded,
            other => panic!("{other:?}"),
        };
        bench.server.forget(Group(group), &mut bench.out);
        crowded
    };
    assert!(spawn(1, &[on("a", 3)]));
    assert!(spawn(2, &[on("a", 3), on("c", 3)]));
    // What was true of a group that is over says nothing of now.
    assert!(!spawn(3, &[on("a", 1)]) && spawn(4, &[on("a", 3)]));
}

#[test]
fn ranks_do_not_start_when_a_host_has_a_library_of_another_series() {
    let mut bench = Bench::silent();
    bench.server.open(G, namespace("ns", &[0]), &mut bench.out);
    bench.says(FromPmix::Ready { version: "3.2.5".into(), library: "l".into() });
    bench.says(FromPmix::Registered { namespace: "ns".into(), environments: vec![Vec::new()] });
    bench.take();
    bench.fence(0, [told("a", "3.2.5"), told("b", "4.2.2")].concat().into());
    match bench.take().as_slice() {
        [Action::Failed(G, why)] => assert!(why.contains("3.2.5 on a; 4.2.2 on b"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fences_of_a_whole_group_go_over_the_tree_one_after_the_other() {
    let mut bench = Bench::running();
    let fence = |token, data| FromPmix::Fence { token, procs: all(), collect: true, data: bytes(data) };
    bench.says(fence(11, "one")).says(fence(12, "two"));
    assert_eq!(bench.take(), [Action::Fence { group: G, seq: 1, blob: Bytes::from("one") }]);
    assert_eq!(bench.server.waiting(G), Some((1, vec![])), "nobody has connected");
    bench.fence(1, Bytes::from("one and others"));
    let data = ToPmix::Data { token: 11, status: status::SUCCESS, data: bytes("one and others") };
    assert_eq!(bench.take(), [Action::Send(data), Action::Fence { group: G, seq: 2, blob: Bytes::from("two") }]);
    assert_eq!(bench.fence(1, Bytes::new()).take(), [], "a result that was taken in before");
    bench.fence(2, Bytes::new());
    assert_eq!(bench.take().len(), 1);
    assert_eq!(bench.server.waiting(G), None);
}

#[test]
fn the_root_hears_of_the_first_rank_and_of_nobody_twice() {
    let mut bench = Bench::running();
    assert_eq!(bench.says(FromPmix::Connected { proc: proc(1) }).take(), [Action::FirstInit(G, Rank(1))]);
    assert_eq!(bench.says(FromPmix::Connected { proc: proc(0) }).take(), []);
    assert_eq!((bench.server.phase(G, 0), bench.server.phase(G, 1)), (Phase::Initialised, Phase::Initialised));
    bench.says(FromPmix::Finalised { proc: proc(0) }).says(FromPmix::Connected { proc: proc(0) });
    assert_eq!((bench.take(), bench.server.phase(G, 0)), (vec![], Phase::Finalised));
    assert_eq!(bench.says(FromPmix::Connected { proc: proc(3) }).take(), [], "no rank of this host");
}

#[test]
fn the_end_of_a_rank_is_told_when_all_it_has_said_was_heard() {
    let mut bench = Bench::running();
    bench.server.exited(G, 1, &mut bench.out);
    assert_eq!(bench.take(), [Action::Send(ToPmix::Ended { proc: proc(1) })]);
    bench.says(FromPmix::Abort { proc: proc(1), status: 7, message: "m".into() });
    bench.says(FromPmix::Drained { proc: proc(1) });
    let abort = Action::Abort { group: G, rank: Rank(1), code: 7, message: "m".into() };
    assert_eq!(bench.take(), [abort, Action::Drained(G, Rank(1))]);
}

#[test]
fn the_death_of_the_server_fails_its_groups_once_and_keeps_no_end_back() {
    let mut bench = Bench::running();
    bench.server.exited(G, 0, &mut bench.out);
    bench.take();
    bench.server.died("it is gone", &mut bench.out);
    assert_eq!(bench.take(), [Action::Failed(G, "it is gone".into()), Action::Drained(G, Rank(0))]);
    bench.server.died("again", &mut bench.out);
    bench.server.exited(G, 1, &mut bench.out);
    assert_eq!(bench.take(), [Action::Drained(G, Rank(1))]);
    bench.server.open(Group(1), namespace("ns1", &[0]), &mut bench.out);
    assert_eq!(bench.take(), [Action::Failed(Group(1), "it is gone".into())], "a group that comes later");
}

#[test]
fn some_ranks_meet_over_the_root_whatever_order_they_are_named_in() {
    let mut bench = Bench::running();
    let fence = FromPmix::Fence { token: 5, procs: vec![proc(3), proc(1)], collect: false, data: bytes("x") };
    let (token, ask) = bench.asks(fence);
    let part = |rank| Part { group: G, rank: Some(Rank(rank)) };
    let want = Ask::Gather {
        purpose: Purpose::Fence,
        name: String::new(),
        parts: vec![part(1), part(3)],
        data: bytes("x"),
        context: false,
    };
    assert_eq!(ask, want);
    let told = bench.answered(token, Answer::Gathered { data: bytes("xy"), context: None });
    assert_eq!(told, ToPmix::Data { token: 5, status: status::SUCCESS, data: bytes("xy") });
    let strangers = vec![Proc { namespace: "unknown".into(), rank: 0 }];
    bench.says(FromPmix::Connect { token: 6, procs: strangers });
    assert_eq!(bench.take(), [Action::Send(ToPmix::Done { token: 6, status: status::NOT_FOUND })]);
}

#[test]
fn a_group_has_its_members_and_a_number() {
    let mut bench = Bench::running();
    let procs = vec![proc(0), proc(1)];
    let group = FromPmix::Group {
        token: 9,
        op: GroupOp::Construct,
        id: "g".into(),
        procs: procs.clone(),
        context: true,
        endpoint: bytes("e"),
    };
    let (token, ask) = bench.asks(group);
    assert!(matches!(ask, Ask::Gather { purpose: Purpose::Construct, context: true, .. }), "{ask:?}");
    let told = bench.answered(token, Answer::Gathered { data: bytes("ee"), context: Some(4) });
    let want =
        ToPmix::Grouped { token: 9, status: status::SUCCESS, members: procs, context: Some(4), endpoint: bytes("ee") };
    assert_eq!(told, want);
}

#[test]
fn published_values_come_back_with_their_owner() {
    let mut bench = Bench::running();
    let item = Item { key: "k".into(), value: Value::Text("v".into()) };
    let publish = FromPmix::Publish { token: 1, proc: proc(0), items: vec![item.clone()], once: true };
    let (token, ask) = bench.asks(publish);
    let Ask::Put { items, once: true } = ask else { panic!("{ask:?}") };
    assert_eq!(bench.answered(token, Answer::Done), ToPmix::Done { token: 1, status: status::SUCCESS });
    let lookup =
        |wait, timeout_s| FromPmix::Lookup { token: 2, proc: proc(1), keys: vec!["k".into()], wait, timeout_s };
    for (wait, timeout_s, want) in [(false, 0, Some(0)), (true, 0, None), (true, 3, Some(3000))] {
        let (token, ask) = bench.asks(lookup(wait, timeout_s));
        assert_eq!(ask, Ask::Find { keys: vec!["k".into()], wait_ms: want });
        let found = FoundItem { group: G, rank: Rank(0), item: items[0].clone() };
        let told = bench.answered(token, Answer::Items { items: vec![found] });
        let want = ToPmix::Found { token: 2, status: status::SUCCESS, items: vec![(proc(0), item.clone())] };
        assert_eq!(told, want);
    }
    let (token, _) = bench.asks(lookup(false, 0));
    let told = bench.answered(token, Answer::Items { items: Vec::new() });
    assert_eq!(told, ToPmix::Found { token: 2, status: status::NOT_FOUND, items: Vec::new() });
    let (token, _) = bench.asks(lookup(false, 0));
    let broken = KeyValue { key: bytes("k"), value: bytes("no value of ours") };
    let found = FoundItem { group: G, rank: Rank(0), item: broken };
    let told = bench.answered(token, Answer::Items { items: vec![found] });
    assert!(matches!(told, ToPmix::Found { items, .. } if items.is_empty()));
}

#[test]
fn data_of_a_rank_elsewhere_are_fetched_and_those_of_one_here_are_given() {
    let mut bench = Bench::running();
    let (token, ask) = bench.asks(FromPmix::Modex { token: 3, proc: proc(2) });
    assert_eq!(ask, Ask::Fetch { group: G, rank: Rank(2) });
    let told = bench.answered(token, Answer::Data { status: status::NOT_FOUND, data: bytes("") });
    assert_eq!(told, ToPmix::Data { token: 3, status: status::NOT_FOUND, data: bytes("") });
    bench.server.fetch(40, G, Rank(1), &mut bench.out);
    assert_eq!(bench.take(), [Action::Send(ToPmix::Fetch { token: 40, proc: proc(1) })]);
}

#[test]
fn a_spawn_says_what_the_program_wants_in_words_that_the_root_knows() {
    let mut bench = Bench::running();
    let var = |name: &str, value: &str| EnvVar { name: name.into(), value: Some(value.into()) };
    let program = SpawnProgram {
        program: "./child".into(),
        argv: vec!["child".into(), "x".into()],
        env: vec!["OMPI_PARENT_PORT=p=1".into(), "PMIX_RANK=1".into(), "OMPI_MCA_btl_sm_backing_directory=/x".into()],
        wdir: Some("/w".into()),
        count: 2,
        info: vec![var("pmix.host", "b")],
    };
    let spawn = FromPmix::Spawn { token: 8, parent: proc(1), info: Vec::new(), apps: vec![program] };
    let (token, ask) = bench.asks(spawn);
    let Ask::Spawn { apps, .. } = ask else { panic!("{ask:?}") };
    assert_eq!((apps[0].argv.clone(), apps[0].count), (vec!["./child".to_owned(), "x".to_owned()], 2));
    assert_eq!(apps[0].info, [var("host", "b"), var("wdir", "/w")]);
    assert_eq!(apps[0].env, [var("OMPI_PARENT_PORT", "p=1")]);
    let told = bench.answered(token, Answer::Spawned { kvsname: "ns_1".into(), count: 2 });
    assert_eq!(told, ToPmix::Spawned { token: 8, status: status::SUCCESS, namespace: "ns_1".into() });
    // The spawned ranks run elsewhere; those here may connect to them.
    bench.server.know(Group(1), namespace("ns_1", &[]), &mut bench.out);
    assert!(matches!(bench.take().as_slice(), [Action::Send(ToPmix::Register { .. })]));
    let procs = vec![Proc { namespace: "ns_1".into(), rank: RANK_WILDCARD }, proc(RANK_WILDCARD)];
    let (_, ask) = bench.asks(FromPmix::Connect { token: 9, procs });
    let whole = |group| Part { group: Group(group), rank: None };
    assert!(matches!(ask, Ask::Gather { parts, .. } if parts == [whole(0), whole(1)]));
}

#[test]
fn the_living_hear_of_each_of_the_dead_once() {
    let mut bench = Bench::running();
    let dead = |rank, violent| DeadRank { rank: Rank(rank), violent };
    bench.server.dead(G, &[dead(2, true)], &mut bench.out);
    let told = |event, rank| Action::Send(ToPmix::Notify { event, procs: vec![proc(rank)] });
    assert_eq!(bench.take(), [told(status::ABORTED_BY_SIGNAL, 2)]);
    bench.server.dead(G, &[dead(2, true), dead(3, false)], &mut bench.out);
    assert_eq!(bench.take(), [told(status::TERMINATED_WITHOUT_SYNC, 3)]);
    for local in [0, 1] {
        bench.server.exited(G, local, &mut bench.out);
    }
    bench.take();
    bench.server.dead(G, &[dead(1, true)], &mut bench.out);
    assert_eq!(bench.take(), [], "nobody lives here");
}

#[test]
fn a_group_that_is_over_is_forgotten_here_and_by_the_library() {
    let mut bench = Bench::running();
    let empty = format!("{:?}", bench.server);
    for round in 0..3 {
        let (here, elsewhere) = (Group(1 + 2 * round), Group(2 + 2 * round));
        let name = |group: Group| format!("ns_{group}");
        let folder = Namespace { folder: "f/1".into(), ..namespace(&name(here), &[0]) };
        bench.server.open(here, folder, &mut bench.out);
        bench.server.know(elsewhere, namespace(&name(elsewhere), &[]), &mut bench.out);
        bench.take();
        // Its rank looks something up, and dies of something else.
        let asker = Proc { namespace: name(here), rank: 0 };
        let lookup = FromPmix::Lookup { token: 5, proc: asker, keys: vec!["k".into()], wait: true, timeout_s: 0 };
        bench.says(lookup);
        bench.server.exited(here, 0, &mut bench.out);
        bench.server.dead(here, &[DeadRank { rank: Rank(0), violent: true }], &mut bench.out);
        bench.take();
        bench.server.forget(here, &mut bench.out);
        let unanswered = Action::Send(ToPmix::Found { token: 5, status: status::ERROR, items: Vec::new() });
        let deregister = |group| Action::Send(ToPmix::Deregister { namespace: name(group) });
        assert_eq!(bench.take(), [unanswered, deregister(here)]);
        bench.server.forget(elsewhere, &mut bench.out);
        assert_eq!(bench.take(), [deregister(elsewhere)]);
        // It is heard of twice by a host with a new parent, and the library may still have something to say.
        bench.server.forget(here, &mut bench.out);
        bench.says(FromPmix::Drained { proc: Proc { namespace: name(here), rank: 0 } });
        assert_eq!(bench.take(), []);
        bench.server.next_token = 0;
        assert_eq!(format!("{:?}", bench.server), empty, "nothing is left of it");
    }
}

#[test]
fn values_of_a_group_that_is_over_come_back_with_its_name() {
    let mut bench = Bench::running();
    bench.server.know(Group(3), namespace("ns_3", &[]), &mut bench.out);
    bench.server.forget(Group(3), &mut bench.out);
    bench.take();
    let lookup = FromPmix::Lookup { token: 2, proc: proc(1), keys: vec!["k".into()], wait: false, timeout_s: 0 };
    let (token, _) = bench.asks(lookup);
    let item = Item { key: "k".into(), value: Value::Text("v".into()) };
    let value = minicbor::to_vec(&item.value).unwrap().into();
    let found = FoundItem { group: Group(3), rank: Rank(1), item: KeyValue { key: bytes("k"), value } };
    let told = bench.answered(token, Answer::Items { items: vec![found] });
    let owner = Proc { namespace: "ns_3".into(), rank: 1 };
    assert_eq!(told, ToPmix::Found { token: 2, status: status::SUCCESS, items: vec![(owner, item)] });
}

#[test]
fn a_group_that_is_over_before_the_server_runs_is_never_registered() {
    let mut bench = Bench::silent();
    bench.server.open(G, namespace("ns", &[0]), &mut bench.out);
    bench.server.know(Group(1), namespace("ns_1", &[]), &mut bench.out);
    bench.take();
    bench.server.forget(Group(1), &mut bench.out);
    assert_eq!(bench.take(), []);
    bench.says(FromPmix::Ready { version: "4.2.2".into(), library: "l".into() });
    let register = ToPmix::Register { namespace: namespace("ns", &[0]), uid: 7, gid: 8 };
    assert_eq!(bench.take(), [Action::Send(register)]);
}

#[test]
fn a_meeting_with_a_group_that_is_over_is_for_the_root_to_judge() {
    let mut bench = Bench::silent();
    bench.server.open(G, namespace("kvs_7_0", &[0, 1]), &mut bench.out);
    bench.server.know(Group(1), namespace("kvs_7_1", &[]), &mut bench.out);
    bench.server.forget(Group(1), &mut bench.out);
    bench.take();
    let whole = |name: &str| Proc { namespace: name.into(), rank: RANK_WILDCARD };
    bench.says(FromPmix::Connect { token: 3, procs: vec![whole("kvs_7_0"), whole("kvs_7_1")] });
    let parts = [G, Group(1)].map(|group| Part { group, rank: None }).to_vec();
    let Some(Action::Upcall { ask: Ask::Gather { parts: asked, .. }, .. }) = bench.take().pop() else {
        panic!("no question for the root");
    };
    assert_eq!(asked, parts);
    bench.says(FromPmix::Connect { token: 4, procs: vec![whole("kvs_7_0"), whole("kvs_8_1")] });
    assert_eq!(bench.take(), [Action::Send(ToPmix::Done { token: 4, status: status::NOT_FOUND })], "of another job");
}

#[test]
fn what_a_host_has_found_out_is_not_handed_on_to_ranks_elsewhere() {
    let mut bench = Bench::running();
    bench.server.told_of_this_host("OMPI_MCA_btl", "^ofi");
    let program = |env: &[&str]| SpawnProgram {
        program: "child".into(),
        argv: vec!["child".into()],
        count: 1,
        env: env.iter().map(|var| (*var).to_owned()).collect(),
        wdir: None,
        info: Vec::new(),
    };
    let apps = vec![program(&["OMPI_MCA_btl=^ofi", "OMPI_MCA_mtl=^ofi"]), program(&["OMPI_MCA_btl=tcp,self"])];
    bench.says(FromPmix::Spawn { token: 9, parent: proc(0), apps, info: Vec::new() });
    let Some(Action::Upcall { ask: Ask::Spawn { apps, .. }, .. }) = bench.take().pop() else { panic!("no question") };
    let env: Vec<Vec<&str>> = apps.iter().map(|app| app.env.iter().map(|var| var.name.as_str()).collect()).collect();
    assert_eq!(env, [["OMPI_MCA_mtl"], ["OMPI_MCA_btl"]]);
}
