//! Terminals and who may use them.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether this is a terminal in whose background this process runs: reading it would stop the process.
pub fn in_background_of(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: `tcgetpgrp` takes a descriptor, which the borrow keeps open, and touches no memory of ours.
    let foreground = unsafe { libc::tcgetpgrp(fd.as_raw_fd()) };
    // SAFETY: `getpgrp` has no arguments and cannot fail.
    foreground >= 0 && foreground != unsafe { libc::getpgrp() }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_no_terminal_has_no_background() {
        let (one, _other) = crate::pipe::socketpair().expect("a socket pair");
        assert!(!in_background_of(one.as_fd()));
    }
}
