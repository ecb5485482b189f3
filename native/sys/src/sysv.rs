//! Shared memory segments of the System V kind, which outlive the processes that made them.

use std::io;

use crate::pipe::check;

/// Where the kernel lists them, for its reader's namespaces.
const LIST: &str = "/proc/sysvipc/shm";
/// Where the fields lie in a line of the list.
const ID_FIELD: usize = 1;
const CREATOR_FIELD: usize = 4;
const ATTACHED_FIELD: usize = 6;

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its name; numbers come again only after thousands of others.
    pub id: i32,
    /// The process that made it, which may be gone; 0 when it belongs to another process id namespace.
    pub creator: i32,
    /// How many processes have it in their memory.
    pub attached: u64,
}

fn parse(list: &str) -> Vec<Segment> {
    let segment = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(Segment {
            id: fields.get(ID_FIELD)?.parse().ok()?,
            creator: fields.get(CREATOR_FIELD)?.parse().ok()?,
            attached: fields.get(ATTACHED_FIELD)?.parse().ok()?,
        })
    };
    // The first line names the columns.
    list.lines().skip(1).filter_map(segment).collect()
}

/// All segments that there are. It fails where the system has none of the kind, or does not show them.
pub fn segments() -> io::Result<Vec<Segment>> {
    Ok(parse(&std::fs::read_to_string(LIST)?))
}

/// Removes a segment; its memory is given back when nobody has it attached any more.
pub fn remove(id: i32) -> io::Result<()> {
    // SAFETY: this command of shmctl takes no structure, so the null pointer is not looked at.
    check(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_read() {
        let list = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime\n\
                    1979847181      32769   600                  4096   661   662      2     0     0     0     0          0\n\
                    \x20        0     131075   644                    64     0     0      0  1000  1000  1000  1000          7\n\
                    a line that nobody understands\n";
        let want =
            [Segment { id: 32_769, creator: 661, attached: 2 }, Segment { id: 131_075, creator: 0, attached: 0 }];
        assert_eq!(parse(list), want);
        assert_eq!(parse(""), []);
    }

    #[test]
    fn a_segment_is_seen_with_its_creator_until_it_is_removed() {
        // SAFETY: shmget takes integers.
        let id = check(unsafe { libc::shmget(libc::IPC_PRIVATE, 4_096, libc::IPC_CREAT | 0o600) }).unwrap();
        let mine = || segments().unwrap().into_iter().find(|segment| segment.id == id);
        let creator = std::process::id().cast_signed();
        assert_eq!(mine(), Some(Segment { id, creator, attached: 0 }));
        remove(id).unwrap();
        assert_eq!(mine(), None);
        assert!(remove(id).is_err());
    }
}
