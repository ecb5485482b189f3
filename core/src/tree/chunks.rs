//! Fences larger than one frame: compressed, split, and put together again.
//!
//! A fence's payload upward is `u32` length of the encoded host set, the host set, then key-values; downward only key-values.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use muster_protocol::frame::{FLAG_FIRST, FLAG_MORE, FLAG_PACKED, Frame, Kind};
use muster_protocol::limits::{FENCE_BYTES_MAX, FENCE_CHUNK_BYTES_MAX, FENCE_PACKED_BYTES_MIN};
use muster_protocol::message::Stamp;
use muster_protocol::{Group, HostIndex, HostSet};
use thiserror::Error;

/// Bytes of a compressed fence's length.
const LENGTH_BYTES: usize = 4;
/// Compressed is what becomes smaller by this part at least.
const WORTH_WHILE: usize = 8;

/// Why pieces of a fence do not make a fence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// More bytes than a fence may have.
    #[error("fence {seq} of group {group} is over {FENCE_BYTES_MAX} bytes")]
    TooLong {
        /// The group.
        group: Group,
        /// The fence.
        seq: u64,
    },
    /// What is compressed cannot be read.
    #[error("fence {seq} of group {group} cannot be decompressed")]
    Packed {
        /// The group.
        group: Group,
        /// The fence.
        seq: u64,
    },
    /// The host set at the front is not one.
    #[error("fence {seq} of group {group} does not begin with a host set")]
    HostSet {
        /// The group.
        group: Group,
        /// The fence.
        seq: u64,
    },
}

/// Pieces that have arrived on one edge.
#[derive(Debug, Default)]
pub struct Chunks {
    open: HashMap<(Group, u64), BytesMut>,
}

impl Chunks {
    /// Takes a frame; gives the whole payload when it was the last piece. A first piece begins anew: whoever sent the pieces
    /// before it did not get to their end. Pieces without their beginning, which a former parent took with it, are dropped.
    pub fn push(&mut self, frame: &Frame) -> Result<Option<Bytes>, ChunkError> {
        let key = (frame.header.group(), frame.header.seq);
        let (first, more) = (frame.header.flags & FLAG_FIRST != 0, frame.header.flags & FLAG_MORE != 0);
        if first {
            self.open.remove(&key);
            if !more {
                return whole(frame, frame.payload.clone()).map(Some);
            }
            self.open.insert(key, BytesMut::new());
        }
        let Some(buffer) = self.open.get_mut(&key) else { return Ok(None) };
        if buffer.len() + frame.payload.len() > FENCE_BYTES_MAX {
            self.open.remove(&key);
            return Err(ChunkError::TooLong { group: key.0, seq: key.1 });
        }
        buffer.extend_from_slice(&frame.payload);
        if more {
            return Ok(None);
        }
        self.open.remove(&key).map(|bytes| whole(frame, bytes.freeze())).transpose()
    }
}

/// What all pieces together stand for; `last` is the last of them.
fn whole(last: &Frame, payload: Bytes) -> Result<Bytes, ChunkError> {
    if last.header.flags & FLAG_PACKED == 0 {
        return Ok(payload);
    }
    let (group, seq) = (last.header.group(), last.header.seq);
    let (length, block) = payload.split_at_checked(LENGTH_BYTES).ok_or(ChunkError::Packed { group, seq })?;
    let length = length.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
    if length > FENCE_BYTES_MAX {
        return Err(ChunkError::TooLong { group, seq });
    }
    let bytes = lz4_flex::block::decompress(block, length).map_err(|_| ChunkError::Packed { group, seq })?;
    if bytes.len() == length { Ok(bytes.into()) } else { Err(ChunkError::Packed { group, seq }) }
}

/// How much a piece adds to the bytes of its fence.
pub(crate) fn bytes_of(piece: &Frame) -> usize {
    let (flags, payload) = (piece.header.flags, &piece.payload);
    match (flags & FLAG_PACKED != 0, flags & FLAG_FIRST != 0) {
        (false, _) => payload.len(),
        (true, true) => payload.iter().take(LENGTH_BYTES).fold(0, |length, byte| length << 8 | usize::from(*byte)),
        (true, false) => 0,
    }
}

