//! A whole MPI program: started, one allreduce, ended.

use anyhow::{Result, ensure};
use muster_cluster::workspace;

use super::{Measured, Outcome};
use crate::pairs::{Demand, Pairs};
use crate::stage::{Shell, Stage};

const HOSTS: usize = 32;

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let program = workspace::test_program("mpich4", "init_allreduce")?;
    let stage = Stage::start(HOSTS)?;
    let run = |mut command: std::process::Command| {
        command.arg(&program);
        let ran = stage.lobby.run(command)?;
        let wanted = format!("allreduce of {HOSTS} ranks: ok");
        ensure!(String::from_utf8_lossy(&ran.stdout).contains(&wanted), "{wanted:?} is missing");
        Ok(ran.ms)
    };
    let mut rows = Vec::new();
    for (shell, against, limit) in
        [(Shell::Ssh, "`mpiexec.hydra` over ssh", 0.15), (Shell::Enter, "`mpiexec.hydra`, namespaces entered", 1.0)]
    {
        let taken = Pairs::measure(pairs, || run(stage.muster()), || run(stage.hydra(shell)))?;
        rows.push(Outcome {
            what: format!("{HOSTS} hosts × 1 rank, MPICH 4.0.2 init + allreduce + finalize, whole command"),
            against,
            measured: Measured::Pairs(taken, Demand::AtMost(limit)),
        });
    }
    Ok(rows)
}
