//! Reaping: of the children that were started here, and of orphans that fell to this process.

use std::io;
use std::mem::MaybeUninit;

use crate::children;
use crate::pipe::check;
use crate::status::ExitStatus;

/// A child that has ended and is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// How it ended.
    pub status: ExitStatus,
    /// Largest resident set of it and of the children it waited for.
    pub maxrss_kib: u64,
}

fn wait4(pid: i32, options: libc::c_int) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes to `status` and `usage`, which outlive the call.
    let got = check(unsafe { libc::wait4(pid, &mut status, options, usage.as_mut_ptr()) })?;
    if got == 0 {
        return Ok(None);
    }
    // SAFETY: all-zero is a valid rusage, and the kernel has overwritten it.
    let usage = unsafe { usage.assume_init() };
    let maxrss_kib = u64::try_from(usage.ru_maxrss).unwrap_or(0);
    Ok(ExitStatus::from_wait(status).map(|status| Reaped { status, maxrss_kib }))
}

/// Reaps this child if it has ended, and disclaims it. Its process id is free for others afterwards.
pub fn try_reap(pid: i32) -> io::Result<Option<Reaped>> {
    let mut hold = children::hold();
    let reaped = wait4(pid, libc::WNOHANG)?;
    if reaped.is_some() {
        hold.disclaim(pid);
    }
    Ok(reaped)
}

/// Waits for this child to end, reaps and disclaims it.
pub fn reap(pid: i32) -> io::Result<Reaped> {
    loop {
        // Waited for without the lock and without reaping, so that the id stays taken until the claim is gone.
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let id = libc::id_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: the kernel writes to `info`, which outlives the call.
        match check(unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) }) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        if let Some(reaped) = try_reap(pid)? {
            return Ok(reaped);
        }
    }
}

/// What waits among the children of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peek {
    NoChildren,
    AllAlive,
    Ended(i32),
}

fn peek() -> io::Result<Peek> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes to `info`, which outlives the call.
    match check(unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) }) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(Peek::NoChildren),
        Err(e) => return Err(e),
    }
    // SAFETY: waitid succeeded, so `info` is filled, or still all zero when no child has ended; si_pid is valid in both.
    let pid = unsafe { info.assume_init().si_pid() };
    Ok(if pid == 0 { Peek::AllAlive } else { Peek::Ended(pid) })
}

/// Whether this process has any child at all, living or ended.
pub fn has_children() -> io::Result<bool> {
    Ok(peek()? != Peek::NoChildren)
}

/// Reaps the ended children that nobody has claimed: orphans which fell to this process. Returns how many.
///
/// An ended child that is claimed can hide others behind it, so whoever reaps a claimed child calls this afterwards.
pub fn reap_adopted() -> io::Result<usize> {
    let hold = children::hold();
    let mut reaped = 0;
    while let Peek::Ended(pid) = peek()? {
        if hold.is_claimed(pid) {
            break;
        }
        match wait4(pid, libc::WNOHANG) {
            Ok(_) => reaped += 1,
            // Somebody who did not claim it waited for it.
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(reaped)
}
