//! Being the parent of every orphan below, finding them, and ending them.
//!
//! A process that forks twice and starts a session of its own leaves its process group and its parent, but not the reach
//! of the nearest subreaper: when its parents are dead it is our direct child. So nothing is left exactly when we have
//! no children left, and killing whatever descends from us, again and again, gets there.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::children::{self, Owner};
use crate::pipe::check;
use crate::signals;

/// Processes that one walk looks at; more than this is a fork bomb, and the next walk goes on.
const WALK_PROCESSES_MAX: usize = 1 << 16;

/// A process that did not die though it was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its process id; 0 when `/proc` is missing and it could not be found.
    pub pid: i32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// The kernel's letter for its state: `D` waits for a device, `Z` is over but for its threads.
    pub state: char,
}

/// Makes orphans of all processes below fall to this process.
pub fn become_subreaper() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: this prctl takes an integer and touches no memory of ours.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on) }).map(drop)
}

/// What `/proc/PID/stat` says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    parent: i32,
}

/// The name is in parentheses and may itself contain any of them: the last one closes it.
fn parse_stat(text: &str) -> Option<Stat> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let name = text.get(open + 1..close)?.to_owned();
    let mut fields = text.get(close + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Stat { name, state, parent })
}

fn stat(pid: i32) -> Option<Stat> {
    // A name need not be UTF-8.
    let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&bytes))
}

/// The direct children of every thread of a process, from the kernel's own lists. None when it keeps no such lists.
fn listed_children(pid: i32, out: &mut Vec<i32>) -> Option<()> {
    let tasks = format!("/proc/{pid}/task");
    let Ok(threads) = std::fs::read_dir(&tasks) else {
        // It ended meanwhile; its children are somebody else's now.
        return Path::new("/proc/self/task").exists().then_some(());
    };
    for thread in threads.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => out.extend(list.split_ascii_whitespace().filter_map(|p| p.parse::<i32>().ok())),
            // The thread is gone, or the kernel was built without these lists.
            Err(_) if thread.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(())
}

/// Every process that the kernel shows, with its parent.
fn all_processes() -> io::Result<Vec<(i32, i32)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            all.push((pid, stat.parent));
        }
    }
    Ok(all)
}

/// A descendant and the parent through which it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kin {
    pid: i32,
    parent: i32,
}

/// Everything that descends from `root`, without the subtrees of `spare`, parents before children.
fn descendants(root: i32, spare: &BTreeSet<i32>) -> io::Result<Vec<Kin>> {
    walk(root, spare, None)
}

/// Walks by the kernel's lists of children, or by a table of all processes and parents when given or when there are no lists.
fn walk(root: i32, spare: &BTreeSet<i32>, mut table: Option<Vec<(i32, i32)>>) -> io::Result<Vec<Kin>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([root]);
    let mut queue = vec![root];
    while let Some(parent) = queue.pop() {
        let mut below = Vec::new();
        if table.is_none() && listed_children(parent, &mut below).is_none() {
            table = Some(all_processes()?);
        }
        if let Some(table) = &table {
            below = table.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid).collect();
        }
        for pid in below {
            if found.len() < WALK_PROCESSES_MAX && !spare.contains(&pid) && seen.insert(pid) {
                found.push(Kin { pid, parent });
                queue.push(pid);
            }
        }
    }
    Ok(found)
}

/// Ids of everything that descends from a process, itself not included.
pub fn descendants_of(pid: i32) -> io::Result<Vec<i32>> {
    Ok(descendants(pid, &BTreeSet::new())?.into_iter().map(|k| k.pid).collect())
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Kills a process unless its id has passed to a stranger since it was found.
fn kill_kin(kin: Kin) -> io::Result<()> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, kin.pid, 0) };
    let Ok(fd) = libc::c_int::try_from(fd) else { return Ok(()) };
    if fd < 0 {
        let e = io::Error::last_os_error();
        // Gone already, or over but for its parent's waiting.
        return if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) { Ok(()) } else { Err(e) };
    }
    // SAFETY: made by the call above and known to nobody else.
    let fd = unsafe { crate::pipe::own(fd) };
    // The descriptor holds the identity; the parent, read after it was opened, proves that it is the one we found.
    if stat(kin.pid).is_none_or(|s| s.parent != kin.parent && s.parent != own_pid()) {
        return Ok(());
    }
    // SAFETY: pidfd_send_signal takes an open descriptor, integers and an optional siginfo, which is absent.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            signals::KILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if rc == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        e => Err(e),
    }
}

