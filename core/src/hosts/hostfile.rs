//! Host files: Open MPI's `host slots=4 max_slots=8`, hydra's `host:4`, and plain lists of hosts.

use super::{EntryProblem, HostList, HostSpec, ListProblem, Origin, SLOTS_DEFAULT, entry};

/// What is wrong at one place of a host file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostfileProblem {
    /// The host, its slots or its port.
    #[error(transparent)]
    Entry(#[from] EntryProblem),
    /// The hosts do not go together.
    #[error(transparent)]
    List(#[from] ListProblem),
    /// A word behind the host without `=`.
    #[error("{0:?} is not KEY=VALUE; one host stands on each line, as NAME, NAME:SLOTS or NAME slots=N max_slots=N")]
    NotAKey(String),
    /// A key nobody knows.
    #[error("unknown key {0:?}; known are slots, max_slots and port (user, binding and map are accepted and ignored)")]
    UnknownKey(String),
    /// A key given twice, or slots both ways.
    #[error("{0} is given twice on this line; keep one")]
    Twice(&'static str),
    /// No host at all.
    #[error("no host in this file; write one NAME [slots=N] on each line")]
    Empty,
}

/// A host file that is refused, with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct HostfileError {
    /// The file as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong there.
    pub problem: HostfileProblem,
}

#[derive(Default)]
struct Keys {
    slots: Option<u32>,
    max_slots: Option<u32>,
    port: Option<u16>,
}

/// Reads the text of a host file. Comments start with `#`, line ends may be CRLF, a host without slots has
/// [`SLOTS_DEFAULT`], a repeated host adds slots.
pub fn parse_hostfile(file: &str, text: &str) -> Result<HostList, HostfileError> {
    let mut list = HostList::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (i, raw) in text.lines().enumerate() {
        let line = i as u32 + 1;
        let body = raw.split_once('#').map_or(raw, |(body, _)| body);
        read_line(file, line, body, &mut list).map_err(|(word, problem)| HostfileError {
            file: file.to_owned(),
            line,
            column: column(raw, word),
            problem,
        })?;
    }
    if list.is_empty() {
        return Err(HostfileError { file: file.to_owned(), line: 1, column: 1, problem: HostfileProblem::Empty });
    }
    Ok(list)
}

fn read_line<'a>(file: &str, line: u32, body: &'a str, list: &mut HostList) -> Result<(), (&'a str, HostfileProblem)> {
    let mut words = body.split_whitespace();
    let Some(first) = words.next() else { return Ok(()) };
    let host = entry::parse(first).map_err(|e| (first, e.into()))?;
    let mut keys = Keys { slots: host.slots, max_slots: None, port: host.port };
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        // Open MPI also takes `slots = 4`.
        let (key, value) = match word.split_once('=') {
            Some((key, "")) => (key, words.next().unwrap_or("")),
            Some(pair) => pair,
            None => match words.next_if(|next| next.starts_with('=')) {
                Some("=") => (word, words.next().unwrap_or("")),
                Some(next) => (word, &next[1..]),
                None => return Err((word, HostfileProblem::NotAKey(word.to_owned()))),
            },
        };
        read_key(&host.name, key, value, &mut keys, list, &Origin::file(file, line)).map_err(|e| (word, e))?;
    }
    list.add(HostSpec {
        name: host.name,
        address: None,
        slots: keys.slots.unwrap_or(SLOTS_DEFAULT),
        max_slots: keys.max_slots,
        port: keys.port,
        origin: Origin::file(file, line),
    })
    .map_err(|e| (first, e.into()))?;
    Ok(())
}

fn read_key(
    host: &str,
    key: &str,
    value: &str,
    keys: &mut Keys,
    list: &mut HostList,
    origin: &Origin,
) -> Result<(), HostfileProblem> {
    match key {
        "slots" | "count" => set(&mut keys.slots, "the number of slots", entry::slots_of(host, value)?),
        "max_slots" | "max-slots" | "slots_max" | "slots-max" => {
            set(&mut keys.max_slots, "max_slots", entry::slots_of(host, value)?)
        }
        "port" => set(&mut keys.port, "the port", entry::port_of(host, value)?),
        "user" | "username" | "user_name" | "binding" | "map" => {
            list.notes.push(format!("{origin}: {key}={value} has no effect here and is ignored"));
            Ok(())
        }
        _ => Err(HostfileProblem::UnknownKey(key.to_owned())),
    }
}

fn set<T>(place: &mut Option<T>, what: &'static str, value: T) -> Result<(), HostfileProblem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(HostfileProblem::Twice(what)),
    }
}

