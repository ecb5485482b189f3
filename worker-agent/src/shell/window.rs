//! How much of a stream may be on its way.

use std::cell::Cell;

use tokio::sync::Notify;

/// Bytes of one stream of a shell that its receiver has not handed on.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;

/// A stream's window at its sender.
#[derive(Default)]
pub(super) struct Window {
    sent: Cell<u64>,
    acknowledged: Cell<u64>,
    changed: Notify,
}

impl Window {
    /// Waits for room; says how many bytes may be sent.
    pub(super) async fn room(&self) -> usize {
        loop {
            let under_way = self.sent.get() - self.acknowledged.get();
            if under_way < WINDOW_BYTES {
                return (WINDOW_BYTES - under_way) as usize;
            }
            self.changed.notified().await;
        }
    }

    /// These are sent now; gives their offset.
    pub(super) fn send(&self, bytes: usize) -> u64 {
        self.sent.replace(self.sent.get() + bytes as u64)
    }

    /// The receiver has handed on so much in all. More than was sent is a lie, and less than before is old.
    pub(super) fn acknowledge(&self, bytes: u64) {
        self.acknowledged.set(bytes.clamp(self.acknowledged.get(), self.sent.get()));
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_window_opens_when_bytes_were_handed_on() {
        let window = Window::default();
        assert_eq!(window.room().await, WINDOW_BYTES as usize);
        assert_eq!((window.send(100), window.send(WINDOW_BYTES as usize - 100)), (0, 100));
        tokio::select! {
            biased;
            room = window.room() => panic!("{room} bytes of room in a full window"),
            () = tokio::task::yield_now() => {}
        }
        window.acknowledge(u64::MAX);
        assert_eq!(window.room().await, WINDOW_BYTES as usize, "no more than was sent can be handed on");
        window.send(10);
        window.acknowledge(3);
        assert_eq!(window.room().await, WINDOW_BYTES as usize - 10, "an old word takes nothing back");
    }
}
