//! The hosts of a job: what the user, a file or an operator says about them, before any of them is reached.

mod entry;
pub mod hostfile;
mod list;
mod origin;
pub mod site;
pub mod slots;

pub use entry::{EntryProblem, SLOTS_DEFAULT};
pub use hostfile::{HostfileError, HostfileProblem, parse_hostfile};
pub use list::{HostList, HostSpec, ListProblem};
pub use origin::Origin;
pub use slots::{HostsFlagError, parse_hosts_flag};
