//! `docs/protocol.md` and the sources that define the wire say the same.
//!
//! The hash makes sure that nobody changes the wire without having the document in front of them; the tables are held
//! against the sources row by row.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use muster_protocol::frame::{HEADER_BYTES, Kind, MAGIC};
use muster_protocol::hello::{Refusal, Role};
use muster_protocol::limits;
use muster_protocol::message::Kill;
use sha2::{Digest, Sha256};

mod wire;

use wire::{Row, types};

/// What defines the wire, as modules of this crate.
const WIRE: &[&str] = &["frame", "hello", "hostset", "ids", "message"];
/// Where the hash stands in the document.
const HASH_LINE: &str = "wire hash: `";

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    fs::read_to_string(crate_folder().join("../docs/protocol.md")).expect("docs/protocol.md can be read")
}

/// The sources of a module: its file, and the files of its folder if it has one.
fn sources(module: &str) -> Vec<String> {
    let src = crate_folder().join("src");
    let mut files: Vec<PathBuf> = vec![src.join(format!("{module}.rs"))];
    if let Ok(folder) = fs::read_dir(src.join(module)) {
        files.extend(
            folder.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "rs")),
        );
    }
    files.retain(|path| path.is_file() && !path.ends_with("tests.rs"));
    files.sort();
    assert!(!files.is_empty(), "module {module} has no source; is the list in this test out of date?");
    files.iter().map(|path| fs::read_to_string(path).expect("a source can be read")).collect()
}

fn hash() -> String {
    let mut digest = Sha256::new();
    for module in WIRE {
        for source in sources(module) {
            digest.update(wire::essence(&source));
        }
        digest.update([0]);
    }
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The part of the document under the heading that has this name in backticks.
fn section<'a>(document: &'a str, name: &str) -> &'a str {
    let title = format!(" `{name}`\n");
    let start = document
        .match_indices('\n')
        .map(|(at, _)| at + 1)
        .find(|at| document[*at..].starts_with('#') && document[*at..].trim_start_matches('#').starts_with(&title))
        .unwrap_or_else(|| panic!("docs/protocol.md has no section headed `{name}`"));
    let body = &document[start + document[start..].find('\n').unwrap_or(0)..];
    body.find("\n#").map_or(body, |end| &body[..end])
}

#[test]
fn the_document_was_looked_at_after_the_wire_changed() {
    let document = document();
    let written =
        document.split(HASH_LINE).nth(1).and_then(|rest| rest.split('`').next()).expect("the document has a hash");
    let actual = hash();
    assert_eq!(
        written, actual,
        "\nthe wire changed: bring docs/protocol.md up to date (the other tests here say which rows are missing), then write the new hash:\n  \
         sed -i 's/^wire hash: .*/{HASH_LINE}{actual}`/' docs/protocol.md\n"
    );
}

#[test]
fn wording_does_not_change_the_hash_and_code_does() {
    let one = wire::essence(
        "//! A.\n\n/// B.\npub struct C {\n    /// D.\n    #[n(0)]\n    pub d: u32,\n}\n#[cfg(test)]\nmod tests {}\n",
    );
    let reworded =
        wire::essence("//! Z.\npub struct C { #[n(0)] pub d: u32 }\n\n#[cfg(test)]\nmod tests { fn x() {} }\n");
    assert_eq!(one, reworded);
    assert_ne!(one, wire::essence("pub struct C { #[n(1)] pub d: u32 }"));
}

#[test]
fn every_kind_has_its_row() {
    let document = document();
    for kind in Kind::ALL {
        let row = format!("| {} | `{kind:?}` | {} |", kind.code(), format!("{:?}", kind.class()).to_lowercase());
        assert!(document.contains(&row), "docs/protocol.md, table of kinds: no row that begins with\n  {row}");
    }
}

