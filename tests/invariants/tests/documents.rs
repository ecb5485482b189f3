//! That names and documents keep up with the sources.

use muster_invariants::{files, rules};

/// What limits are counted in.
const UNITS: &[&str] = &[
    "BYTES",
    "CHARS",
    "MS",
    "HOSTS",
    "AGENTS",
    "LAUNCHERS",
    "RANKS_PER_HOST",
    "PROCS",
    "PROCESSES",
    "GROUPS",
    "RADIX",
    "FRAMES",
    "CONNECTIONS",
    "NAMES",
    "ENTRIES",
    "FIELDS",
    "REQUESTS",
    "ANSWERS",
    "INPUTS",
    "ORDERS",
    "OPERATIONS",
    "WISHES",
    "MESSAGES",
    "SIGNALS",
    "REFUSALS",
    "DIALS",
    "ATTEMPTS",
    "PIPES",
    "ADDRESSES",
];

#[test]
fn every_limit_names_its_unit() {
    let limits = files::read("protocol/src/limits.rs");
    assert!(limits.contains("pub const "), "there are limits to look at");
    let bare = rules::without_unit(&limits, UNITS);
    assert!(bare.is_empty(), "these limits do not end with one of {UNITS:?}: {bare:?}");
}

#[test]
fn every_bold_invariant_names_its_test() {
    let invariants = rules::bold_invariants(&files::read("ARCHITECTURE.md"));
    assert!(invariants.len() >= 8, "ARCHITECTURE.md lists the invariants as `- **…**`");
    for (invariant, tests) in invariants {
        assert!(!tests.is_empty(), "ARCHITECTURE.md: no `FILE.rs::TEST` with \"{invariant}\"");
        for (file, test) in tests {
            let there = files::root().join(&file).is_file() && rules::has_test(&files::read(&file), &test);
            assert!(there, "ARCHITECTURE.md: \"{invariant}\" names {file}::{test}, which is no test");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = files::root();
    let mut links = 0;
    for document in files::with_endings(&[".md"]) {
        let folder = root.join(&document.path).parent().expect("a file is in a folder").to_owned();
        for link in document.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            assert!(folder.join(target).exists(), "{}: the link to {link} leads nowhere", document.path);
        }
    }
    assert!(links > 0, "documents link to each other");
}