/// The payload compressed, if that is worth while.
fn packed(whole: &[u8]) -> Option<Bytes> {
    if whole.len() < FENCE_PACKED_BYTES_MIN {
        return None;
    }
    let length = u32::try_from(whole.len()).ok()?;
    let block = lz4_flex::block::compress(whole);
    if block.len() + LENGTH_BYTES > whole.len() - whole.len() / WORTH_WHILE {
        return None;
    }
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + block.len());
    out.put_u32(length);
    out.put_slice(&block);
    Some(out.freeze())
}

/// Frames that carry a contribution to a fence up.
pub fn up(stamp: Stamp, from: HostIndex, group: Group, seq: u64, hosts: &HostSet, blobs: &[Bytes]) -> Vec<Frame> {
    let set = minicbor::to_vec(hosts).expect("encoding into memory cannot fail");
    let mut whole = BytesMut::with_capacity(4 + set.len() + blobs.iter().map(Bytes::len).sum::<usize>());
    whole.put_u32(set.len() as u32);
    whole.put_slice(&set);
    for blob in blobs {
        whole.put_slice(blob);
    }
    split(stamp, Kind::FenceUp, from, group, seq, whole.freeze())
}

/// Frames that carry a completed fence down.
pub fn down(stamp: Stamp, group: Group, seq: u64, blob: Bytes) -> Vec<Frame> {
    split(stamp, Kind::FenceDown, muster_protocol::frame::EVERY_HOST, group, seq, blob)
}

/// Takes the host set off the front of a contribution.
pub fn open_up(group: Group, seq: u64, mut whole: Bytes) -> Result<(HostSet, Bytes), ChunkError> {
    let bad = || ChunkError::HostSet { group, seq };
    if whole.len() < 4 {
        return Err(bad());
    }
    let length = whole.get_u32() as usize;
    if length > whole.len() {
        return Err(bad());
    }
    let set = whole.split_to(length);
    let hosts = minicbor::decode(&set).map_err(|_| bad())?;
    Ok((hosts, whole))
}

