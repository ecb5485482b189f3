//! The orders that wait for the executor's thread.
//!
//! Starting thousands of ranks from a slow file system takes long, and a job that has failed must not wait for the starts
//! of its rest: an order that ends ranks cancels the starts that wait before it.

use std::collections::{BTreeSet, VecDeque};

use muster_protocol::ProcId;
use muster_protocol::limits::{RESERVED_ORDERS_MAX, WAITING_ORDERS_MAX};

use super::border::{Order, OrderError, RankOrder, Which};

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Next {
    /// Carry this out.
    Order(Order),
    /// Say that this rank is not started.
    Cancelled(Box<RankOrder>),
}

/// The orders, first come, first served.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Next>,
    /// How many of them end ranks.
    endings: usize,
    closed: bool,
}

fn is_ending(next: &Next) -> bool {
    matches!(next, Next::Order(Order::Kill { .. } | Order::Sweep | Order::Shutdown))
}

impl Queue {
    /// Takes an order.
    pub(super) fn push(&mut self, order: Order) -> Result<(), OrderError> {
        if self.closed {
            return Err(OrderError::Gone);
        }
        let limit = match order {
            Order::Spawn(_) | Order::Signal { .. } => WAITING_ORDERS_MAX,
            Order::Kill { .. } | Order::Sweep => WAITING_ORDERS_MAX + RESERVED_ORDERS_MAX,
            // The end can always be ordered.
            Order::Shutdown => usize::MAX,
        };
        if self.waiting.len() >= limit {
            return Err(OrderError::Full { limit });
        }
        match &order {
            Order::Kill { which: Which::All, .. } | Order::Sweep | Order::Shutdown => self.cancel(|_| true),
            Order::Kill { which: Which::Some(procs), .. } => {
                let meant: BTreeSet<ProcId> = procs.iter().copied().collect();
                self.cancel(|proc| meant.contains(&proc));
            }
            Order::Spawn(_) | Order::Signal { .. } => {}
        }
        let next = Next::Order(order);
        self.endings += usize::from(is_ending(&next));
        self.waiting.push_back(next);
        Ok(())
    }

    /// Their places stay, so that everybody hears of the ranks in the order that was given.
    fn cancel(&mut self, meant: impl Fn(ProcId) -> bool) {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = waiting
            .into_iter()
            .map(|next| match next {
                Next::Order(Order::Spawn(rank)) if meant(rank.proc) => Next::Cancelled(rank),
                next => next,
            })
            .collect();
    }

    /// The next one. While a start is under way the next start waits, and with it what was ordered after it; but what ends
    /// ranks never waits for a start.
    pub(super) fn pop(&mut self, starting: bool) -> Option<Next> {
        let waits = |next: &Next| starting && matches!(next, Next::Order(Order::Spawn(_)));
        let at = match self.waiting.front() {
            Some(first) if waits(first) && self.endings > 0 => self.waiting.iter().position(is_ending)?,
            Some(first) if !waits(first) => 0,
            _ => return None,
        };
        let next = self.waiting.remove(at)?;
        self.endings -= usize::from(is_ending(&next));
        Some(next)
    }

    /// Takes no more orders and forgets those that wait.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
        self.endings = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::border::{RankEnv, StdinSource};
    use super::*;

    fn spawn(proc: u32) -> Order {
        Order::Spawn(Box::new(RankOrder {
            proc: ProcId(proc),
            argv: ["a.out".into()].into(),
            env: RankEnv { base: [].into(), own: vec![] },
            cwd: None,
            stdin: StdinSource::Null,
            pmi: false,
            cpus: None,
            limits: vec![],
            umask: None,
        }))
    }

    fn kill(which: Which) -> Order {
        Order::Kill { which, grace_ms: 0 }
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        let name = |next| match next {
            Next::Order(Order::Spawn(rank)) => format!("start {}", rank.proc.0),
            Next::Cancelled(rank) => format!("cancelled {}", rank.proc.0),
            Next::Order(Order::Signal { .. }) => "signal".to_owned(),
            Next::Order(Order::Kill { .. }) => "kill".to_owned(),
            Next::Order(Order::Sweep) => "sweep".to_owned(),
            Next::Order(Order::Shutdown) => "shutdown".to_owned(),
        };
        std::iter::from_fn(|| queue.pop(false).map(name)).collect()
    }

    #[test]
    fn what_ends_ranks_cancels_the_starts_before_it_and_none_after_it() {
        let signal = || Order::Signal { procs: Which::All, signal: 10 };
        for (ending, name) in [(kill(Which::All), "kill"), (Order::Sweep, "sweep"), (Order::Shutdown, "shutdown")] {
            let mut queue = Queue::default();
            for order in [spawn(0), signal(), spawn(1), ending, spawn(0)] {
                queue.push(order).unwrap();
            }
            assert_eq!(drain(&mut queue), ["cancelled 0", "signal", "cancelled 1", name, "start 0"]);
        }
    }

    #[test]
    fn what_ends_ranks_does_not_wait_for_a_start_that_is_under_way_and_everything_else_keeps_its_place() {
        let mut queue = Queue::default();
        let signal = || Order::Signal { procs: Which::All, signal: 10 };
        for order in [signal(), spawn(1), signal(), kill(Which::Some(vec![ProcId(0)]))] {
            queue.push(order).unwrap();
        }
        assert!(matches!(queue.pop(true), Some(Next::Order(Order::Signal { .. }))));
        assert!(matches!(queue.pop(true), Some(Next::Order(Order::Kill { .. }))));
        assert!(queue.pop(true).is_none());
        assert_eq!(drain(&mut queue), ["start 1", "signal"]);
    }

    #[test]
    fn only_those_meant_are_cancelled() {
        let mut queue = Queue::default();
        for order in [spawn(0), spawn(1), spawn(2), kill(Which::Some(vec![ProcId(2), ProcId(0), ProcId(9)]))] {
            queue.push(order).unwrap();
        }
        assert_eq!(drain(&mut queue), ["cancelled 0", "start 1", "cancelled 2", "kill"]);
    }

    #[test]
    fn starts_keep_no_ending_out() {
        let mut queue = Queue::default();
        for i in 0..WAITING_ORDERS_MAX {
            queue.push(spawn(i as u32)).unwrap();
        }
        assert_eq!(queue.push(spawn(0)), Err(OrderError::Full { limit: WAITING_ORDERS_MAX }));
        for _ in 0..RESERVED_ORDERS_MAX {
            queue.push(Order::Sweep).unwrap();
        }
        let limit = WAITING_ORDERS_MAX + RESERVED_ORDERS_MAX;
        assert_eq!(queue.push(Order::Sweep), Err(OrderError::Full { limit }));
        queue.push(Order::Shutdown).unwrap();
        queue.close();
        assert_eq!(queue.push(Order::Shutdown), Err(OrderError::Gone));
        assert!(queue.pop(true).is_none());
    }
}
