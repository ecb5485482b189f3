//! The queue between the library's threads and the writer: bounded, and as small as what waits in it. The standard library's
//! bounded channel takes its memory, some MiB at this bound, before anything waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// As much waits as may.
    Full,
    /// Nobody reads any more.
    Closed,
}

/// The end that is written to; never waits.
#[derive(Debug)]
pub struct Outbox<T> {
    sender: Sender<T>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

/// The end that is read from.
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

/// A queue in which no more than so many may wait.
pub fn queue<T>(waiting_max: usize) -> (Outbox<T>, Inbox<T>) {
    let (sender, receiver) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Outbox { sender, waiting: Arc::clone(&waiting), waiting_max }, Inbox { receiver, waiting })
}

impl<T> Outbox<T> {
    /// Leaves something.
    ///
    /// # Errors
    /// When there is no place for it, or nobody to read it.
    pub fn put(&self, item: T) -> Result<(), NotTaken> {
        // A number is all that is shared here; the channel orders what is put and taken.
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(NotTaken::Full);
        }
        self.sender.send(item).map_err(|_| NotTaken::Closed)
    }

    /// Leaves the last thing, for which there is always place. Where nobody reads any more it is not needed.
    pub fn put_last(&self, item: T) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.sender.send(item);
    }
}

impl<T> Inbox<T> {
    /// Waits for the next; none when nobody can put any more.
    pub fn next(&self) -> Option<T> {
        let item = self.receiver.recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_wait_and_there_is_place_for_the_last_word() {
        let (outbox, inbox) = queue(2);
        assert_eq!([outbox.put(1), outbox.put(2), outbox.put(3)], [Ok(()), Ok(()), Err(NotTaken::Full)]);
        assert_eq!(inbox.next(), Some(1));
        assert_eq!([outbox.put(4), outbox.put(5)], [Ok(()), Err(NotTaken::Full)]);
        outbox.put_last(6);
        assert_eq!([inbox.next(), inbox.next(), inbox.next()], [Some(2), Some(4), Some(6)]);
        drop(inbox);
        assert_eq!(outbox.put(7), Err(NotTaken::Closed));
    }
}
