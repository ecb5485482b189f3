//! The control group that this process is in, version 1 or 2, as far as the file system shows it.

use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Version 1 writes "no limit" as the largest number of whole pages.
const UNLIMITED_BYTES_MIN: u64 = 1 << 62;

/// What a control group tells of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// How many of its processes the kernel has killed for want of memory, whosesoever limit that was, ever.
    pub kills: u64,
    /// The smallest limit over it and those of its parents that can be seen.
    pub limit: Option<MemoryLimit>,
}

/// How much memory a group may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    /// So much.
    pub bytes: u64,
    /// How often it was reached, ever. In version 1 that includes the times when the kernel could still make room.
    pub hits: u64,
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

    /// Cores' worth of time that its processes may use, rounded up: the smallest quota over it and its parents.
    pub fn cpu_quota(&self) -> Option<usize> {
        let second: Vec<String> = self.all("", "cpu.max").collect();
        if !second.is_empty() {
            return second.iter().filter_map(|max| max.split_once(' ').and_then(|(q, p)| cores(q, p))).min();
        }
        let quota = |folder: PathBuf| cores(&read(&folder, "cpu.cfs_quota_us")?, &read(&folder, "cpu.cfs_period_us")?);
        self.folders("cpu").into_iter().filter_map(quota).min()
    }

    /// What it tells of its memory; none where nobody counts for it.
    pub fn memory(&self) -> Option<Memory> {
        if let Some(events) = self.all("", "memory.events").next() {
            let limit = self.memory_limit("", "memory.max", |folder| {
                // Of this group alone; before Linux 5.2 the groups below it count as well.
                let own = read(folder, "memory.events.local").or_else(|| read(folder, "memory.events"));
                own.and_then(|events| counter(&events, "oom")).unwrap_or(0)
            });
            return Some(Memory { kills: counter(&events, "oom_kill")?, limit });
        }
        let kills = counter(&self.all("memory", "memory.oom_control").next()?, "oom_kill")?;
        let limit = self.memory_limit("memory", "memory.limit_in_bytes", |folder| {
            number(folder, "memory.failcnt").unwrap_or(0) + hits_with_swap(folder, kills)
        });
        Some(Memory { kills, limit })
    }

    /// Whether the kernel kills all of its processes when it kills one for want of memory (version 2 only).
    pub fn is_killed_as_a_whole(&self) -> bool {
        self.all("", "memory.oom.group").any(|text| text.trim() == "1")
    }

    fn memory_limit(&self, controller: &str, file: &str, hits: impl Fn(&Path) -> u64) -> Option<MemoryLimit> {
        let limits = self.folders(controller).into_iter().filter_map(|folder| Some((number(&folder, file)?, folder)));
        // Of equal ones the innermost, which is reached first.
        let (bytes, folder) =
            limits.filter(|(bytes, _)| *bytes < UNLIMITED_BYTES_MIN).min_by_key(|(bytes, _)| *bytes)?;
        Some(MemoryLimit { bytes, hits: hits(&folder) })
    }

    /// What this file says in the group and in its parents, from the inside; those without it are left out.
    fn all(&self, controller: &str, file: &str) -> impl Iterator<Item = String> {
        self.folders(controller).into_iter().filter_map(move |folder| read(&folder, file))
    }

    /// The group and its parents up to the mount, for a controller of version 1, or for version 2 when that is empty. In a container
    /// without a namespace for its groups the path is not below the mount, whose root is the container's own group.
    fn folders(&self, controller: &str) -> Vec<PathBuf> {
        let mount = self.mount.join(controller);
        let own = self.path(controller).map(|path| mount.join(path)).filter(|own| own.is_dir());
        let own = own.as_ref().unwrap_or(&mount);
        own.ancestors().take_while(|folder| folder.starts_with(&mount)).map(Path::to_owned).collect()
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

fn read(folder: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(file)).ok()
}

fn number(folder: &Path, file: &str) -> Option<u64> {
    read(folder, file)?.trim().parse().ok()
}

/// How often the limit of memory and swap together was reached, in version 1. Where it is no more than that of memory, it is reached
/// in place of that one, and then Linux 6.18 does not count. What it tells still is that the limit was reached once, which each
/// kill is taken for there.
fn hits_with_swap(folder: &Path, kills: u64) -> u64 {
    let file = |name| number(folder, name).unwrap_or(0);
    match (file("memory.memsw.failcnt"), number(folder, "memory.memsw.limit_in_bytes")) {
        (0, Some(limit)) if file("memory.memsw.max_usage_in_bytes") >= limit => kills,
        (hits, _) => hits,
    }
}

