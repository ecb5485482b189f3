#![forbid(unsafe_code)]
//! A cluster on one machine, for end-to-end tests.
//!
//! Every host is a set of namespaces: its own network (on a common bridge that is itself in a namespace), host name,
//! System V IPC, mounts (`/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`, `/tmp`, `/dev/shm`, `/proc`, `/sys`) and
//! processes. Nothing of it has a name on the machine: when the test process ends, however it ends, the pipe to every
//! host's first process closes, that process exits, and the kernel takes the rest away.
//!
//! ```no_run
//! use muster_cluster::{Cluster, Cmd};
//!
//! let cluster = Cluster::builder().hosts(2).start()?;
//! let name = cluster.host(1).run(Cmd::new("hostname"))?;
//! assert_eq!(name.stdout_text(), "h1\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agents;
mod cluster;
mod cmd;
mod family;
mod here;
mod host;
mod https;
mod inspect;
mod link;
mod lite;
mod memory_group;
mod mesh;
mod muster;
mod namespaces;
mod parallel;
pub mod pods;
mod proc;
pub mod rig;
mod sshd;
mod switch;
mod terminal;
mod worker;
pub mod workspace;

pub use cluster::{Builder, Cluster, StartError};
pub use cmd::{Cmd, Output, Stdin};
pub use family::{Family, link_as};
pub use here::{Here, process_state};
pub use host::Host;
pub use https::{HttpsRequest, HttpsServer};
pub use inspect::{Leftover, Memory, Process, wakeups};
pub use link::Shape;
pub use lite::{LiteBuilder, LiteCluster};
pub use memory_group::MemoryGroup;
pub use mesh::{Manner, MeshProxy};
pub use muster::{PATIENCE, eventually};
pub use proc::Proc;
pub use sshd::Ssh;
pub use terminal::Terminal;

/// TCP port on which [`Cluster::start_agent`] expects the agent.
pub const AGENT_PORT: u16 = 2222;

/// Starts what the builder describes, or returns from the test with a notice when that needs root and there is none.
/// Where `CI` is set the test fails instead: there nothing may be skipped.
#[macro_export]
macro_rules! cluster_or_skip {
    ($builder:expr) => {
        match $builder.start() {
            Ok(cluster) => cluster,
            Err(error) => {
                $crate::skip_or_fail(&error);
                return;
            }
        }
    };
}

/// Prints the skip notice of [`cluster_or_skip!`], or panics when the error is not about rights or `CI` is set.
///
/// # Panics
/// As said: it is how a test fails.
pub fn skip_or_fail(error: &StartError) {
    let in_ci = std::env::var("CI").is_ok_and(|v| !v.is_empty() && v != "false");
    assert!(matches!(error, StartError::NeedsRoot { .. }) && !in_ci, "cannot start the cluster: {error:#}");
    // A notice that cannot be written changes nothing for the test.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {error}\n"));
}
