//! Fences of several ranks, and ranks that come and go.

use super::*;

const INIT: &str = "cmd=init pmi_version=1 pmi_subversion=1\n";

fn initialised(ranks: u32) -> (Server, Vec<Action>) {
    let mut server = server(ranks, ranks * 2);
    let mut out = Vec::new();
    for local in 0..ranks as usize {
        server.input(local, INIT.as_bytes(), &mut out);
    }
    out.clear();
    (server, out)
}

fn say(server: &mut Server, local: usize, line: &str) -> Vec<Action> {
    let mut out = Vec::new();
    server.input(local, line.as_bytes(), &mut out);
    out
}

fn reply(local: usize, line: &str) -> Action {
    Action::Send { local, bytes: bytes(line) }
}

#[test]
fn a_fence_goes_up_once_with_all_puts_and_lets_everybody_go_at_once() {
    let (mut server, mut out) = initialised(2);
    say(&mut server, 0, "cmd=put kvsname=m0 key=a value=1\n");
    assert_eq!(server.waiting(), None);
    assert_eq!(say(&mut server, 0, "cmd=barrier_in\n"), []);
    let report = server.waiting().unwrap();
    assert_eq!((report.seq, report.arrived, report.missing), (0, vec![Rank(0)], vec![Rank(1)]));
    assert_eq!(say(&mut server, 1, "cmd=get kvsname=m0 key=a\n"), [reply(1, "cmd=get_result rc=0 value=1\n")]);
    let up = say(&mut server, 1, "cmd=barrier_in\n");
    let [Action::Fence { seq: 0, blob }] = &up[..] else { panic!("{up:?}") };
    assert_eq!(&blob[..], b"\0\x01\0\0\0\x01a1");
    assert_eq!(server.waiting().unwrap().missing, []);

    let far = bytes("\0\x01\0\0\0\x01b2");
    server.fence_done(0, &[blob.clone(), far], &mut out).unwrap();
    assert_eq!(out, [reply(0, "cmd=barrier_out rc=0\n"), reply(1, "cmd=barrier_out rc=0\n")]);
    assert_eq!(server.waiting(), None);
    assert_eq!(say(&mut server, 0, "cmd=get kvsname=m0 key=b\n"), [reply(0, "cmd=get_result rc=0 value=2\n")]);
    out.clear();
    server.fence_done(0, &[], &mut out).unwrap();
    assert_eq!(out, []);
    assert!(matches!(server.fence_done(1, &[], &mut out), Err(FenceDoneError::NotEntered { seq: 1, .. })));

    say(&mut server, 0, "cmd=barrier_in\n");
    assert_eq!(say(&mut server, 1, "cmd=barrier_in\n"), [Action::Fence { seq: 1, blob: Bytes::new() }]);
}

#[test]
fn a_damaged_result_is_an_error_and_lets_nobody_go() {
    let (mut server, mut out) = initialised(1);
    say(&mut server, 0, "cmd=barrier_in\n");
    let error = server.fence_done(0, &[bytes("\0\x01\0\0\0\x09b2")], &mut out).unwrap_err();
    assert!(matches!(error, FenceDoneError::Kvs { seq: 0, .. }));
    assert_eq!(out, []);
}

#[test]
fn both_dialects_meet_in_one_fence() {
    let mut server = server(2, 2);
    let mut out = Vec::new();
    server.input(0, INIT.as_bytes(), &mut out);
    server.input(1, b"cmd=init pmi_version=2 pmi_subversion=0\n", &mut out);
    say(&mut server, 1, &framed("cmd=kvs-fence;thrid=a;;b;"));
    say(&mut server, 0, "cmd=barrier_in\n");
    out.clear();
    server.fence_done(0, &[], &mut out).unwrap();
    let second = framed("cmd=kvs-fence-response;thrid=a;;b;rc=0;");
    assert_eq!(out, [reply(0, "cmd=barrier_out rc=0\n"), reply(1, &second)]);
}

#[test]
fn a_rank_that_leaves_after_init_is_named_and_no_longer_waited_for() {
    let (mut server, _) = initialised(2);
    say(&mut server, 0, "cmd=barrier_in\n");
    let mut out = Vec::new();
    server.closed(1, &mut out);
    let left = Action::Left { rank: Rank(1), phase: Phase::Initialised };
    assert_eq!(out, [left, Action::Fence { seq: 0, blob: Bytes::new() }]);
    out.clear();
    server.exited(1, &mut out);
    assert_eq!(out, []);
}

