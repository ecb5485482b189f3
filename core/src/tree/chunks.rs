//! Fences larger than one frame: split and put together again.
//!
//! A fence's payload upward is `u32` length of the encoded host set, the host set, then key-values; downward only key-values.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use muster_protocol::frame::{FLAG_FIRST, FLAG_MORE, Frame, Kind};
use muster_protocol::limits::{FENCE_BYTES_MAX, FENCE_CHUNK_BYTES_MAX};
use muster_protocol::message::Stamp;
use muster_protocol::{Group, HostIndex, HostSet};
use thiserror::Error;

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
                return Ok(Some(frame.payload.clone()));
            }
            self.open.insert(key, BytesMut::new());
        }
        let Some(buffer) = self.open.get_mut(&key) else { return Ok(None) };
        if buffer.len() + frame.payload.len() > FENCE_BYTES_MAX {
            self.open.remove(&key);
            return Err(ChunkError::TooLong { group: key.0, seq: key.1 });
        }
        buffer.extend_from_slice(&frame.payload);
        Ok(if more { None } else { self.open.remove(&key).map(BytesMut::freeze) })
    }
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

fn split(stamp: Stamp, kind: Kind, host: HostIndex, group: Group, seq: u64, mut whole: Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let piece = whole.split_to(whole.len().min(FENCE_CHUNK_BYTES_MAX as usize));
        let first = if frames.is_empty() { FLAG_FIRST } else { 0 };
        let more = if whole.is_empty() { 0 } else { FLAG_MORE };
        frames.push(stamp.raw(kind, host, piece).with(first | more, group.0, seq));
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

    #[test]
    fn a_large_fence_survives_its_pieces() {
        let hosts: HostSet = [HostIndex(1), HostIndex(40)].into_iter().collect();
        let blobs = [Bytes::from(vec![7; 1_500_000]), Bytes::from(vec![8; 700_000])];
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
        let result = Bytes::from([vec![1; 1 << 20], vec![2; 1 << 20], vec![3; 9]].concat());
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
