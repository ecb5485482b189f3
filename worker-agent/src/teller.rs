//! Words for people, written by a thread of its own: nobody who has work to do waits for a standard error that is not read.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

/// Messages that wait to be written; more are dropped, for whoever does not read thousands will not miss one.
const MESSAGES_MAX: usize = 4_096;

enum Order {
    Write(Vec<u8>),
    Flush(SyncSender<()>),
}

static TELLER: OnceLock<Option<SyncSender<Order>>> = OnceLock::new();

fn teller() -> Option<&'static SyncSender<Order>> {
    TELLER.get_or_init(start).as_ref()
}

fn start() -> Option<SyncSender<Order>> {
    let (orders, queue) = mpsc::sync_channel(MESSAGES_MAX);
    let write = move || {
        while let Ok(order) = queue.recv() {
            match order {
                // A closed standard error leaves nobody to tell.
                Order::Write(text) => drop(io::stderr().lock().write_all(&text)),
                Order::Flush(done) => drop(done.send(())),
            }
        }
    };
    thread::Builder::new().name("teller".to_owned()).stack_size(128 << 10).spawn(write).ok()?;
    Some(orders)
}

/// Writes to standard error, sometime soon.
pub fn tell(text: impl Into<Vec<u8>>) {
    let text = text.into();
    let Some(teller) = teller() else {
        // Without a thread this is better than silence.
        let _ = io::stderr().lock().write_all(&text);
        return;
    };
    if let Err(TrySendError::Full(_)) = teller.try_send(Order::Write(text)) {
        // Dropped, as said above.
    }
}

/// Waits until everything said so far is written, but not for longer than this.
pub fn flush(limit: Duration) {
    let (done, written) = mpsc::sync_channel(1);
    if let Some(teller) = teller()
        && teller.try_send(Order::Flush(done)).is_ok()
    {
        let _ = written.recv_timeout(limit);
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
    use super::*;

    #[test]
    fn telling_never_waits_however_much_is_told() {
        for _ in 0..4 * MESSAGES_MAX {
            tell("");
        }
        flush(Duration::from_secs(20));
    }
}
