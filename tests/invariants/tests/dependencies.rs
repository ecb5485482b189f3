//! Who may depend on whom, from Cargo's own answer.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use muster_invariants::files;
use serde_json::Value;

/// Crates that decide and never wait.
const PURE: &[&str] = &["muster-core", "muster-protocol"];
/// Crates that bring a runtime, a clock or a random source along.
const RUNTIME: &[&str] = &["tokio", "tokio-util", "mio", "async-std", "smol", "rand", "getrandom", "chrono", "time"];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(files::root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

fn metadata() -> Value {
    // Without the host's triple Cargo would need the crates of every other platform as well.
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let text = cargo(&["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host]);
    serde_json::from_str(&text).expect("cargo writes JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is missing"))
}

fn members(metadata: &Value) -> Vec<&Value> {
    let ids: BTreeSet<&str> = list(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    list(metadata, "packages").iter().filter(|package| ids.contains(text(package, "id"))).collect()
}

#[test]
fn core_and_protocol_have_no_runtime() {
    let metadata = metadata();
    let names: BTreeMap<&str, &str> =
        list(&metadata, "packages").iter().map(|p| (text(p, "id"), text(p, "name"))).collect();
    let edges: BTreeMap<&str, Vec<&str>> =
        list(&metadata["resolve"], "nodes").iter().map(|node| (text(node, "id"), normal_dependencies(node))).collect();
    for pure in PURE {
        let start = names.iter().find(|(_, name)| *name == pure).unwrap_or_else(|| panic!("{pure} is a member")).0;
        let mut open = vec![vec![*start]];
        let mut seen = BTreeSet::from([*start]);
        while let Some(way) = open.pop() {
            let last = way[way.len() - 1];
            let shown: Vec<&str> = way.iter().map(|id| names[id]).collect();
            assert!(!RUNTIME.contains(&names[last]), "{pure} must not need {}: {}", names[last], shown.join(" → "));
            open.extend(edges[last].iter().filter(|next| seen.insert(next)).map(|next| [&way[..], &[*next]].concat()));
        }
        assert!(seen.len() > 1, "{pure} has dependencies that were looked at");
    }
}

/// What a crate links: neither its tests' nor its build script's needs.
fn normal_dependencies(node: &Value) -> Vec<&str> {
    let normal = |dependency: &&Value| list(dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null());
    list(node, "deps").iter().filter(normal).map(|dependency| text(dependency, "pkg")).collect()
}

/// How high a crate stands: it may only depend on crates that stand lower.
fn floor(folder: &str) -> Option<u32> {
    match folder {
        "protocol" => Some(0),
        "core" | "transport" => Some(1),
        "https" => Some(2),
        "worker-agent" => Some(3),
        "launcher" => Some(4),
        other if other.starts_with("native/") => Some(1),
        other if other.starts_with("tests/") => Some(5),
        // Measurements run on the tests' cluster.
        other if other.starts_with("benches") => Some(6),
        _ => None,
    }
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let root = files::root();
    let members = members(&metadata);
    let folder = |package: &Value| {
        let manifest = std::path::Path::new(text(package, "manifest_path"));
        let folder = manifest.parent().and_then(|f| f.strip_prefix(&root).ok()).expect("a member is in the workspace");
        folder.to_string_lossy().into_owned()
    };
    let floors: BTreeMap<&str, u32> = members
        .iter()
        .map(|package| {
            let folder = folder(package);
            let floor = floor(&folder).unwrap_or_else(|| panic!("{folder} has no floor in this test: give it one"));
            (text(package, "name"), floor)
        })
        .collect();
    let mut edges = 0;
    for package in &members {
        let (name, own) = (text(package, "name"), floors[text(package, "name")]);
        for dependency in list(package, "dependencies").iter().filter(|d| d["kind"].as_str() != Some("dev")) {
            let Some(below) = floors.get(text(dependency, "name")) else { continue };
            edges += 1;
            assert!(
                *below < own,
                "{name} (floor {own}) must not depend on {} (floor {below})",
                text(dependency, "name")
            );
        }
    }
    assert!(edges > 0, "members depend on each other");
}

#[test]
fn every_member_takes_the_workspace_lints() {
    for package in members(&metadata()) {
        let manifest =
            std::fs::read_to_string(text(package, "manifest_path")).expect("a member's manifest can be read");
        let name = text(package, "name");
        assert!(
            manifest.contains("[lints]\nworkspace = true\n"),
            "{name}: its manifest lacks `[lints] workspace = true`"
        );
    }
}

#[test]
fn crate_roots_forbid_unsafe_code() {
    let native = files::root().join("native");
    let mut roots = 0;
    for package in members(&metadata()) {
        for target in list(package, "targets") {
            let path = std::path::Path::new(text(target, "src_path"));
            let shipped =
                list(target, "kind").iter().any(|kind| ["lib", "bin"].contains(&kind.as_str().unwrap_or_default()));
            if !shipped || path.starts_with(&native) {
                continue;
            }
            roots += 1;
            let source = std::fs::read_to_string(path).expect("a crate root can be read");
            let forbids = muster_invariants::rules::forbids_unsafe(&source);
            assert!(forbids, "{} does not begin with #![forbid(unsafe_code)]", path.display());
        }
    }
    assert!(roots >= 5, "the crates outside of native were looked at");
}

#[test]
fn no_kubernetes_client_is_linked() {
    let metadata = metadata();
    let clients: Vec<&str> = list(&metadata, "packages")
        .iter()
        .map(|package| text(package, "name"))
        .filter(|name| name.starts_with("kube") || name.starts_with("k8s"))
        .collect();
    assert!(clients.is_empty(), "the default needs no rights at the Kubernetes API: {clients:?}");
}
