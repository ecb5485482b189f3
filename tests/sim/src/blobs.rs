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
    blob.extend(noise(host.0).take(filling));
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
        if u64::from(at) != seq
            || filling > whole.len()
            || !whole.split_to(filling).iter().copied().eq(noise(host).take(filling))
        {
            return None;
        }
        hosts.push(host);
    }
    hosts.sort_unstable();
    Some(hosts)
}

/// What a host fills its part with: bytes that cannot be compressed, so that large results have many pieces.
fn noise(host: u32) -> impl Iterator<Item = u8> {
    let next =
        |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(u64::from(host) + 1), next).map(|state| (state >> 56) as u8)
}
