//! A control group with little memory, of version 1 or 2, for what the kernel kills when it is used up.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::{Cmd, eventually};

/// A group below that of the test. It goes when this is dropped, after the processes in it.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
}

impl MemoryGroup {
    /// Makes one that may have that much memory, and nothing on disk.
    ///
    /// # Errors
    /// Where no memory controller can be written: without rights, or in a group of version 2 that has processes of its own. Where
    /// there is swap whose use cannot be limited.
    pub fn with_limit(bytes: u64) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (parent, first) = parent()?;
        let name = format!("muster-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = parent.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make the control group {}", folder.display()))?;
        let group = Self { folder };
        // A kernel that does not count what is on disk has no file for its limit, which matters only where there is a disk for it.
        let swaps = has_swap();
        let files: [(&str, u64, bool); 2] = if first {
            // In this order: memory and disk together may not be less than memory.
            [("memory.limit_in_bytes", bytes, true), ("memory.memsw.limit_in_bytes", bytes, swaps)]
        } else {
            [("memory.max", bytes, true), ("memory.swap.max", 0, swaps)]
        };
        for (file, value, needed) in files {
            let written = fs::write(group.folder.join(file), value.to_string());
            if needed {
                written.with_context(|| format!("cannot limit the memory of {}: {file}", group.folder.display()))?;
            }
        }
        Ok(group)
    }

    /// The same command, in the group.
    #[must_use]
    pub fn inside(&self, cmd: &Cmd) -> Cmd {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display());
        Cmd::new("sh").args(["-c", &enter, "sh"]).args(cmd.words())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It is busy until the kernel has put away the last process.
        let removed = eventually(|| fs::remove_dir(&self.folder).map_err(|e| e.kind()), Result::is_ok);
        if let Err(error) = removed
            && !std::thread::panicking()
        {
            panic!("the control group {} stays: {error:#}", self.folder.display());
        }
    }
}

/// Whether memory can go to a disk here. What cannot be read may say so.
fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").map_or(true, |table| table.lines().count() > 1)
}

/// Where a group can be made, and whether that is version 1.
fn parent() -> Result<(PathBuf, bool)> {
    let mount = Path::new("/sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let path = |meant: &str| {
        let mut lines = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let (_, path) = lines.find(|(controllers, _)| controllers.split(',').any(|name| name == meant))?;
        Some(path.trim_start_matches('/').to_owned())
    };
    let existing = |mount: &Path, path: String| {
        let own = mount.join(path);
        if own.is_dir() { own } else { mount.to_owned() }
    };
    if let Some(path) = path("memory") {
        return Ok((existing(&mount.join("memory"), path), true));
    }
    let Some(path) = path("") else { bail!("there are no control groups here") };
    let parent = existing(mount, path);
    fs::write(parent.join("cgroup.subtree_control"), "+memory")
        .with_context(|| format!("cannot hand the memory controller on in {}", parent.display()))?;
    Ok((parent, false))
}
