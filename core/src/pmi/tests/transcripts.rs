//! What real clients send, and the replies that all of them accept; each conversation cut at every byte.

use super::*;

/// (request, reply) pairs of one client.
type Talk = Vec<(String, String)>;

fn lines(pairs: &[(&str, &str)]) -> Talk {
    pairs.iter().map(|(q, a)| (format!("{q}\n"), if a.is_empty() { String::new() } else { format!("{a}\n") })).collect()
}

fn frames(pairs: &[(&str, &str)]) -> Talk {
    let frame = |t: &str| if t.is_empty() { String::new() } else { framed(t) };
    pairs.iter().map(|(q, a)| (frame(q), frame(a))).collect()
}

/// Plays a conversation with one cut inside every request, at every place, and once byte by byte.
fn play(talk: &Talk) -> Alone {
    let longest = talk.iter().map(|(q, _)| q.len()).max().unwrap();
    for cut in 0..=longest {
        let mut alone = Alone::new(server(1, 1), 1);
        for (question, answer) in talk {
            let (a, b) = question.as_bytes().split_at(cut.min(question.len()));
            alone.input(0, a);
            alone.input(0, b);
            assert_eq!(&alone.heard(0), answer, "to {question:?} cut at {cut}");
        }
    }
    let mut alone = Alone::new(server(1, 1), 1);
    for (question, answer) in talk {
        question.as_bytes().iter().for_each(|byte| alone.input(0, &[*byte]));
        assert_eq!(&alone.heard(0), answer, "to {question:?} byte by byte");
    }
    alone
}

#[test]
fn every_command_of_pmi_1() {
    let alone = play(&lines(&[
        ("cmd=init pmi_version=1 pmi_subversion=1", "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1"),
        ("cmd=get_maxes", "cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024"),
        ("cmd=get_appnum", "cmd=appnum rc=0 appnum=0"),
        ("cmd=get_universe_size", "cmd=universe_size rc=0 size=-1"),
        ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=m0"),
        ("cmd=put kvsname=m0 key=k0 value=v0", "cmd=put_result rc=0"),
        ("cmd=put kvsname=m0 key=k0 value=v1", "cmd=put_result rc=0"),
        ("cmd=get kvsname=m0 key=k0", "cmd=get_result rc=0 value=v1"),
        ("cmd=put kvsname=m0 key=PMI_x value=v", "cmd=put_result rc=1"),
        ("cmd=get kvsname=m0 key=nosuch", "cmd=get_result rc=1"),
        ("cmd=barrier_in", "cmd=barrier_out rc=0"),
        ("cmd=publish_name service=svc port=tag#0$desc#h$", "cmd=publish_result rc=0"),
        (
            "cmd=publish_name service=svc port=tag#1$",
            "cmd=publish_result rc=1 msg=the_name_is_already_published;_unpublish_it_first",
        ),
        ("cmd=lookup_name service=svc", "cmd=lookup_result rc=0 port=tag#0$desc#h$"),
        ("cmd=unpublish_name service=svc", "cmd=unpublish_result rc=0"),
        ("cmd=unpublish_name service=svc", "cmd=unpublish_result rc=1"),
        ("cmd=lookup_name service=svc", "cmd=lookup_result rc=1"),
        ("cmd=abort exitcode=7 message=abort", ""),
    ]));
    let abort = Action::Abort { rank: Rank(0), exitcode: 7, message: "abort".into() };
    assert_eq!(alone.actions, [Action::FirstInit { rank: Rank(0) }, abort]);
}

#[test]
fn what_mpich_4_sends_in_init() {
    let card = "2097F598DA".repeat(27);
    let put = format!("cmd=put kvsname=m0 key=-allgather-shm-1-0 value={card}");
    let got = format!("cmd=get_result rc=0 value={card}");
    let alone = play(&lines(&[
        ("cmd=init pmi_version=1 pmi_subversion=1", "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1"),
        ("cmd=get_maxes", "cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024"),
        ("cmd=get_appnum", "cmd=appnum rc=0 appnum=0"),
        ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=m0"),
        ("cmd=get kvsname=m0 key=PMI_process_mapping", "cmd=get_result rc=0 value=(vector,(0,2,2))"),
        ("cmd=barrier_in", "cmd=barrier_out rc=0"),
        ("cmd=put kvsname=m0 key=-bcast-1-0 value=2F6465762F73686D2F6D706963685F", "cmd=put_result rc=0"),
        ("cmd=barrier_in", "cmd=barrier_out rc=0"),
        (&put, "cmd=put_result rc=0"),
        ("cmd=barrier_in", "cmd=barrier_out rc=0"),
        ("cmd=get kvsname=m0 key=-allgather-shm-1-0", &got),
        ("cmd=barrier_in", "cmd=barrier_out rc=0"),
        ("cmd=finalize", "cmd=finalize_ack rc=0"),
    ]));
    assert_eq!(alone.actions, [Action::FirstInit { rank: Rank(0) }, Action::Close { local: 0 }]);
    assert_eq!(alone.server.phase(0), Phase::Finalised);
}

