//! Pipes, socket pairs and event descriptors; all of them close on exec.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Turns a system call's result into an error when it is negative.
pub(crate) fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// Takes over a descriptor that a system call has just made.
///
/// # Safety
/// `fd` must be open and owned by nobody else.
pub(crate) unsafe fn own(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the caller promises that the descriptor is open and ours alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The two ends of a pipe.
#[derive(Debug)]
pub struct Pipe {
    /// Reading end.
    pub read: OwnedFd,
    /// Writing end.
    pub write: OwnedFd,
}

/// A blocking pipe.
pub fn pipe() -> io::Result<Pipe> {
    let mut fds = [-1; 2];
    // SAFETY: pipe2 writes two descriptors into the array.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were made by the call above and are known to nobody else.
    Ok(unsafe { Pipe { read: own(fds[0]), write: own(fds[1]) } })
}

/// Asks for a larger pipe buffer. Users without privilege have a quota: being refused is no error.
/// Returns the size that the pipe has then.
pub fn grow(pipe: BorrowedFd<'_>, bytes: u32) -> u32 {
    let fd = pipe.as_raw_fd();
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: fcntl with an integer argument on a descriptor that the borrow keeps open.
    let set = unsafe { libc::fcntl(fd, libc::F_SETPIPE_SZ, bytes) };
    // SAFETY: as above, without an argument.
    let size = if set > 0 { set } else { unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) } };
    u32::try_from(size).unwrap_or(0)
}

/// A connected pair of Unix stream sockets.
pub fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: socketpair writes two descriptors into the array.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) })?;
    // SAFETY: both were made by the call above and are known to nobody else.
    Ok(unsafe { (own(fds[0]), own(fds[1])) })
}

/// Makes a descriptor non-blocking, or blocking again. Both ends of a pipe have a flag of their own.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: fcntl without an argument on a descriptor that the borrow keeps open.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: fcntl with an integer argument on the same descriptor.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted) })?;
    }
    Ok(())
}

/// Closes every descriptor above standard error: a program calls this first, before it has opened any, so that it does not
/// keep open what whoever started it has forgotten to close.
pub fn close_inherited() {
    // SAFETY: the system call takes integers. Nothing in this process knows of these descriptors: it has just begun.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } == 0 {
        return;
    }
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: as above; the listing's own descriptor is closed already, which is an error without consequence.
        unsafe { libc::close(fd) };
    }
}

/// A copy of a descriptor with a number of at least `floor`.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, floor: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with an integer argument on a descriptor that the borrow keeps open.
    let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor) })?;
    // SAFETY: the copy was made by the call above and is known to nobody else.
    Ok(unsafe { own(copy) })
}

/// A non-blocking event counter: one thread rings, another waits for it with [`crate::poll`].
#[derive(Debug)]
pub struct Bell {
    fd: OwnedFd,
}

impl Bell {
    /// A bell that has not rung.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: made by the call above and known to nobody else.
        Ok(Self { fd: unsafe { own(fd) } })
    }

    /// Rings it; ringing twice before it is heard is ringing once.
    pub fn ring(&self) {
        ring_raw(self.fd.as_raw_fd());
    }

    /// Silences it; says whether it had rung.
    pub fn hear(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: read writes at most the eight bytes of `count`, which outlives the call.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        n == size_of::<u64>().cast_signed() && count > 0
    }
}

impl std::os::fd::AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Rings the bell with this number. Async-signal-safe; the only possible failure is a full counter, which has rung.
pub(crate) fn ring_raw(fd: libc::c_int) {
    let one = 1u64;
    // SAFETY: write reads the eight bytes of `one`, which outlives the call.
    unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    fn closes_on_exec(fd: BorrowedFd<'_>) -> bool {
        // SAFETY: fcntl without an argument on an open descriptor.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
    }

    #[test]
    fn pipes_carry_bytes_and_close_on_exec() {
        let pipe = pipe().unwrap();
        assert!(closes_on_exec(pipe.read.as_fd()) && closes_on_exec(pipe.write.as_fd()));
        set_nonblocking(pipe.read.as_fd(), true).unwrap();
        let (mut reader, mut writer) = (File::from(pipe.read), File::from(pipe.write));
        assert_eq!(reader.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::WouldBlock);
        writer.write_all(b"abc").unwrap();
        drop(writer);
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abc");
    }

    #[test]
    fn a_pipe_grows_or_keeps_its_size() {
        let pipe = pipe().unwrap();
        let before = grow(pipe.write.as_fd(), 0);
        assert!(grow(pipe.write.as_fd(), 1 << 20) >= before);
        // Beyond every system's limit: refused, the size stays.
        let kept = grow(pipe.write.as_fd(), u32::MAX);
        assert!(kept >= before);
    }

    #[test]
    fn a_bell_rings_once_for_many() {
        let bell = Bell::new().unwrap();
        assert!(!bell.hear());
        bell.ring();
        bell.ring();
        assert!(bell.hear());
        assert!(!bell.hear());
    }

    #[test]
    fn copies_lie_above_the_floor() {
        let (a, _b) = socketpair().unwrap();
        let copy = duplicate_above(a.as_fd(), 100).unwrap();
        assert!(copy.as_raw_fd() >= 100 && closes_on_exec(copy.as_fd()));
    }
}
