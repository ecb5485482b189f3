//! What PMIx clients need of each other: meetings, published values, data of ranks elsewhere.

use muster_protocol::message::{Answer, CallAnswer, Fetch, Fetched, FoundItem, KeyValue, Part, Purpose, Say};

use super::*;

fn running(hosts: u32, ranks: u32) -> Bench {
    let mut bench = Bench::new(hosts, ranks, Bootstrap::Pmix).all_joined();
    bench.started();
    bench
}

fn answers(bench: &mut Bench) -> Vec<(u32, u64, Answer)> {
    let answers = bench.down::<CallAnswer>().into_iter().map(|(to, a)| (to.0, a.token, a.answer)).collect();
    bench.acts.clear();
    answers
}

fn gather(purpose: Purpose, ranks: &[u32], data: &str) -> Ask {
    let part = |rank: &u32| Part { group: Group(0), rank: Some(Rank(*rank)) };
    let data = data.as_bytes().to_vec().into();
    Ask::Gather { purpose, name: "g".into(), parts: ranks.iter().map(part).collect(), data, context: true }
}

#[test]
fn a_meeting_is_answered_to_all_when_the_last_host_has_come() {
    let mut bench = running(3, 3);
    bench.tell(0, &call(0, 1, gather(Purpose::Construct, &[0, 2], "a")));
    // A host with a new parent says it again.
    bench.tell(0, &call(0, 1, gather(Purpose::Construct, &[0, 2], "a")));
    bench.tell(2, &call(2, 5, gather(Purpose::Fence, &[0, 2], "x")));
    assert_eq!(answers(&mut bench), [], "another purpose is another meeting");
    bench.tell(2, &call(2, 6, gather(Purpose::Construct, &[0, 2], "b")));
    let told = answers(&mut bench);
    assert_eq!(told.iter().map(|(host, token, _)| (*host, *token)).collect::<Vec<_>>(), [(0, 1), (2, 6)]);
    let Answer::Gathered { data, context: Some(context) } = &told[0].2 else { panic!("{told:?}") };
    assert_eq!((data.as_slice(), &told[0].2), (&b"ab"[..], &told[1].2));
    // The answer was lost on its way: it is given again, and no new meeting begins.
    bench.tell(0, &call(0, 1, gather(Purpose::Construct, &[0, 2], "a")));
    assert_eq!(answers(&mut bench), [(0, 1, told[0].2.clone())]);
    bench.tell(0, &call(0, 2, gather(Purpose::Construct, &[0, 2], "")));
    bench.tell(2, &call(2, 7, gather(Purpose::Construct, &[0, 2], "")));
    let next = answers(&mut bench);
    assert!(matches!(&next[0].2, Answer::Gathered { context: Some(other), .. } if other != context), "{next:?}");
}

#[test]
fn nobody_is_waited_for_who_has_ended() {
    let mut bench = running(2, 2);
    bench.tell(0, &call(0, 1, gather(Purpose::Fence, &[0, 1], "a")));
    assert_eq!(answers(&mut bench), []);
    bench.returns(1, 0);
    assert!(matches!(answers(&mut bench).as_slice(), [(0, 1, Answer::Gathered { .. })]));
}

#[test]
fn data_of_a_rank_are_fetched_from_its_host() {
    let mut bench = running(2, 4);
    let ask = |rank| Ask::Fetch { group: Group(0), rank: Rank(rank) };
    bench.tell(0, &call(0, 3, ask(3)));
    let fetches = bench.down::<Fetch>();
    let [(HostIndex(1), Fetch { ticket, group: Group(0), rank: Rank(3) })] = fetches.as_slice() else {
        panic!("{fetches:?}")
    };
    let data: minicbor::bytes::ByteVec = b"card".to_vec().into();
    let fetched = Fetched { ticket: *ticket, status: 0, data: data.clone() };
    bench.tell(1, &fetched).tell(1, &fetched);
    assert_eq!(answers(&mut bench), [(0, 3, Answer::Data { status: 0, data })]);
    let empty = || minicbor::bytes::ByteVec::from(Vec::new());
    bench.tell(0, &call(0, 4, ask(9)));
    assert_eq!(answers(&mut bench), [(0, 4, Answer::Data { status: -46, data: empty() })], "no such rank");
}

#[test]
fn who_looks_a_value_up_may_wait_for_it() {
    let mut bench = running(2, 2);
    let find = |wait_ms| Ask::Find { keys: vec!["k".into()], wait_ms };
    let item = KeyValue { key: b"k".to_vec().into(), value: b"v".to_vec().into() };
    bench.tell(1, &call(1, 0, find(None)));
    bench.tell(1, &call(1, 1, find(Some(50))));
    bench.job.tick(1_000);
    assert_eq!(bench.job.next_due_ms(), Some(1_050));
    bench.job.tick(1_050);
    bench.collect();
    assert_eq!(answers(&mut bench), [(1, 1, Answer::Items { items: vec![] })], "its time is over");
    bench.tell(0, &call(0, 0, Ask::Put { items: vec![item.clone()], once: true }));
    let found = FoundItem { group: Group(0), rank: Rank(0), item: item.clone() };
    assert_eq!(answers(&mut bench), [(1, 0, Answer::Items { items: vec![found] }), (0, 0, Answer::Done)]);
    bench.tell(0, &call(0, 1, Ask::Put { items: vec![item.clone()], once: false }));
    bench.tell(0, &call(0, 2, Ask::Put { items: vec![item], once: false }));
    bench.tell(0, &call(0, 3, Ask::Withdraw { keys: vec![] }));
    bench.tell(1, &call(1, 2, find(Some(0))));
    let told = answers(&mut bench);
    assert!(matches!(&told[1].2, Answer::Denied { .. }), "{told:?}");
    assert_eq!(told[3], (1, 2, Answer::Items { items: vec![] }), "taken back");
}

#[test]
fn words_of_a_rank_reach_the_world() {
    let mut bench = running(1, 2);
    bench.tell(0, &Say { proc: ProcId(1), text: b"banner\n".to_vec().into() });
    let said = bench.events().into_iter().any(|e| {
        matches!(e, Event::RankSaid { rank: Rank(1), host, text, .. }
        if host == "h0" && text == "banner\n")
    });
    assert!(said);
}

#[test]
fn data_are_asked_for_again_when_a_host_may_have_missed_it_and_given_up_when_their_rank_dies() {
    let mut bench = running(2, 4);
    let ask = Ask::Fetch { group: Group(0), rank: Rank(3) };
    bench.tell(0, &call(0, 3, ask.clone())).tell(0, &call(0, 3, ask)).join(&[1]);
    let tickets: Vec<u64> = bench.down::<Fetch>().into_iter().map(|(_, f)| f.ticket).collect();
    assert_eq!(tickets, [0, 0, 0]);
    // Rank 0, in whose name the host asks, ends meanwhile; its host still waits.
    bench.init(1).returns(0, 0);
    assert_eq!(answers(&mut bench), []);
    bench.exit(3, ProcEnd::Signaled { signal: 9, core: false, memory: None }, Phase::Initialised);
    assert!(matches!(answers(&mut bench).as_slice(), [(0, 3, Answer::Data { status: -46, .. })]));
}