#[test]
fn a_rank_that_ends_before_init_is_told_by_its_exit_not_by_its_descriptor() {
    let mut server = server(2, 4);
    let mut out = Vec::new();
    assert!(!server.any_initialised());
    server.input(0, INIT.as_bytes(), &mut out);
    assert_eq!(out[0], Action::FirstInit { rank: Rank(0) });
    assert!(server.any_initialised());
    assert_eq!(say(&mut server, 0, "cmd=barrier_in\n"), []);
    out.clear();
    server.closed(1, &mut out);
    assert_eq!(out, []);
    assert_eq!(server.waiting().unwrap().missing, [Rank(1)]);
    server.exited(1, &mut out);
    assert_eq!(out[0], Action::Left { rank: Rank(1), phase: Phase::Untouched });
}

#[test]
fn after_finalize_a_rank_may_end_as_it_likes() {
    let (mut server, mut out) = initialised(2);
    let bye = say(&mut server, 0, "cmd=finalize\ncmd=barrier_in\n");
    assert_eq!(bye, [reply(0, "cmd=finalize_ack rc=0\n"), Action::Close { local: 0 }]);
    server.closed(0, &mut out);
    server.exited(0, &mut out);
    assert_eq!(out, []);
    assert_eq!(server.phase(0), Phase::Finalised);
    assert_eq!(server.phase(1), Phase::Initialised);
}

#[test]
fn an_aborting_rank_is_not_reported_twice() {
    let (mut server, _) = initialised(1);
    let mut out = say(&mut server, 0, "cmd=abort exitcode=7\n");
    server.closed(0, &mut out);
    server.exited(0, &mut out);
    assert_eq!(out, [Action::Abort { rank: Rank(0), exitcode: 7, message: String::new() }]);
    let (mut server, _) = initialised(1);
    let out = say(&mut server, 0, "cmd=abort error_msg=two words exit_code=-3\n");
    assert_eq!(out, [Action::Abort { rank: Rank(0), exitcode: -3, message: "two words".into() }]);
}

#[test]
fn a_node_attribute_is_waited_for() {
    let mut server = server(2, 2);
    for local in 0..2 {
        say(&mut server, local, "cmd=init pmi_version=2 pmi_subversion=0\n");
    }
    assert_eq!(say(&mut server, 0, &framed("cmd=info-getnodeattr;thrid=1;key=k;wait=TRUE;")), []);
    assert_eq!(say(&mut server, 0, &framed("cmd=info-getnodeattr;thrid=2;key=other;wait=TRUE;")), []);
    let put = say(&mut server, 1, &framed("cmd=info-putnodeattr;key=k;value=v;"));
    assert_eq!(
        put,
        [
            reply(1, &framed("cmd=info-putnodeattr-response;rc=0;")),
            reply(0, &framed("cmd=info-getnodeattr-response;thrid=1;rc=0;found=TRUE;value=v;")),
        ]
    );
    let mut out = Vec::new();
    server.exited(0, &mut out);
    let put = say(&mut server, 1, &framed("cmd=info-putnodeattr;key=other;value=v;"));
    assert_eq!(put, [reply(1, &framed("cmd=info-putnodeattr-response;rc=0;"))]);
}

#[test]
fn an_answer_to_a_rank_that_is_gone_goes_nowhere() {
    let (mut server, mut out) = initialised(1);
    let asked = say(&mut server, 0, "cmd=lookup_name service=s\n");
    let [Action::Upcall { token, .. }] = asked[..] else { panic!("{asked:?}") };
    server.exited(0, &mut out);
    out.clear();
    server.answer(token, Answer::Found(Some(bytes("p"))), &mut out);
    assert_eq!(out, []);
}

#[test]
fn a_setup_that_cannot_be_served_is_refused() {
    let refused = |change: fn(&mut GroupSetup)| {
        let mut setup = setup(2, 2);
        change(&mut setup);
        Server::new(setup).unwrap_err().to_string()
    };
    assert_eq!(refused(|s| s.local.clear()), "group 0: 0 ranks on this host, must be 1 to 4096");
    assert_eq!(refused(|s| s.size = 1), "group 0: rank 1 is there twice or not below the size 1");
    assert_eq!(refused(|s| s.local[1].rank = Rank(0)), "group 0: rank 0 is there twice or not below the size 2");
    assert!(refused(|s| s.kvsname = "two words".into()).starts_with("group 0: key-value space \"two words\""));
    assert!(refused(|s| s.mapping = Some(String::new())).starts_with("group 0: process mapping \"\""));
}
