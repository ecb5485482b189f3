//! Window arithmetic of one byte stream: what may be sent, what must be kept for replay, what has been seen before.
//!
//! Offsets count bytes from the beginning of the stream and survive reconnections. The sender keeps every byte until it is
//! acknowledged and sends it again after a reconnection; the receiver drops what it has seen. So a byte may travel twice but
//! is handed on once.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
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
    /// A stream that is longer than offsets can count.
    #[error("offset {0} and what follows pass the end of what offsets can count")]
    Overflow(u64),
}

/// Neighbouring pieces up to this size are kept as one: a stream of single bytes costs no more than its bytes.
const SMALL_BYTES: usize = 4 << 10;

/// The sender's view: what has not been acknowledged, sent or not, in about the pieces in which it was read.
#[derive(Debug, Clone, Default)]
pub struct Unacked {
    start: u64,
    bytes: u64,
    /// Pieces with their offsets, without gaps.
    pieces: VecDeque<(u64, Bytes)>,
}

impl Unacked {
    /// Nothing, at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a piece and returns its offset.
    pub fn push(&mut self, piece: Bytes) -> u64 {
        let offset = self.end();
        self.bytes += piece.len() as u64;
        match self.pieces.back_mut() {
            Some((_, last)) if last.len() + piece.len() <= SMALL_BYTES => *last = joined(last, &piece),
            _ if piece.is_empty() => {}
            _ => self.pieces.push_back((offset, piece)),
        }
        offset
    }

    /// Lets go of everything below `offset`; returns how many bytes that were.
    pub fn ack(&mut self, offset: u64) -> Result<u64, CreditError> {
        if offset > self.end() {
            return Err(CreditError::AckBeyondSent { acked: offset, sent: self.end() });
        }
        let freed = offset.saturating_sub(self.start);
        self.start += freed;
        self.bytes -= freed;
        while let Some((at, front)) = self.pieces.front_mut().filter(|(at, _)| *at < self.start) {
            let done = (self.start - *at).min(front.len() as u64) as usize;
            if done == front.len() {
                self.pieces.pop_front();
                continue;
            }
            front.advance(done);
            *at = self.start;
            if front.len() <= SMALL_BYTES {
                // Copied, so that a small rest does not hold on to the large buffer it came in.
                *front = Bytes::copy_from_slice(front);
            }
        }
        if self.pieces.is_empty() {
            // An idle stream holds no memory.
            self.pieces = VecDeque::new();
        }
        Ok(freed)
    }

    /// The first bytes kept at `offset` or after it, up to the end of their piece, and their offset. It is `offset`, unless
    /// that has been let go.
    pub fn piece_from(&self, offset: u64) -> Option<(u64, Bytes)> {
        let index = self.pieces.partition_point(|(at, piece)| at + piece.len() as u64 <= offset);
        let (at, piece) = self.pieces.get(index)?;
        let skip = offset.saturating_sub(*at);
        Some((at + skip, piece.slice(skip as usize..)))
    }

    /// Bytes that may be kept on top when there may be `limit_bytes`.
    pub fn room(&self, limit_bytes: u32) -> u64 {
        u64::from(limit_bytes).saturating_sub(self.bytes)
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

/// Both pieces as one, in the memory of the first if nobody else looks at it.
fn joined(first: &mut Bytes, second: &[u8]) -> Bytes {
    let mut both = std::mem::take(first).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    both.extend_from_slice(second);
    both.freeze()
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
            self.wire.clear();
            let mut cursor = self.unacked.start();
            while let Some((offset, piece)) = self.unacked.piece_from(cursor) {
                cursor = offset + piece.len() as u64;
                self.wire.push_back((offset, piece));
            }
        }
    }