/// The number behind this name, of a file with one on each line.
fn counter(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

fn cores(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    if period == 0 { None } else { usize::try_from(quota.div_ceil(period)).ok() }
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

    /// A group with these files.
    fn group(files: &[(&str, &str)], hierarchies: &str) -> (tempfile::TempDir, ControlGroup) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            write(dir.path(), file, text);
        }
        let group = ControlGroup::below(dir.path(), hierarchies.to_owned());
        (dir, group)
    }

    #[test]
    fn the_smallest_quota_up_to_the_mount_counts() {
        let quota = |files: &[(&str, &str)], hierarchies: &str| group(files, hierarchies).1.cpu_quota();
        // Processes in a child group of their container's, which has the quota.
        let child = [("init/cpu.max", "max 100000\n"), ("cpu.max", "400000 100000\n")];
        assert_eq!(quota(&child, "0::/init\n"), Some(4));
        assert_eq!(quota(&[("init/cgroup.procs", ""), ("cpu.max", "400000 100000\n")], "0::/init\n"), Some(4));
        let deep = [("a/b/cpu.max", "600000 100000\n"), ("a/cpu.max", "50000 25000\n"), ("cpu.max", "900000 100000\n")];
        assert_eq!(quota(&deep, "0::/a/b\n"), Some(2), "the one between");
        assert_eq!(quota(&deep, "0::/c\n"), Some(9), "the path is not below the mount");
        assert_eq!(quota(&[("a/b/cpu.max", "max 100000\n"), ("a/cpu.max", "max 100000\n")], "0::/a/b\n"), None);
        // Beside a version 2 without controllers.
        let first = [
            ("cpu/a/cpu.cfs_quota_us", "-1\n"),
            ("cpu/a/cpu.cfs_period_us", "100000\n"),
            ("cpu/cpu.cfs_quota_us", "250000\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(&first, "3:cpu,cpuacct:/a\n0::/\n"), Some(3));
        assert_eq!(quota(&[&first[..], &[("cpu/a/cpu.cfs_quota_us", "90000\n")]].concat(), "3:cpu:/a\n"), Some(1));
    }

    #[test]
    fn memory_of_both_versions_is_read() {
        let told = |files: &[(&str, &str)], hierarchies: &str| {
            let memory = group(files, hierarchies).1.memory()?;
            Some((memory.kills, memory.limit.map(|limit| (limit.bytes, limit.hits))))
        };
        const EVENTS: &str = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 0\n";
        const CONTROL: &str = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
        assert_eq!(told(&[], "0::/\n"), None);
        // Version 2, in a namespace of its own.
        assert_eq!(told(&[("memory.events", EVENTS), ("memory.max", "max\n")], "0::/\n"), Some((3, None)));
        let limited = [("memory.events", EVENTS), ("memory.max", "4096\n")];
        assert_eq!(told(&limited, "0::/\n"), Some((3, Some((4096, 2)))));
        let local = [("memory.events.local", "oom 1\noom_kill 0\n")];
        assert_eq!(told(&[&limited[..], &local].concat(), "0::/\n"), Some((3, Some((4096, 1)))), "not a child's limit");
        assert_eq!(told(&[("memory.events", EVENTS)], "0::/\n"), Some((3, None)));
        // A service's group, below that of the whole: its own kills, and the smaller of the limits.
        let service = [("a/b/memory.events", "oom 1\noom_kill 7\n"), ("a/b/memory.max", "9\n")];
        assert_eq!(told(&[service, limited].concat(), "0::/a/b\n"), Some((7, Some((9, 1)))));
        let roomy = [("a/b/memory.events", "oom 1\noom_kill 7\n"), ("a/b/memory.max", "max\n")];
        assert_eq!(told(&[roomy, limited].concat(), "0::/a/b\n"), Some((7, Some((4096, 2)))), "its parent's");
        let equal = [("a/b/memory.events", "oom 1\noom_kill 7\n"), ("a/b/memory.max", "4096\n")];
        assert_eq!(told(&[equal, limited].concat(), "0::/a/b\n"), Some((7, Some((4096, 1)))), "reached first");
        assert_eq!(told(&[service, limited].concat(), "0::/a/x\n"), Some((3, Some((4096, 2)))), "not below the mount");
        assert_eq!(told(&[service, limited].concat(), "0::/../a/b\n"), Some((3, Some((4096, 2)))), "it lies outside");
        // Version 1, with its word for "no limit", and beside a version 2 that has nothing to do with memory.
        let first = [("memory/memory.oom_control", CONTROL), ("memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(told(&first, "4:memory:/\n1:cpu:/x\n0::/\n"), Some((5, None)));
        assert_eq!(told(&first, "4:memory:/docker/id\n"), Some((5, None)));
        let own = [("memory/g/memory.oom_control", "oom_kill 1\n"), ("memory/g/memory.limit_in_bytes", "67108864\n")];
        assert_eq!(told(&[first, own].concat(), "9:hugetlb,memory:/g\n"), Some((1, Some((64 << 20, 0)))));
        let hits = [("memory/g/memory.failcnt", "4\n"), ("memory/g/memory.memsw.failcnt", "3\n")];
        assert_eq!(told(&[first, own, hits].concat(), "9:memory:/g\n"), Some((1, Some((64 << 20, 7)))));
        // Linux 6.18 does not count how often memory and swap together were used up.
        let swap = |limit: &'static str| {
            [
                ("memory/g/memory.failcnt", "0\n"),
                ("memory/g/memory.memsw.failcnt", "0\n"),
                ("memory/g/memory.memsw.max_usage_in_bytes", "67108864\n"),
                ("memory/g/memory.memsw.limit_in_bytes", limit),
            ]
        };
        for (limit, hits) in [("67108864\n", 1), ("67112960\n", 0)] {
            let files = [&first[..], &own, &swap(limit)].concat();
            assert_eq!(told(&files, "9:memory:/g\n"), Some((1, Some((64 << 20, hits)))), "{limit}");
        }
        // Kernels before 4.13 do not count.
        assert_eq!(told(&[("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")], "4:memory:/\n"), None);
    }

    #[test]
    fn a_group_that_dies_as_a_whole_is_known_from_itself_and_its_parents() {
        let whole = |files: &[(&str, &str)], path: &str| group(files, path).1.is_killed_as_a_whole();
        assert!(!whole(&[], "0::/\n"));
        assert!(!whole(&[("memory.oom.group", "0\n")], "0::/\n"));
        assert!(whole(&[("memory.oom.group", "1\n")], "0::/\n"));
        let child = [("init/memory.oom.group", "0\n"), ("memory.oom.group", "1\n"), ("other/memory.oom.group", "0\n")];
        assert!(whole(&child, "0::/init\n"), "its container's");
        assert!(!whole(&[("other/memory.oom.group", "1\n"), ("a/x", "")], "0::/a\n"), "somebody else's");
    }
}
