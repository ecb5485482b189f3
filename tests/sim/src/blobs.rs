//! What hosts bring to a fence, such that whoever gets the result can check it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use muster_protocol::HostIndex;

/// A host's part of a fence: its index, the fence, its length, filling.
pub fn blob(host: HostIndex, seq: u64, bytes: usize) -> Bytes {
    let filling = bytes.saturating_sub(12);
    let mut blob = BytesMut::with_capacity(12 + filling);
    blob.put_u32(host.0);
    blob.put_u32(seq as u32);
    blob.put_u32(filling as u32);
    blob.put_bytes(host.0 as u8, filling);
    blob.freeze()
}

/// The hosts in a fence's result, in ascending order, repeated ones repeated; `None` when it is not made of such parts.
pub fn open(mut whole: Bytes, seq: u64) -> Option<Vec<u32>> {
    let mut hosts = Vec::new();
    while !whole.is_empty() {
        if whole.len() < 12 {
            return None;
        }
        let (host, at, filling) = (whole.get_u32(), whole.get_u32(), whole.get_u32() as usize);
        if u64::from(at) != seq || filling > whole.len() || !whole.split_to(filling).iter().all(|b| *b == host as u8) {
            return None;
        }
        hosts.push(host);
    }
    hosts.sort_unstable();
    Some(hosts)
}
