//! Window arithmetic of one byte stream: what may be sent, what must be kept for replay, what has been seen before.
//!
//! Offsets count bytes from the beginning of the stream and survive reconnections. The sender keeps every byte until it is
//! acknowledged and sends it again after a reconnection; the receiver drops what it has seen. So a byte may travel twice but
//! is handed on once.

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;

/// The other side broke the rules of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CreditError {
    /// More was acknowledged than was sent.
    #[error("bytes up to offset {acked} are acknowledged, but only {sent} were sent")]
    AckBeyondSent {
        /// The acknowledged offset.
        acked: u64,
        /// The offset up to which bytes were sent.
        sent: u64,
    },
    /// Bytes are missing between what has arrived and what arrives now.
    #[error("bytes from offset {expected} to {got} of the stream are missing")]
    Gap {
        /// The offset that was due.
        expected: u64,
        /// The offset that came.
        got: u64,
    },
    /// Bytes were asked for that have already been let go.
    #[error("replay from offset {from} was asked for, but bytes are kept from {kept} only")]
    Gone {
        /// The offset asked for.
        from: u64,
        /// The oldest offset kept.
        kept: u64,
    },
    /// A stream that is longer than offsets can count.
    #[error("offset {0} and what follows pass the end of what offsets can count")]
    Overflow(u64),
}

/// The sender's view: at most `limit` bytes are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    limit: u64,
    sent: u64,
    acked: u64,
}

impl Window {
    /// A window at the beginning of a stream.
    pub fn new(limit_bytes: u32) -> Self {
        Self { limit: u64::from(limit_bytes), sent: 0, acked: 0 }
    }

    /// Bytes that may be sent now.
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.sent - self.acked)
    }

    /// Changes the limit; with less than what is on its way there is no room until acknowledgements come.
    pub fn set_limit(&mut self, limit_bytes: u32) {
        self.limit = u64::from(limit_bytes);
    }

    /// Counts bytes as sent; the caller has asked for [`Window::room`].
    pub fn sent(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.room(), "{bytes} bytes sent into a room of {}", self.room());
        self.sent += bytes;
    }

    /// Takes an acknowledgement of everything below `offset`; an older one than the last changes nothing.
    pub fn acked(&mut self, offset: u64) -> Result<(), CreditError> {
        if offset > self.sent {
            return Err(CreditError::AckBeyondSent { acked: offset, sent: self.sent });
        }
        self.acked = self.acked.max(offset);
        Ok(())
    }

    /// Bytes sent and not acknowledged.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.acked
    }

    /// The offset of the next byte to send.
    pub fn offset(&self) -> u64 {
        self.sent
    }
}

/// What has been sent and not been acknowledged, in the pieces in which it was sent.
#[derive(Debug, Clone, Default)]
pub struct Unacked {
    start: u64,
    bytes: u64,
    chunks: VecDeque<Bytes>,
}

impl Unacked {
    /// Nothing, at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a piece and returns its offset.
    pub fn push(&mut self, chunk: Bytes) -> u64 {
        let offset = self.end();
        self.bytes += chunk.len() as u64;
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
        offset
    }

    /// Lets go of everything below `offset`; returns how many bytes that were.
    pub fn ack(&mut self, offset: u64) -> Result<u64, CreditError> {
        if offset > self.end() {
            return Err(CreditError::AckBeyondSent { acked: offset, sent: self.end() });
        }
        let freed = offset.saturating_sub(self.start);
        let mut rest = freed;
        while let Some(front) = self.chunks.front_mut().filter(|_| rest > 0) {
            let len = front.len() as u64;
            if len > rest {
                // Copied, so that a small rest does not hold on to the large buffer it came in.
                *front = Bytes::copy_from_slice(&front[rest as usize..]);
                break;
            }
            rest -= len;
            self.chunks.pop_front();
        }
        self.start += freed;
        self.bytes -= freed;
        Ok(freed)
    }

    /// Everything kept from `offset` on, with the offset of each piece.
    pub fn replay_from(&self, offset: u64) -> Result<impl Iterator<Item = (u64, Bytes)> + '_, CreditError> {
        if offset < self.start {
            return Err(CreditError::Gone { from: offset, kept: self.start });
        }
        if offset > self.end() {
            return Err(CreditError::AckBeyondSent { acked: offset, sent: self.end() });
        }
        let mut at = self.start;
        Ok(self.chunks.iter().filter_map(move |chunk| {
            let (from, to) = (at, at + chunk.len() as u64);
            at = to;
            let skip = offset.saturating_sub(from).min(to - from);
            (from + skip < to).then(|| (from + skip, chunk.slice(skip as usize..)))
        }))
    }

    /// The oldest offset kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset of the next piece.
    pub fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// Bytes kept.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether everything has been acknowledged.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// The receiver's view: everything below `next` has been handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dedup {
    next: u64,
}

impl Dedup {
    /// A stream of which nothing has been seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream that goes on at `offset`.
    pub fn starting_at(offset: u64) -> Self {
        Self { next: offset }
    }

