//! What ranks publish for PMIx, and who waits for it.
//!
//! Who waits for several keys waits for each of them, so it is looked at again only when the one comes that it was found to miss.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_protocol::limits::PMI_NAMES_MAX;
use muster_protocol::message::{FoundItem, KeyValue};
use muster_protocol::{Group, ProcId, Rank};

use super::pending::Caller;

#[derive(Debug)]
struct Published {
    owner: (Group, Rank),
    value: Bytes,
    once: bool,
}

#[derive(Debug)]
struct Waiter {
    caller: Caller,
    keys: Vec<String>,
    /// Time that it may still wait; what is left is known from the first look at the clock on.
    wait_ms: Option<u64>,
    until_ms: Option<u64>,
    /// The key under which it is found.
    misses: String,
}

/// An answer to somebody who has waited, or found at once what there was.
pub(super) type Found = (Caller, Vec<FoundItem>);

/// See the module above.
#[derive(Debug, Default)]
pub(super) struct Board {
    items: BTreeMap<String, Published>,
    /// Those who wait, by number in the order in which they came.
    waiters: BTreeMap<u64, Waiter>,
    ever: u64,
    missed: BTreeMap<String, BTreeSet<u64>>,
    callers: BTreeMap<Caller, u64>,
    /// Those who do not wait for ever: whose end is known, and those the clock has not been looked at for.
    until: BTreeSet<(u64, u64)>,
    fresh: Vec<u64>,
}

impl Board {
    /// Publishes, and gives whoever need not wait any longer. A key that is taken is refused, and with it all of them.
    pub(super) fn put(&mut self, owner: (Group, Rank), items: &[KeyValue], once: bool) -> Result<Vec<Found>, String> {
        let key = |item: &KeyValue| String::from_utf8_lossy(&item.key).into_owned();
        if let Some(taken) = items.iter().map(key).find(|key| self.items.contains_key(key)) {
            return Err(format!("{taken:?} is already published"));
        }
        if self.items.len() + items.len() > PMI_NAMES_MAX {
            return Err(format!("the job has published {PMI_NAMES_MAX} keys, which is the limit"));
        }
        let mut concerned = BTreeSet::new();
        for item in items {
            let value = Bytes::from(item.value.to_vec());
            concerned.extend(self.missed.remove(&key(item)).unwrap_or_default());
            self.items.insert(key(item), Published { owner, value, once });
        }
        Ok(concerned.into_iter().filter_map(|number| self.look(number)).collect())
    }

    /// Takes back what a rank has published under these keys, or all of it.
    pub(super) fn withdraw(&mut self, owner: (Group, Rank), keys: &[String]) {
        self.items.retain(|key, item| item.owner != owner || !(keys.is_empty() || keys.contains(key)));
    }

    /// Looks keys up, at once or when they are there; the answer, if it need not wait.
    pub(super) fn find(&mut self, caller: Caller, keys: Vec<String>, wait_ms: Option<u64>) -> Option<Found> {
        let number = self.ever;
        self.ever += 1;
        self.waiters.insert(number, Waiter { caller, keys, wait_ms, until_ms: None, misses: String::new() });
        self.callers.insert(caller, number);
        if wait_ms.is_some() {
            self.fresh.push(number);
        }
        if wait_ms == Some(0) { self.serve(number) } else { self.look(number) }
    }

    /// Serves one that misses nothing.
    fn look(&mut self, number: u64) -> Option<Found> {
        let waiter = self.waiters.get_mut(&number)?;
        match waiter.keys.iter().find(|key| !self.items.contains_key(*key)) {
            None => self.serve(number),
            Some(missing) => {
                waiter.misses.clone_from(missing);
                self.missed.entry(missing.clone()).or_default().insert(number);
                None
            }
        }
    }

    /// Whoever it is waits no more.
    fn dismiss(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.callers.remove(&waiter.caller);
        if let Some(others) = self.missed.get_mut(&waiter.misses) {
            others.remove(&number);
            if others.is_empty() {
                self.missed.remove(&waiter.misses);
            }
        }
        match waiter.until_ms {
            Some(until) => {
                self.until.remove(&(until, number));
            }
            None if waiter.wait_ms.is_some() => self.fresh.retain(|other| *other != number),
            None => {}
        }
        Some(waiter)
    }

    fn serve(&mut self, number: u64) -> Option<Found> {
        let waiter = self.dismiss(number)?;
        let mut found = Vec::new();
        for key in waiter.keys {
            let Some(item) = self.items.get(&key) else { continue };
            let (group, rank) = item.owner;
            let value = item.value.to_vec().into();
            found.push(FoundItem { group, rank, item: KeyValue { key: key.clone().into_bytes().into(), value } });
            if item.once {
                self.items.remove(&key);
            }
        }
        Some((waiter.caller, found))
    }

    /// When [`Board::tick`] is due next.
    pub(super) fn due_ms(&self) -> Option<u64> {
        if self.fresh.is_empty() { self.until.first().map(|(until, _)| *until) } else { Some(0) }
    }

