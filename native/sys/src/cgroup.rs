//! The control group that this process is in, version 1 or 2, as far as the file system shows it.

use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Version 1 writes "no limit" as the largest number of whole pages.
const UNLIMITED_BYTES_MIN: u64 = 1 << 62;

/// What a control group tells of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// How many of its processes the kernel has killed for want of memory, ever.
    pub kills: u64,
    /// How much it may have, if that is limited here and not further up.
    pub limit_bytes: Option<u64>,
}

/// The group of this process.
#[derive(Debug, Clone)]
pub struct ControlGroup {
    mount: PathBuf,
    /// `/proc/self/cgroup`: a line for each hierarchy.
    hierarchies: String,
}

impl ControlGroup {
    /// The one that this process is in now.
    pub fn here() -> Self {
        Self::below(Path::new(MOUNT), std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    fn below(mount: &Path, hierarchies: String) -> Self {
        Self { mount: mount.to_owned(), hierarchies }
    }

    /// Cores' worth of time that its processes may use, rounded up.
    pub fn cpu_quota(&self) -> Option<usize> {
        let (quota, period) = match self.read("", "cpu.max") {
            Some(max) => {
                let mut fields = max.split_ascii_whitespace().map(str::to_owned);
                (fields.next()?, fields.next()?)
            }
            None => (self.read("cpu", "cpu.cfs_quota_us")?, self.read("cpu", "cpu.cfs_period_us")?),
        };
        let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        if period == 0 { None } else { usize::try_from(quota.div_ceil(period)).ok() }
    }

    /// What it tells of its memory; none where nobody counts for it.
    pub fn memory(&self) -> Option<Memory> {
        let (controller, counts, limit) = match self.read("", "memory.events") {
            Some(events) => ("", events, "memory.max"),
            None => ("memory", self.read("memory", "memory.oom_control")?, "memory.limit_in_bytes"),
        };
        let kills = counts.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()?;
        let limit = self.read(controller, limit).and_then(|text| text.trim().parse().ok());
        Some(Memory { kills, limit_bytes: limit.filter(|bytes| *bytes < UNLIMITED_BYTES_MIN) })
    }

    /// A file of this controller of version 1, or of version 2 when it is empty: the group's own, or else what the mount shows
    /// at its root. In a container without a namespace for its groups that is the container's, and the path is not below it.
    fn read(&self, controller: &str, file: &str) -> Option<String> {
        let mount = self.mount.join(controller);
        let own = self.path(controller).map(|path| mount.join(path));
        own.into_iter().chain([mount]).find_map(|folder| std::fs::read_to_string(folder.join(file)).ok())
    }

    /// The group's path below the mount; none when it lies outside of what this process may see.
    fn path(&self, controller: &str) -> Option<&str> {
        // NUMBER:CONTROLLERS:PATH; version 2 names no controllers.
        let mut all = self.hierarchies.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let (_, path) = all.find(|(controllers, _)| controllers.split(',').any(|name| name == controller))?;
        let path = path.trim_start_matches('/');
        (!path.split('/').any(|part| part == "..")).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn quotas_of_both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let group = ControlGroup::below(dir.path(), String::new());
        assert_eq!(group.cpu_quota(), None);
        for (file, text, quota) in [
            ("cpu/cpu.cfs_quota_us", "-1\n", None),
            ("cpu/cpu.cfs_period_us", "100000\n", None),
            ("cpu/cpu.cfs_quota_us", "400000\n", Some(4)),
            ("cpu.max", "150000 100000\n", Some(2)),
            ("cpu.max", "max 100000\n", None),
            ("cpu.max", "5 0\n", None),
        ] {
            write(dir.path(), file, text);
            assert_eq!(group.cpu_quota(), quota, "{file}: {text}");
        }
    }

    #[test]
    fn memory_of_both_versions_is_read() {
        let told = |files: &[(&str, &str)], hierarchies: &str| {
            let dir = tempfile::tempdir().unwrap();
            for (file, text) in files {
                write(dir.path(), file, text);
            }
            ControlGroup::below(dir.path(), hierarchies.to_owned()).memory().map(|m| (m.kills, m.limit_bytes))
        };
        const EVENTS: &str = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 0\n";
        const CONTROL: &str = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
        assert_eq!(told(&[], "0::/\n"), None);
        // Version 2, in a namespace of its own.
        assert_eq!(told(&[("memory.events", EVENTS), ("memory.max", "max\n")], "0::/\n"), Some((3, None)));
        assert_eq!(told(&[("memory.events", EVENTS), ("memory.max", "4096\n")], "0::/\n"), Some((3, Some(4096))));
        assert_eq!(told(&[("memory.events", EVENTS)], "0::/\n"), Some((3, None)));
        // A service's group, beside that of the whole.
        let service = [("a/b/memory.events", "oom_kill 7\n"), ("a/b/memory.max", "9\n"), ("memory.events", EVENTS)];
        assert_eq!(told(&service, "0::/a/b\n"), Some((7, Some(9))));
        assert_eq!(told(&service, "0::/kubepods/x\n"), Some((3, None)), "the path is not below the mount");
        assert_eq!(told(&service, "0::/../a/b\n"), Some((3, None)), "it lies outside of the namespace");
        // Version 1, with its word for "no limit", and beside a version 2 that has nothing to do with memory.
        let first = [("memory/memory.oom_control", CONTROL), ("memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(told(&first, "4:memory:/\n1:cpu:/x\n0::/\n"), Some((5, None)));
        assert_eq!(told(&first, "4:memory:/docker/id\n"), Some((5, None)));
        let own = [("memory/g/memory.oom_control", "oom_kill 1\n"), ("memory/g/memory.limit_in_bytes", "67108864\n")];
        assert_eq!(told(&[first, own].concat(), "9:hugetlb,memory:/g\n"), Some((1, Some(64 << 20))));
        // Kernels before 4.13 do not count.
        assert_eq!(told(&[("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")], "4:memory:/\n"), None);
    }
}
