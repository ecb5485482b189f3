//! Every host's ranks put keys, meet in a fence and get everybody's keys.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_cluster::workspace;

use super::{Measured, Outcome};
use crate::pairs::{Demand, Pairs, median};
use crate::stage::{Shell, Stage};

const HOSTS: usize = 32;
const ROUNDS: usize = 6;

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(HOSTS)?;
    let program = workspace::test_program("plain", "fence_bench")?;
    let run = |mut command: Command| {
        command.arg(&program).args(["10", "450", &ROUNDS.to_string()]);
        rounds(&stage.lobby.run(command)?.stdout, ROUNDS, &["put_us", "fence_us", "get_us"])
    };
    let taken = Pairs::measure(pairs, || run(stage.muster()), || run(stage.hydra(Shell::Enter)))?;
    Ok(vec![Outcome {
        what: format!("fence of 10 keys × 450 bytes from each of {HOSTS} hosts: first put to last get"),
        against: "`mpiexec.hydra`",
        measured: Measured::Pairs(taken, Demand::AtMost(0.5)),
    }])
}

/// The median time of a round, as the sum of its named parts in milliseconds; the first one still contains how unevenly the ranks started.
pub(super) fn rounds(output: &[u8], wanted: usize, parts: &[&str]) -> Result<f64> {
    let text = String::from_utf8_lossy(output);
    let mut each = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("round ")) {
        let words: Vec<_> = line.split(' ').collect();
        let mut us = 0.0;
        for name in parts {
            let at = words.iter().position(|word| word == name).with_context(|| format!("{name} in {line:?}"))?;
            us +=
                words.get(at + 1).context("a number")?.parse::<f64>().with_context(|| format!("{name} in {line:?}"))?;
        }
        each.push(us / 1e3);
    }
    ensure!(each.len() == wanted, "{} of {wanted} rounds were reported", each.len());
    Ok(median(&each[1..]))
}