    /// Time has passed: those whose time is over get what there is.
    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Found> {
        for number in std::mem::take(&mut self.fresh) {
            let Some(waiter) = self.waiters.get_mut(&number) else { continue };
            let until = now_ms.saturating_add(waiter.wait_ms.unwrap_or_default());
            waiter.until_ms = Some(until);
            self.until.insert((until, number));
        }
        let over: Vec<u64> = self.until.range(..=(now_ms, u64::MAX)).map(|(_, number)| *number).collect();
        over.into_iter().filter_map(|number| self.serve(number)).collect()
    }

    /// A process that has ended waits for nothing.
    pub(super) fn forget(&mut self, proc: ProcId) {
        let of = |token| Caller { proc, token };
        let numbers: Vec<u64> = self.callers.range(of(0)..=of(u64::MAX)).map(|(_, number)| *number).collect();
        for number in numbers {
            self.dismiss(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: (Group, Rank) = (Group(0), Rank(3));

    fn item(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.as_bytes().to_vec().into(), value: value.as_bytes().to_vec().into() }
    }

    fn caller(token: u64) -> Caller {
        Caller { proc: ProcId(token as u32), token }
    }

    fn texts<'a>(found: impl IntoIterator<Item = &'a Found>) -> Vec<(u64, Vec<String>)> {
        let text = |f: &FoundItem| String::from_utf8_lossy(&f.item.value).into_owned();
        found.into_iter().map(|(caller, items)| (caller.token, items.iter().map(text).collect())).collect()
    }

    fn is_quiet(board: &Board) -> bool {
        board.waiters.is_empty()
            && board.missed.is_empty()
            && board.callers.is_empty()
            && board.until.is_empty()
            && board.fresh.is_empty()
    }

    #[test]
    fn who_waits_is_served_when_all_of_it_is_there_and_once_means_once() {
        let mut board = Board::default();
        let find = |board: &mut Board, token, keys: &[&str], wait_ms| {
            texts(&board.find(caller(token), keys.iter().map(|k| (*k).to_owned()).collect(), wait_ms))
        };
        assert_eq!(find(&mut board, 1, &["a", "b"], None), []);
        assert_eq!(
            find(&mut board, 2, &["a"], Some(0)),
            [(2, vec![])],
            "who does not wait hears that there is nothing"
        );
        assert_eq!(board.put(OWNER, &[item("a", "1")], true), Ok(vec![]));
        let served = board.put(OWNER, &[item("b", "2")], false).unwrap();
        assert_eq!(texts(&served), [(1, vec!["1".to_owned(), "2".to_owned()])]);
        assert_eq!(find(&mut board, 3, &["a", "b"], Some(0)), [(3, vec!["2".to_owned()])], "the first was there once");
        assert_eq!(
            board.put(OWNER, &[item("c", "3"), item("b", "4")], false),
            Err("\"b\" is already published".into())
        );
        assert_eq!(find(&mut board, 4, &["c"], Some(0)), [(4, vec![])], "of a refused list nothing is published");
        board.withdraw((Group(0), Rank(0)), &[]);
        assert_eq!(find(&mut board, 5, &["b"], Some(0)), [(5, vec!["2".to_owned()])], "only its owner takes it back");
        board.withdraw(OWNER, &["b".to_owned()]);
        assert_eq!(find(&mut board, 6, &["b"], Some(0)), [(6, vec![])]);
        assert!(is_quiet(&board), "{board:?}");
    }

    #[test]
    fn of_those_who_wait_for_a_value_that_is_there_once_the_first_gets_it_and_the_others_wait_on() {
        let mut board = Board::default();
        for token in 1..=3 {
            assert_eq!(board.find(caller(token), vec!["b".into(), "a".into()], None), None);
        }
        assert_eq!(board.put(OWNER, &[item("b", "1")], false), Ok(vec![]));
        let served = board.put(OWNER, &[item("a", "2")], true).unwrap();
        assert_eq!(texts(&served), [(1, vec!["1".to_owned(), "2".to_owned()])]);
        board.withdraw(OWNER, &[]);
        assert_eq!(board.put(OWNER, &[item("a", "3")], false), Ok(vec![]), "the other value was taken back");
        let served = board.put(OWNER, &[item("b", "4")], false).unwrap();
        let both = || vec!["4".to_owned(), "3".to_owned()];
        assert_eq!(texts(&served), [(2, both()), (3, both())]);
        assert!(is_quiet(&board), "{board:?}");
    }

    #[test]
    fn waiting_ends_with_its_time_or_its_rank() {
        let mut board = Board::default();
        assert_eq!(board.find(caller(1), vec!["a".into()], Some(100)), None);
        assert_eq!(board.find(caller(2), vec!["a".into()], None), None);
        assert_eq!(board.find(caller(3), vec!["a".into()], Some(50)), None);
        assert_eq!(board.due_ms(), Some(0));
        board.forget(ProcId(3));
        assert_eq!(board.tick(1_000), []);
        assert_eq!(board.due_ms(), Some(1_100));
        assert_eq!(board.tick(1_099), []);
        assert_eq!(texts(&board.tick(1_100)), [(1, vec![])]);
        board.forget(ProcId(2));
        assert_eq!(board.put(OWNER, &[item("a", "1")], false), Ok(vec![]));
        assert!(is_quiet(&board), "{board:?}");
    }
}
