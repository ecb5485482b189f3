//! The hosts file: `ADDRESS NAME [ALIAS…] [# comment]`, one entry a line.

use std::collections::HashMap;
use std::net::IpAddr;

/// Names of the hosts file, in lower case, with their addresses in file order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostsTable {
    by_name: HashMap<String, Vec<IpAddr>>,
}

impl HostsTable {
    /// Reads what can be read: as everywhere else, a line that makes no sense is skipped.
    pub(super) fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines() {
            let entry = line.split('#').next().unwrap_or_default();
            let mut words = entry.split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            for name in words {
                let addresses = table.by_name.entry(normal(name)).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        table
    }

    pub(super) fn lookup(&self, name: &str) -> Option<&[IpAddr]> {
        self.by_name.get(&normal(name)).map(Vec::as_slice)
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_comments_and_several_addresses() {
        let text = "# hosts\n10.0.0.1\tWorker-0.job.svc worker-0 # first\n::1 worker-0\n\n10.0.0.1 worker-0\nfe80::1%eth0 link\nnonsense x\n10.0.0.9\n";
        let table = HostsTable::parse(text);
        let both: &[IpAddr] = &["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(table.lookup("WORKER-0"), Some(both));
        assert_eq!(table.lookup("worker-0.job.svc."), Some(&both[..1]));
        for absent in ["x", "first", "link", "10.0.0.9", "nonsense"] {
            assert_eq!(table.lookup(absent), None, "{absent}");
        }
    }
}