#[test]
fn every_field_and_variant_has_its_row() {
    let document = document();
    let mut found = 0;
    for module in WIRE {
        for source in sources(module) {
            for (name, rows) in types(&source) {
                let section = section(&document, &name);
                for Row { number, name: field, kind } in &rows {
                    let row = format!("| {number} | `{field}` | {kind} |");
                    assert!(
                        section.contains(&row),
                        "docs/protocol.md, section `{name}`: no row that begins with\n  {row}"
                    );
                    found += 1;
                }
                let listed =
                    section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| n |")).count();
                assert_eq!(listed, rows.len(), "docs/protocol.md, section `{name}`: rows of what is no longer there");
            }
        }
    }
    assert!(found > 100, "the sources were understood: {found} fields and variants");
}

#[test]
fn the_header_and_the_limits_are_as_written() {
    let document = document();
    assert!(document.contains(&format!("a header of {HEADER_BYTES} bytes")), "docs/protocol.md: size of the header");
    assert!(document.contains(&format!("{MAGIC:#010x}")), "docs/protocol.md: the magic number");
    let rows = [
        ("HOSTS_MAX", u64::from(limits::HOSTS_MAX)),
        ("RANKS_PER_HOST_MAX", u64::from(limits::RANKS_PER_HOST_MAX)),
        ("PROCS_MAX", u64::from(limits::PROCS_MAX)),
        ("GROUPS_MAX", u64::from(limits::GROUPS_MAX)),
        ("TREE_RADIX_DEFAULT", u64::from(limits::TREE_RADIX_DEFAULT)),
        ("TREE_RADIX_MAX", u64::from(limits::TREE_RADIX_MAX)),
        ("CONTROL_PAYLOAD_BYTES_MAX", u64::from(limits::CONTROL_PAYLOAD_BYTES_MAX)),
        ("FENCE_CHUNK_BYTES_MAX", u64::from(limits::FENCE_CHUNK_BYTES_MAX)),
        ("FENCE_BYTES_MAX", limits::FENCE_BYTES_MAX as u64),
        ("BULK_PAYLOAD_BYTES_MAX", u64::from(limits::BULK_PAYLOAD_BYTES_MAX)),
        ("HELLO_PAYLOAD_BYTES_MAX", u64::from(limits::HELLO_PAYLOAD_BYTES_MAX)),
        ("STREAM_WINDOW_BYTES_MAX", u64::from(limits::STREAM_WINDOW_BYTES_MAX)),
        ("STREAM_WINDOW_BYTES_MIN", u64::from(limits::STREAM_WINDOW_BYTES_MIN)),
        ("OUTPUT_BUDGET_BYTES", limits::OUTPUT_BUDGET_BYTES),
        ("STDIN_WINDOW_BYTES", u64::from(limits::STDIN_WINDOW_BYTES)),
        ("UNPROVEN_CONNECTIONS_MAX", limits::UNPROVEN_CONNECTIONS_MAX as u64),
        ("HANDSHAKE_TIMEOUT_MS", limits::HANDSHAKE_TIMEOUT_MS),
        ("HEARTBEAT_PERIOD_MS", limits::HEARTBEAT_PERIOD_MS),
        ("SILENCE_PROBE_MS", limits::SILENCE_PROBE_MS),
        ("SILENCE_DEAD_MS", limits::SILENCE_DEAD_MS),
        ("FENCE_LEASE_MS", limits::FENCE_LEASE_MS),
        ("LEASE_KILL_RESERVE_MS", limits::LEASE_KILL_RESERVE_MS),
        ("KILL_GRACE_MS", limits::KILL_GRACE_MS),
    ];
    for (name, value) in rows {
        let row = format!("| `{name}` | {value} |");
        assert!(document.contains(&row), "docs/protocol.md, limits: no row that begins with\n  {row}");
    }
}

#[test]
fn payloads_are_encoded_as_described() {
    // A structure is an array of its fields, an index-only variant its number, another variant its number and fields.
    assert_eq!(minicbor::to_vec(Kill { grace_ms: 7 }).unwrap(), [0x81, 7]);
    assert_eq!(minicbor::to_vec(Role::Probe).unwrap(), [3]);
    assert_eq!(minicbor::to_vec(Refusal::NoEdge).unwrap(), [0x82, 4, 0x80]);
    assert_eq!(minicbor::to_vec(Refusal::WrongJob { theirs: "b".into() }).unwrap(), [0x82, 0, 0x81, 0x61, b'b']);
}
