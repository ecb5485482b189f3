//! Resource limits, and raising our own limit on open files without giving it to ranks.

use std::io;
use std::sync::OnceLock;

/// A resource whose use by a process can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Resource {
    /// Address space, in bytes.
    AddressSpace = 1,
    /// Size of a core file, in bytes.
    Core = 2,
    /// CPU time, in seconds.
    Cpu = 3,
    /// Data segment, in bytes.
    Data = 4,
    /// Size of a written file, in bytes.
    FileSize = 5,
    /// Locked memory, in bytes; fabrics need it.
    LockedMemory = 6,
    /// Open files.
    OpenFiles = 7,
    /// Processes of the user.
    Processes = 8,
    /// Stack, in bytes.
    Stack = 9,
}

impl Resource {
    const ALL: [(Self, &'static str); 9] = [
        (Self::AddressSpace, "as"),
        (Self::Core, "core"),
        (Self::Cpu, "cpu"),
        (Self::Data, "data"),
        (Self::FileSize, "fsize"),
        (Self::LockedMemory, "memlock"),
        (Self::OpenFiles, "nofile"),
        (Self::Processes, "nproc"),
        (Self::Stack, "stack"),
    ];

    /// The resource of this name, as in `limits.conf`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, n)| *n == name).map(|(r, _)| r)
    }

    /// Its name, as in `limits.conf`.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(r, _)| *r == self).map_or("unknown", |(_, n)| n)
    }

    #[expect(clippy::unnecessary_cast, reason = "the type of these constants differs between C libraries")]
    pub(crate) fn raw(self) -> u32 {
        match self {
            Self::AddressSpace => libc::RLIMIT_AS as u32,
            Self::Core => libc::RLIMIT_CORE as u32,
            Self::Cpu => libc::RLIMIT_CPU as u32,
            Self::Data => libc::RLIMIT_DATA as u32,
            Self::FileSize => libc::RLIMIT_FSIZE as u32,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK as u32,
            Self::OpenFiles => libc::RLIMIT_NOFILE as u32,
            Self::Processes => libc::RLIMIT_NPROC as u32,
            Self::Stack => libc::RLIMIT_STACK as u32,
        }
    }
}

/// A limit to set for a new process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimit {
    /// What is limited.
    pub resource: Resource,
    /// What applies; [`ResourceLimit::UNLIMITED`] for no limit.
    pub soft: u64,
    /// How far the process may raise it; [`ResourceLimit::UNLIMITED`] for no limit.
    pub hard: u64,
}

impl ResourceLimit {
    /// No limit.
    pub const UNLIMITED: u64 = u64::MAX;
}

/// Our own limit, soft and hard, on a resource.
pub fn get(resource: Resource) -> io::Result<ResourceLimit> {
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: prlimit on ourselves with no new limit only writes the old one to `raw`, which outlives the call.
    let rc = unsafe { libc::prlimit(0, resource.raw() as _, std::ptr::null(), &mut raw) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ResourceLimit { resource, soft: raw.rlim_cur, hard: raw.rlim_max })
}

fn set(limit: ResourceLimit) -> io::Result<()> {
    let raw = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: prlimit on ourselves only reads `raw`, which outlives the call; no old limit is asked for.
    let rc = unsafe { libc::prlimit(0, limit.resource.raw() as _, &raw, std::ptr::null_mut()) };
    if rc != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

static ORIGINAL_OPEN_FILES: OnceLock<ResourceLimit> = OnceLock::new();

/// Raises our soft limit on open files to the hard one, and remembers what it was for the processes that we start:
/// programs that use `select` break above 1024.
pub fn raise_open_files() -> io::Result<ResourceLimit> {
    let now = get(Resource::OpenFiles)?;
    let original = *ORIGINAL_OPEN_FILES.get_or_init(|| now);
    set(ResourceLimit { soft: now.hard, ..now })?;
    Ok(original)
}

/// The limit on open files from before [`raise_open_files`], if that was called.
pub fn original_open_files() -> Option<ResourceLimit> {
    ORIGINAL_OPEN_FILES.get().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (resource, name) in Resource::ALL {
            assert_eq!(Resource::from_name(name), Some(resource));
            assert_eq!(resource.name(), name);
        }
        assert_eq!(Resource::from_name("nofiles"), None);
    }

    #[test]
    fn open_files_are_raised_and_the_original_is_kept() {
        let before = get(Resource::OpenFiles).unwrap();
        let original = raise_open_files().unwrap();
        assert_eq!(get(Resource::OpenFiles).unwrap().soft, before.hard);
        assert_eq!(raise_open_files().unwrap(), original);
        assert_eq!(original_open_files(), Some(original));
    }
}
