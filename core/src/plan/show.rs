//! The plan for readers: what `muster plan` prints.

use std::collections::BTreeSet;
use std::fmt;

use muster_protocol::Rank;
use serde::Serialize;

use super::rank_env::{EnvEntry, rank_entries};
use super::{HostShare, Plan};

/// A plan with the variables of its first rank, for people (`Display`) and for programs (`Serialize`).
#[derive(Debug, Clone, Serialize)]
pub struct Sheet<'a> {
    /// The plan.
    #[serde(flatten)]
    pub plan: &'a Plan,
    /// What rank 0 gets besides the worker's own environment and the user's variables.
    pub rank_0_environment: Vec<EnvEntry>,
}

impl Plan {
    /// The plan as it is shown.
    pub fn sheet(&self) -> Sheet<'_> {
        let facts = self.facts(Rank(0), 0);
        Sheet { plan: self, rank_0_environment: facts.map(|f| rank_entries(&f)).unwrap_or_default() }
    }

    fn host_row(&self, share: &HostShare) -> [String; 5] {
        let host = &self.hosts[share.host.0 as usize];
        let (apps, ranks): (Vec<u32>, Vec<u32>) = share.procs.iter().map(|p| (p.app, p.rank.0)).unzip();
        [
            host.name.clone(),
            share.node.to_string(),
            format!("{}/{}", ranks.len(), host.slots),
            ranges(&ranks),
            ranges(&apps.iter().map(|a| a + 1).collect::<Vec<_>>()),
        ]
    }
}

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        let because = plan.bootstrap_because.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        writeln!(
            f,
            "job {}: {} rank{} on {} of {} host{}, placement {}, bootstrap {}{because}\n",
            plan.job,
            plan.world,
            if plan.world == 1 { "" } else { "s" },
            plan.nodes(),
            plan.hosts.len(),
            if plan.hosts.len() == 1 { "" } else { "s" },
            plan.placement,
            plan.bootstrap,
        )?;
        if let Some(library) = &plan.pmix_preferred {
            writeln!(f, "PMIx library, where a host has it: {library}\n")?;
        }
        let mut rows = vec![["HOST", "NODE", "USED/SLOTS", "RANKS", "PROGRAM"].map(str::to_owned)];
        rows.extend(plan.shares.iter().map(|share| plan.host_row(share)));
        table(f, &rows)?;
        writeln!(f)?;
        let mut rows = vec![["PROGRAM", "DIRECTORY", "COMMAND"].map(str::to_owned)];
        rows.extend(plan.apps.iter().enumerate().map(|(i, app)| {
            let wdir = app.wdir.clone().unwrap_or_else(|| "(the agent's)".to_owned());
            [(i + 1).to_string(), wdir, app.argv.join(" ")]
        }));
        table(f, &rows)?;
        let named: BTreeSet<&str> =
            plan.apps.iter().flat_map(|app| app.env.iter().map(|(name, _)| name.as_str())).collect();
        let named: Vec<&str> = named.into_iter().collect();
        if !named.is_empty() {
            // Values stay out: they may be secrets, and plans are pasted into tickets.
            writeln!(f, "\nvariables set by the user: {}", named.join(" "))?;
        }
        writeln!(f, "\nvariables set by the plan, as rank 0 gets them:")?;
        let rows: Vec<[String; 2]> = self
            .rank_0_environment
            .iter()
            .map(|e| [format!("  {}={}", e.name, e.value), e.reason.to_owned()])
            .collect();
        table(f, &rows)
    }
}

/// Writes rows with aligned columns; the last column is not padded.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let width: [usize; N] =
        std::array::from_fn(|c| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or_default());
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            if c + 1 == N {
                writeln!(f, "{cell}")?;
            } else {
                write!(f, "{cell:<width$}  ", width = width[c])?;
            }
        }
    }
    Ok(())
}

