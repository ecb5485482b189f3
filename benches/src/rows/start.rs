//! A whole MPI program: started, one allreduce, ended.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use muster_cluster::workspace;

use super::{Measured, Outcome};
use crate::pairs::{Demand, Pairs};
use crate::stage::{Shell, Stage};

const HOSTS: usize = 32;

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(HOSTS)?;
    let mpi = workspace::test_program("mpich4", "init_allreduce")?;
    let allreduce = Job {
        what: "MPICH 4.0.2 init + allreduce + finalize",
        program: &mpi,
        says: &format!("allreduce of {HOSTS} ranks: ok"),
    };
    // Without an MPI only the launcher's own part is left.
    let nothing = Job { what: "`true`", program: Path::new("/bin/true"), says: "" };
    let rows = [
        (&allreduce, Shell::Ssh, Demand::AtMost(0.15)),
        (&allreduce, Shell::Enter, Demand::AtMost(1.0)),
        (&nothing, Shell::Ssh, Demand::None),
        (&nothing, Shell::Enter, Demand::None),
    ];
    rows.into_iter().map(|(job, shell, demand)| job.against(shell, demand, &stage, pairs)).collect()
}

struct Job<'a> {
    what: &'static str,
    program: &'a Path,
    /// What is in its output when all has gone well.
    says: &'a str,
}

impl Job<'_> {
    fn against(&self, shell: Shell, demand: Demand, stage: &Stage, pairs: usize) -> Result<Outcome> {
        let run = |command: Command| stage.lobby.time(command, self.program, self.says);
        let taken = Pairs::measure(pairs, || run(stage.muster()), || run(stage.hydra(shell)))?;
        Ok(Outcome {
            what: format!("{HOSTS} hosts × 1 rank, {}, whole command", self.what),
            against: match shell {
                Shell::Ssh => "`mpiexec.hydra` over ssh",
                Shell::Enter => "`mpiexec.hydra`, namespaces entered",
            },
            measured: Measured::Pairs(taken, demand),
        })
    }
}
