//! The plan for readers: what `muster plan` prints.

use std::collections::BTreeSet;
use std::fmt;

use muster_protocol::Rank;
use serde::Serialize;

use super::circumstances::{CONDITIONALS, Conditional};
use super::rank_env::{EnvEntry, rank_entries};
use super::{Bootstrap, Ground, HostShare, Plan, shares};

/// A plan with the variables of its first rank, for people (`Display`) and for programs (`Serialize`).
#[derive(Debug, Clone, Serialize)]
pub struct Sheet<'a> {
    /// The plan.
    #[serde(flatten)]
    pub plan: &'a Plan,
    /// What rank 0 gets besides the worker's own environment and the user's variables.
    pub rank_0_environment: Vec<EnvEntry>,
    /// What it gets too if its host turns out to be so.
    pub rank_0_conditional: Vec<Conditional>,
}

impl Plan {
    /// The plan as it is shown.
    pub fn sheet(&self) -> Sheet<'_> {
        let facts = self.facts(Rank(0), 0);
        let pmix = facts.is_some_and(|f| f.bootstrap == Bootstrap::Pmix);
        Sheet {
            plan: self,
            rank_0_environment: facts.map(|f| rank_entries(&f)).unwrap_or_default(),
            rank_0_conditional: if pmix { CONDITIONALS.to_vec() } else { Vec::new() },
        }
    }

    fn host_row(&self, share: &HostShare, ranks: &[String]) -> [String; 5] {
        let host = &self.hosts[share.host.0 as usize];
        let apps: Vec<u32> = share.procs.iter().map(|p| p.app + 1).collect();
        [
            host.name.clone(),
            share.node.to_string(),
            format!("{}/{}", share.procs.len(), host.slots),
            ranks.join(","),
            ranges("", &apps),
        ]
    }

    /// The ranks of each host as labels of output name them, by [`muster_protocol::HostIndex`].
    fn ranks_of_hosts(&self) -> Vec<Vec<String>> {
        let mut of_hosts = vec![Vec::new(); self.hosts.len()];
        for (at, world) in self.worlds.iter().enumerate() {
            let prefix = if at == 0 { String::new() } else { format!("{at}.") };
            for share in shares(&world.placed, self.hosts.len()) {
                let ranks: Vec<u32> = share.procs.iter().map(|p| p.rank.0).collect();
                of_hosts[share.host.0 as usize].push(ranges(&prefix, &ranks));
            }
        }
        of_hosts
    }

    /// World, bootstrap and reason of each program.
    fn world_rows(&self) -> Vec<[String; 4]> {
        let mut rows = vec![["PROGRAM", "WORLD", "BOOTSTRAP", "WHY"].map(str::to_owned)];
        rows.extend(self.choices.iter().enumerate().map(|(i, choice)| {
            let world = self.worlds.iter().position(|world| world.apps.contains(&(i as u32))).unwrap_or_default();
            [(i + 1).to_string(), world.to_string(), choice.bootstrap.to_string(), choice.because.to_string()]
        }));
        rows
    }

    /// What the first line says of bootstraps.
    fn bootstraps(&self) -> String {
        match (self.worlds.as_slice(), self.choices.as_slice()) {
            ([world], [choice]) => match &choice.because {
                Ground::Found(why) => format!("bootstrap {} ({why})", world.bootstrap),
                _ => format!("bootstrap {}", world.bootstrap),
            },
            ([world], _) => format!("bootstrap {}", world.bootstrap),
            (worlds, _) => format!("{} worlds", worlds.len()),
        }
    }
}

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        writeln!(
            f,
            "job {}: {} rank{} on {} of {} host{}, placement {}, {}\n",
            plan.job,
            plan.world,
            if plan.world == 1 { "" } else { "s" },
            plan.nodes(),
            plan.hosts.len(),
            if plan.hosts.len() == 1 { "" } else { "s" },
            plan.placement,
            plan.bootstraps(),
        )?;
        if let Some(library) = plan.worlds.iter().find_map(|world| world.pmix_preferred.as_ref()) {
            writeln!(f, "PMIx library, where a host has it: {library}\n")?;
        }
        let mut rows = vec![["HOST", "NODE", "USED/SLOTS", "RANKS", "PROGRAM"].map(str::to_owned)];
        let ranks = plan.ranks_of_hosts();
        rows.extend(plan.shares.iter().map(|share| plan.host_row(share, &ranks[share.host.0 as usize])));
        table(f, &rows)?;
        writeln!(f)?;
        let mut rows = vec![["PROGRAM", "DIRECTORY", "COMMAND"].map(str::to_owned)];
        rows.extend(plan.apps.iter().enumerate().map(|(i, app)| {
            let wdir = app.wdir.clone().unwrap_or_else(|| "(the agent's)".to_owned());
            [(i + 1).to_string(), wdir, app.argv.join(" ")]
        }));
        table(f, &rows)?;
        if plan.apps.len() > 1 {
            writeln!(f)?;
            table(f, &plan.world_rows())?;
        }
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
        table(f, &rows)?;
        if self.rank_0_conditional.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nand these, unless the user or a file of Open MPI's has chosen:")?;
        let conditional = self.rank_0_conditional.iter();
        let rows: Vec<_> = conditional
            .map(|c| [format!("  {}={}", c.name, c.value), c.when.to_string(), c.reason.to_owned()])
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

