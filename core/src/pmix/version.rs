//! One rule for a whole job: all hosts use PMIx libraries whose blobs mean the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use muster_protocol::message::PmixHost;

/// Hosts that are named for one version.
const NAMED_MAX: usize = 3;

/// Hosts that cannot serve one job together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// Their libraries do not understand each other.
    #[error(
        "the hosts of this job have PMIx libraries of different major series ({found}), which do not understand each other; \
         name one that all have with --pmix-lib"
    )]
    Series {
        /// Versions with the hosts that have them.
        found: String,
    },
    /// Their agents do not.
    #[error(
        "the agent of {host} says something of its PMIx library that cannot be understood; is it of another release?"
    )]
    Release {
        /// One of them.
        host: String,
    },
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}

/// Whether the libraries of all hosts can serve one job.
///
/// # Errors
/// When they are of different major series.
pub fn agree(hosts: &[(String, PmixHost)]) -> Result<(), Disagreement> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (host, told) in hosts {
        versions.entry(&told.version).or_default().push(host);
    }
    let mut majors: Vec<&str> = versions.keys().map(|v| major(v)).collect();
    majors.dedup();
    if majors.len() <= 1 {
        return Ok(());
    }
    let mut found = String::new();
    for (version, hosts) in &mut versions {
        hosts.sort();
        let more = hosts.len().saturating_sub(NAMED_MAX);
        let names = hosts[..hosts.len() - more].join(", ");
        let separator = if found.is_empty() { "" } else { "; " };
        let _ = write!(found, "{separator}{version} on {names}");
        if more > 0 {
            let _ = write!(found, " and {more} more");
        }
    }
    Err(Disagreement::Series { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(hosts: &[(&str, &str)]) -> Vec<(String, PmixHost)> {
        let told = |version: &str| PmixHost { version: version.to_owned(), machine: 0, ranks: 1, share: 0 };
        hosts.iter().map(|(host, version)| ((*host).to_owned(), told(version))).collect()
    }

    #[test]
    fn libraries_of_one_series_agree_and_others_are_named() {
        assert_eq!(agree(&all(&[("a", "4.2.2"), ("b", "4.2.9")])), Ok(()));
        assert_eq!(agree(&[]), Ok(()));
        let error = agree(&all(&[("d", "4.2.2"), ("x", "3.2.5"), ("c", "4.2.2"), ("b", "4.2.2"), ("a", "4.2.2")]));
        insta::assert_snapshot!(error.unwrap_err(), @"the hosts of this job have PMIx libraries of different major series (3.2.5 on x; 4.2.2 on a, b, c and 1 more), which do not understand each other; name one that all have with --pmix-lib");
    }
}
