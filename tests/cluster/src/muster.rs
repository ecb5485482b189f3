//! Running `muster` on a cluster, and waiting for what it brings about.

use std::fmt::Debug;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cluster::Cluster;
use crate::cmd::{Cmd, Output};
use crate::host::Host;
use crate::inspect::Process;
use crate::lite::LiteCluster;
use crate::proc::Proc;
use crate::workspace;

/// No event that a test waits for takes this long, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);

impl Cluster {
    /// `muster run` with the cluster's key on these hosts (`h0:2,h1`); options and program are to be added.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn muster(&self, hosts: &str) -> Result<Cmd> {
        muster(self.key_file(), hosts)
    }

    /// All hosts with that many slots each, as `-H` takes them.
    pub fn host_list(&self, slots: usize) -> String {
        list((0..self.len()).map(|i| format!("h{i}")), slots)
    }
}

impl LiteCluster {
    /// `muster run` with the cluster's key on all agents, with one slot each; options and program are to be added.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn muster(&self) -> Result<Cmd> {
        muster(self.key_file(), &list((0..self.len()).map(|i| self.name(i)), 1))
    }
}

fn muster(key: &Path, hosts: &str) -> Result<Cmd> {
    Ok(Cmd::new(workspace::program("muster")?)
        .args(["run", "--key-file"])
        .arg(key)
        .args(["-H", hosts])
        .timeout(PATIENCE)
        .own_session())
}

fn list(names: impl Iterator<Item = String>, slots: usize) -> String {
    names.map(|name| format!("{name}:{slots}")).collect::<Vec<_>>().join(",")
}

/// Looks again and again until `good` says yes, and returns what was seen then.
///
/// # Errors
/// With what was seen last, when that takes longer than [`PATIENCE`].
pub fn eventually<T: Debug>(mut look: impl FnMut() -> T, good: impl Fn(&T) -> bool) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if good(&seen) {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            bail!("waited {PATIENCE:?} in vain; last seen: {seen:#?}");
        }
        thread::sleep(POLL);
    }
}

impl Proc {
    /// Waits until a word has appeared that many times on standard output.
    ///
    /// # Errors
    /// When the command ends without it, or that takes too long.
    pub fn wait_for_count(&self, word: &str, count: usize) -> Result<()> {
        let look = || (self.stdout_so_far().matches(word).count(), self.try_wait().ok().flatten());
        let (seen, status) = eventually(look, |(seen, status)| *seen >= count || status.is_some())?;
        if seen < count {
            bail!("saw {word:?} {seen} times, not {count}; it ended with {status:?}: {}", self.stderr_so_far());
        }
        Ok(())
    }
}

impl Output {
    /// What `muster` said on standard error, without its progress lines: those depend on how busy the machine is.
    pub fn verdict(&self) -> String {
        // Open MPI 5's launcher ends a text of its own with a zero byte.
        let stderr = self.stderr_text().replace('\0', "");
        let said =
            stderr.lines().filter(|line| line.starts_with("muster: ") && !line.starts_with("muster: waiting for "));
        said.collect::<Vec<_>>().join("\n")
    }
}

impl Host {
    /// The host's processes without agents.
    ///
    /// # Errors
    /// As [`Host::processes`].
    pub fn ranks(&self) -> Result<Vec<Process>> {
        let mut all = self.processes()?;
        all.retain(|process| !process.command.contains("muster-agent"));
        Ok(all)
    }

    /// Waits until no process but agents is left.
    ///
    /// # Errors
    /// With those that live on, when that takes too long.
    pub fn wait_until_idle(&self) -> Result<()> {
        eventually(|| self.ranks().unwrap_or_default(), Vec::is_empty).map(drop)
    }
}