/// `0-3,7` for ascending numbers; repeated ones count once.
fn ranges(numbers: &[u32]) -> String {
    let mut out = String::new();
    let mut i = 0;
    while i < numbers.len() {
        let first = numbers[i];
        let mut last = first;
        while i < numbers.len() && numbers[i] <= last + 1 {
            last = numbers[i];
            i += 1;
        }
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&first.to_string());
        if last > first {
            out.push_str(&format!("-{last}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::{Origin, parse_hosts_flag};
    use crate::plan::{AppSpec, JobSpec, Placement, PlanError, StdinTarget};

    fn spec() -> JobSpec {
        let app = |n, argv: &[&str]| AppSpec {
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            n,
            env: vec![("SECRET".to_owned(), "hidden".to_owned())],
            ..AppSpec::default()
        };
        JobSpec {
            job: "demo".into(),
            apps: vec![app(Some(2), &["./server", "-v"]), app(None, &["./client"])],
            placement: Placement::Cyclic,
            ..JobSpec::default()
        }
    }

    #[test]
    fn a_plan_is_readable() {
        let hosts = parse_hosts_flag("node-a:3,b:2", &Origin::flag("-H")).unwrap();
        let plan = Plan::make(&spec(), &hosts).unwrap();
        insta::assert_snapshot!(plan.sheet().to_string(), @r"
        job demo: 5 ranks on 2 of 2 hosts, placement cyclic, bootstrap auto

        HOST    NODE  USED/SLOTS  RANKS  PROGRAM
        node-a  0     3/3         0,2,4  1-2
        b       1     2/2         1,3    1-2

        PROGRAM  DIRECTORY      COMMAND
        1        (the agent's)  ./server -v
        2        (the agent's)  ./client

        variables set by the user: SECRET

        variables set by the plan, as rank 0 gets them:
          MUSTER_JOB=demo                          name of the job
          MUSTER_GENERATION=0                      incarnation of the ranks, grows at every restart
          MUSTER_RANK=0                            rank in the job, from 0
          MUSTER_WORLD_SIZE=5                      number of ranks
          MUSTER_LOCAL_RANK=0                      rank on this host, from 0
          MUSTER_LOCAL_SIZE=3                      number of ranks on this host
          MUSTER_NODE_RANK=0                       number of this host among those with ranks
          MUSTER_NODES=2                           number of hosts with ranks
          MUSTER_HOST=node-a                       name of this host in the host list
          PMI_RANK=0                               PMI: rank in the process group
          PMI_SIZE=5                               PMI: size of the process group; makes MPICH choose PMI
          MPI_LOCALRANKID=0                        MPICH, Intel MPI and oneCCL: rank on this host
          MPI_LOCALNRANKS=3                        MPICH, Intel MPI and oneCCL: ranks on this host
          PMI_HOSTNAME=node-a                      MPICH from 4.3: name that other ranks reach this host by
          MPIR_CVAR_CH3_INTERFACE_HOSTNAME=node-a  MPICH up to 4.2 (ch3): name that other ranks reach this host by
          GFORTRAN_UNBUFFERED_PRECONNECTED=y       Fortran output is a pipe here and would stay in its buffer
        ");
        assert_eq!(plan.mapping(), [0, 1, 0, 1, 0]);
        assert_eq!(plan.used(), [3, 2]);
        assert!(!plan.sheet().to_string().contains("hidden"), "values of the user's variables stay out");
    }

    #[test]
    fn idle_hosts_have_no_share_and_nodes_are_numbered_by_first_rank() {
        let hosts = parse_hosts_flag("a,b,c,b", &Origin::flag("-H")).unwrap();
        let mut spec = JobSpec { placement: Placement::Block, ..spec() };
        spec.apps[1].n = Some(1);
        let plan = Plan::make(&spec, &hosts).unwrap();
        assert_eq!(plan.shares.iter().map(|s| (s.host.0, s.node)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
        let facts = plan.facts(Rank(2), 7).unwrap();
        assert_eq!((facts.host, facts.local_rank, facts.local_size, facts.nodes), ("b", 1, 2, 2));
        assert_eq!(plan.facts(Rank(3), 0), None);
    }

    #[test]
    fn standard_input_for_a_missing_rank_is_refused() {
        let hosts = parse_hosts_flag("a:4", &Origin::flag("-H")).unwrap();
        let spec = JobSpec { stdin: StdinTarget::Rank(4), ..spec() };
        let error = Plan::make(&spec, &hosts).unwrap_err();
        assert_eq!(error, PlanError::StdinRank { rank: 4, world: 4 });
        insta::assert_snapshot!(error, @"--stdin 4: there is no such rank, the job has 4 (0 to 3)");
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[1, 1, 2, 2]), "1-2");
        assert_eq!(ranges(&[]), "");
    }
}
