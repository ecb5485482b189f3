//! Waiting for many descriptors at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::pipe::{check, own};

const EVENTS_PER_WAIT: usize = 64;

/// When a watched descriptor is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// As long as it is readable.
    Level,
    /// Once each time that it becomes readable.
    Edge,
}

/// A set of descriptors to wait for, each with a token of the caller's choice.
#[derive(Debug)]
pub struct Poller {
    fd: OwnedFd,
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes an integer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: made by the call above and known to nobody else.
        Ok(Self { fd: unsafe { own(fd) } })
    }

    /// Watches a descriptor for reading until it is removed or closed.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, trigger: Trigger) -> io::Result<()> {
        let edge = if trigger == Trigger::Edge { libc::EPOLLET } else { 0 };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | edge).cast_unsigned(), u64: token };
        // SAFETY: the kernel reads `event`, which outlives the call; both descriptors are open.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event) })?;
        Ok(())
    }

    /// Watches a descriptor no longer.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: EPOLL_CTL_DEL ignores the event pointer; both descriptors are open.
        let rc =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut()) };
        check(rc).map(drop)
    }

    /// Waits until something is readable or the timeout is over, for ever without one; fills `ready` with the tokens.
    /// A signal that arrives is no reason to return.
    pub fn wait(&self, ready: &mut Vec<u64>, timeout_ms: Option<u64>) -> io::Result<()> {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT];
        let timeout = timeout_ms.map_or(-1, |ms| libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX));
        // SAFETY: the kernel writes at most EVENTS_PER_WAIT events into the array.
        let n = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), EVENTS_PER_WAIT as libc::c_int, timeout)
        };
        match check(n) {
            Ok(n) => ready.extend(events.iter().take(n.unsigned_abs() as usize).map(|e| e.u64)),
            // The caller computes its next timeout anew.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::pipe::Bell;

    #[test]
    fn level_repeats_and_edge_does_not() {
        let (poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        let (level, edge) = (Bell::new().unwrap(), Bell::new().unwrap());
        poller.add(level.as_fd(), 1, Trigger::Level).unwrap();
        poller.add(edge.as_fd(), 2, Trigger::Edge).unwrap();
        poller.wait(&mut ready, Some(0)).unwrap();
        assert_eq!(ready, []);
        level.ring();
        edge.ring();
        poller.wait(&mut ready, None).unwrap();
        ready.sort_unstable();
        assert_eq!(ready, [1, 2]);
        poller.wait(&mut ready, Some(0)).unwrap();
        assert_eq!(ready, [1]);
        edge.ring();
        level.hear();
        poller.wait(&mut ready, None).unwrap();
        assert_eq!(ready, [2]);
        poller.remove(edge.as_fd()).unwrap();
        edge.ring();
        poller.wait(&mut ready, Some(0)).unwrap();
        assert_eq!(ready, []);
    }
}
