//! Signals that are counted as they arrive, so that two of a kind are two even if nobody has looked in between.
//!
//! A handler adds one and writes into a pipe. The kernel still merges signals of a kind that are pending while they are blocked, which
//! no thread that takes them does here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::pipe::{Pipe, check, pipe, ring_raw, set_nonblocking};
use crate::signals::empty_set;

/// Numbers of standard and real-time signals are below this.
const SIGNALS: usize = 65;

static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
static BELL: OnceLock<io::Result<Pipe>> = OnceLock::new();
static BELL_FD: AtomicI32 = AtomicI32::new(-1);

/// Counts a signal from now on, instead of what it would do otherwise.
pub fn count(signal: i32) -> io::Result<()> {
    the_bell()?;
    // SAFETY: all-zero is a valid sigaction: no flags, no handler, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_mask = empty_set();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_NOCLDSTOP | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, is async-signal-safe (atomics and a write), and lives as
    // long as the program; the pipe that it writes to is never closed, being kept in a static.
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    Ok(())
}

/// How often a counted signal has come since the last look.
pub fn take(signal: i32) -> u32 {
    usize::try_from(signal).ok().and_then(|at| COUNTS.get(at)).map_or(0, |count| count.swap(0, Ordering::AcqRel))
}

/// The reading end of a pipe into which something is written when a counted signal comes, after it was counted. For one reader,
/// who first empties it and then looks at the counts.
pub fn bell() -> io::Result<OwnedFd> {
    the_bell()?.read.try_clone()
}

fn the_bell() -> io::Result<&'static Pipe> {
    let bell = BELL.get_or_init(|| {
        let bell = pipe()?;
        // A full pipe has rung; the handler must not wait for room.
        set_nonblocking(bell.write.as_fd(), true)?;
        BELL_FD.store(bell.write.as_raw_fd(), Ordering::Release);
        Ok(bell)
    });
    match bell {
        Ok(bell) => Ok(bell),
        Err(e) => Err(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)),
    }
}

extern "C" fn on_signal(signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the location of errno is valid for the thread that runs this; it is put back as it was.
    let errno = unsafe { *libc::__errno_location() };
    if let Some(count) = usize::try_from(signal).ok().and_then(|at| COUNTS.get(at)) {
        count.fetch_add(1, Ordering::AcqRel);
    }
    ring_raw(BELL_FD.load(Ordering::Acquire));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{Poller, Trigger};
    use crate::signals::raise;

    #[test]
    fn two_of_a_kind_are_two_and_ring() {
        let (poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        count(libc::SIGWINCH).unwrap();
        let bell = bell().unwrap();
        poller.add(bell.as_fd(), 1, Trigger::Edge).unwrap();
        assert_eq!(take(libc::SIGWINCH), 0);
        for _ in 0..2 {
            raise(libc::SIGWINCH).unwrap();
            raise(libc::SIGWINCH).unwrap();
            poller.wait(&mut ready, Some(0)).unwrap();
            assert_eq!((ready.as_slice(), take(libc::SIGWINCH)), ([1].as_slice(), 2), "each edge is heard");
            poller.wait(&mut ready, Some(0)).unwrap();
            assert_eq!((ready.as_slice(), take(libc::SIGWINCH)), ([].as_slice(), 0));
        }
        assert_eq!((take(-1), take(1_000)), (0, 0));
    }

    #[test]
    fn what_cannot_be_caught_is_refused() {
        assert!(count(libc::SIGKILL).is_err() && count(1_000).is_err());
    }
}
