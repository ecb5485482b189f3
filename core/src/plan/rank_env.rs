//! The environment of a rank.
//!
//! Layers, later ones win: the worker's own environment without what an outer launcher left in it; what the user set for
//! this program; what the plan says. The plan's defaults (see [`Strength`]) yield to the first two.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use serde::Serialize;

use super::open_mpi;
use super::scrub::scrubbed;
use super::{AppSpec, Bootstrap};

/// What the environment of one rank is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankFacts<'a> {
    /// Name of the job.
    pub job: &'a str,
    /// Incarnation of the job's ranks.
    pub generation: u32,
    /// Rank in its group.
    pub rank: u32,
    /// Size of its group.
    pub size: u32,
    /// Position among the group's ranks on this host.
    pub local_rank: u32,
    /// Number of the group's ranks on this host.
    pub local_size: u32,
    /// Number of this host among those that run ranks of the group.
    pub node: u32,
    /// Number of hosts that run ranks of the group.
    pub nodes: u32,
    /// Name of this host as the user gave it.
    pub host: &'a str,
    /// What other ranks reach this host by.
    pub reachable_as: &'a str,
    /// How ranks find each other.
    pub bootstrap: Bootstrap,
    /// Whether the group was started by ranks (`MPI_Comm_spawn`) instead of the command line.
    pub spawned: bool,
    /// Ranks of each program of the group.
    pub apps: &'a [u32],
    /// Name of the group's key-value space, or PMIx namespace.
    pub kvsname: &'a str,
    /// Ranks there may be in all, spawned ones included; 0: as many as the group has.
    pub universe: u32,
    /// Whether ranks go on when others die.
    pub tolerant: bool,
}

/// Whether a variable of the plan may be overridden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// Always set: a wrong value would break the job.
    Fixed,
    /// Set unless the worker's environment or the user has it.
    Default,
}

/// One variable of the plan, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvEntry {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Whether it may be overridden.
    pub strength: Strength,
    /// Why it is set.
    pub reason: &'static str,
}

/// The variables that the plan sets for a rank. `PMI_FD` is not among them: the number of the socket is known only where
/// the rank is started.
pub fn rank_entries(facts: &RankFacts<'_>) -> Vec<EnvEntry> {
    use Strength::{Default, Fixed};
    let mut out = Vec::with_capacity(20);
    let mut set = |name, value: String, strength, reason| out.push(EnvEntry { name, value, strength, reason });
    set("MUSTER_JOB", facts.job.to_owned(), Fixed, "name of the job");
    set("MUSTER_GENERATION", facts.generation.to_string(), Fixed, "incarnation of the ranks, grows at every restart");
    set("MUSTER_RANK", facts.rank.to_string(), Fixed, "rank in the job, from 0");
    set("MUSTER_WORLD_SIZE", facts.size.to_string(), Fixed, "number of ranks");
    set("MUSTER_LOCAL_RANK", facts.local_rank.to_string(), Fixed, "rank on this host, from 0");
    set("MUSTER_LOCAL_SIZE", facts.local_size.to_string(), Fixed, "number of ranks on this host");
    set("MUSTER_NODE_RANK", facts.node.to_string(), Fixed, "number of this host among those with ranks");
    set("MUSTER_NODES", facts.nodes.to_string(), Fixed, "number of hosts with ranks");
    set("MUSTER_HOST", facts.host.to_owned(), Fixed, "name of this host in the host list");
    if facts.bootstrap.serves_pmi() {
        set("PMI_RANK", facts.rank.to_string(), Fixed, "PMI: rank in the process group");
        set("PMI_SIZE", facts.size.to_string(), Fixed, "PMI: size of the process group; makes MPICH choose PMI");
        set("MPI_LOCALRANKID", facts.local_rank.to_string(), Fixed, "MPICH, Intel MPI and oneCCL: rank on this host");
        set("MPI_LOCALNRANKS", facts.local_size.to_string(), Fixed, "MPICH, Intel MPI and oneCCL: ranks on this host");
        let host = facts.reachable_as;
        set("PMI_HOSTNAME", host.to_owned(), Default, "MPICH from 4.3: name that other ranks reach this host by");
        let reason = "MPICH up to 4.2 (ch3): name that other ranks reach this host by";
        set("MPIR_CVAR_CH3_INTERFACE_HOSTNAME", host.to_owned(), Default, reason);
        if facts.spawned {
            set("PMI_SPAWNED", "1".to_owned(), Fixed, "PMI: this group has a parent");
        }
    }
    if facts.bootstrap == Bootstrap::Pmix {
        open_mpi::entries(facts, &mut set);
        if facts.tolerant {
            open_mpi::tolerance(&mut set);
        }
    }
    let reason = "Fortran output is a pipe here and would stay in its buffer";
    set("GFORTRAN_UNBUFFERED_PRECONNECTED", "y".to_owned(), Default, reason);
    out
}