fn split(stamp: Stamp, kind: Kind, host: HostIndex, group: Group, seq: u64, whole: Bytes) -> Vec<Frame> {
    let (mut whole, packed) = packed(&whole).map_or((whole, 0), |packed| (packed, FLAG_PACKED));
    let mut frames = Vec::new();
    loop {
        let piece = whole.split_to(whole.len().min(FENCE_CHUNK_BYTES_MAX as usize));
        let first = if frames.is_empty() { FLAG_FIRST } else { 0 };
        let more = if whole.is_empty() { 0 } else { FLAG_MORE };
        frames.push(stamp.raw(kind, host, piece).with(first | more | packed, group.0, seq));
        if whole.is_empty() {
            return frames;
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::{Epoch, Generation};

    use super::*;

    const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };

    /// Bytes that look random, so that nothing is gained by compressing them (Knuth's 64-bit linear generator).
    fn noise(count: usize) -> Vec<u8> {
        let next =
            |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(Some(1u64), next).map(|state| (state >> 56) as u8).take(count).collect()
    }

    fn joined(frames: &[Frame]) -> Result<Option<Bytes>, ChunkError> {
        let mut chunks = Chunks::default();
        frames.iter().try_fold(None, |_, frame| chunks.push(frame))
    }

    #[test]
    fn a_large_fence_is_compressed_where_that_makes_it_smaller_and_is_the_same_afterwards() {
        let alike = vec![7; 3 << 20];
        for (bytes, compressed, pieces) in [
            (vec![7; FENCE_PACKED_BYTES_MIN - 1], false, 1),
            (vec![7; FENCE_PACKED_BYTES_MIN], true, 1),
            (alike.clone(), true, 1),
            (noise(FENCE_PACKED_BYTES_MIN), false, 1),
            ([noise(3 << 20), alike].concat(), true, 4),
        ] {
            let frames = down(STAMP, Group(1), 3, bytes.clone().into());
            assert_eq!((frames.len(), frames.iter().all(|f| f.header.flags & FLAG_PACKED != 0)), (pieces, compressed));
            assert_eq!(frames.iter().map(bytes_of).sum::<usize>(), bytes.len());
            assert!(joined(&frames) == Ok(Some(bytes.into())));
        }
    }

    #[test]
    fn what_cannot_be_decompressed_or_would_be_too_much_is_refused() {
        let told = |payload: &[u8]| {
            let frame = STAMP.raw(Kind::FenceDown, HostIndex(0), Bytes::copy_from_slice(payload));
            joined(&[frame.with(FLAG_FIRST | FLAG_PACKED, 0, 1)])
        };
        let bad = Err(ChunkError::Packed { group: Group(0), seq: 1 });
        let good = packed(&[7; FENCE_PACKED_BYTES_MIN]).unwrap();
        assert!(told(&good).is_ok());
        let mut longer = good.to_vec();
        longer[3] += 1;
        let mut shorter = good.to_vec();
        shorter[2] -= 1;
        for bytes in [&b""[..], b"\0\0\0", b"\0\0\0\x09\xff\xff\xff", &longer, &shorter] {
            assert_eq!(told(bytes), bad);
        }
        assert_eq!(told(b"\xff\0\0\0abc"), Err(ChunkError::TooLong { group: Group(0), seq: 1 }));
    }

    #[test]
    fn a_large_fence_survives_its_pieces() {
        let hosts: HostSet = [HostIndex(1), HostIndex(40)].into_iter().collect();
        let mut last = noise(700_000);
        last[0] = 8;
        let mut first = noise(1_500_000);
        first[1_499_999] = 7;
        let blobs = [Bytes::from(first), Bytes::from(last)];
        let frames = up(STAMP, HostIndex(1), Group(2), 5, &hosts, &blobs);
        assert_eq!(frames.len(), 3);
        let mut chunks = Chunks::default();
        let whole: Vec<Bytes> = frames.iter().filter_map(|f| chunks.push(f).unwrap()).collect();
        let (set, rest) = open_up(Group(2), 5, whole[0].clone()).unwrap();
        assert_eq!((set, rest.len(), rest[1_499_999], rest[1_500_000]), (hosts, 2_200_000, 7, 8));
        assert!(chunks.open.is_empty());
    }

    #[test]
    fn pieces_without_a_beginning_are_dropped_and_a_new_beginning_replaces_what_has_come() {
        let result = Bytes::from(noise((2 << 20) + 9));
        let frames = down(STAMP, Group(0), 4, result.clone());
        let [first, second, last] = frames.as_slice() else { panic!("{} frames", frames.len()) };
        for (before, what) in [
            (vec![], "nothing"),
            (vec![first], "the beginning, and the same again from another parent"),
            (vec![first, second], "most of it"),
            (vec![second, last], "the end of it, from a parent that came too late for the beginning"),
        ] {
            let mut chunks = Chunks::default();
            for piece in before {
                assert_eq!(chunks.push(piece), Ok(None), "{what}");
            }
            let whole: Vec<Bytes> = frames.iter().filter_map(|f| chunks.push(f).unwrap()).collect();
            assert!(whole == [result.clone()], "{what}");
        }
    }

    #[test]
    fn an_empty_fence_is_one_frame() {
        assert_eq!(down(STAMP, Group(0), 1, Bytes::new()).len(), 1);
    }

    #[test]
    fn garbage_instead_of_a_host_set_is_refused() {
        for bytes in [&b""[..], b"\0\0\0\x09abc", b"\0\0\0\x01\xff"] {
            assert!(open_up(Group(0), 1, Bytes::copy_from_slice(bytes)).is_err());
        }
    }
}
