//! Bytes through a remote shell.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_cluster::workspace;

use super::{Measured, Outcome};
use crate::lobby::command;
use crate::pairs::{Demand, Pairs};
use crate::stage::Stage;

const BYTES: usize = 512 << 20;

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let stage = Stage::start(1)?;
    let file = stage.cluster.shared_dir().join("bytes");
    let line = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    std::fs::write(&file, line.repeat(BYTES / line.len())).context("cannot write the bytes")?;
    let muster_rsh = workspace::program("muster-rsh")?;
    let run = |mut shell: Command| -> Result<f64> {
        // Through the host and back.
        shell.args(["h0", "cat"]);
        let mut space = vec![1u8; BYTES + 1];
        space.clear();
        let ran = stage.lobby.run_from(shell, File::open(&file)?.into(), space)?;
        ensure!(ran.stdout.len() == BYTES, "{} of {BYTES} bytes came back", ran.stdout.len());
        Ok(ran.ms)
    };
    let ours = || {
        let mut shell = command(&muster_rsh);
        shell.env("MUSTER_OPT_KEY_FILE", stage.cluster.key_file());
        run(shell)
    };
    let theirs = || run(command(stage.ssh_client()));
    Ok(vec![Outcome {
        what: "512 MiB through `muster-rsh host cat`".to_owned(),
        against: "`ssh host cat`",
        measured: Measured::Pairs(Pairs::measure(pairs, ours, theirs)?, Demand::TimesFaster(3.0)),
    }])
}
