//! Launchers of others through Muster as their remote shell.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_cluster::workspace;

use super::{Measured, Outcome};
use crate::lobby::{Guard, since_ms};
use crate::pairs::{Demand, Pairs, median};
use crate::stage::{Launcher, Shell, Stage};

const HOSTS: usize = 32;
/// Hosts of the row in which one is cut off.
const FEW: usize = 3;
/// The peer is given up after this time.
const PEER_LIMIT: Duration = Duration::from_secs(60);
/// Until a host that gives no sign of life is dead, and what may come on top.
const CUT_LIMIT_MS: f64 = 6_000.0;

/// A whole MPI program under somebody else's launcher.
pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(HOSTS)?;
    let mut rows = Vec::new();
    for (launcher, name, programs, over_ssh, entered) in [
        (Launcher::OpenMpi4, "Open MPI 4.1.4 `mpirun`", "openmpi4", 0.4, 1.15),
        (Launcher::Mpich4, "MPICH 4.0.2 `mpiexec.hydra`", "mpich4", 0.2, 1.2),
    ] {
        let program = workspace::test_program(programs, "init_allreduce")?;
        let says = format!("allreduce of {HOSTS} ranks: ok");
        let run = |command: Command| stage.lobby.time(command, &program, &says);
        for (shell, against, limit) in
            [(Shell::Ssh, "the same over ssh", over_ssh), (Shell::Enter, "the same, namespaces entered", entered)]
        {
            let taken = Pairs::measure(pairs, || run(stage.exec(launcher)), || run(stage.peer(launcher, shell)))?;
            rows.push(Outcome {
                what: format!("{HOSTS} hosts × 1 rank, init + allreduce + finalize, {name} through `muster exec`"),
                against,
                measured: Measured::Pairs(taken, Demand::AtMost(limit)),
            });
        }
    }
    Ok(rows)
}

/// One of three hosts is cut off while ranks wait.
pub(super) fn measure_cut(runs: usize) -> Result<Vec<Outcome>> {
    let mut rows = Vec::new();
    for (launcher, name, programs) in [
        (Launcher::OpenMpi4, "Open MPI 4.1.4 `mpirun`", "openmpi4"),
        (Launcher::Mpich4, "MPICH 4.0.2 `mpiexec.hydra`", "mpich4"),
    ] {
        let program = workspace::test_program(programs, "init_pause")?;
        let mut ours = Vec::new();
        for _ in 0..runs {
            let stage = Stage::start(FEW)?;
            let ms = until_back(&stage, stage.exec(launcher), &program, PEER_LIMIT)?;
            ours.push(ms.context("through Muster it did not come back")?);
        }
        let stage = Stage::start(FEW)?;
        let peer = until_back(&stage, stage.peer(launcher, Shell::Ssh), &program, PEER_LIMIT)?;
        let against = match peer {
            None => "over ssh it was still waiting after 60 s",
            Some(_) => "over ssh it came back within 60 s",
        };
        rows.push(Outcome {
            what: format!("one of {FEW} hosts cut off → {name} through `muster exec` is back"),
            against,
            measured: Measured::Value { value: median(&ours), limit: CUT_LIMIT_MS, unit: "ms" },
        });
    }
    Ok(rows)
}

/// From the cut until the command is back; nothing when that takes longer than the limit.
fn until_back(stage: &Stage, mut command: Command, program: &Path, limit: Duration) -> Result<Option<f64>> {
    command.arg(program).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = stage.lobby.spawn(command)?;
    let _guard = Guard::new(&child);
    let mut lines = std::io::BufReader::new(child.stdout.take().context("its output is a pipe")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line)?;
    ensure!(line == format!("all {FEW} ranks are up\n"), "instead of a report that all is up: {line:?}");
    stage.cluster.cut(1)?;
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if child.try_wait()?.is_some() {
            return Ok(Some(since_ms(begun)));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}
