//! What ranks publish for PMIx, and who waits for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_protocol::limits::PMI_NAMES_MAX;
use muster_protocol::message::{FoundItem, KeyValue};
use muster_protocol::{Group, Rank};

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
}

/// An answer to somebody who has waited, or found at once what there was.
pub(super) type Found = (Caller, Vec<FoundItem>);

/// See the module above.
#[derive(Debug, Default)]
pub(super) struct Board {
    items: BTreeMap<String, Published>,
    waiters: Vec<Waiter>,
}

impl Board {
    /// Publishes. A key that is taken is refused, and with it all of them.
    pub(super) fn put(&mut self, owner: (Group, Rank), items: &[KeyValue], once: bool) -> Result<(), String> {
        let key = |item: &KeyValue| String::from_utf8_lossy(&item.key).into_owned();
        if let Some(taken) = items.iter().map(key).find(|key| self.items.contains_key(key)) {
            return Err(format!("{taken:?} is already published"));
        }
        if self.items.len() + items.len() > PMI_NAMES_MAX {
            return Err(format!("the job has published {PMI_NAMES_MAX} keys, which is the limit"));
        }
        for item in items {
            let value = Bytes::from(item.value.to_vec());
            self.items.insert(key(item), Published { owner, value, once });
        }
        Ok(())
    }

    /// Takes back what a rank has published under these keys, or all of it.
    pub(super) fn withdraw(&mut self, owner: (Group, Rank), keys: &[String]) {
        self.items.retain(|key, item| item.owner != owner || !(keys.is_empty() || keys.contains(key)));
    }

    /// Looks keys up, at once or when they are there; [`Board::served`] has the answer.
    pub(super) fn find(&mut self, caller: Caller, keys: Vec<String>, wait_ms: Option<u64>) {
        self.waiters.push(Waiter { caller, keys, wait_ms, until_ms: None });
    }

    /// Whoever need not wait any longer.
    pub(super) fn served(&mut self) -> Vec<Found> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < self.waiters.len() {
            let waiter = &self.waiters[at];
            let whole = waiter.keys.iter().all(|key| self.items.contains_key(key));
            if whole || waiter.wait_ms == Some(0) {
                out.push(self.serve(at));
            } else {
                at += 1;
            }
        }
        out
    }

    fn serve(&mut self, at: usize) -> Found {
        let waiter = self.waiters.remove(at);
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
        (waiter.caller, found)
    }

    /// When [`Board::tick`] is due next.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.waiters.iter().filter(|w| w.wait_ms.is_some()).map(|w| w.until_ms.unwrap_or(0)).min()
    }

    /// Time has passed: those whose time is over get what there is.
    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Found> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < self.waiters.len() {
            let waiter = &mut self.waiters[at];
            let until = waiter.wait_ms.map(|wait| *waiter.until_ms.get_or_insert(now_ms.saturating_add(wait)));
            if until.is_some_and(|until| until <= now_ms) {
                out.push(self.serve(at));
            } else {
                at += 1;
            }
        }
        out
    }

    /// What has ended waits for nothing.
    pub(super) fn forget(&mut self, is_gone: impl Fn(Caller) -> bool) {
        self.waiters.retain(|w| !is_gone(w.caller));
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::ProcId;

    use super::*;

    const OWNER: (Group, Rank) = (Group(0), Rank(3));

    fn item(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.as_bytes().to_vec().into(), value: value.as_bytes().to_vec().into() }
    }

    fn caller(token: u64) -> Caller {
        Caller { proc: ProcId(1), token }
    }

    fn texts(found: &[Found]) -> Vec<(u64, Vec<String>)> {
        let text = |f: &FoundItem| String::from_utf8_lossy(&f.item.value).into_owned();
        found.iter().map(|(caller, items)| (caller.token, items.iter().map(text).collect())).collect()
    }

    #[test]
    fn who_waits_is_served_when_all_of_it_is_there_and_once_means_once() {
        let mut board = Board::default();
        let find = |board: &mut Board, token, keys: &[&str], wait_ms| {
            board.find(caller(token), keys.iter().map(|k| (*k).to_owned()).collect(), wait_ms);
            texts(&board.served())
        };
        assert_eq!(find(&mut board, 1, &["a", "b"], None), []);
        assert_eq!(
            find(&mut board, 2, &["a"], Some(0)),
            [(2, vec![])],
            "who does not wait hears that there is nothing"
        );
        board.put(OWNER, &[item("a", "1")], true).unwrap();
        assert_eq!(texts(&board.served()), []);
        board.put(OWNER, &[item("b", "2")], false).unwrap();
        assert_eq!(texts(&board.served()), [(1, vec!["1".to_owned(), "2".to_owned()])]);
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
    }

    #[test]
    fn waiting_ends_with_its_time_or_its_rank() {
        let mut board = Board::default();
        board.find(caller(1), vec!["a".into()], Some(100));
        board.find(caller(2), vec!["a".into()], None);
        assert_eq!(board.served(), []);
        assert_eq!(board.due_ms(), Some(0));
        assert_eq!(board.tick(1_000), []);
        assert_eq!(board.due_ms(), Some(1_100));
        assert_eq!(board.tick(1_099), []);
        assert_eq!(texts(&board.tick(1_100)), [(1, vec![])]);
        board.forget(|caller| caller.token == 2);
        board.put(OWNER, &[item("a", "1")], false).unwrap();
        assert_eq!(board.served(), []);
    }
}