/// `0-3,7` for ascending numbers, each with this prefix; repeated ones count once.
fn ranges(prefix: &str, numbers: &[u32]) -> String {
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
        out.push_str(&format!("{prefix}{first}"));
        if last > first {
            out.push_str(&format!("-{prefix}{last}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::{Origin, parse_hosts_flag};
    use crate::plan::detect::of_library;
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
        let plan = Plan::make(&spec(), &[], &hosts).unwrap();
        insta::assert_snapshot!(plan.sheet().to_string(), @r"
        job demo: 5 ranks on 2 of 2 hosts, placement cyclic, bootstrap auto

        HOST    NODE  USED/SLOTS  RANKS  PROGRAM
        node-a  0     3/3         0,2,4  1-2
        b       1     2/2         1,3    1-2

        PROGRAM  DIRECTORY      COMMAND
        1        (the agent's)  ./server -v
        2        (the agent's)  ./client

        PROGRAM  WORLD  BOOTSTRAP  WHY
        1        0      auto       nothing is known of it
        2        0      auto       nothing is known of it

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
    fn worlds_are_shown_with_their_programs_and_the_first_one_is_as_it_would_be_alone() {
        let hosts = parse_hosts_flag("a:3,b:3", &Origin::flag("-H")).unwrap();
        let mut spec = spec();
        spec.apps[1].n = Some(3);
        spec.apps.push(AppSpec { bootstrap: Bootstrap::None, n: Some(1), ..spec.apps[1].clone() });
        let signs = [of_library("./server", "libmpi.so.40"), of_library("./client", "libmpi.so.12"), None];
        let plan = Plan::make(&spec, &signs, &hosts).unwrap();
        let sheet = plan.sheet();
        insta::assert_snapshot!(sheet.to_string().split("\nvariables").next().unwrap(), @r"
        job demo: 6 ranks on 2 of 2 hosts, placement cyclic, 3 worlds

        HOST  NODE  USED/SLOTS  RANKS      PROGRAM
        a     0     3/3         0,1.0,1.2  1-2
        b     1     3/3         1,1.1,2.0  1-3

        PROGRAM  DIRECTORY      COMMAND
        1        (the agent's)  ./server -v
        2        (the agent's)  ./client
        3        (the agent's)  ./client

        PROGRAM  WORLD  BOOTSTRAP  WHY
        1        0      pmix       ./server links libmpi.so.40 (Open MPI)
        2        1      pmi        ./client links libmpi.so.12 (the MPICH family)
        3        2      none       asked for
        ");
        insta::assert_snapshot!(sheet.to_string().split("\nand these").nth(1).unwrap(), @r"
        , unless the user or a file of Open MPI's has chosen:
          OMPI_MCA_mpi_yield_when_idle=1       where ranks outnumber cores  Open MPI: a rank that waits gives way to others, as under mpirun with more ranks than slots
          OMPI_MCA_btl=^ofi,openib,uct,usnic   on a host without a fabric   Open MPI: do not load libraries of fabrics that are not there
          OMPI_MCA_mtl=^ofi,portals4,psm,psm2  on a host without a fabric   Open MPI: do not load libraries of fabrics that are not there
        ");
        let facts = plan.facts(Rank(1), 0).unwrap();
        assert_eq!((facts.size, facts.host, facts.local_size, facts.bootstrap), (2, "b", 1, Bootstrap::Pmix));
        assert_eq!(plan.facts(Rank(2), 0), None);
        let error = Plan::make(&JobSpec { stdin: StdinTarget::Rank(2), ..spec }, &signs, &hosts).unwrap_err();
        insta::assert_snapshot!(error, @"--stdin 2: there is no such rank, the first world has 2 (0 to 1)");
    }

    #[test]
    fn idle_hosts_have_no_share_and_nodes_are_numbered_by_first_rank() {
        let hosts = parse_hosts_flag("a,b,c,b", &Origin::flag("-H")).unwrap();
        let mut spec = JobSpec { placement: Placement::Block, ..spec() };
        spec.apps[1].n = Some(1);
        let plan = Plan::make(&spec, &[], &hosts).unwrap();
        assert_eq!(plan.shares.iter().map(|s| (s.host.0, s.node)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
        let facts = plan.facts(Rank(2), 7).unwrap();
        assert_eq!((facts.host, facts.local_rank, facts.local_size, facts.nodes), ("b", 1, 2, 2));
        assert_eq!(plan.facts(Rank(3), 0), None);
    }

    #[test]
    fn standard_input_for_a_missing_rank_is_refused() {
        let hosts = parse_hosts_flag("a:4", &Origin::flag("-H")).unwrap();
        let spec = JobSpec { stdin: StdinTarget::Rank(4), ..spec() };
        let error = Plan::make(&spec, &[], &hosts).unwrap_err();
        assert_eq!(error, PlanError::StdinRank { rank: 4, world: 4, whose: "the job" });
        insta::assert_snapshot!(error, @"--stdin 4: there is no such rank, the job has 4 (0 to 3)");
    }

    #[test]
    fn numbers_are_written_as_ranges() {
        assert_eq!(ranges("", &[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges("", &[1, 1, 2, 2]), "1-2");
        assert_eq!(ranges("3.", &[0, 1, 4]), "3.0-3.1,3.4");
        assert_eq!(ranges("", &[]), "");
    }
}
