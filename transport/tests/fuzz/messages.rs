//! Hostile payloads: whatever arrives as a message is a message or an error, and what is taken says the same again.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use muster_protocol::frame::Kind;
use muster_protocol::hello::HelloReply;
use muster_protocol::message::*;
use muster_protocol::{Epoch, Generation, HostIndex};

use crate::common::{Numbers, hello, welcome};
use crate::rig::{fuzz, mutated};

const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };

/// Kinds without a payload that is a message: raw bytes, and those of the greeting, which has a target of its own.
const RAW: &[Kind] = &[Kind::Hello, Kind::HelloReply, Kind::FenceUp, Kind::FenceDown, Kind::Output, Kind::Input];

/// Reads a payload as this message; what is understood has to survive being sent on. Says whether it was understood.
fn survives<M: Message + PartialEq + Debug>(payload: &Bytes) -> bool {
    let Ok(message) = M::read(&STAMP.raw(M::KIND, HostIndex(0), payload.clone())) else { return false };
    let again = STAMP.frame(HostIndex(0), &message);
    assert_eq!(again.payload.len(), message.payload_bytes());
    assert_eq!(M::read(&again).as_ref(), Ok(&message), "sent on it says something else");
    true
}

macro_rules! every_message {
    ($($name:ident),* $(,)?) => {
        const KINDS: &[Kind] = &[$( $name::KIND, )*];
        const SURVIVES: &[fn(&Bytes) -> bool] = &[$( survives::<$name>, )*];
    };
}

every_message!(
    Heartbeat,
    Alive,
    Adopt,
    Spec,
    Share,
    Signal,
    Kill,
    Resync,
    CallAnswer,
    Query,
    End,
    Release,
    Fetch,
    Dead,
    Forget,
    Joined,
    Missing,
    Started,
    Exits,
    Call,
    Abort,
    Lost,
    Report,
    Ended,
    WantBulk,
    Initialised,
    Wanted,
    Fetched,
    Say,
    OutputAck,
    InputAck,
    ShellStart,
    ShellTell,
    ShellPing,
    ShellExit,
);

#[test]
fn every_kind_is_fuzzed_or_named_as_raw() {
    let codes = |kinds: &[Kind]| kinds.iter().map(|kind| kind.code()).collect::<BTreeSet<u8>>();
    let covered: BTreeSet<u8> = codes(KINDS).union(&codes(RAW)).copied().collect();
    assert_eq!(covered, codes(Kind::ALL));
}

/// Any CBOR: heads of all kinds, lengths that are kept or lied about, a few levels deep.
fn cbor(numbers: &mut Numbers, depth: usize, out: &mut Vec<u8>) {
    let small = numbers.below(12) as u8;
    match numbers.below(if depth == 0 { 5 } else { 9 }) {
        0 => out.push(small),
        1 => head(numbers, 0x00, out),
        2 => head(numbers, 0x20, out),
        3 | 4 => {
            let bytes = numbers.bytes(usize::from(small));
            let major = if numbers.below(2) == 0 { 0x40 } else { 0x60 };
            out.push(major | small);
            out.extend(bytes.iter().map(|byte| if major == 0x60 { byte & 0x7f } else { *byte }));
        }
        5 => out.push([0xf4, 0xf5, 0xf6, 0xf7, 0xff, 0x9f, 0x5f, 0xbf][numbers.below(8)]),
        6 => {
            let major = [0x40, 0x60, 0x80, 0xa0, 0xc0][numbers.below(5)];
            head(numbers, major, out);
        }
        major => {
            let (head, each) = if major == 7 { (0xa0, 2) } else { (0x80, 1) };
            out.push(head | small);
            (0..small * each).for_each(|_| cbor(numbers, depth - 1, out));
        }
    }
}

/// A head with a number behind it that may promise anything.
fn head(numbers: &mut Numbers, major: u8, out: &mut Vec<u8>) {
    let width = numbers.below(4);
    out.push(major | (24 + width as u8));
    out.extend(numbers.bytes(1 << width));
}

/// Good payloads to begin with: those of the greeting, and messages with sets, texts, bytes and choices in them.
fn good() -> Vec<Bytes> {
    let end = ShellEnd::NotStarted { why: "no".to_owned(), code: 255 };
    let start = ShellStart {
        command: Some(b"echo \xff".to_vec().into()),
        user: Some("root".to_owned()),
        terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        term: None,
        input: true,
    };
    let exits = Exits {
        procs: (0..3)
            .map(|proc| ProcExit {
                proc: muster_protocol::ProcId(proc),
                end: ProcEnd::Signaled {
                    signal: 9,
                    core: false,
                    memory: Some(OutOfMemory { killed: 1, limit_bytes: Some(1 << 30) }),
                },
                phase: Phase::Initialised,
                maxrss_kib: 12,
                killed: false,
            })
            .collect(),
    };
    vec![
        hello("job", 7).frame().payload,
        HelloReply::Welcome(welcome()).frame().payload,
        STAMP.to_all(&ShellExit { end }).payload,
        STAMP.to_all(&start).payload,
        STAMP.to_all(&exits).payload,
        STAMP.to_all(&Joined { hosts: (0..70).map(HostIndex).collect() }).payload,
    ]
}

#[test]
fn messages_survive_any_payload() {
    let good = good();
    fuzz("messages", |seed| {
        let mut numbers = Numbers::new(seed);
        let payload = if numbers.below(2) == 0 {
            let mut payload = Vec::new();
            cbor(&mut numbers, 5, &mut payload);
            payload
        } else {
            let base = good[numbers.below(good.len())].to_vec();
            mutated(&mut numbers, base)
        };
        let payload = Bytes::from(payload);
        for survives in SURVIVES {
            survives(&payload);
        }
    });
}

#[test]
fn what_the_target_begins_with_is_understood_by_somebody() {
    for payload in good().into_iter().skip(2) {
        assert!(SURVIVES.iter().any(|survives| survives(&payload)), "{payload:?}");
    }
}
