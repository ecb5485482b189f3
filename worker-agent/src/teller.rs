//! Words for people, written by a thread of its own: nobody who has work to do waits for a standard error that is not read.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use muster_protocol::limits::TELLER_QUEUE_MESSAGES_MAX;

/// Time between two looks for room while somebody waits for the last words, in milliseconds.
const ROOM_MS: u64 = 2;

enum Order {
    Write(Vec<u8>),
    Flush(SyncSender<()>),
}

/// What waits to be written. Messages for which there is no room are dropped, and counted: who reads on is told how many.
struct Words {
    orders: SyncSender<Order>,
    dropped: AtomicUsize,
}

impl Words {
    fn start(mut out: impl Write + Send + 'static) -> Option<Self> {
        let (orders, queue) = mpsc::sync_channel(TELLER_QUEUE_MESSAGES_MAX);
        let write = move || {
            while let Ok(order) = queue.recv() {
                match order {
                    // A closed standard error leaves nobody to tell.
                    Order::Write(text) => drop(out.write_all(&text)),
                    Order::Flush(done) => drop(done.send(())),
                }
            }
        };
        thread::Builder::new().name("teller".to_owned()).stack_size(128 << 10).spawn(write).ok()?;
        Some(Self { orders, dropped: AtomicUsize::new(0) })
    }

    fn tell(&self, text: Vec<u8>) {
        if !self.own_up() || self.orders.try_send(Order::Write(text)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says how much was dropped since this was said last, if there is room for it.
    fn own_up(&self) -> bool {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let messages = if dropped == 1 { "message was" } else { "messages were" };
        let said = || format!("muster: {dropped} {messages} dropped here: standard error was not read fast enough\n");
        let fits = dropped == 0 || self.orders.try_send(Order::Write(said().into())).is_ok();
        if !fits {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        fits
    }

    fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (done, written) = mpsc::sync_channel(1);
        while !self.own_up() || self.orders.try_send(Order::Flush(done.clone())).is_err() {
            if Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_millis(ROOM_MS));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn words() -> Option<&'static Words> {
    static WORDS: OnceLock<Option<Words>> = OnceLock::new();
    WORDS.get_or_init(|| Words::start(io::stderr())).as_ref()
}

/// Writes to standard error, sometime soon.
pub fn tell(text: impl Into<Vec<u8>>) {
    let text = text.into();
    match words() {
        Some(words) => words.tell(text),
        // Without a thread this is better than silence.
        None => drop(io::stderr().lock().write_all(&text)),
    }
}

/// Waits until everything said so far is written, but not for longer than this.
pub fn flush(limit: Duration) {
    if let Some(words) = words() {
        words.flush(limit);
    }
}

/// A writer for the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Teller;

impl Write for Teller {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        tell(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn telling_never_waits_however_much_is_told() {
        let page = Arc::new(Mutex::new(Vec::new()));
        let words = Words::start(Held(page.clone())).unwrap();
        // Nothing can be written, so whoever waited for the writing would wait for ever.
        let held = page.lock().unwrap();
        for _ in 0..4 * TELLER_QUEUE_MESSAGES_MAX {
            words.tell(b"word\n".to_vec());
        }
        drop(held);
        words.flush(Duration::from_secs(20));
        assert!(page.lock().unwrap().starts_with(b"word\n"));
    }

    /// Takes what is written, unless somebody holds it.
    struct Held(Arc<Mutex<Vec<u8>>>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_dropped_is_counted_and_told_as_soon_as_somebody_reads() {
        let page = Arc::new(Mutex::new(Vec::new()));
        let words = Words::start(Held(page.clone())).unwrap();
        let told = TELLER_QUEUE_MESSAGES_MAX + 10;
        let held = page.lock().unwrap();
        for _ in 0..told {
            words.tell(b"word\n".to_vec());
        }
        words.flush(Duration::ZERO);
        drop(held);
        words.flush(Duration::from_secs(20));
        words.tell(b"last\n".to_vec());
        words.flush(Duration::from_secs(20));
        let text = String::from_utf8(page.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let (heard, [notice, "last"]) = lines.split_at(lines.len() - 2) else { panic!("{:?}", lines.last()) };
        assert!(heard.iter().all(|line| *line == "word"));
        // The writer may have taken one before it was held up.
        let dropped = told - heard.len();
        assert!((9..=10).contains(&dropped), "{dropped}");
        let want = format!("muster: {dropped} messages were dropped here: standard error was not read fast enough");
        assert_eq!(*notice, want);
    }
}
