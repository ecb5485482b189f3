//! From what the user asked for and the hosts there are to a plan: a pure value that says which rank runs where.

pub mod circumstances;
pub mod detect;
pub mod open_mpi;
pub mod placement;
#[expect(clippy::module_inception, reason = "the plan itself is one of the plan's parts")]
mod plan;
pub mod rank_env;
pub(crate) mod scrub;
mod show;
mod spec;
mod worlds;

pub use placement::{Placed, PlacementError, Request, place};
pub use plan::{HostShare, Plan, PlanError, ProcShare, node_of_each, shares};
pub use rank_env::{EnvEntry, RankFacts, Strength, base_env, own_env, rank_entries, rank_env};
pub use scrub::{never_forwarded, scrubbed};
pub use show::Sheet;
pub use spec::{AppSpec, Bootstrap, DEFAULT_JOB, JobSpec, LimitSpec, OnFailure, OutputSpec, Placement, StdinTarget};
pub use worlds::{Choice, Ground, Unclear, World};