/// Column of `word`, which is a slice of `line`, in characters from 1.
fn column(line: &str, word: &str) -> u32 {
    let bytes = (word.as_ptr() as usize).saturating_sub(line.as_ptr() as usize).min(line.len());
    line.get(..bytes).map_or(1, |before| before.chars().count() as u32 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short(text: &str) -> Vec<(String, u32, Option<u32>)> {
        let list = parse_hostfile("hosts", text).unwrap();
        list.hosts().iter().map(|h| (h.name.clone(), h.slots, h.max_slots)).collect()
    }

    fn error(text: &str) -> String {
        parse_hostfile("hosts", text).unwrap_err().to_string()
    }

    #[test]
    fn c1_the_operators_literal_lines_are_read() {
        for (text, name, slots) in [
            (
                "openmpi-with-slots-worker-0.openmpi-with-slots.tenant-a.svc slots=10\n",
                "openmpi-with-slots-worker-0.openmpi-with-slots.tenant-a.svc",
                10,
            ),
            (
                "intelmpi-with-slots-worker-0.intelmpi-with-slots.project-x.svc:10\n",
                "intelmpi-with-slots-worker-0.intelmpi-with-slots.project-x.svc",
                10,
            ),
            ("test-job-launcher-0-0.test-job slots=1", "test-job-launcher-0-0.test-job", 1),
            ("job-worker-0 slots=2", "job-worker-0", 2),
            ("job-worker-0.job\n", "job-worker-0.job", 1),
            // A line of Volcano's /etc/volcano/<task>.host.
            ("job-mpiworker-0.job\n", "job-mpiworker-0.job", 1),
        ] {
            assert_eq!(short(text), [(name.to_owned(), slots, None)], "{text}");
        }
    }

    #[test]
    fn comments_blank_lines_crlf_spaces_and_repeats() {
        let text =
            "\u{feff}# cluster\r\n\r\na slots=2 max_slots=8 # fast\r\nb:3\r\n  c\t slots = 2  max-slots =4\r\na\r\n";
        assert_eq!(short(text), [("a".into(), 3, Some(8)), ("b".into(), 3, None), ("c".into(), 2, Some(4))]);
    }

    #[test]
    fn keys_without_effect_become_notes() {
        let list = parse_hostfile("hosts", "a:2 user=me binding=core port=7000\n").unwrap();
        assert_eq!(list.hosts()[0].port, Some(7000));
        insta::assert_snapshot!(list.notes.join("\n"), @r"
        hosts:1: user=me has no effect here and is ignored
        hosts:1: binding=core has no effect here and is ignored
        ");
    }

    #[test]
    fn mistakes_are_told_with_line_and_column() {
        insta::assert_snapshot!(error("a\nb slot=4\n"), @r#"hosts:2:3: unknown key "slot"; known are slots, max_slots and port (user, binding and map are accepted and ignored)"#);
        insta::assert_snapshot!(error("a slots=four"), @r#"hosts:1:3: slots of "a" are "four"; write a whole number from 1 to 4096"#);
        insta::assert_snapshot!(error("a b"), @r#"hosts:1:3: "b" is not KEY=VALUE; one host stands on each line, as NAME, NAME:SLOTS or NAME slots=N max_slots=N"#);
        insta::assert_snapshot!(error("# x\n\n  node[01-16] slots=4"), @r#"hosts:3:3: host ranges are not supported, found "node[01-16]"; list the hosts one by one, such as node1,node2"#);
        insta::assert_snapshot!(error("a:2 slots=2"), @"hosts:1:5: the number of slots is given twice on this line; keep one");
        insta::assert_snapshot!(error("a slots=4 max_slots=2"), @r#"hosts:1:1: host "a" has 4 slots but max_slots=2; lower the slots or raise max_slots"#);
        insta::assert_snapshot!(error("a slots="), @r#"hosts:1:3: slots of "a" are ""; write a whole number from 1 to 4096"#);
        insta::assert_snapshot!(error("# nobody\n"), @"hosts:1:1: no host in this file; write one NAME [slots=N] on each line");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "[a-c\\[\\]{}:@=#. \t\r\n0-9é]{0,60}|slots=.{0,12}") {
            if let Err(e) = parse_hostfile("f", &text) {
                prop_assert!(e.line >= 1 && e.column >= 1);
            }
        }

        #[test]
        fn what_is_written_is_read_back(hosts in proptest::collection::vec(("[a-z][a-z0-9-]{0,8}", 1u32..64), 1..20)) {
            let text: String = hosts.iter().map(|(n, s)| format!("{n} slots={s}\n")).collect();
            let list = parse_hostfile("f", &text).unwrap();
            prop_assert_eq!(list.slots(), hosts.iter().map(|(_, s)| u64::from(*s)).sum::<u64>());
            let named: Vec<_> = list.mentions().iter().map(|i| list.get(*i).unwrap().name.clone()).collect();
            prop_assert_eq!(named, hosts.into_iter().map(|(n, _)| n).collect::<Vec<_>>());
        }
    }
}
