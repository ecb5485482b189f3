//! What ranks of Open MPI find in their environment when they are started without `mpirun`, beside what libpmix adds.
//!
//! Names and meanings are those that `mpirun` sets (Open MPI 4.1 `schizo_ompi.c`, PRRTE 3.0): scripts and libraries read them.

use std::fmt::Write as _;

use super::rank_env::{RankFacts, Strength};

/// Variables that name a folder for shared memory: of Open MPI 4 and 5. Each host has one of its own.
pub const SHARED_MEMORY_FOLDERS: [&str; 2] =
    ["OMPI_MCA_btl_vader_backing_directory", "OMPI_MCA_btl_sm_backing_directory"];

/// Whether a variable that a rank has is its own, and not for the ranks that it spawns: Open MPI hands all on that it knows.
pub fn is_of_one_rank(name: &str) -> bool {
    ["PMIX_", "OMPI_COMM_WORLD_", "MUSTER_"].iter().any(|start| name.starts_with(start))
        || SHARED_MEMORY_FOLDERS.contains(&name)
}

/// Calls `set` for each variable, with its reason.
pub(super) fn entries(facts: &RankFacts<'_>, set: &mut impl FnMut(&'static str, String, Strength, &'static str)) {
    use Strength::{Default, Fixed};
    set("OMPI_COMM_WORLD_RANK", facts.rank.to_string(), Fixed, "as mpirun sets it: rank");
    set("OMPI_COMM_WORLD_SIZE", facts.size.to_string(), Fixed, "as mpirun sets it: number of ranks");
    set("OMPI_COMM_WORLD_LOCAL_RANK", facts.local_rank.to_string(), Fixed, "as mpirun sets it: rank on this host");
    set("OMPI_COMM_WORLD_LOCAL_SIZE", facts.local_size.to_string(), Fixed, "as mpirun sets it: ranks on this host");
    set("OMPI_COMM_WORLD_NODE_RANK", facts.local_rank.to_string(), Fixed, "as mpirun sets it: rank on this host");
    set(
        "OMPI_UNIVERSE_SIZE",
        facts.universe.max(facts.size).to_string(),
        Fixed,
        "as mpirun sets it: ranks there may be",
    );
    set("OMPI_NUM_APP_CTX", facts.apps.len().to_string(), Fixed, "as mpirun sets it: number of programs");
    set("OMPI_APP_CTX_NUM_PROCS", list(facts.apps.iter().copied()), Fixed, "as mpirun sets it: ranks of each program");
    let first = facts.apps.iter().scan(0, |next, ranks| Some(std::mem::replace(next, *next + ranks)));
    set("OMPI_FIRST_RANKS", list(first), Fixed, "as mpirun sets it: first rank of each program");
    set("PMIX_ID", format!("{}.{}", facts.kvsname, facts.rank), Fixed, "as mpirun sets it: PMIx name of the rank");
    let reason = "Open MPI 4: believe that a process manager started this rank (its ess/pmi component)";
    set("JSM_JSRUN_PORT", "1".to_owned(), Fixed, reason);
    let key = transport_key(facts.kvsname);
    set("OMPI_MCA_orte_precondition_transports", key, Default, "Open MPI on PSM2: one key for the whole job");
}

/// What Open MPI 5 needs to outlive its ranks: its own set of parameters (`amca-param-sets/ft-mpi`), and no `coll/han`, which crashes
/// after a failure.
pub(super) fn tolerance(set: &mut impl FnMut(&'static str, String, Strength, &'static str)) {
    let reason = "Open MPI 5: as in its parameters for fault tolerance";
    for (name, value) in [
        ("OMPI_MCA_mpi_ft_enable", "true"),
        ("OMPI_MCA_pml", "ob1"),
        ("OMPI_MCA_btl", "^usnic"),
        ("OMPI_MCA_mtl", "^ofi,portals4,psm2"),
        ("OMPI_MCA_threads", "pthreads"),
        ("OMPI_MCA_btl_base_warn_peer_error", "false"),
    ] {
        set(name, value.to_owned(), Strength::Default, reason);
    }
    let reason = "Open MPI 5: as in its parameters for fault tolerance, and without han, which crashes after a failure";
    set("OMPI_MCA_coll", "^hcoll,portals4,han,cuda".to_owned(), Strength::Default, reason);
}

fn list(numbers: impl Iterator<Item = u32>) -> String {
    let mut out = String::new();
    for number in numbers {
        let separator = if out.is_empty() { "" } else { " " };
        let _ = write!(out, "{separator}{number}");
    }
    out
}

/// The same on all hosts, another one for another job: the name of the job's namespace, mixed (FNV-1a, 64 bit).
fn transport_key(namespace: &str) -> String {
    let mix = |seed: u64| {
        namespace.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    };
    format!("{:016x}-{:016x}", mix(0xcbf2_9ce4_8422_2325), mix(0x8422_2325_cbf2_9ce4))
}
