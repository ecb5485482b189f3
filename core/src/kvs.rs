//! The key-value space of one process group as one host sees it.
//!
//! What a fence brings is kept as it came: the index points into the received blobs, so a value is never copied on its way
//! from the wire to the rank that asks for it. Puts of local ranks are visible on this host at once and wait in a blob of
//! their own for the next fence.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use muster_protocol::Group;
use muster_protocol::limits::{FENCE_BYTES_MAX, KVS_ENTRIES_MAX};

/// The name of a group's key-value space, given that of another one of the same job: it ends with the number of its group.
pub fn name_in_job(other: &str, group: Group) -> String {
    format!("{}_{group}", other.rsplit_once('_').map_or(other, |(base, _)| base))
}

/// The group that a name of the same job means.
pub fn group_in_job(other: &str, name: &str) -> Option<Group> {
    let (base, number) = name.rsplit_once('_')?;
    let of_this_job = other.rsplit_once('_').is_some_and(|(own, _)| own == base);
    number.parse().ok().filter(|_| of_this_job).map(Group)
}

/// Bytes that the lengths of one entry take in a blob.
pub const ENTRY_HEADER_BYTES: usize = 6;
/// Below this, dead bytes are not worth a compaction.
const COMPACT_BYTES_MIN: usize = 1 << 20;

/// Why a blob or a put was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvsError {
    /// The blob ends inside an entry.
    #[error("key-value blob is cut off at byte {at} of {len}: entry needs {needs} bytes more")]
    Truncated {
        /// Where the entry begins.
        at: usize,
        /// Length of the blob.
        len: usize,
        /// Bytes that are missing.
        needs: usize,
    },
    /// The key-value space would pass its limit.
    #[error("key-value space over its limit: {bytes} bytes, at most {FENCE_BYTES_MAX}")]
    TooLarge {
        /// Size that was asked for.
        bytes: usize,
    },
    /// Too many keys.
    #[error("key-value space over its limit of {KVS_ENTRIES_MAX} keys")]
    TooManyKeys,
    /// The key does not fit the blob format.
    #[error("key of {len} bytes does not fit, at most {}", u16::MAX)]
    KeyTooLong {
        /// Its length.
        len: usize,
    },
}

/// Appends one entry to a blob.
pub fn append_entry(blob: &mut BytesMut, key: &[u8], value: &[u8]) -> Result<(), KvsError> {
    let key_len = u16::try_from(key.len()).map_err(|_| KvsError::KeyTooLong { len: key.len() })?;
    let value_len = u32::try_from(value.len()).map_err(|_| KvsError::TooLarge { bytes: value.len() })?;
    blob.reserve(ENTRY_HEADER_BYTES + key.len() + value.len());
    blob.put_u16(key_len);
    blob.put_u32(value_len);
    blob.put_slice(key);
    blob.put_slice(value);
    Ok(())
}

/// The entries of a blob in order, each checked before it is handed out. Nothing follows an error.
#[derive(Debug, Clone)]
pub struct Entries {
    blob: Bytes,
    at: usize,
}

impl Entries {
    /// Reads a blob from its beginning.
    pub fn new(blob: Bytes) -> Self {
        Self { blob, at: 0 }
    }

    fn read(&mut self) -> Result<(Bytes, Bytes), KvsError> {
        let (start, len) = (self.at, self.blob.len());
        let short = |end: usize| KvsError::Truncated { at: start, len, needs: end - len };
        let head = start + ENTRY_HEADER_BYTES;
        let Some(header) = self.blob.get(start..head) else { return Err(short(head)) };
        let key_end = head + usize::from(u16::from_be_bytes([header[0], header[1]]));
        let value_len = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        let end = key_end.saturating_add(value_len as usize);
        if end > len {
            return Err(short(end));
        }
        self.at = end;
        Ok((self.blob.slice(head..key_end), self.blob.slice(key_end..end)))
    }
}

impl Iterator for Entries {
    type Item = Result<(Bytes, Bytes), KvsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.blob.len() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.at = self.blob.len();
        }
        Some(entry)
    }
}

