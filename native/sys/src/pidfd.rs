//! Signals to a process that cannot reach another one which has got its number.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::pipe::own;

/// A descriptor that means this process and no later one; none when there is no such process, or it is over but for its parent's
/// waiting.
pub(crate) fn open(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match libc::c_int::try_from(fd) {
        // SAFETY: made by the call above and known to nobody else.
        Ok(fd @ 0..) => Ok(Some(unsafe { own(fd) })),
        Ok(_) => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => Ok(None),
            e => Err(e),
        },
        Err(_) => Ok(None),
    }
}

/// Sends it a signal. One that has ended meanwhile needs none.
pub(crate) fn send(process: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal takes an open descriptor, integers and an optional siginfo, which is absent.
    let rc = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    match io::Error::last_os_error() {
        _ if rc == 0 => Ok(()),
        e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        e => Err(e),
    }
}
