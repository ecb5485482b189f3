//! What an agent costs that has nothing to do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use muster_cluster::{Cluster, Cmd, workspace};

use super::{Measured, Outcome};

const MIB: f64 = 1024.0 * 1024.0;
const SETTLE: Duration = Duration::from_secs(2);
const WATCH: Duration = Duration::from_secs(10);

pub(super) fn measure() -> Result<Vec<Outcome>> {
    let cluster = Cluster::builder().hosts(1).start()?;
    let agent = cluster.start_agent(0, &[])?;
    let mut rows = watch("an agent that has had no job", agent.pid())?;
    let run = Cmd::new(workspace::program("muster")?).arg("run").arg("--key-file").arg(cluster.key_file());
    cluster.launcher().run(run.args(["-H", "h0", "hostname"]))?.ok()?;
    rows.extend(watch("an agent after a job", agent.pid())?);
    let bytes = fs::metadata(workspace::program("muster-agent")?).context("the agent's binary")?.len();
    rows.push(value("the agent's stripped static binary".to_owned(), bytes as f64 / MIB, 8.0, "MiB"));
    Ok(rows)
}

fn value(what: String, value: f64, limit: f64, unit: &'static str) -> Outcome {
    Outcome { what, against: "—", measured: Measured::Value { value, limit, unit } }
}

fn watch(what: &str, pid: i32) -> Result<Vec<Outcome>> {
    thread::sleep(SETTLE);
    let (before, begun) = (switches(pid)?, Instant::now());
    thread::sleep(WATCH);
    let wakes = (switches(pid)? - before) as f64 / begun.elapsed().as_secs_f64();
    let memory = field(&format!("/proc/{pid}/status"), "VmRSS:")? as f64 / 1024.0;
    Ok(vec![
        value(format!("{what}: resident memory"), memory, 8.0, "MiB"),
        value(format!("{what}: wake-ups"), wakes, 5.0, "a second"),
    ])
}

/// How often threads of a process have gone to sleep, which is how often they were woken.
fn switches(pid: i32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut all = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?.flatten() {
        all += field(&task.path().join("status").to_string_lossy(), "voluntary_ctxt_switches:")?;
    }
    Ok(all)
}

fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} in {path}"))?;
    line.split_whitespace().next().unwrap_or_default().parse().with_context(|| format!("{name} in {path}"))
}
