//! The host list of the command line: `-H a:4,b,c:2`.

use super::{EntryProblem, HostList, HostSpec, ListProblem, Origin, SLOTS_DEFAULT, entry};

/// Why a host list of the command line or the environment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsFlagError {
    /// One host of the list is wrong.
    #[error("{origin}: host {position} of the list: {problem}")]
    Entry {
        /// Where the list was given.
        origin: Origin,
        /// Which host of the list, from 1.
        position: usize,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The hosts do not go together.
    #[error("{origin}: {problem}")]
    List {
        /// Where the list was given.
        origin: Origin,
        /// What is wrong.
        problem: ListProblem,
    },
    /// No host at all.
    #[error("{origin}: the host list is empty; write NAME[:SLOTS],…")]
    Empty {
        /// Where the list was given.
        origin: Origin,
    },
}

/// Reads `name[:slots][@port],…`. A host without slots has [`SLOTS_DEFAULT`]; a repeated host adds slots.
pub fn parse_hosts_flag(text: &str, origin: &Origin) -> Result<HostList, HostsFlagError> {
    if text.trim().is_empty() {
        return Err(HostsFlagError::Empty { origin: origin.clone() });
    }
    let mut list = HostList::new();
    for (i, part) in split(text).enumerate() {
        let entry = entry::parse(part.trim()).map_err(|problem| HostsFlagError::Entry {
            origin: origin.clone(),
            position: i + 1,
            problem,
        })?;
        list.add(HostSpec {
            name: entry.name,
            address: None,
            slots: entry.slots.unwrap_or(SLOTS_DEFAULT),
            max_slots: None,
            port: entry.port,
            origin: origin.clone(),
        })
        .map_err(|problem| HostsFlagError::List { origin: origin.clone(), problem })?;
    }
    Ok(list)
}

/// Splits at commas outside brackets, so that `node[1,3]` is reported as the range it is meant to be.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    text.split(move |c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    })
}

#[cfg(test)]
mod tests {
    use muster_protocol::HostIndex;

    use super::*;

    fn flag(text: &str) -> Result<HostList, String> {
        parse_hosts_flag(text, &Origin::flag("-H")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_list_is_read_in_order_and_repeated_hosts_add_slots() {
        let list = flag("a:4,b, c:2,A,b@7000").unwrap();
        // Volcano's MPI_HOST.
        let volcano = flag("job-mpiworker-0.job,job-mpiworker-1.job").unwrap();
        assert_eq!((volcano.len(), volcano.slots()), (2, 2));
        let short: Vec<_> = list.hosts().iter().map(|h| (h.name.as_str(), h.slots, h.port)).collect();
        assert_eq!(short, [("a", 5, None), ("b", 1, None), ("c", 2, None), ("b", 1, Some(7000))]);
        assert_eq!(list.mentions(), [0, 1, 2, 0, 3].map(HostIndex));
        assert_eq!(list.slots(), 9);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        insta::assert_snapshot!(flag("a,node[1-4]").unwrap_err(), @r#"-H: host 2 of the list: host ranges are not supported, found "node[1-4]"; list the hosts one by one, such as node1,node2"#);
        insta::assert_snapshot!(flag("node[1,3]").unwrap_err(), @r#"-H: host 1 of the list: host ranges are not supported, found "node[1,3]"; list the hosts one by one, such as node1,node2"#);
        insta::assert_snapshot!(flag("a,,b").unwrap_err(), @"-H: host 2 of the list: a host name is missing; write NAME or NAME:SLOTS");
        insta::assert_snapshot!(flag(" ").unwrap_err(), @"-H: the host list is empty; write NAME[:SLOTS],…");
        insta::assert_snapshot!(flag("a:4000,a:97").unwrap_err(), @r#"-H: host "a" adds up to 4097 slots; a host has at most 4096"#);
        insta::assert_snapshot!(flag("a:x").unwrap_err(), @r#"-H: host 1 of the list: slots of "a" are "x"; write a whole number from 1 to 4096"#);
    }
}