#[test]
fn what_mpich_5_sends_in_init() {
    let segment = "A[2]B".repeat(200) + "xy";
    let put = format!("cmd=put kvsname=m0 key=-allgather-1-0-seg-1/9 value={segment}");
    let got = format!("cmd=get_result rc=0 value={segment}");
    play(&lines(&[
        ("cmd=init pmi_version=1 pmi_subversion=1", "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1"),
        ("cmd=get kvsname=m0 key=PMI_process_mapping", "cmd=get_result rc=0 value=(vector,(0,2,2))"),
        ("cmd=get kvsname=m0 key=PMI_hwloc_xmlfile", "cmd=get_result rc=1"),
        ("cmd=get kvsname=m0 key=PMI_mpi_memory_alloc_kinds", "cmd=get_result rc=1"),
        ("cmd=put kvsname=m0 key=-allgather-1-0 value=segments=9", "cmd=put_result rc=0"),
        (&put, "cmd=put_result rc=0"),
        ("cmd=barrier_in", "cmd=barrier_out rc=0"),
        ("cmd=get kvsname=m0 key=-allgather-1-0", "cmd=get_result rc=0 value=segments=9"),
        ("cmd=get kvsname=m0 key=-allgather-1-0-seg-1/9", &got),
        ("cmd=barrier_in", "cmd=barrier_out rc=0"),
        ("cmd=finalize", "cmd=finalize_ack rc=0"),
    ]));
}

#[test]
fn every_command_of_pmi_2() {
    let mut talk = lines(&[(
        "cmd=init pmi_version=2 pmi_subversion=0",
        "cmd=response_to_init rc=0 pmi_version=2 pmi_subversion=0",
    )]);
    talk.extend(frames(&[
        (
            "cmd=fullinit;pmirank=0;threaded=FALSE;",
            "cmd=fullinit-response;rc=0;pmi-version=2;pmi-subversion=0;rank=0;size=1;appnum=0;debugged=FALSE;pmiverbose=FALSE;",
        ),
        ("cmd=job-getid;", "cmd=job-getid-response;rc=0;jobid=m0;"),
        (
            "cmd=info-getjobattr;key=PMI_process_mapping;",
            "cmd=info-getjobattr-response;rc=0;found=TRUE;value=(vector,(0,2,2));",
        ),
        ("cmd=info-getjobattr;key=nosuch;", "cmd=info-getjobattr-response;rc=0;found=FALSE;"),
        ("cmd=info-getjobattr;key=universeSize;", "cmd=info-getjobattr-response;rc=0;found=FALSE;"),
        // These work nowhere, and clients live with that.
        ("cmd=job-connect;jobid=m1;", "cmd=job-connect-response;rc=1;"),
        ("cmd=job-disconnect;jobid=m1;", "cmd=job-disconnect-response;rc=1;"),
        ("cmd=ring;ring-count=1;ring-left=;ring-right=;", "cmd=ring-response;rc=1;"),
        ("cmd=info-putnodeattr;key=na0;value=nv0;", "cmd=info-putnodeattr-response;rc=0;"),
        ("cmd=info-getnodeattr;key=na0;wait=TRUE;", "cmd=info-getnodeattr-response;rc=0;found=TRUE;value=nv0;"),
        ("cmd=info-getnodeattr;key=nosuch;wait=FALSE;", "cmd=info-getnodeattr-response;rc=0;found=FALSE;"),
        ("cmd=kvs-put;thrid=t1;key=k0;value=v 0 = x;", "cmd=kvs-put-response;thrid=t1;rc=0;"),
        ("cmd=kvs-put;key=k1;value=val;;with;;semi =x;", "cmd=kvs-put-response;rc=0;"),
        ("cmd=kvs-fence;", "cmd=kvs-fence-response;rc=0;"),
        ("cmd=kvs-get;srcid=-1;key=k0;", "cmd=kvs-get-response;rc=0;found=TRUE;value=v 0 = x;"),
        ("cmd=kvs-get;jobid=;srcid=-1;key=k1;", "cmd=kvs-get-response;rc=0;found=TRUE;value=val;;with;;semi =x;"),
        ("cmd=kvs-get;srcid=-1;key=nosuch;", "cmd=kvs-get-response;rc=0;found=FALSE;"),
        ("cmd=name-publish;name=svc2;port=p2;", "cmd=name-publish-response;rc=0;"),
        ("cmd=name-lookup;name=svc2;", "cmd=name-lookup-response;rc=0;found=TRUE;value=p2;port=p2;"),
        ("cmd=name-unpublish;name=svc2;", "cmd=name-unpublish-response;rc=0;"),
        ("cmd=name-lookup;name=svc2;", "cmd=name-lookup-response;rc=1;found=FALSE;"),
        ("cmd=finalize;", "cmd=finalize-response;rc=0;"),
    ]));
    let alone = play(&talk);
    assert_eq!(alone.actions.last(), Some(&Action::Close { local: 0 }));
}