/// An index over immutable blobs, plus what local ranks have put since the last fence.
#[derive(Debug, Default)]
pub struct Kvs {
    index: HashMap<Bytes, Bytes>,
    /// Bytes that the index can reach, entry headers included.
    live: usize,
    /// Bytes that the index keeps in memory: a blob stays whole as long as one of its entries is current.
    retained: usize,
    pending: BytesMut,
}

impl Kvs {
    /// An empty space.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.index.get(key)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Stores a pair that stays on this host; no fence carries it.
    pub fn put_local(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvsError> {
        let bytes = self.live + ENTRY_HEADER_BYTES + key.len() + value.len();
        if bytes > FENCE_BYTES_MAX {
            return Err(KvsError::TooLarge { bytes });
        }
        let mut own = BytesMut::with_capacity(key.len() + value.len());
        own.put_slice(key);
        own.put_slice(value);
        let mut value = own.freeze();
        let key = value.split_to(key.len());
        self.retained += ENTRY_HEADER_BYTES + key.len() + value.len();
        self.insert(key, value)?;
        self.compact_if_worthwhile();
        Ok(())
    }

    /// Stores a pair that is visible here at once and everywhere after the next fence.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvsError> {
        let bytes = self.pending.len() + ENTRY_HEADER_BYTES + key.len() + value.len();
        if bytes > FENCE_BYTES_MAX {
            return Err(KvsError::TooLarge { bytes });
        }
        if key.len() > usize::from(u16::MAX) {
            return Err(KvsError::KeyTooLong { len: key.len() });
        }
        self.put_local(key, value)?;
        append_entry(&mut self.pending, key, value)
    }

    /// Takes what was put since the last fence, as a blob.
    pub fn take_pending(&mut self) -> Bytes {
        std::mem::take(&mut self.pending).freeze()
    }

    /// Brings in what a fence has merged; later entries win. A malformed blob changes nothing.
    pub fn load(&mut self, blobs: &[Bytes]) -> Result<(), KvsError> {
        let mut total = 0usize;
        for blob in blobs {
            total = total.saturating_add(blob.len());
            if total > FENCE_BYTES_MAX {
                return Err(KvsError::TooLarge { bytes: total });
            }
            Entries::new(blob.clone()).try_for_each(|entry| entry.map(drop))?;
        }
        for blob in blobs {
            self.retained += blob.len();
            for entry in Entries::new(blob.clone()) {
                let (key, value) = entry?;
                self.insert(key, value)?;
            }
        }
        self.compact_if_worthwhile();
        if self.live > FENCE_BYTES_MAX { Err(KvsError::TooLarge { bytes: self.live }) } else { Ok(()) }
    }

    fn insert(&mut self, key: Bytes, value: Bytes) -> Result<(), KvsError> {
        let size = ENTRY_HEADER_BYTES + key.len() + value.len();
        // The old key goes too: a map keeps the key it has, and with it the whole blob that the key points into.
        if let Some((old_key, old_value)) = self.index.remove_entry(&key) {
            self.live -= ENTRY_HEADER_BYTES + old_key.len() + old_value.len();
        } else if self.index.len() >= KVS_ENTRIES_MAX {
            return Err(KvsError::TooManyKeys);
        }
        self.live += size;
        self.index.insert(key, value);
        Ok(())
    }