    proptest! {
        #[test]
        fn each_byte_is_handed_on_once_and_in_order(steps in steps(), limit in 1u32..200) {
            let (mut model, mut source) = (Model::default(), 0u64..);
            for step in steps {
                match step {
                    Step::Send(bytes) => {
                        let bytes = bytes.min(model.unacked.room(limit) as usize);
                        let chunk: Bytes = source.by_ref().take(bytes).map(|n| n as u8).collect::<Vec<_>>().into();
                        let offset = model.unacked.push(chunk.clone());
                        model.wire.push_back((offset, chunk));
                    }
                    Step::Deliver(frames) => model.deliver(frames),
                    Step::Ack | Step::LateAck(_) => {
                        let late = if let Step::LateAck(late) = step { late } else { 0 };
                        let offset = model.dedup.next().saturating_sub(late);
                        model.unacked.ack(offset).unwrap();
                    }
                    Step::Reconnect => model.reconnect(),
                }
                prop_assert!(model.unacked.len() <= u64::from(limit));
                let due: Vec<u8> = (0..model.dedup.next()).map(|n| n as u8).collect();
                prop_assert_eq!(&model.handed_on, &due);
            }
            model.reconnect();
            model.deliver(usize::MAX >> 1);
            prop_assert_eq!(model.handed_on.len() as u64, model.unacked.end());
        }
    }

    #[test]
    fn breaking_the_rules_is_an_error() {
        let mut unacked = Unacked::new();
        unacked.push(Bytes::from_static(&[0; 60]));
        assert_eq!((unacked.room(100), unacked.room(10)), (40, 0));
        assert_eq!(unacked.ack(61), Err(CreditError::AckBeyondSent { acked: 61, sent: 60 }));
        let mut dedup = Dedup::new();
        assert_eq!(dedup.accept(1, 5), Err(CreditError::Gap { expected: 0, got: 1 }));
        assert_eq!(dedup.accept(u64::MAX, 5), Err(CreditError::Overflow(u64::MAX)));
        assert_eq!(dedup.accept(0, 5), Ok(Some(0)));
        assert_eq!(dedup.accept(3, 2), Ok(None));
        assert_eq!(dedup.accept(3, 5), Ok(Some(2)));
        assert_eq!(dedup.next(), 8);
    }

    #[test]
    fn sending_goes_on_inside_a_piece_and_behind_what_was_acknowledged_meanwhile() {
        let mut unacked = Unacked::new();
        unacked.push(Bytes::from(vec![1; SMALL_BYTES]));
        unacked.push(Bytes::from(vec![2; SMALL_BYTES]));
        let second = SMALL_BYTES as u64;
        let at = |unacked: &Unacked, offset| unacked.piece_from(offset).map(|(at, piece)| (at, piece.len(), piece[0]));
        assert_eq!(at(&unacked, 4), Some((4, SMALL_BYTES - 4, 1)));
        assert_eq!(at(&unacked, second), Some((second, SMALL_BYTES, 2)));
        assert_eq!(at(&unacked, 2 * second), None);
        // Sent again from the beginning, and then an older sending is acknowledged.
        assert_eq!(unacked.ack(second + 2), Ok(second + 2));
        assert_eq!(at(&unacked, 0), Some((second + 2, SMALL_BYTES - 2, 2)));
        assert_eq!(unacked.ack(1), Ok(0));
        assert_eq!(unacked.ack(2 * second), Ok(second - 2));
        assert_eq!(at(&unacked, 0), None);
        assert_eq!(unacked.push(Bytes::from_static(b"more")), 2 * second);
        assert_eq!(at(&unacked, 0), Some((2 * second, 4, b'm')));
    }

    #[test]
    fn single_bytes_are_kept_in_few_pieces() {
        let mut unacked = Unacked::new();
        let sent_before = |unacked: &Unacked| unacked.piece_from(0).map(|(_, piece)| piece);
        let mut held = Vec::new();
        for n in 0..100_000u32 {
            unacked.push(Bytes::copy_from_slice(&[n as u8]));
            // What is being sent is shared, and must not change below whoever sends it.
            held.extend(sent_before(&unacked).filter(|_| n % 1_000 == 0));
        }
        assert_eq!(unacked.pieces.len(), 100_000usize.div_ceil(SMALL_BYTES));
        assert_eq!(held[0][..], [0]);
        let mut cursor = 0;
        while let Some((offset, piece)) = unacked.piece_from(cursor) {
            assert!(offset == cursor && piece.iter().enumerate().all(|(i, byte)| *byte == (cursor + i as u64) as u8));
            cursor += piece.len() as u64;
        }
        assert_eq!(cursor, 100_000);
    }
}
