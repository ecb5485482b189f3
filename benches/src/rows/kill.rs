//! One rank is killed: how long until no rank is left and the command is over.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use muster_cluster::workspace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Measured, Outcome};
use crate::lobby::{Guard, since_ms};
use crate::pairs::{Demand, Pairs};
use crate::stage::{Shell, Stage};

const HOSTS: usize = 16;
const VICTIM: usize = 7;
const POLL: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(HOSTS)?;
    let program = workspace::test_program("mpich4", "init_pause")?;
    let taken = Pairs::measure(
        pairs,
        || once(&stage, stage.muster(), &program),
        || once(&stage, stage.hydra(Shell::Ssh), &program),
    )?;
    Ok(vec![Outcome {
        what: format!("rank killed by SIGKILL among {HOSTS} hosts → every rank gone and the command returned"),
        against: "`mpiexec.hydra` over ssh",
        measured: Measured::Pairs(taken, Demand::AtMost(0.1)),
    }])
}

fn once(stage: &Stage, mut command: Command, program: &Path) -> Result<f64> {
    command.arg(program).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = stage.lobby.spawn(command)?;
    let _guard = Guard::new(&child);
    let mut lines = BufReader::new(child.stdout.take().context("its output is a pipe")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    ensure!(line == format!("all {HOSTS} ranks are up\n"), "instead of a report that all is up: {line:?}");
    let ranks = rank_pids(stage, program)?;
    ensure!(ranks.len() == HOSTS, "{} ranks are running", ranks.len());

    let begun = Instant::now();
    kill(Pid::from_raw(ranks[VICTIM]), Signal::SIGKILL).context("cannot kill the rank")?;
    let status = child.wait()?;
    let alive = |pid: &&i32| Path::new(&format!("/proc/{pid}")).exists();
    while let Some(pid) = ranks.iter().find(alive) {
        if begun.elapsed() > PATIENCE {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            bail!("a rank is still there {PATIENCE:?} after the kill ({status}): {stat}");
        }
        thread::sleep(POLL);
    }
    let ms = since_ms(begun);
    ensure!(!status.success(), "the command did not fail");
    Ok(ms)
}

fn rank_pids(stage: &Stage, program: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for index in 0..HOSTS {
        let processes = stage.cluster.host(index).processes()?;
        pids.extend(processes.into_iter().filter(|p| Path::new(&p.command) == program).map(|p| p.pid));
    }
    Ok(pids)
}
