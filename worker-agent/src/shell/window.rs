//! How much of a stream may be on its way.

use std::cell::Cell;

use muster_protocol::limits::SHELL_WINDOW_BYTES;
use tokio::sync::Notify;

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
            if under_way < SHELL_WINDOW_BYTES {
                return (SHELL_WINDOW_BYTES - under_way) as usize;
            }
            self.changed.notified().await;
        }
    }

    /// Bytes sent in all.
    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether anything may be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.sent.get() - self.acknowledged.get() < SHELL_WINDOW_BYTES
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
        assert_eq!(window.room().await, SHELL_WINDOW_BYTES as usize);
        assert_eq!((window.send(100), window.send(SHELL_WINDOW_BYTES as usize - 100)), (0, 100));
        tokio::select! {
            biased;
            room = window.room() => panic!("{room} bytes of room in a full window"),
            () = tokio::task::yield_now() => {}
        }
        window.acknowledge(u64::MAX);
        assert_eq!(window.room().await, SHELL_WINDOW_BYTES as usize, "no more than was sent can be handed on");
        window.send(10);
        window.acknowledge(3);
        assert_eq!(window.room().await, SHELL_WINDOW_BYTES as usize - 10, "an old word takes nothing back");
    }
}
