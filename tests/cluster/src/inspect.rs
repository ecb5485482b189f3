//! What lives on a host and what was left there, read from outside.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::Host;

/// A process on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id as the machine counts.
    pub pid: i32,
    /// Its state letter in `/proc`: `R`, `S`, `D`, `Z`, `T`…
    pub state: char,
    /// Its command line, or its name in brackets when it has none.
    pub command: String,
}

/// Something on a host that outlives processes or other hosts can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A file, folder or socket below `/tmp` or `/dev/shm`.
    File(PathBuf),
    /// A bound Unix socket; abstract ones begin with `@`.
    UnixSocket(String),
    /// A System V shared memory segment, semaphore set or message queue: its line in `/proc/sysvipc`.
    SystemV(String),
}

/// Resident memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now, in KiB.
    pub now_kib: u64,
    /// At most so far, in KiB.
    pub peak_kib: u64,
}

impl Memory {
    /// Of a process by its id, as the machine counts.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: i32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
        let field = |name: &str| number_after(&status, name).with_context(|| format!("process {pid} has no {name}"));
        Ok(Self { now_kib: field("VmRSS:")?, peak_kib: field("VmHWM:")? })
    }
}

/// How often the threads of a process have gone to sleep by themselves so far: each time they were woken before.
///
/// # Errors
/// When there is no such process.
pub fn wakeups(pid: i32) -> Result<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("no process {pid}"))?;
    let of_thread = |status: String| number_after(&status, "\nvoluntary_ctxt_switches:");
    Ok(threads.flatten().filter_map(|t| of_thread(fs::read_to_string(t.path().join("status")).ok()?)).sum())
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

impl Host {
    /// The host's TCP connections over IPv4 that are neither listening nor over, a line of `/proc/net/tcp` each.
    pub fn connections(&self) -> Vec<String> {
        const TIME_WAIT: &str = "06";
        const LISTEN: &str = "0A";
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.init_pid())).unwrap_or_default();
        let open = |line: &&str| !matches!(line.split_whitespace().nth(3), Some(TIME_WAIT | LISTEN) | None);
        table.lines().skip(1).filter(open).map(str::to_owned).collect()
    }

    /// The host's processes but its first one, zombies included, in order of their ids.
    ///
    /// # Errors
    /// When `/proc` cannot be read or the host was killed and its first process is gone.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let Ok(wanted) = fs::read_link(format!("/proc/{}/ns/pid", self.init_pid())) else {
            // Without its first process a process namespace is empty.
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let ours = fs::read_link(entry.path().join("ns/pid")).is_ok_and(|ns| ns == wanted);
            if ours && pid != self.init_pid() {
                // None when it ended meanwhile.
                found.extend(read_process(pid, &entry.path()));
            }
        }
        found.sort_by_key(|process| process.pid);
        Ok(found)
    }

    /// Files in `/tmp` and `/dev/shm`, bound Unix sockets and System V objects of the host.
    ///
    /// # Errors
    /// When the host's files cannot be read.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.call(|| {
            let mut found = Vec::new();
            for folder in ["/tmp", "/dev/shm"] {
                walk(Path::new(folder), &mut found);
            }
            for kind in ["shm", "sem", "msg"] {
                let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
                let lines = table.lines().skip(1);
                found.extend(lines.map(|line| Leftover::SystemV(format!("{kind}: {}", line.trim()))));
            }
            found
        })
        .map(|mut found| {
            found.extend(self.unix_sockets());
            found
        })
    }

    fn unix_sockets(&self) -> Vec<Leftover> {
        let table = fs::read_to_string(format!("/proc/{}/net/unix", self.init_pid())).unwrap_or_default();
        // Num RefCount Protocol Flags Type St Inode Path
        let paths = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(7));
        let mut sockets: Vec<_> = paths.map(str::to_owned).collect();
        sockets.sort();
        sockets.dedup();
        sockets.into_iter().map(Leftover::UnixSocket).collect()
    }
}

fn read_process(pid: i32, folder: &Path) -> Option<Process> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let state = tail.trim_start().chars().next()?;
    let cmdline = fs::read(folder.join("cmdline")).unwrap_or_default();
    let words: Vec<_> = cmdline.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    let command = if words.is_empty() { format!("[{}]", head.split_once('(')?.1) } else { words.join(" ") };
    Some(Process { pid, state, command })
}

fn walk(folder: &Path, found: &mut Vec<Leftover>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // A folder on the way to the workspace was put there by the harness itself.
        if !crate::workspace::root().starts_with(entry.path()) {
            found.push(Leftover::File(entry.path()));
            walk(&entry.path(), found);
        }
    }
}
