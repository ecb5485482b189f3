//! One rank is killed: how long until no rank is left and the command is over.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use muster_cluster::workspace;
use nix::errno::Errno;
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

/// Who is killed by hand.
#[derive(Clone, Copy)]
enum Victims {
    /// One rank; the launcher ends the others.
    One,
    /// All ranks at once: what their ends cost when nobody has to be told, the floor of any launcher.
    All,
}

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(HOSTS)?;
    let program = workspace::test_program("mpich4", "init_pause")?;
    let ours = || once(&stage, stage.muster(), &program, Victims::One);
    let theirs = || once(&stage, stage.hydra(Shell::Ssh), &program, Victims::One);
    let floor = || once(&stage, stage.muster(), &program, Victims::All);
    let what = format!("rank killed by SIGKILL among {HOSTS} hosts → every rank gone and the command returned");
    let row =
        |against, taken, demand| Outcome { what: what.clone(), against, measured: Measured::Pairs(taken, demand) };
    Ok(vec![
        row("`mpiexec.hydra` over ssh", Pairs::measure(pairs, ours, theirs)?, Demand::AtMost(0.1)),
        row("every rank killed at once by hand: the floor", Pairs::measure(pairs, ours, floor)?, Demand::None),
    ])
}

fn once(stage: &Stage, mut command: Command, program: &Path, victims: Victims) -> Result<f64> {
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
    let killed = match victims {
        Victims::One => &ranks[VICTIM..=VICTIM],
        Victims::All => &ranks[..],
    };
    for pid in killed {
        match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
            // The launcher may have been faster with the later ones.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("cannot kill a rank"),
        }
    }
    // Only ours is held against the floor, so the command's own end is no part of it.
    let status = match victims {
        Victims::One => Some(child.wait()?),
        Victims::All => None,
    };
    let alive = |pid: &&i32| Path::new(&format!("/proc/{pid}")).exists();
    while let Some(pid) = ranks.iter().find(alive) {
        if begun.elapsed() > PATIENCE {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            bail!("a rank is still there {PATIENCE:?} after the kill: {stat}");
        }
        thread::sleep(POLL);
    }
    let ms = since_ms(begun);
    let status = status.map_or_else(|| child.wait(), Ok)?;
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
