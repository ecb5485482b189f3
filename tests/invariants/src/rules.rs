//! Rules over one file each: every function returns what breaks its rule, as `line: what`.

use crate::code::{self, Function};

/// What a crate without I/O must not name: clocks, files, processes, sockets, threads, the environment, random numbers.
/// Addresses of `std::net` are plain data.
const OUTSIDE: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "rand",
    "getrandom",
    "tokio",
];

/// What a source names that only crates with I/O may.
pub fn reaches_outside(source: &str) -> Vec<String> {
    let code = code::without_tests(&code::code_only(source));
    let named =
        OUTSIDE.iter().flat_map(|name| code::words(&code, name).map(move |(_, line)| format!("{line}: {name}")));
    // One path for each line is the style here, and what lets the names above be found.
    let grouped = code.lines().enumerate().filter(|(_, line)| line.contains("use std::{"));
    named.chain(grouped.map(|(i, _)| format!("{}: use std::{{…}}", i + 1))).collect()
}

/// Where a source says `unsafe`.
pub fn unsafe_code(source: &str) -> Vec<String> {
    code::words(&code::code_only(source), "unsafe").map(|(_, line)| format!("{line}: unsafe")).collect()
}

/// Whether a crate root forbids `unsafe`.
pub fn forbids_unsafe(source: &str) -> bool {
    code::code_only(source).contains("#![forbid(unsafe_code)]")
}

/// Lints that are switched off for good where they should be expected with a reason.
pub fn allowed_lints(source: &str) -> Vec<String> {
    let code = code::code_only(source);
    let attribute = |at: usize| {
        let before = code[..at].trim_end();
        before.ends_with("#[") || before.ends_with("#![") || before.ends_with(',')
    };
    let inside = code::words(&code, "allow").filter(|(at, _)| attribute(*at) && code[at + 5..].starts_with('('));
    inside.map(|(_, line)| format!("{line}: allow")).collect()
}

/// Functions of more lines than this.
pub fn long_functions(source: &str, lines_max: usize) -> Vec<Function> {
    code::functions(&code::code_only(source)).into_iter().filter(|f| f.lines > lines_max).collect()
}

/// Lines that name a path below this absolute one.
pub fn names_path(text: &str, absolute: &str) -> Vec<String> {
    // In front of an absolute path stands nothing that could belong to a path, such as `x` in `x/src`.
    let part_of_path = |c: char| c.is_alphanumeric() || "._-/~$}*".contains(c);
    let names = |line: &str| {
        line.match_indices(absolute).any(|(at, _)| {
            let before = line[..at].chars().next_back().is_some_and(part_of_path);
            let after =
                line[at + absolute.len()..].chars().next().is_some_and(|c| c.is_alphanumeric() || "._-".contains(c));
            !before && !after
        })
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| names(line))
        .map(|(i, line)| format!("{}: {}", i + 1, line.trim()))
        .collect()
}

/// Names of constants that do not end with one of these units, with `_MAX`, `_MIN` or `_DEFAULT` behind it or without.
pub fn without_unit(source: &str, units: &[&str]) -> Vec<String> {
    let constants = source.lines().filter_map(|line| line.trim_start().strip_prefix("pub const ")?.split(':').next());
    let unit = |name: &&str| {
        let bare = ["_MAX", "_MIN", "_DEFAULT"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        units.iter().any(|unit| bare == *unit || bare.ends_with(&format!("_{unit}")))
    };
    constants.filter(|name| !unit(name)).map(str::to_owned).collect()
}

/// The invariants of a document, each with the tests it names: list items that begin bold, and `` `FILE::TEST` `` in them.
pub fn bold_invariants(document: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut items: Vec<String> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if line.starts_with("- **") {
            items.push(line.to_owned());
            inside = true;
        } else if inside && line.starts_with("  ") {
            if let Some(item) = items.last_mut() {
                item.push(' ');
                item.push_str(line.trim());
            }
        } else {
            inside = false;
        }
    }
    let tests = |item: &str| {
        let named = item.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::"));
        named.filter(|(file, _)| file.ends_with(".rs")).map(|(f, t)| (f.to_owned(), t.to_owned())).collect()
    };
    items.into_iter().map(|item| (item.split("**").nth(1).unwrap_or_default().to_owned(), tests(&item))).collect()
}

/// Whether a source has a test function of this name.
pub fn has_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let Some(at) = source.find(&head) else { return false };
    let attributes = source[..at].rsplit("\n\n").next().unwrap_or_default();
    ["#[test]", "::test]", "::test("].iter().any(|attribute| attributes.contains(attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaching_outside_is_found_outside_of_tests_only() {
        let source = "use std::fs;\nfn f() { Instant::now(); }\n// std::env\nconst R: &str = env!(\"X\");\nuse std::net::IpAddr;\n#[cfg(test)]\nmod t {\n    use std::env;\n}\n";
        assert_eq!(reaches_outside(source), ["2: Instant::now", "1: std::fs"]);
    }

    #[test]
    fn unsafe_code_and_allowed_lints_are_found() {
        assert_eq!(unsafe_code("#![forbid(unsafe_code)]\nunsafe { x() } // unsafe"), ["2: unsafe"]);
        assert!(forbids_unsafe("#![forbid(unsafe_code)]") && !forbids_unsafe("//! #![forbid(unsafe_code)]"));
        let source = "#[allow(dead_code)]\n#![allow(x)]\n#[cfg_attr(test, allow(x))]\n#[expect(y)]\nfn allow(x: u8) { self.allow(x) }";
        assert_eq!(allowed_lints(source), ["1: allow", "2: allow", "3: allow"]);
    }

    #[test]
    fn long_functions_are_found() {
        let source = "fn short() {}\nfn long() {\n\n\n}\n";
        assert_eq!(long_functions(source, 3), [Function { name: "long".into(), line: 2, lines: 4 }]);
    }

    #[test]
    fn absolute_paths_are_found_and_relative_ones_are_not() {
        assert_eq!(names_path("cd \"/a/src\"\nb/a/src\n/a/srcs\n", "/a/src"), ["1: cd \"/a/src\""]);
    }

    #[test]
    fn constants_without_unit_are_found() {
        let source = "pub const A_BYTES_MAX: u32 = 1;\npub const HOSTS_MAX: u32 = 1;\npub const A_LIMIT: u32 = 1;\n";
        assert_eq!(without_unit(source, &["BYTES", "HOSTS"]), ["A_LIMIT"]);
    }

    #[test]
    fn invariants_are_read_with_their_tests() {
        let document = "- **One.** Why.\n  `a/b.rs::t`, `x::y`\n- plain\n  `c.rs::u`\n- **Two.**\n";
        let one = ("One.".to_owned(), vec![("a/b.rs".to_owned(), "t".to_owned())]);
        assert_eq!(bold_invariants(document), [one, ("Two.".to_owned(), vec![])]);
        let source = "#[test]\nfn t() {}\n\nfn u() {}\n";
        assert!(has_test(source, "t") && !has_test(source, "u") && !has_test(source, "v"));
    }
}
