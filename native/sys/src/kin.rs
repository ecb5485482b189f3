//! Who descends from whom, as `/proc` tells it.
//!
//! Not seeing is not the same as nobody being there: only "no such file" and "no such process" mean that somebody has
//! ended, and every other failure is handed on beside what was found.

use std::collections::BTreeSet;
use std::io;

/// Processes that one walk looks at; more than this is a fork bomb, and the next walk goes on.
const WALK_PROCESSES_MAX: usize = 1 << 16;
/// Where the fields lie in `/proc/PID/stat` behind the name.
const SESSION_FIELD: usize = 3;
const START_FIELD: usize = 19;

/// What `/proc/PID/stat` says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) session: i32,
    /// When it started, in ticks since the boot: with its id, a name that nobody else ever has.
    pub(crate) start: u64,
}

/// The name is in parentheses and may itself contain any of them: the last one closes it.
fn parse_stat(text: &str) -> Option<Stat> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let name = text.get(open + 1..close)?.to_owned();
    let fields: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
    Some(Stat {
        name,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(SESSION_FIELD)?.parse().ok()?,
        start: fields.get(START_FIELD)?.parse().ok()?,
    })
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// What is known of a process; none when it has ended.
pub(crate) fn stat(pid: i32) -> io::Result<Option<Stat>> {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        // A name need not be UTF-8.
        Ok(bytes) => match parse_stat(&String::from_utf8_lossy(&bytes)) {
            Some(stat) => Ok(Some(stat)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat cannot be understood"))),
        },
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Whether `/proc` is there and speaks of our process id namespace: in another one the same number is another process.
fn check_proc() -> io::Result<()> {
    let own = match std::fs::read_to_string("/proc/self/stat") {
        Ok(text) => text.split(' ').next().and_then(|pid| pid.parse().ok()) == Some(own_pid()),
        Err(e) if is_gone(&e) => false,
        Err(e) => return Err(e),
    };
    if own { Ok(()) } else { Err(io::Error::other("/proc is not mounted, or not that of these processes")) }
}

/// The direct children of every thread of a process, from the kernel's own lists. False when it keeps no such lists.
fn listed_children(pid: i32, out: &mut Vec<i32>) -> io::Result<bool> {
    let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        // It ended meanwhile; its children are somebody else's now.
        Err(e) if is_gone(&e) && pid != own_pid() => return Ok(true),
        Err(e) => return Err(e),
    };
    for thread in threads {
        let path = match thread {
            Ok(thread) => thread.path(),
            Err(e) if is_gone(&e) => break,
            Err(e) => return Err(e),
        };
        match std::fs::read_to_string(path.join("children")) {
            Ok(list) => out.extend(list.split_ascii_whitespace().filter_map(|p| p.parse::<i32>().ok())),
            // The thread is gone, or the kernel was built without these lists.
            Err(e) if is_gone(&e) => {
                if path.exists() {
                    return Ok(false);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Every process that the kernel shows, with its parent.
fn all_processes() -> io::Result<Vec<(i32, i32)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        match stat(pid) {
            Ok(stat) => all.extend(stat.map(|s| (pid, s.parent))),
            // A system that hides other users' processes shows their ids and no more.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// A descendant and the parent through which it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kin {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
}

/// Whom a walk passes over, with all that descends from them.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    pub(crate) pids: BTreeSet<i32>,
    /// Children of the root that belong to one of these sessions.
    pub(crate) sessions: BTreeSet<i32>,
}

impl Spare {
    fn has(&self, kin: Kin, root: i32) -> io::Result<bool> {
        if self.pids.contains(&kin.pid) {
            return Ok(true);
        }
        let orphan = kin.parent == root && !self.sessions.is_empty();
        Ok(orphan && stat(kin.pid)?.is_some_and(|s| self.sessions.contains(&s.session)))
    }
}

/// What a walk has seen.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Parents before children.
    pub(crate) found: Vec<Kin>,
    /// Number of those passed over.
    pub(crate) spared: usize,
    /// Why there may be more.
    pub(crate) blind: Option<io::Error>,
}

/// Everything that descends from `root`, without the subtrees of `spare`.
pub(crate) fn descendants(root: i32, spare: &Spare) -> Walk {
    walk(root, spare, None)
}

/// Walks by the kernel's lists of children, or by a table of all processes and parents when given or when there are no lists.
fn walk(root: i32, spare: &Spare, mut table: Option<Vec<(i32, i32)>>) -> Walk {
    let mut walk = Walk { blind: check_proc().err(), ..Walk::default() };
    if walk.blind.is_some() {
        return walk;
    }
    let mut seen = BTreeSet::from([root]);
    let mut queue = vec![root];
    while let Some(parent) = queue.pop() {
        let mut below = Vec::new();
        if table.is_none() {
            match listed_children(parent, &mut below) {
                Ok(true) => {}
                Ok(false) => match all_processes() {
                    Ok(all) => table = Some(all),
                    Err(e) => walk.blind = Some(e),
                },
                // What was read before is used.
                Err(e) => walk.blind = Some(e),
            }
        }
        if let Some(table) = &table {
            below = table.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid).collect();
        }
        for pid in below {
            if walk.found.len() >= WALK_PROCESSES_MAX || !seen.insert(pid) {
                continue;
            }
            match spare.has(Kin { pid, parent }, root) {
                Ok(true) => walk.spared += 1,
                Ok(false) => {
                    walk.found.push(Kin { pid, parent });
                    queue.push(pid);
                }
                // Who cannot be told from a stranger is neither killed nor forgotten.
                Err(e) => walk.blind = Some(e),
            }
        }
    }
    walk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_whatever_the_name() {
        let rest = "4194304 0 0 0 0 1 2 3 4 20 0 1 0 5566 9";
        let plain = parse_stat(&format!("41 (sleep) S 7 41 40 0 -1 {rest}")).unwrap();
        let want = Stat { name: "sleep".to_owned(), state: 'S', parent: 7, session: 40, start: 5566 };
        assert_eq!(plain, want);
        let nasty = parse_stat(&format!("41 (a) R 1 (b) D 9 0 8 0 -1 {rest}")).unwrap();
        assert_eq!(nasty, Stat { name: "a) R 1 (b".to_owned(), state: 'D', parent: 9, session: 8, start: 5566 });
        for broken in ["", "41", "41 (x", "41 (x)", "41 (x) S", "41 (x) S y", ") (", "41 (x) S 7 41 41 0 -1"] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_process_is_there_or_it_is_not() {
        let own = stat(own_pid()).unwrap().unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id().cast_signed());
        // No process of this machine can have this number.
        assert_eq!(stat(i32::MAX - 1).unwrap(), None);
        check_proc().unwrap();
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
        let none = Spare::default();
        // The subshell's own child may need a moment.
        let start = std::time::Instant::now();
        let listed = loop {
            let listed = walk(pid, &none, None).found;
            if listed.len() == 3 {
                break listed;
            }
            assert!(start.elapsed().as_secs() < 30, "{listed:?}");
        };
        let ids = |found: Vec<Kin>| found.into_iter().map(|k| (k.pid, k.parent)).collect::<BTreeSet<_>>();
        let subshell = listed.iter().find(|k| listed.iter().any(|l| l.parent == k.pid)).unwrap().pid;
        let tabled = walk(pid, &none, Some(all_processes().unwrap()));
        assert!(tabled.blind.is_none());
        assert_eq!(ids(listed), ids(tabled.found));
        // Sparing the subshell spares what is below it; sparing the session spares all.
        let spare = |pids: &[i32], sessions: &[i32]| Spare {
            pids: pids.iter().copied().collect(),
            sessions: sessions.iter().copied().collect(),
        };
        let spared = walk(pid, &spare(&[subshell], &[]), None);
        assert_eq!((spared.found.len(), spared.spared), (1, 1));
        let session = stat(pid).unwrap().unwrap().session;
        let spared = walk(pid, &spare(&[], &[session]), None);
        assert_eq!((spared.found.len(), spared.spared), (0, 2));
        crate::subreaper::kill_tree(pid).unwrap();
        top.kill().unwrap();
        top.wait().unwrap();
    }
}
