//! Who has connected and not yet proven itself, and who has to give way when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Unproven connections by age. Someone who can finish does so in milliseconds; so, when it is full, the oldest connection of
/// the source that holds the most gives way, and whoever only sits there displaces itself.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    limit: usize,
    next: u64,
    entries: BTreeMap<u64, (IpAddr, T)>,
    per_source: HashMap<IpAddr, usize>,
}

impl<T> Waiting<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, next: 0, entries: BTreeMap::new(), per_source: HashMap::new() }
    }

    /// The ticket that the next [`Waiting::insert`] gives.
    pub(super) fn next_ticket(&self) -> u64 {
        self.next
    }

    /// Adds a connection; returns the one that has to give way.
    pub(super) fn insert(&mut self, source: IpAddr, value: T) -> Option<(IpAddr, T)> {
        let displaced = if self.entries.len() >= self.limit { self.displace() } else { None };
        self.entries.insert(self.next, (source, value));
        *self.per_source.entry(source).or_default() += 1;
        self.next += 1;
        displaced
    }

    /// Takes a connection out, whatever became of it.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<(IpAddr, T)> {
        let (source, value) = self.entries.remove(&ticket)?;
        if let Some(count) = self.per_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&source);
            }
        }
        Some((source, value))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn displace(&mut self) -> Option<(IpAddr, T)> {
        let most = self.per_source.values().copied().max()?;
        let oldest = |(ticket, (source, _)): (&u64, &(IpAddr, T))| (self.per_source[source] == most).then_some(*ticket);
        let ticket = self.entries.iter().find_map(oldest)?;
        self.remove(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn the_greediest_source_gives_way_and_the_oldest_of_equals() {
        let mut waiting = Waiting::new(4);
        assert_eq!(waiting.insert(source(1), "a"), None);
        for name in ["b", "c", "d"] {
            assert_eq!(waiting.insert(source(2), name), None);
        }
        assert_eq!(waiting.insert(source(3), "e"), Some((source(2), "b")));
        assert_eq!(waiting.insert(source(4), "f"), Some((source(2), "c")));
        assert_eq!(waiting.insert(source(5), "g"), Some((source(1), "a")));
        assert_eq!(waiting.len(), 4);
    }

    #[test]
    fn those_who_left_do_not_count() {
        let mut waiting = Waiting::new(2);
        let ticket = waiting.next_ticket();
        waiting.insert(source(1), "a");
        assert_eq!(waiting.remove(ticket), Some((source(1), "a")));
        assert_eq!(waiting.remove(ticket), None);
        assert_eq!(waiting.len(), 0);
        assert_eq!(waiting.insert(source(1), "b"), None);
        assert_eq!(waiting.insert(source(1), "c"), None);
        assert_eq!(waiting.insert(source(1), "d"), Some((source(1), "b")));
    }
}
