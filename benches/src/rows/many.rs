//! A thousand agents, one short program on each.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use muster_cluster::{LiteCluster, workspace};

use super::{Measured, Outcome};
use crate::lobby::{command, since_ms};
use crate::pairs::{Demand, Pairs};

const AGENTS: usize = 1000;
const PROGRAM: &str = "/bin/true";

pub(super) fn measure(pairs: usize) -> Result<Vec<Outcome>> {
    let lite = LiteCluster::builder(AGENTS).start()?;
    let _agents = lite.start_agents(&[])?;
    let list = lite.shared_dir().join("hostfile");
    let names: String = (0..AGENTS).map(|i| lite.name(i) + "\n").collect();
    std::fs::write(&list, names).context("cannot write the host file")?;
    let muster = workspace::program("muster")?;
    let bench = std::env::current_exe().context("cannot find this program")?;
    let run = |mut command: Command| {
        lite.host().call(move || {
            let begun = Instant::now();
            command.stdin(Stdio::null());
            let output = command.output().context("cannot start")?;
            let ms = since_ms(begun);
            ensure!(
                output.status.success(),
                "{command:?}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(ms)
        })?
    };
    let ours = || {
        let mut job = command(&muster);
        job.arg("run").arg("--key-file").arg(lite.key_file()).arg("-f").arg(&list).arg(PROGRAM);
        run(job)
    };
    let theirs = || {
        let mut one_by_one = command(&bench);
        one_by_one.args(["spawn-one-by-one", &AGENTS.to_string()]);
        run(one_by_one)
    };
    let taken = Pairs::measure(pairs, ours, theirs)?;
    Ok(vec![Outcome {
        what: format!("`muster run` of {AGENTS} × `true` over {AGENTS} running agents"),
        against: "one local process that starts them and waits, one by one",
        measured: Measured::Pairs(taken, Demand::AtMost(3.0)),
    }])
}

/// The peer: starts so many programs and waits for each.
pub(crate) fn spawn_one_by_one(count: usize) -> Result<()> {
    for _ in 0..count {
        let status = Command::new(PROGRAM).stdin(Stdio::null()).status().context("cannot start the program")?;
        ensure!(status.success(), "{PROGRAM}: {status}");
    }
    Ok(())
}
