//! A set of hosts as a bitmap.
//!
//! What travels up the tree is merged by host *set*, never by count: a host that reports twice, because its parent died and
//! it reports again through another one, is still one host.

use std::fmt;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::HostIndex;
use crate::limits::HOSTS_MAX;

/// A set of host indices. On the wire: a byte string, bit `i % 8` of byte `i / 8` stands for host `i`; no trailing zero bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct HostSet {
    bits: Vec<u8>,
}

impl HostSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { bits: Vec::new() }
    }

    /// The set `{0, 1, …, n-1}`.
    pub fn first(n: u32) -> Self {
        (0..n).map(HostIndex).collect()
    }

    /// Adds a host; says whether it was new.
    ///
    /// # Panics
    /// When the index is at or over [`HOSTS_MAX`]: indices are checked where they enter.
    pub fn insert(&mut self, host: HostIndex) -> bool {
        assert!(host.0 < HOSTS_MAX, "host index over the limit");
        let (byte, bit) = (host.0 as usize / 8, host.0 % 8);
        if byte >= self.bits.len() {
            self.bits.resize(byte + 1, 0);
        }
        let new = self.bits[byte] & (1 << bit) == 0;
        self.bits[byte] |= 1 << bit;
        new
    }

    /// Takes a host out; says whether it was there.
    pub fn remove(&mut self, host: HostIndex) -> bool {
        let was = self.contains(host);
        if was {
            self.bits[host.0 as usize / 8] &= !(1 << (host.0 % 8));
            self.trim();
        }
        was
    }

    /// Whether the host is in the set.
    pub fn contains(&self, host: HostIndex) -> bool {
        self.bits.get(host.0 as usize / 8).is_some_and(|b| b & (1 << (host.0 % 8)) != 0)
    }

    /// Adds every host of `other`.
    pub fn union_with(&mut self, other: &Self) {
        if other.bits.len() > self.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine |= theirs;
        }
    }

    /// Takes every host of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine &= !theirs;
        }
        self.trim();
    }

    /// The hosts that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { bits: self.bits.iter().zip(&other.bits).map(|(a, b)| a & b).collect() };
        out.trim();
        out
    }

    /// Whether every host of this set is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.bits.iter().enumerate().all(|(i, b)| b & !other.bits.get(i).copied().unwrap_or(0) == 0)
    }

    /// Whether no host is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.bits.iter().zip(&other.bits).all(|(a, b)| a & b == 0)
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.bits.iter().map(|b| b.count_ones() as usize).sum()
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|b| *b == 0)
    }

    /// The hosts in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = HostIndex> + '_ {
        self.bits.iter().enumerate().flat_map(|(i, b)| {
            (0..8u32).filter(move |bit| b & (1 << bit) != 0).map(move |bit| HostIndex(i as u32 * 8 + bit))
        })
    }

    fn trim(&mut self) {
        while self.bits.last() == Some(&0) {
            self.bits.pop();
        }
    }
}

impl FromIterator<HostIndex> for HostSet {
    fn from_iter<I: IntoIterator<Item = HostIndex>>(hosts: I) -> Self {
        let mut set = Self::new();
        for host in hosts {
            set.insert(host);
        }
        set
    }
}

impl fmt::Debug for HostSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|h| h.0)).finish()
    }
}

impl<C> Encode<C> for HostSet {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.bits)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for HostSet {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = ByteVec::decode(d, ctx)?;
        if bytes.len() > HOSTS_MAX as usize / 8 {
            return Err(minicbor::decode::Error::message("host set over the limit"));
        }
        let mut set = Self { bits: bytes.into() };
        set.trim();
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn model(set: &HostSet) -> BTreeSet<u32> {
        set.iter().map(|h| h.0).collect()
    }

    fn of(hosts: &BTreeSet<u32>) -> HostSet {
        hosts.iter().map(|h| HostIndex(*h)).collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(a in proptest::collection::btree_set(0u32..300, 0..40), b in proptest::collection::btree_set(0u32..300, 0..40)) {
            let (sa, sb) = (of(&a), of(&b));
            prop_assert_eq!(model(&sa), a.clone());
            prop_assert_eq!(sa.len(), a.len());
            let mut union = sa.clone();
            union.union_with(&sb);
            prop_assert_eq!(model(&union), &a | &b);
            let mut rest = sa.clone();
            rest.subtract(&sb);
            prop_assert_eq!(model(&rest), &a - &b);
            prop_assert_eq!(of(&(&a - &b)), rest);
            prop_assert_eq!(model(&sa.intersection(&sb)), &a & &b);
            prop_assert_eq!(sa.is_subset(&sb), a.is_subset(&b));
            prop_assert_eq!(sa.is_disjoint(&sb), a.is_disjoint(&b));
            let bytes = minicbor::to_vec(&sa).unwrap();
            prop_assert_eq!(minicbor::decode::<HostSet>(&bytes).unwrap(), sa);
        }
    }

    #[test]
    fn an_oversized_set_is_refused() {
        let bytes = minicbor::to_vec(ByteVec::from(vec![0xff; HOSTS_MAX as usize / 8 + 1])).unwrap();
        assert!(minicbor::decode::<HostSet>(&bytes).is_err());
    }
}
