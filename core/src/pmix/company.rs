//! What the hosts of a group tell each other before its ranks start.

use bytes::{Bytes, BytesMut};
use muster_protocol::message::PmixHost;

use super::version::Disagreement;
use crate::kvs::{Entries, append_entry};

/// The machine that a host is, or is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machine {
    /// The same for all hosts that are parts of one machine; 0 when unknown.
    pub id: u64,
    /// Its cores.
    pub cores: u32,
    /// The same for all hosts whose ranks share what they may use of it; 0 when unknown.
    pub share: u64,
    /// How many cores they may use.
    pub usable: u32,
}

/// What a host says of itself, as its part of a fence.
pub(super) fn told(host: &str, facts: &PmixHost) -> Bytes {
    let mut blob = BytesMut::new();
    // Writing to memory does not fail. A host's name and its facts are short; were they not, the others would miss this host.
    let facts = minicbor::to_vec(facts).unwrap_or_default();
    let _ = append_entry(&mut blob, host.as_bytes(), &facts);
    blob.freeze()
}

/// What all hosts have said, with their names.
///
/// # Errors
/// When one cannot be understood.
pub(super) fn heard(blob: &Bytes) -> Result<Vec<(String, PmixHost)>, Disagreement> {
    let read = |(host, facts): (Bytes, Bytes)| {
        let host = String::from_utf8_lossy(&host).into_owned();
        match minicbor::decode(&facts) {
            Ok(facts) => Ok((host, facts)),
            Err(_) => Err(Disagreement::Release { host }),
        }
    };
    Entries::new(blob.clone()).flatten().map(read).collect()
}

/// Whether ranks have to share cores: those of one host, or those of all hosts that share what they may use, or that are parts of one
/// machine. `here` are this host's ranks. Nobody but a launcher can know the others.
pub(super) fn crowded<'a>(machine: &Machine, here: u32, all: impl Iterator<Item = &'a PmixHost> + Clone) -> bool {
    let ranks = |same: &dyn Fn(&PmixHost) -> bool| {
        all.clone().filter(|host| same(host)).fold(0u32, |sum, host| sum.saturating_add(host.ranks))
    };
    let of_share = ranks(&|host| machine.share != 0 && host.share == machine.share);
    let of_machine = ranks(&|host| machine.id != 0 && host.machine == machine.id);
    here.max(of_share) > machine.usable || of_machine > machine.cores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(machine: u64, share: u64, ranks: u32) -> PmixHost {
        PmixHost { version: "4.2.2".into(), machine, ranks, share }
    }

    #[test]
    fn what_is_told_is_heard_and_what_cannot_be_understood_is_named() {
        let blob = [told("a", &host(7, 1, 1)), told("b", &host(8, 2, 2))].concat();
        let want = vec![("a".to_owned(), host(7, 1, 1)), ("b".to_owned(), host(8, 2, 2))];
        assert_eq!(heard(&blob.into()), Ok(want));
        let mut odd = BytesMut::from(&told("a", &host(7, 1, 1))[..]);
        append_entry(&mut odd, b"b", b"4.2.2").unwrap();
        let error = heard(&odd.freeze()).unwrap_err();
        insta::assert_snapshot!(error, @"the agent of b says something of its PMIx library that cannot be understood; is it of another release?");
    }

    #[test]
    fn ranks_are_crowded_when_they_outnumber_the_cores_of_their_host_or_of_its_machine() {
        let all = |hosts: &[(u64, u64, u32)]| -> Vec<PmixHost> {
            hosts.iter().map(|(machine, share, ranks)| host(*machine, *share, *ranks)).collect()
        };
        let here = |id, share, usable| Machine { id, cores: 8, share, usable };
        for (machine, ranks, hosts, want, why) in [
            (here(7, 1, 8), 8, &[(7, 1, 8)][..], false, "a core for each"),
            (here(7, 1, 8), 9, &[(7, 1, 9)], true, "more than the host's cores"),
            (here(7, 1, 2), 3, &[(7, 1, 3)], true, "more than it may use of them"),
            (here(7, 1, 8), 4, &[(7, 1, 4), (8, 1, 4), (9, 2, 8)], false, "others are on machines of their own"),
            (here(7, 1, 8), 4, &[(7, 1, 4), (7, 2, 4)], false, "two hosts of one machine that suffices"),
            (
                here(7, 1, 8),
                4,
                &[(7, 1, 4), (7, 2, 4), (8, 3, 1), (7, 4, 1)],
                true,
                "three that have more than its cores",
            ),
            (here(7, 1, 4), 2, &[(7, 1, 2), (7, 1, 2)], false, "two hosts that share four cores"),
            (here(7, 1, 4), 2, &[(7, 1, 2), (7, 1, 2), (7, 1, 1)], true, "three that have more"),
            (here(0, 0, 8), 4, &[(0, 0, 4), (0, 0, 4), (0, 0, 4)], false, "what is not known is not the same"),
        ] {
            assert_eq!(crowded(&machine, ranks, all(hosts).iter()), want, "{why}");
        }
    }
}