    /// A blob of which little is current would otherwise stay for the group's whole life.
    fn compact_if_worthwhile(&mut self) {
        if self.retained <= COMPACT_BYTES_MIN.max(2 * self.live) {
            return;
        }
        let mut fresh = BytesMut::with_capacity(self.live);
        for (key, value) in &self.index {
            fresh.put_slice(key);
            fresh.put_slice(value);
        }
        let mut fresh = fresh.freeze();
        let old = std::mem::take(&mut self.index);
        self.index =
            old.into_iter().map(|(key, value)| (fresh.split_to(key.len()), fresh.split_to(value.len()))).collect();
        self.retained = self.live;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap as Model;

    use proptest::prelude::*;

    use super::*;

    fn blob(pairs: &[(&[u8], &[u8])]) -> Bytes {
        let mut out = BytesMut::new();
        for (key, value) in pairs {
            append_entry(&mut out, key, value).unwrap();
        }
        out.freeze()
    }

    #[test]
    fn the_last_value_wins_within_and_across_blobs() {
        let mut kvs = Kvs::new();
        kvs.load(&[blob(&[(b"a", b"1"), (b"a", b"2"), (b"b", b"3")]), blob(&[(b"b", b"4")])]).unwrap();
        assert_eq!(kvs.get(b"a").unwrap(), "2");
        assert_eq!(kvs.get(b"b").unwrap(), "4");
        assert_eq!(kvs.len(), 2);
    }

    #[test]
    fn values_are_not_copied_out_of_the_blob() {
        let blob = blob(&[(b"key", b"value")]);
        let mut kvs = Kvs::new();
        kvs.load(std::slice::from_ref(&blob)).unwrap();
        let value = kvs.get(b"key").unwrap();
        assert!(blob.as_ptr_range().contains(&value.as_ptr()));
    }

    #[test]
    fn a_put_is_visible_at_once_and_travels_with_the_next_fence_only() {
        let mut kvs = Kvs::new();
        kvs.put(b"k", b"v").unwrap();
        kvs.put_local(b"here", b"only").unwrap();
        assert_eq!(kvs.get(b"k").unwrap(), "v");
        assert_eq!(kvs.get(b"here").unwrap(), "only");
        assert_eq!(kvs.take_pending(), blob(&[(b"k", b"v")]));
        assert!(kvs.take_pending().is_empty());
    }

    #[test]
    fn a_cut_off_blob_changes_nothing() {
        let good = blob(&[(b"a", b"1"), (b"b", b"2")]);
        for cut in 1..good.len() {
            if cut == good.len() / 2 {
                continue; // exactly one whole entry
            }
            let mut kvs = Kvs::new();
            let error = kvs.load(&[good.slice(..cut)]).unwrap_err();
            assert!(matches!(error, KvsError::Truncated { .. }), "{error}");
            assert!(kvs.is_empty());
        }
    }

    #[test]
    fn rewriting_one_key_forever_keeps_memory_bounded() {
        let mut kvs = Kvs::new();
        let value = vec![b'x'; 1000];
        kvs.put_local(b"stays", b"here").unwrap();
        for _ in 0..10_000 {
            kvs.put_local(b"k", &value).unwrap();
            assert!(kvs.retained <= COMPACT_BYTES_MIN + 2 * kvs.live);
        }
        assert_eq!(kvs.get(b"stays").unwrap(), "here");
        assert_eq!(kvs.get(b"k").unwrap(), &value);
        assert_eq!(kvs.live, 2 * ENTRY_HEADER_BYTES + "staysherek".len() + value.len());
    }

    #[test]
    fn a_blob_over_the_limit_is_refused() {
        let mut kvs = Kvs::new();
        let piece = blob(&[(b"k", &vec![0u8; 16 << 20])]);
        let error = kvs.load(&vec![piece; FENCE_BYTES_MAX / (16 << 20)]).unwrap_err();
        assert!(matches!(error, KvsError::TooLarge { .. }));
        assert!(kvs.is_empty());
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(rounds in proptest::collection::vec(
            proptest::collection::vec(("[a-d]{1,2}", "[x-z]{0,5}"), 0..10), 0..6)) {
            let (mut kvs, mut model) = (Kvs::new(), Model::new());
            for (i, round) in rounds.iter().enumerate() {
                if i % 2 == 0 {
                    let mut out = BytesMut::new();
                    for (k, v) in round { append_entry(&mut out, k.as_bytes(), v.as_bytes()).unwrap(); }
                    kvs.load(&[out.freeze()]).unwrap();
                } else {
                    for (k, v) in round { kvs.put(k.as_bytes(), v.as_bytes()).unwrap(); }
                }
                model.extend(round.iter().cloned());
            }
            prop_assert_eq!(kvs.len(), model.len());
            for (k, v) in &model { prop_assert_eq!(&kvs.get(k.as_bytes()).unwrap()[..], v.as_bytes()); }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut kvs = Kvs::new();
            if kvs.load(&[Bytes::from(bytes)]).is_err() { prop_assert!(kvs.is_empty()); }
        }
    }
}