/// What the ranks of a program on one host have in common: the agent's own environment, then the user's.
pub fn base_env(
    inherited: impl IntoIterator<Item = (OsString, OsString)>,
    app: &AppSpec,
) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> =
        inherited.into_iter().filter(|(name, _)| name.to_str().is_none_or(|n| scrubbed(n).is_none())).collect();
    for name in &app.env_unset {
        env.remove(OsStr::new(name));
    }
    env.extend(app.env.iter().map(|(name, value)| (name.into(), value.into())));
    env
}

/// What the plan sets for one rank over what it has in common with others; `has` says which variables those are.
pub fn own_env(facts: &RankFacts<'_>, has: impl Fn(&OsStr) -> bool) -> Vec<(OsString, OsString)> {
    let counts = |e: &EnvEntry| e.strength == Strength::Fixed || !has(OsStr::new(e.name));
    rank_entries(facts).into_iter().filter(counts).map(|e| (e.name.into(), e.value.into())).collect()
}

/// The whole environment of a rank: the agent's own, the user's for its program, the plan's.
pub fn rank_env(
    inherited: impl IntoIterator<Item = (OsString, OsString)>,
    app: &AppSpec,
    facts: &RankFacts<'_>,
) -> BTreeMap<OsString, OsString> {
    let mut env = base_env(inherited, app);
    let own = own_env(facts, |name| env.contains_key(name));
    env.extend(own);
    env
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn facts(bootstrap: Bootstrap) -> RankFacts<'static> {
        RankFacts {
            job: "j",
            generation: 3,
            rank: 5,
            size: 8,
            local_rank: 1,
            local_size: 4,
            node: 1,
            nodes: 2,
            host: "h1",
            reachable_as: "10.0.0.1",
            bootstrap,
            spawned: false,
            apps: &[3, 5],
            kvsname: "kvs_7_0",
            universe: 12,
            tolerant: false,
        }
    }

    fn env(inherited: &[(&str, &str)], app: &AppSpec, facts: &RankFacts<'_>) -> BTreeMap<String, String> {
        rank_env(inherited.iter().map(|(n, v)| (n.into(), v.into())), app, facts)
            .into_iter()
            .map(|(n, v)| (n.into_string().unwrap(), v.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn the_table_of_variables() {
        let lines = |facts: &RankFacts<'_>| {
            env(&[], &AppSpec::default(), facts).iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(lines(&RankFacts { spawned: true, ..facts(Bootstrap::Pmi) }), @r"
        GFORTRAN_UNBUFFERED_PRECONNECTED=y
        MPIR_CVAR_CH3_INTERFACE_HOSTNAME=10.0.0.1
        MPI_LOCALNRANKS=4
        MPI_LOCALRANKID=1
        MUSTER_GENERATION=3
        MUSTER_HOST=h1
        MUSTER_JOB=j
        MUSTER_LOCAL_RANK=1
        MUSTER_LOCAL_SIZE=4
        MUSTER_NODES=2
        MUSTER_NODE_RANK=1
        MUSTER_RANK=5
        MUSTER_WORLD_SIZE=8
        PMI_HOSTNAME=10.0.0.1
        PMI_RANK=5
        PMI_SIZE=8
        PMI_SPAWNED=1
        ");
        insta::assert_snapshot!(lines(&facts(Bootstrap::None)), @r"
        GFORTRAN_UNBUFFERED_PRECONNECTED=y
        MUSTER_GENERATION=3
        MUSTER_HOST=h1
        MUSTER_JOB=j
        MUSTER_LOCAL_RANK=1
        MUSTER_LOCAL_SIZE=4
        MUSTER_NODES=2
        MUSTER_NODE_RANK=1
        MUSTER_RANK=5
        MUSTER_WORLD_SIZE=8
        ");
        insta::assert_snapshot!(lines(&facts(Bootstrap::Pmix)), @r"
        GFORTRAN_UNBUFFERED_PRECONNECTED=y
        JSM_JSRUN_PORT=1
        MUSTER_GENERATION=3
        MUSTER_HOST=h1
        MUSTER_JOB=j
        MUSTER_LOCAL_RANK=1
        MUSTER_LOCAL_SIZE=4
        MUSTER_NODES=2
        MUSTER_NODE_RANK=1
        MUSTER_RANK=5
        MUSTER_WORLD_SIZE=8
        OMPI_APP_CTX_NUM_PROCS=3 5
        OMPI_COMM_WORLD_LOCAL_RANK=1
        OMPI_COMM_WORLD_LOCAL_SIZE=4
        OMPI_COMM_WORLD_NODE_RANK=1
        OMPI_COMM_WORLD_RANK=5
        OMPI_COMM_WORLD_SIZE=8
        OMPI_FIRST_RANKS=0 3
        OMPI_MCA_orte_precondition_transports=d0f2abd687497074-b8270c1168cf9723
        OMPI_NUM_APP_CTX=2
        OMPI_UNIVERSE_SIZE=12
        PMIX_ID=kvs_7_0.5
        ");
        let tolerant = env(
            &[("OMPI_MCA_btl", "self,tcp")],
            &AppSpec::default(),
            &RankFacts { tolerant: true, ..facts(Bootstrap::Pmix) },
        );
        for (name, want) in [("OMPI_MCA_mpi_ft_enable", "true"), ("OMPI_MCA_btl", "self,tcp")] {
            assert_eq!(tolerant.get(name).map(String::as_str), Some(want), "{name}");
        }
    }

    #[test]
    fn layers_and_scrubbing() {
        let app = AppSpec {
            env: [("PATH", "/user"), ("PMI_RANK", "9"), ("PMIX_X", "asked for"), ("A", "1"), ("A", "2")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .to_vec(),
            env_unset: vec!["GONE".to_owned(), "A".to_owned()],
            ..AppSpec::default()
        };
        let worker = [
            ("PATH", "/worker"),
            ("HOME", "/root"),
            ("GONE", "x"),
            ("PMI_SIZE", "99"),
            ("PMIX_RANK", "0"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("SLURM_PROCID", "0"),
            ("MUSTER_OPT_NP", "4"),
            ("PMI_HOSTNAME", "outer"),
            ("MPIR_CVAR_CH3_INTERFACE_HOSTNAME", "tuned"),
        ];
        let got = env(&worker, &app, &facts(Bootstrap::Pmi));
        for (name, want, why) in [
            ("PATH", Some("/user"), "a variable that the user names is honoured, whatever it is"),
            ("HOME", Some("/root"), "the worker's own is kept"),
            ("GONE", None, "unset by the user"),
            ("A", Some("2"), "later ones win, and setting comes after unsetting"),
            ("PMI_RANK", Some("5"), "the plan wins over the user where a wrong value breaks the job"),
            ("PMI_SIZE", Some("8"), "the outer launcher's is replaced"),
            ("PMIX_RANK", None, "the outer launcher's is scrubbed"),
            ("PMIX_X", Some("asked for"), "scrubbing comes before what the user sets"),
            ("OMPI_COMM_WORLD_SIZE", None, "the outer launcher's is scrubbed"),
            ("SLURM_PROCID", None, "the outer launcher's is scrubbed"),
            ("MUSTER_OPT_NP", None, "launcher options do not leak"),
            ("PMI_HOSTNAME", Some("10.0.0.1"), "an outer launcher's default is no default of ours"),
            ("MPIR_CVAR_CH3_INTERFACE_HOSTNAME", Some("tuned"), "the plan's defaults yield"),
        ] {
            assert_eq!(got.get(name).map(String::as_str), want, "{name}: {why}");
        }
    }

    #[test]
    fn every_entry_is_there_once_and_has_a_reason() {
        let entries = rank_entries(&RankFacts { spawned: true, ..facts(Bootstrap::Auto) });
        assert_eq!(entries.iter().map(|e| e.name).collect::<BTreeSet<_>>().len(), entries.len());
        assert!(entries.iter().all(|e| !e.reason.is_empty()));
    }

    #[test]
    fn values_that_are_not_text_pass_through() {
        use std::os::unix::ffi::OsStrExt;
        let raw = OsStr::from_bytes(b"\xff\xfe").to_owned();
        let got = rank_env([("X".into(), raw.clone())], &AppSpec::default(), &facts(Bootstrap::None));
        assert_eq!(got.get(OsStr::new("X")), Some(&raw));
    }
}