    /// Takes `len` bytes at `offset`: `Some(n)` when everything after the first `n` bytes is new, `None` when nothing is.
    pub fn accept(&mut self, offset: u64, len: usize) -> Result<Option<usize>, CreditError> {
        let end = offset.checked_add(len as u64).ok_or(CreditError::Overflow(offset))?;
        if offset > self.next {
            return Err(CreditError::Gap { expected: self.next, got: offset });
        }
        if end <= self.next {
            return Ok(None);
        }
        let skip = (self.next - offset) as usize;
        self.next = end;
        Ok(Some(skip))
    }

    /// The offset up to which everything has been seen: what to acknowledge.
    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Send(usize),
        Deliver(usize),
        Ack,
        LateAck(u64),
        Reconnect,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0usize..50).prop_map(Step::Send),
            3 => (1usize..4).prop_map(Step::Deliver),
            2 => Just(Step::Ack),
            1 => (0u64..100).prop_map(Step::LateAck),
            1 => Just(Step::Reconnect),
        ];
        proptest::collection::vec(step, 0..120)
    }

    #[derive(Default)]
    struct Model {
        unacked: Unacked,
        dedup: Dedup,
        wire: VecDeque<(u64, Bytes)>,
        handed_on: Vec<u8>,
    }

    impl Model {
        fn deliver(&mut self, frames: usize) {
            for _ in 0..frames {
                let Some((offset, chunk)) = self.wire.pop_front() else { return };
                if let Some(skip) = self.dedup.accept(offset, chunk.len()).unwrap() {
                    self.handed_on.extend_from_slice(&chunk[skip..]);
                }
            }
        }
        /// The wire loses what is on it, and the sender replays what it still has.
        fn reconnect(&mut self) {
            self.wire = self.unacked.replay_from(self.unacked.start()).unwrap().collect();
        }
    }

    proptest! {
        #[test]
        fn each_byte_is_handed_on_once_and_in_order(steps in steps(), limit in 1u32..200) {
            let (mut model, mut window, mut source) = (Model::default(), Window::new(limit), 0u64..);
            for step in steps {
                match step {
                    Step::Send(bytes) => {
                        let bytes = bytes.min(window.room() as usize);
                        let chunk: Bytes = source.by_ref().take(bytes).map(|n| n as u8).collect::<Vec<_>>().into();
                        window.sent(bytes as u64);
                        let offset = model.unacked.push(chunk.clone());
                        model.wire.push_back((offset, chunk));
                    }
                    Step::Deliver(frames) => model.deliver(frames),
                    Step::Ack | Step::LateAck(_) => {
                        let late = if let Step::LateAck(late) = step { late } else { 0 };
                        let offset = model.dedup.next().saturating_sub(late);
                        window.acked(offset).unwrap();
                        model.unacked.ack(offset).unwrap();
                    }
                    Step::Reconnect => model.reconnect(),
                }
                prop_assert!(window.in_flight() <= u64::from(limit));
                prop_assert_eq!(window.in_flight(), model.unacked.len());
                prop_assert_eq!(window.offset(), model.unacked.end());
                let due: Vec<u8> = (0..model.dedup.next()).map(|n| n as u8).collect();
                prop_assert_eq!(&model.handed_on, &due);
            }
            model.reconnect();
            model.deliver(usize::MAX >> 1);
            prop_assert_eq!(model.handed_on.len() as u64, window.offset());
        }
    }

    #[test]
    fn breaking_the_rules_is_an_error() {
        let mut window = Window::new(100);
        window.sent(60);
        assert_eq!(window.room(), 40);
        assert_eq!(window.acked(61), Err(CreditError::AckBeyondSent { acked: 61, sent: 60 }));
        window.set_limit(10);
        assert_eq!(window.room(), 0);
        let mut dedup = Dedup::new();
        assert_eq!(dedup.accept(1, 5), Err(CreditError::Gap { expected: 0, got: 1 }));
        assert_eq!(dedup.accept(u64::MAX, 5), Err(CreditError::Overflow(u64::MAX)));
        assert_eq!(dedup.accept(0, 5), Ok(Some(0)));
        assert_eq!(dedup.accept(3, 2), Ok(None));
        assert_eq!(dedup.accept(3, 5), Ok(Some(2)));
        assert_eq!(dedup.next(), 8);
    }

    #[test]
    fn replay_begins_inside_a_piece() {
        let mut unacked = Unacked::new();
        unacked.push(Bytes::from_static(b"hello "));
        unacked.push(Bytes::from_static(b"world"));
        assert_eq!(unacked.ack(2), Ok(2));
        let replay = |from| unacked.replay_from(from).map(|pieces| pieces.collect::<Vec<_>>());
        assert_eq!(replay(4), Ok(vec![(4, Bytes::from_static(b"o ")), (6, Bytes::from_static(b"world"))]));
        assert_eq!(replay(11), Ok(vec![]));
        assert_eq!(replay(1), Err(CreditError::Gone { from: 1, kept: 2 }));
        assert!(replay(12).is_err());
    }
}
