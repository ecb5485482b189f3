//! Facts about this process and its machine.

use std::ffi::{CStr, CString};
use std::hash::{Hash, Hasher};
use std::io;

use crate::affinity;
use crate::cgroup::ControlGroup;
use crate::pipe::check;

/// Resident set of this process, in KiB.
pub fn rss_kib() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|p| p.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm has no second number"))?;
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages * u64::try_from(page_bytes).unwrap_or(4096) / 1024)
}

/// The machine's (or pod's) name, as the kernel has it; no resolver is asked.
pub fn hostname() -> String {
    // SAFETY: all-zero is a valid utsname.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: uname writes to `names`, which outlives the call; it fails for a bad pointer only.
    unsafe { libc::uname(&mut names) };
    // SAFETY: the kernel ends the name with a zero byte inside the array.
    let name = unsafe { CStr::from_ptr(names.nodename.as_ptr()) };
    name.to_string_lossy().into_owned()
}

/// The id that the kernel gave to this boot of the machine; none when `/proc` is missing.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Cores that this process can keep busy: its affinity, cut by the CPU quota of its cgroup (rounded up); at least 1.
pub fn cpu_count() -> usize {
    let cores = affinity::get().map_or(1, |c| c.len());
    ControlGroup::here().cpu_quota().map_or(cores, |q| cores.min(q)).max(1)
}

/// Cores of the whole machine that are switched on, whatever this process may use of them; none when the kernel does not tell. What
/// the C library says of it depends on its release.
pub fn machine_cores() -> Option<usize> {
    count_cores(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// How many a list such as `0-3,8` has.
fn count_cores(list: &str) -> Option<usize> {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    };
    list.trim().split(',').map(count).sum()
}

/// A number that is the same for processes which share what they may use of the machine's cores: their control group, and the cores
/// that they are bound to.
pub fn cores_share() -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    let namespace = std::fs::metadata("/proc/self/ns/cgroup").map(|m| std::os::unix::fs::MetadataExt::ino(&m));
    (namespace.ok(), std::fs::read("/proc/self/cgroup").ok(), affinity::get().ok()).hash(&mut hasher);
    hasher.finish()
}

/// Names the calling thread, for those who look with `ps` or a debugger; the kernel keeps 15 bytes.
pub fn set_thread_name(name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: this prctl reads a string that ends with a zero byte and outlives the call.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Number of the user that this process runs as.
pub fn uid() -> u32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_plausible() {
        assert!(rss_kib().unwrap() > 100);
        let uname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(hostname(), uname.trim());
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!((1..=affinity::get().unwrap().len()).contains(&cpu_count()));
        assert!(machine_cores().is_none_or(|all| all >= cpu_count()));
        assert_eq!(cores_share(), cores_share());
    }

    #[test]
    fn cores_are_counted_as_the_kernel_lists_them() {
        for (list, count) in
            [("0\n", Some(1)), ("0-3", Some(4)), ("0-1,4,6-7\n", Some(5)), ("", None), ("3-1", None), ("a", None)]
        {
            assert_eq!(count_cores(list), count, "{list:?}");
        }
    }

    #[test]
    fn a_thread_is_named() {
        std::thread::spawn(|| {
            set_thread_name("muster-test").unwrap();
            assert_eq!(std::fs::read_to_string("/proc/thread-self/comm").unwrap(), "muster-test\n");
        })
        .join()
        .unwrap();
        assert!(set_thread_name("a\0b").is_err());
    }
}
