//! What sources may say and how long they may be.

use std::path::Path;

use muster_invariants::files::{self, SourceFile};
use muster_invariants::rules;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// What is longer all the same, and why: `FILE` or `FILE::FUNCTION`.
const LONGER: &[(&str, &str)] = &[];

/// Fails with everything that was found, so that one run shows all there is to do.
fn none(rule: &str, files: &[SourceFile], found: impl Fn(&SourceFile) -> Vec<String>) {
    assert!(!files.is_empty(), "there are files to look at");
    let all: Vec<String> =
        files.iter().flat_map(|f| found(f).into_iter().map(|what| format!("  {}:{what}", f.path))).collect();
    assert!(all.is_empty(), "{rule}:\n{}", all.join("\n"));
}

#[test]
fn core_and_protocol_touch_nothing_outside() {
    for folder in ["core/src/", "protocol/src/"] {
        let mut sources = files::rust_below(folder);
        sources.retain(|file| !file.is_test());
        none("these crates take time, files and chance as arguments", &sources, |f| rules::reaches_outside(&f.text));
    }
}

#[test]
fn unsafe_stands_in_native_only() {
    let mut sources = files::rust_below("");
    sources.retain(|file| !file.path.starts_with("native/"));
    none("unsafe code belongs into a crate below native/", &sources, |f| rules::unsafe_code(&f.text));
}

#[test]
fn lints_are_expected_not_allowed() {
    none("say #[expect(…, reason = \"…\")]", &files::rust_below(""), |f| rules::allowed_lints(&f.text));
}

#[test]
fn files_and_functions_stay_small() {
    let mut unused: Vec<&str> = LONGER.iter().map(|(what, _)| *what).collect();
    let mut found = Vec::new();
    let mut judge = |what: String, lines: usize, max: usize| {
        if LONGER.iter().any(|(allowed, _)| *allowed == what) {
            unused.retain(|u| *u != what);
        } else {
            found.push(format!("  {what}: {lines} lines, at most {max}"));
        }
    };
    for file in files::rust_below("") {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            judge(file.path.clone(), lines, FILE_LINES_MAX);
        }
        for function in rules::long_functions(&file.text, FUNCTION_LINES_MAX) {
            judge(format!("{}::{}", file.path, function.name), function.lines, FUNCTION_LINES_MAX);
        }
    }
    assert!(found.is_empty(), "these want to be two things:\n{}", found.join("\n"));
    assert!(unused.is_empty(), "no longer too long, take them out of this test's list: {unused:?}");
}

#[test]
fn no_path_of_a_developers_machine() {
    let root = files::root();
    let mut places = vec![root.clone()];
    // The folder that holds the checkout is as private as the checkout, unless it is one that every machine has.
    let common =
        ["/", "/root", "/home", "/tmp", "/usr/src", "/usr/local/src", "/opt", "/srv", "/var", "/mnt", "/app", "/src"];
    places.extend(root.parent().filter(|parent| !common.iter().any(|c| *parent == Path::new(c))).map(Into::into));
    let endings =
        [".rs", ".toml", ".md", ".sh", ".py", ".c", ".h", ".yaml", ".yml", ".json", "Makefile", "Dockerfile", "run"];
    let text = files::with_endings(&endings);
    for place in places {
        let place = place.to_string_lossy().into_owned();
        none("an absolute path that only this machine has", &text, |f| rules::names_path(&f.text, &place));
    }
}
