//! Clients that break the protocol harm nobody but themselves.

use muster_protocol::limits::{PMI_MESSAGE_BYTES_MAX, PMI_MESSAGE_FIELDS_MAX};
use proptest::prelude::*;

use super::*;

fn broken(input: &[u8]) -> PmiError {
    let mut server = server(2, 2);
    let mut out = Vec::new();
    server.input(1, b"cmd=init pmi_version=1 pmi_subversion=1\n", &mut out);
    server.input(0, input, &mut out);
    let errors: Vec<PmiError> = out
        .iter()
        .filter_map(|action| match action {
            Action::Broken { rank: Rank(0), error } => Some(error.clone()),
            _ => None,
        })
        .collect();
    let [error] = &errors[..] else { panic!("{out:?}") };
    out.clear();
    server.input(0, b"cmd=get_maxes\n", &mut out);
    server.exited(0, &mut out);
    assert_eq!(out, [], "nothing more is heard of it");
    server.input(1, b"cmd=get_appnum\n", &mut out);
    assert_eq!(out, [Action::Send { local: 1, bytes: bytes("cmd=appnum rc=0 appnum=0\n") }]);
    error.clone()
}

#[test]
fn every_breach_is_named() {
    let init = "cmd=init pmi_version=1 pmi_subversion=1\n";
    let cases = [
        ("cmd=frobnicate x=y\n", "unknown PMI command \"frobnicate\""),
        ("cmd=get key=k\ncmd=get kvsname=m0\n", "PMI command \"get\" without key"),
        ("cmd=put key=k\n", "PMI command \"put\" without value"),
        ("cmd=barrier_in\ncmd=barrier_in\n", "fence entered twice; the first is not over"),
        ("cmd=init\n", "PMI command \"init\" without pmi_version"),
        ("hello world\n", "not a PMI message: it begins with \"hello world\\n\""),
        ("x\n", "not a PMI message: it begins with \"x\\n\""),
        ("      \n", "not a PMI message: it begins with \"      \\n\""),
        ("     7no cmd!", "PMI-2 message does not begin with cmd=: \"no cmd!\""),
        ("mcmd=spawn\nspawnssofar=2\ntotspawns=2\nendcmd\n", "spawn request: expected block 1 of 2, got 2 of 2"),
        (
            "mcmd=spawn\nspawnssofar=1\ntotspawns=2\nendcmd\ncmd=finalize\n",
            "spawn request: expected block 2 of 2, got cmd=finalize",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(broken(format!("{init}{input}").as_bytes()).to_string(), expected, "{input:?}");
    }
    assert_eq!(broken(b"cmd=get_maxes\n").to_string(), "PMI command \"get_maxes\" before init");
    let rank = format!("{init}{}", framed("cmd=fullinit;pmirank=1;"));
    assert_eq!(broken(rank.as_bytes()).to_string(), "PMI command \"fullinit\": pmirank is \"1\", expected 0");
}

#[test]
fn endless_messages_end_at_the_limit() {
    let long = vec![b'x'; PMI_MESSAGE_BYTES_MAX + 1];
    assert_eq!(broken(&[&b"cmd=put value="[..], &long].concat()), PmiError::Wire(WireError::TooLong));
    assert_eq!(broken(&[&b"mcmd=spawn\nexecname="[..], &long].concat()), PmiError::Wire(WireError::TooLong));
    let lines = b"a=b\n".repeat(PMI_MESSAGE_BYTES_MAX / 4 + 1);
    assert_eq!(broken(&[&b"mcmd=spawn\n"[..], &lines].concat()), PmiError::Wire(WireError::TooManyFields));
    let words = [&b"cmd=put"[..], &b" a".repeat(PMI_MESSAGE_FIELDS_MAX), b"\n"].concat();
    assert_eq!(broken(&words), PmiError::Wire(WireError::TooManyFields));
}

#[test]
fn threads_that_never_wait_are_stopped() {
    let mut server = server(1, 2);
    let mut out = Vec::new();
    server.input(0, b"cmd=init pmi_version=2 pmi_subversion=0\n", &mut out);
    let park = framed("cmd=info-getnodeattr;key=k;wait=TRUE;");
    server.input(0, park.repeat(64).as_bytes(), &mut out);
    assert!(!out.iter().any(|a| matches!(a, Action::Broken { .. })));
    server.input(0, park.as_bytes(), &mut out);
    assert_eq!(out.last(), Some(&Action::Broken { rank: Rank(0), error: PmiError::TooManyRequests { limit: 64 } }));
}

#[test]
fn one_rank_cannot_write_lines_into_anothers_stream() {
    let mut alone = Alone::new(server(2, 2), 2);
    alone.ask(0, "cmd=init pmi_version=2 pmi_subversion=0\n");
    alone.ask(1, "cmd=init pmi_version=1 pmi_subversion=1\n");
    assert!(alone.ask(0, &framed("cmd=kvs-put;key=k;value=v\ncmd=evil;")).ends_with("rc=0;"));
    assert!(alone.ask(0, &framed("cmd=name-publish;name=s;port=p\ncmd=evil;")).ends_with("rc=0;"));
    assert_eq!(alone.ask(1, "cmd=get kvsname=m0 key=k\n"), "cmd=get_result rc=1\n");
    assert_eq!(alone.ask(1, "cmd=lookup_name service=s\n"), "cmd=lookup_result rc=1\n");
    assert!(alone.ask(0, &framed("cmd=kvs-get;key=k;")).ends_with("value=v\ncmd=evil;"));
}

#[test]
fn a_spawn_that_contradicts_itself_is_refused_and_the_rank_lives_on() {
    let mut alone = Alone::new(server(1, 1), 1);
    alone.ask(0, "cmd=init pmi_version=2 pmi_subversion=0\n");
    for (body, why) in [
        ("ncmds=2;subcmd=/a;maxprocs=1;", "announced 2 segments and has 1"),
        ("subcmd=/a;maxprocs=1;", "ncmds is missing"),
        ("ncmds=1;subcmd=/a;maxprocs=0;", "maxprocs is missing"),
        ("ncmds=1;subcmd=/a;maxprocs=1;argc=2;argv0=x;", "2 of argv announced, 1 found"),
        ("ncmds=1;subcmd=/a;maxprocs=1;argc=2;argv0=x;argv0=y;", "argv is missing or malformed"),
        ("ncmds=1;subcmd=/a;maxprocs=1;argc=2;argv0=x;argv2=y;", "argv is missing or malformed"),
        ("ncmds=1;subcmd=/a;maxprocs=4194305;", "spawn of more than 4194304 processes"),
        ("ncmds=2;subcmd=/a;maxprocs=4294967295;subcmd=/b;maxprocs=4294967295;", "spawn of more than"),
    ] {
        let heard = alone.ask(0, &framed(&format!("cmd=spawn;{body}")));
        assert!(heard.contains("cmd=spawn-response;rc=1;errmsg=") && heard.contains(why), "{body}: {heard}");
    }
    let mut not_text = b"    54cmd=spawn;ncmds=1;maxprocs=1;subcmd=/\xff/a;maxprocs=1;".to_vec();
    not_text.splice(..6, format!("{:>6}", not_text.len() - 6).bytes());
    alone.input(0, &not_text);
    assert!(alone.heard(0).contains("subcmd is not UTF-8"));
    assert!(alone.spawned.is_empty());
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    let known = proptest::sample::select(vec![
        "cmd=init pmi_version=1 pmi_subversion=1\n",
        "cmd=init pmi_version=2 pmi_subversion=0\n",
        "cmd=put kvsname=m0 key=a value=b\n",
        "cmd=get kvsname=m0 key=a\n",
        "cmd=barrier_in\n",
        "cmd=lookup_name service=x\n",
        "    14cmd=kvs-fence;",
        "23    cmd=kvs-get;key=a;wait;",
        "mcmd=spawn\n",
        "endcmd\n",
        "cmd=finalize\n",
        "cmd=",
        " key=",
        "\n",
        ";",
    ])
    .prop_map(|w| w.as_bytes().to_vec());
    prop_oneof![4 => known, 1 => proptest::collection::vec(any::<u8>(), 0..12)]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_a_rank_breaks_once(
        script in proptest::collection::vec((0usize..2, words()), 0..40),
        gone in 0usize..40,
    ) {
        let mut alone = Alone::new(server(2, 2), 2);
        for (i, (local, bytes)) in script.iter().enumerate() {
            alone.input(*local, bytes);
            if i == gone {
                let mut out = Vec::new();
                alone.server.closed(*local, &mut out);
                alone.server.exited(*local, &mut out);
                alone.run(out);
            }
        }
        let ends = |rank: u32| alone.actions.iter().filter(|a| match a {
            Action::Left { rank: r, .. } | Action::Broken { rank: r, .. } | Action::Abort { rank: r, .. } => r.0 == rank,
            Action::Close { local } => *local == rank as usize,
            _ => false,
        }).count();
        prop_assert!(ends(0) <= 1 && ends(1) <= 1);
    }
}
