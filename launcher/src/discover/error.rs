//! What can be wrong with hosts, port and key before anything is dialled.

use muster_core::hosts::{HostfileError, HostsFlagError};
use muster_transport::identity::JobKeyError;

/// Why there is no host list, or no key.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A host list is wrong.
    #[error(transparent)]
    Hosts(#[from] HostsFlagError),
    /// A host file is wrong.
    #[error(transparent)]
    Hostfile(#[from] HostfileError),
    /// A host file cannot be read.
    #[error("{place}: host file {file}: {why}; name a readable file, or hosts with -H")]
    HostfileUnreadable {
        /// What named it.
        place: String,
        /// The file.
        file: String,
        /// What the system said.
        why: String,
    },
    /// A key file cannot be used.
    #[error("{place}: {source}")]
    Key {
        /// What named it.
        place: String,
        /// What is wrong with it.
        source: JobKeyError,
    },
    /// No key where one is needed.
    #[error(
        "no job key to reach {hosts} with: looked at {looked}; name the secret that the agents have with --key-file, or make one with muster key new"
    )]
    NoKey {
        /// The hosts, in short.
        hosts: String,
        /// The files that were looked for.
        looked: String,
    },
}