#[test]
fn slurms_library_pads_on_the_right_and_sends_empty_values() {
    let mut alone = Alone::new(server(1, 2), 1);
    assert_eq!(
        alone.ask(0, "cmd=init pmi_version=2 pmi_subversion=0\n"),
        "cmd=response_to_init rc=0 pmi_version=2 pmi_subversion=0\n"
    );
    let body = "cmd=fullinit;pmijobid=1;pmirank=0;threaded=FALSE;";
    assert!(alone.ask(0, &format!("{:<6}{body}", body.len())).contains(";rank=0;size=2;"));
    let body = "cmd=abort;isworld=TRUE;msg=bye now;";
    assert_eq!(alone.ask(0, &format!("{:<6}{body}", body.len())), "");
    assert_eq!(alone.actions.last(), Some(&Action::Abort { rank: Rank(0), exitcode: 1, message: "bye now".into() }));
}

#[test]
fn the_size_of_the_universe_is_told_when_it_is_known() {
    let mut setup = setup(1, 1);
    setup.universe_size = Some(12);
    let mut alone = Alone::new(Server::new(setup).unwrap(), 1);
    alone.ask(0, "cmd=init pmi_version=2 pmi_subversion=0\n");
    let question = framed("cmd=info-getjobattr;key=universeSize;");
    assert_eq!(alone.ask(0, &question), framed("cmd=info-getjobattr-response;rc=0;found=TRUE;value=12;"));
    assert_eq!(alone.ask(0, "cmd=get_universe_size\n"), "cmd=universe_size rc=0 size=12\n");
}

#[test]
fn an_abort_of_mpich_over_pmi_2() {
    let mut alone = Alone::new(server(1, 2), 1);
    alone.ask(0, "cmd=init pmi_version=2 pmi_subversion=0\n");
    assert_eq!(alone.ask(0, &framed("cmd=abort;exitcode=9;message=no more;")), "");
    assert_eq!(alone.actions.last(), Some(&Action::Abort { rank: Rank(0), exitcode: 9, message: "no more".into() }));
}

const SPAWN: &str = "mcmd=spawn\nnprocs=2\nexecname=/path/to/child\ntotspawns=1\nspawnssofar=1\nargcnt=1\n\
    arg1=hi there\npreput_num=1\npreput_key_0=PARENT_ROOT_PORT_NAME\npreput_val_0=tag#0$connentry#20B9\n\
    info_num=1\ninfo_key_0=wdir\ninfo_val_0=/tmp\nendcmd\n";

#[test]
fn a_spawn_of_mpich_5() {
    let init = "cmd=init pmi_version=1 pmi_subversion=1\n";
    let alone = play(&vec![
        (init.into(), "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n".into()),
        (SPAWN.into(), "cmd=spawn_result rc=0 jobid=m1\n".into()),
        ("cmd=finalize\n".into(), "cmd=finalize_ack rc=0\n".into()),
    ]);
    let expected = SpawnRequest {
        segments: vec![SpawnSegment {
            program: "/path/to/child".into(),
            args: vec!["hi there".into()],
            maxprocs: 2,
            info: vec![("wdir".into(), "/tmp".into())],
        }],
        preput: vec![(bytes("PARENT_ROOT_PORT_NAME"), bytes("tag#0$connentry#20B9"))],
    };
    assert_eq!(expected.procs(), 2);
    assert_eq!(alone.spawned, [expected]);
}

