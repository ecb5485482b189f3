//! Two ranks write as fast as they can.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_cluster::workspace;

use super::{Measured, Outcome};
use crate::lobby::{Ran, command};
use crate::pairs::{Demand, Pairs};
use crate::stage::{Shell, Stage};

const RANKS: usize = 2;
const BYTES_PER_RANK: usize = 128 << 20;
const LINE_BYTES: usize = 128;
const LABEL_BYTES: usize = "[0] ".len();

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(RANKS)?;
    let writer = workspace::test_program("plain", "writer")?;
    let run = |mut command: Command, flag: &str| -> Result<Ran> {
        command.args((!flag.is_empty()).then_some(flag));
        command.arg(&writer).arg(BYTES_PER_RANK.to_string());
        stage.lobby.run_into(command, space())
    };
    let mut rows = Vec::new();
    for (label, flag, against, times) in
        [(true, "-prepend-rank", "`mpiexec -prepend-rank`", 10.0), (false, "", "`mpiexec`", 2.0)]
    {
        let ours = || {
            let ran = run(stage.muster(), if label { "--label" } else { "" })?;
            check(&ran.stdout, label)?;
            Ok(ran.ms)
        };
        let theirs = || {
            let ran = run(stage.hydra(Shell::Enter), flag)?;
            let wanted = RANKS * BYTES_PER_RANK;
            ensure!(ran.stdout.len() >= wanted, "the peer has lost output: {} of {wanted} bytes", ran.stdout.len());
            Ok(ran.ms)
        };
        let taken = Pairs::measure(pairs, ours, theirs)?;
        let what = if label { "labelled" } else { "unlabelled" };
        rows.push(Outcome {
            what: format!("{what} output, {RANKS} ranks × 128 MiB of {LINE_BYTES}-byte lines"),
            against,
            measured: Measured::Pairs(taken, Demand::TimesFaster(times)),
        });
    }
    let ours = || Ok(run(stage.muster(), "")?.ms);
    let floor = || {
        let ran = stage.lobby.run_into(two_hops(&writer), space())?;
        ensure!(ran.stdout.len() == RANKS * BYTES_PER_RANK, "{} bytes came", ran.stdout.len());
        Ok(ran.ms)
    };
    rows.push(Outcome {
        what: format!("unlabelled output, {RANKS} ranks × 128 MiB of {LINE_BYTES}-byte lines"),
        against: "two `cat`s in a row, no network, no key: the floor of a launcher with agents",
        measured: Measured::Pairs(Pairs::measure(pairs, ours, floor)?, Demand::None),
    });
    Ok(rows)
}

/// Each rank's output through a process beside it and all of it through one more: what an agent and a launcher are at least.
fn two_hops(writer: &Path) -> Command {
    let mut shell = command(Path::new("/bin/sh"));
    let rank = "MUSTER_RANK=$rank \"$0\" \"$1\" | cat &";
    shell.arg("-c").arg(format!("{{ for rank in $(seq 0 {}); do {rank} done; wait; }} | cat", RANKS - 1));
    shell.arg(writer).arg(BYTES_PER_RANK.to_string());
    shell
}

/// Memory for all output, touched before anything is measured.
fn space() -> Vec<u8> {
    let mut space = vec![1u8; RANKS * BYTES_PER_RANK / LINE_BYTES * (LINE_BYTES + LABEL_BYTES) + LINE_BYTES];
    space.clear();
    space
}

/// Fails unless every line of every rank is there once, whole and in order, behind its own label.
fn check(output: &[u8], label: bool) -> Result<()> {
    let mut next = [0usize; RANKS];
    let size = LINE_BYTES + if label { LABEL_BYTES } else { 0 };
    ensure!(output.len() == RANKS * BYTES_PER_RANK / LINE_BYTES * size, "{} bytes came", output.len());
    for line in output.chunks_exact(size) {
        let text = std::str::from_utf8(line).context("a line is not text")?;
        let (label_text, text) = text.split_at(size - LINE_BYTES);
        let mut words = text.splitn(3, ' ');
        let rank: usize = words.next().unwrap_or_default().parse().context("a line's rank")?;
        let number: usize = words.next().unwrap_or_default().parse().context("a line's number")?;
        ensure!(rank < RANKS && number == next[rank], "line {number} of rank {rank} is out of order");
        ensure!(!label || label_text == format!("[{rank}] "), "rank {rank} has the label {label_text:?}");
        ensure!(text.ends_with('\n') && !text[..LINE_BYTES - 1].contains('\n'), "a line of rank {rank} is torn");
        next[rank] += 1;
    }
    ensure!(next == [BYTES_PER_RANK / LINE_BYTES; RANKS], "lines are missing: {next:?}");
    Ok(())
}
