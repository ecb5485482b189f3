//! One host as users write it: `name`, `name:slots`, `name:slots@port`, `[v6]:slots`.

use std::net::Ipv6Addr;

use muster_protocol::limits::RANKS_PER_HOST_MAX;

/// Slots of a host that is named without a number, as in hydra.
pub const SLOTS_DEFAULT: u32 = 1;

/// What is wrong with the text of one host, or of one `key=value` behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// `node[1-4]`.
    #[error("host ranges are not supported, found {0:?}; list the hosts one by one, such as node1,node2")]
    Range(String),
    /// Nothing between two separators.
    #[error("a host name is missing; write NAME or NAME:SLOTS")]
    NoName,
    /// A character that no host name has.
    #[error(
        "host name {name:?} has the character {bad:?}; names have letters, digits, '-', '_' and '.', IPv6 addresses stand in [ ]"
    )]
    Name {
        /// The whole name.
        name: String,
        /// The first character that does not belong.
        bad: char,
    },
    /// More than one colon outside brackets.
    #[error("{0:?} has several colons; write an IPv6 address in brackets, such as [fd00::1]:4")]
    Colons(String),
    /// Brackets without an IPv6 address.
    #[error("{0:?} is not an IPv6 address in brackets, such as [fd00::1]:4")]
    Ipv6(String),
    /// `user@host`.
    #[error("{0:?} names a user; agents run ranks as their own user, so write the host alone")]
    User(String),
    /// Slots that are not a number in range.
    #[error("slots of {host:?} are {text:?}; write a whole number from 1 to {RANKS_PER_HOST_MAX}")]
    Slots {
        /// The host.
        host: String,
        /// What stands for the slots.
        text: String,
    },
    /// A port that is not one.
    #[error("port of {host:?} is {text:?}; write a whole number from 1 to 65535")]
    Port {
        /// The host.
        host: String,
        /// What stands for the port.
        text: String,
    },
}

/// A host entry, split and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) slots: Option<u32>,
    pub(super) port: Option<u16>,
}

/// Reads `name[:slots][@port]`.
pub(super) fn parse(text: &str) -> Result<Entry, EntryProblem> {
    if text.is_empty() {
        return Err(EntryProblem::NoName);
    }
    let (name, rest) = match text.strip_prefix('[') {
        Some(inside) => bracketed(text, inside)?,
        None => plain(text)?,
    };
    let (slots_text, port_text) = match rest.split_once('@') {
        Some((slots, port)) => (slots, Some(port)),
        None => (rest, None),
    };
    let slots = match slots_text.strip_prefix(':') {
        Some(n) => Some(slots_of(&name, n)?),
        None if slots_text.is_empty() => None,
        None => return Err(EntryProblem::Ipv6(text.to_owned())),
    };
    let port = port_text.map(|p| port_of(&name, p)).transpose()?;
    Ok(Entry { name, slots, port })
}

fn bracketed<'a>(text: &str, inside: &'a str) -> Result<(String, &'a str), EntryProblem> {
    let (address, rest) = inside.split_once(']').ok_or_else(|| EntryProblem::Ipv6(text.to_owned()))?;
    // A scope (`fe80::1%eth0`) is for the dialling side to judge.
    let bare = address.split_once('%').map_or(address, |(bare, _)| bare);
    bare.parse::<Ipv6Addr>().map_err(|_| EntryProblem::Ipv6(text.to_owned()))?;
    Ok((address.to_owned(), rest))
}

fn plain(text: &str) -> Result<(String, &str), EntryProblem> {
    if text.contains(['[', '{']) {
        return Err(EntryProblem::Range(text.to_owned()));
    }
    if text.matches(':').count() > 1 {
        return Err(EntryProblem::Colons(text.to_owned()));
    }
    let end = text.find([':', '@']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let Some(after) = rest.strip_prefix('@')
        && !after.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(EntryProblem::User(text.to_owned()));
    }
    if name.is_empty() {
        return Err(EntryProblem::NoName);
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(bad) => Err(EntryProblem::Name { name: name.to_owned(), bad }),
        None => Ok((name.to_owned(), rest)),
    }
}

pub(super) fn slots_of(host: &str, text: &str) -> Result<u32, EntryProblem> {
    match text.parse::<u32>() {
        Ok(n) if (1..=RANKS_PER_HOST_MAX).contains(&n) && !text.starts_with('+') => Ok(n),
        _ => Err(EntryProblem::Slots { host: host.to_owned(), text: text.to_owned() }),
    }
}

pub(super) fn port_of(host: &str, text: &str) -> Result<u16, EntryProblem> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(EntryProblem::Port { host: host.to_owned(), text: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, slots: Option<u32>, port: Option<u16>) -> Entry {
        Entry { name: name.into(), slots, port }
    }

    #[test]
    fn every_form_is_read() {
        for (text, want) in [
            ("a", entry("a", None, None)),
            ("a:4", entry("a", Some(4), None)),
            ("a.b-c_d:4@7000", entry("a.b-c_d", Some(4), Some(7000))),
            ("a@7000", entry("a", None, Some(7000))),
            ("10.0.0.1:2", entry("10.0.0.1", Some(2), None)),
            ("[fd00::1]", entry("fd00::1", None, None)),
            ("[fd00::1]:8@22", entry("fd00::1", Some(8), Some(22))),
            ("[fe80::1%eth0]:8", entry("fe80::1%eth0", Some(8), None)),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn every_mistake_is_told_apart() {
        use EntryProblem as P;
        for (text, want) in [
            ("", P::NoName),
            (":4", P::NoName),
            ("node[1-4]", P::Range("node[1-4]".into())),
            ("node{1..4}", P::Range("node{1..4}".into())),
            ("fd00::1", P::Colons("fd00::1".into())),
            ("[nonsense]:2", P::Ipv6("[nonsense]:2".into())),
            ("[::1", P::Ipv6("[::1".into())),
            ("[::1]x", P::Ipv6("[::1]x".into())),
            ("me@a", P::User("me@a".into())),
            ("a:0", P::Slots { host: "a".into(), text: "0".into() }),
            ("a:+4", P::Slots { host: "a".into(), text: "+4".into() }),
            ("a:four", P::Slots { host: "a".into(), text: "four".into() }),
            ("a:99999", P::Slots { host: "a".into(), text: "99999".into() }),
            ("a:4@0", P::Port { host: "a".into(), text: "0".into() }),
            ("a;b", P::Name { name: "a;b".into(), bad: ';' }),
        ] {
            assert_eq!(parse(text), Err(want), "{text}");
        }
    }
}