#[test]
fn a_spawn_multiple_and_its_pmi_2_twin_ask_for_the_same() {
    let block = |i: usize, extra: &str| {
        format!("mcmd=spawn\nnprocs={i}\nexecname=/exe{i}\ntotspawns=2\nspawnssofar={i}\nargcnt=0\n{extra}endcmd\n")
    };
    let mut v1 = Alone::new(server(1, 1), 1);
    v1.ask(0, "cmd=init pmi_version=1 pmi_subversion=1\n");
    assert_eq!(v1.ask(0, &block(1, "preput_num=1\npreput_key_0=K\npreput_val_0=V\n")), "");
    assert_eq!(v1.ask(0, &block(2, "")), "cmd=spawn_result rc=0 jobid=m1\n");

    let mut v2 = Alone::new(server(1, 1), 1);
    v2.ask(0, "cmd=init pmi_version=2 pmi_subversion=0\n");
    let twin = "cmd=spawn;thrid=7;ncmds=2;preputcount=1;ppkey0=K;ppval0=V;subcmd=/exe1;maxprocs=1;argc=0;infokeycount=0;\
        subcmd=/exe2;maxprocs=2;argc=0;infokeycount=0;";
    assert_eq!(v2.ask(0, &framed(twin)), framed("cmd=spawn-response;thrid=7;rc=0;jobid=m1;"));
    assert_eq!(v1.spawned, v2.spawned);
    assert_eq!(v1.spawned[0].segments.len(), 2);
    assert_eq!(v1.spawned[0].segments[1].program, "/exe2");
}

#[test]
fn a_spawned_group_reads_what_its_parent_handed_over() {
    let mut setup = setup(1, 1);
    setup.preput = vec![(bytes("PARENT_ROOT_PORT_NAME"), bytes("tag#0$port#1$"))];
    setup.spawner = Some("m7".into());
    let mut alone = Alone::new(Server::new(setup).unwrap(), 1);
    alone.ask(0, "cmd=init pmi_version=2 pmi_subversion=0\n");
    assert!(alone.ask(0, &framed("cmd=fullinit;pmirank=0;")).ends_with("spawner-jobid=m7;"));
    assert_eq!(
        alone.ask(0, "cmd=get kvsname=m0 key=PARENT_ROOT_PORT_NAME\n"),
        "cmd=get_result rc=0 value=tag#0$port#1$\n"
    );
    assert!(alone.ask(0, &framed("cmd=info-getjobattr;key=PARENT_ROOT_PORT_NAME;")).ends_with("value=tag#0$port#1$;"));
}

#[test]
fn the_replies_that_are_no_success() {
    let mut alone = Alone::new(server(1, 1), 1);
    assert_eq!(
        alone.ask(0, "cmd=init pmi_version=3 pmi_subversion=0\n"),
        "cmd=response_to_init rc=-1 pmi_version=1 pmi_subversion=1\n"
    );
    assert_eq!(alone.server.phase(0), Phase::Untouched);
    alone.ask(0, "cmd=init pmi_version=1 pmi_subversion=1\n");
    for (question, answer) in [
        ("cmd=put kvsname=other key=k value=v", "cmd=put_result rc=1"),
        ("cmd=get kvsname=other key=PMI_process_mapping", "cmd=get_result rc=1"),
        ("cmd=put kvsname=m0 key=k value=", "cmd=put_result rc=6"),
        ("cmd=put kvsname=m0 key=k value= ", "cmd=put_result rc=6"),
        (&format!("cmd=put kvsname=m0 key={} value=v", "k".repeat(65)), "cmd=put_result rc=5"),
        (&format!("cmd=put kvsname=m0 key=k value={}", "v".repeat(1025)), "cmd=put_result rc=7"),
        ("cmd=get kvsname=m0 key=k", "cmd=get_result rc=1"),
        ("cmd=get kvsname=m0 key=PMI_dead_processes", "cmd=get_result rc=1"),
        ("cmd=barrier_in group=NODE:7", "cmd=barrier_out rc=1 tag=7"),
        ("cmd=barrier_in group=WORLD:9", "cmd=barrier_out rc=0 tag=9"),
        ("cmd=spawn nprocs=0 execname=x", "cmd=spawn_result rc=1 msg=spawn_segment_0:_nprocs_is_missing_or_malformed"),
    ] {
        assert_eq!(alone.ask(0, &format!("{question}\n")), format!("{answer}\n"), "{question}");
    }
}

#[test]
fn a_failed_spawn_says_why() {
    let mut server = server(1, 1);
    let mut out = Vec::new();
    server.input(0, format!("cmd=init pmi_version=1 pmi_subversion=1\n{SPAWN}").as_bytes(), &mut out);
    let Some(Action::Upcall { token, call: Upcall::Spawn(_), .. }) = out.pop() else { panic!("{out:?}") };
    out.clear();
    server.answer(token, Answer::SpawnFailed { reason: "no slots left".into() }, &mut out);
    assert_eq!(out, [Action::Send { local: 0, bytes: bytes("cmd=spawn_result rc=1 msg=no_slots_left\n") }]);
    out.clear();
    server.answer(token, Answer::SpawnFailed { reason: "twice".into() }, &mut out);
    assert_eq!(out, []);
}
