//! What the hosts of a group tell each other before its ranks start.

use bytes::{Bytes, BytesMut};
use muster_protocol::message::PmixHost;

use crate::kvs::{Entries, append_entry};

/// The machine that a host is, or is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machine {
    /// The same for all hosts that are parts of one machine; 0 when unknown.
    pub id: u64,
    /// Its cores.
    pub cores: u32,
    /// Cores of these that the ranks of this host may use.
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

/// What all hosts have said, with their names. What cannot be read is left out.
pub(super) fn heard(blob: &Bytes) -> Vec<(String, PmixHost)> {
    let read = |(host, facts): (Bytes, Bytes)| {
        Some((String::from_utf8_lossy(&host).into_owned(), minicbor::decode(&facts).ok()?))
    };
    Entries::new(blob.clone()).flatten().filter_map(read).collect()
}

/// Whether ranks have to share cores: those of one host, or those of all hosts that are parts of its machine. `here` are this host's
/// ranks. Nobody but a launcher can know the latter.
pub(super) fn crowded(machine: &Machine, here: u32, all: &[(String, PmixHost)]) -> bool {
    let beside = all.iter().filter(|(_, host)| machine.id != 0 && host.machine == machine.id);
    let (ranks, cores) = beside.fold((0u32, machine.cores), |(ranks, cores), (_, host)| {
        (ranks.saturating_add(host.ranks), cores.max(host.machine_cores))
    });
    here > machine.usable || ranks > cores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(machine: u64, ranks: u32) -> PmixHost {
        PmixHost { version: "4.2.2".into(), machine, machine_cores: 8, ranks }
    }

    #[test]
    fn what_is_told_is_heard() {
        let blob = [told("a", &host(7, 1)), told("b", &host(8, 2))].concat();
        let mut want = vec![("a".to_owned(), host(7, 1)), ("b".to_owned(), host(8, 2))];
        assert_eq!(heard(&blob.into()), want);
        let mut odd = BytesMut::from(&told("a", &host(7, 1))[..]);
        append_entry(&mut odd, b"b", b"nonsense").unwrap();
        want.truncate(1);
        assert_eq!(heard(&odd.freeze()), want);
    }

    #[test]
    fn ranks_are_crowded_when_they_outnumber_the_cores_of_their_host_or_of_its_machine() {
        let all = |hosts: &[(u64, u32)]| -> Vec<(String, PmixHost)> {
            hosts.iter().enumerate().map(|(i, (machine, ranks))| (i.to_string(), host(*machine, *ranks))).collect()
        };
        let here = |id, usable| Machine { id, cores: 8, usable };
        for (machine, ranks, hosts, want, why) in [
            (here(7, 8), 8, &[(7, 8)][..], false, "a core for each"),
            (here(7, 8), 9, &[(7, 9)], true, "more than the host's cores"),
            (here(7, 2), 3, &[(7, 3)], true, "more than it may use of them"),
            (here(7, 8), 4, &[(7, 4), (8, 8), (9, 8)], false, "others are on machines of their own"),
            (here(7, 8), 4, &[(7, 4), (7, 4)], false, "two hosts of one machine that suffices"),
            (here(7, 8), 4, &[(7, 4), (7, 4), (8, 1), (7, 1)], true, "three that have more than its cores"),
            (here(0, 8), 4, &[(0, 4), (0, 4), (0, 4)], false, "machines that are not known are not the same"),
        ] {
            assert_eq!(crowded(&machine, ranks, &all(hosts)), want, "{why}");
        }
    }
}