/// Kills everything that descends from this child of ours, and the child. Call it while the child lives: what outlives
/// its parent is ours then, and no longer to be told from other orphans.
pub fn kill_tree(child: i32) -> io::Result<()> {
    // Held so that the child is not reaped, and its id not given away, meanwhile.
    let hold = children::hold();
    let below = descendants(child, &BTreeSet::new());
    if hold.is_claimed(child) {
        signals::send(child, signals::KILL)?;
    }
    drop(hold);
    for kin in below? {
        kill_kin(kin)?;
    }
    Ok(())
}

/// Kills everything that descends from this process but the children that others than `owner` claim, and what descends
/// from those. Returns how many processes were found; 0 means that nothing is left.
pub fn kill_round(owner: Owner) -> io::Result<usize> {
    let found = {
        // Held during the walk, so that what others start meanwhile is not in it.
        let hold = children::hold();
        descendants(own_pid(), &hold.others(owner))?
    };
    // A process that may not be killed (set-user-id) must not save those after it.
    let mut refused = None;
    for kin in &found {
        if let Err(e) = kill_kin(*kin) {
            refused = Some(e);
        }
    }
    match refused {
        Some(e) if found.is_empty() => Err(e),
        _ => Ok(found.len()),
    }
}

/// Who is left of what [`kill_round`] would kill.
pub fn survivors(owner: Owner) -> Vec<Survivor> {
    let hold = children::hold();
    let spare = hold.others(owner);
    match descendants(own_pid(), &spare) {
        Ok(found) => found
            .into_iter()
            .filter_map(|kin| stat(kin.pid).map(|s| Survivor { pid: kin.pid, name: s.name, state: s.state }))
            .collect(),
        Err(_) if spare.is_empty() && crate::reap::has_children().unwrap_or(true) => {
            vec![Survivor { pid: 0, name: "unknown, /proc is not mounted".to_owned(), state: '?' }]
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_whatever_the_name() {
        let plain = parse_stat("41 (sleep) S 7 41 41 0 -1").unwrap();
        assert_eq!(plain, Stat { name: "sleep".to_owned(), state: 'S', parent: 7 });
        let nasty = parse_stat("41 (a) R 1 (b) D 9 0").unwrap();
        assert_eq!(nasty, Stat { name: "a) R 1 (b".to_owned(), state: 'D', parent: 9 });
        for broken in ["", "41", "41 (x", "41 (x)", "41 (x) S", "41 (x) S y", ") ("] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn both_ways_of_looking_find_the_same() {
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", "sleep 1000 & (sleep 1000 & wait) & echo ready; wait"])
            .stdout(std::process::Stdio::piped());
        let mut top = command.spawn().unwrap();
        let pid = top.id().cast_signed();
        let mut ready = [0; 6];
        std::io::Read::read_exact(&mut top.stdout.take().unwrap(), &mut ready).unwrap();
        let none = BTreeSet::new();
        // The subshell's own child may need a moment.
        let start = std::time::Instant::now();
        let listed = loop {
            let listed = walk(pid, &none, None).unwrap();
            if listed.len() == 3 {
                break listed;
            }
            assert!(start.elapsed().as_secs() < 30, "{listed:?}");
        };
        let ids = |found: Vec<Kin>| found.into_iter().map(|k| (k.pid, k.parent)).collect::<BTreeSet<_>>();
        let subshell = listed.iter().find(|k| listed.iter().any(|l| l.parent == k.pid)).unwrap().pid;
        assert_eq!(ids(listed), ids(walk(pid, &none, Some(all_processes().unwrap())).unwrap()));
        // Sparing the subshell spares what is below it.
        assert_eq!(walk(pid, &BTreeSet::from([subshell]), None).unwrap().len(), 1);
        kill_tree(pid).unwrap();
        top.kill().unwrap();
        top.wait().unwrap();
    }
}
