//! Signal masks, dispositions and names.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crate::pipe::{Bell, check, ring_raw};

/// Signals that can be told apart by name, with their numbers on this machine.
const NAMES: [(i32, &str); 24] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGSTOP, "SIGSTOP"),
    (libc::SIGTSTP, "SIGTSTP"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGWINCH, "SIGWINCH"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGSYS, "SIGSYS"),
];

/// Continue, if stopped.
pub const CONTINUE: i32 = libc::SIGCONT;
/// The hard end.
pub const KILL: i32 = libc::SIGKILL;
/// The stop that cannot be caught.
pub const STOP: i32 = libc::SIGSTOP;
/// The polite end.
pub const TERMINATE: i32 = libc::SIGTERM;
/// The terminal's stop.
pub const TERMINAL_STOP: i32 = libc::SIGTSTP;

/// The name of a signal, as in `SIGTERM`.
pub fn name(signal: i32) -> Option<&'static str> {
    NAMES.into_iter().find(|(n, _)| *n == signal).map(|(_, name)| name)
}

/// The number of the signal of this name.
pub fn number(name: &str) -> Option<i32> {
    NAMES.into_iter().find(|(_, n)| *n == name).map(|(number, _)| number)
}

/// Sends a signal to one process. It being gone already is no error; says whether it was there.
pub fn send(pid: i32, signal: i32) -> io::Result<bool> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    raw_kill(pid, signal)
}

/// Sends a signal to every process of a process group. It being gone already is no error; says whether it was there.
pub fn send_group(group: i32, signal: i32) -> io::Result<bool> {
    // 0 and 1 would mean our own group and everybody.
    if group <= 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    raw_kill(-group, signal)
}

fn raw_kill(target: i32, signal: i32) -> io::Result<bool> {
    // SAFETY: kill takes two integers; it touches no memory of ours.
    match check(unsafe { libc::kill(target, signal) }) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sends a signal to the calling thread: it has been acted upon when this returns. What stops or ends, does so to the process.
pub fn raise(signal: i32) -> io::Result<()> {
    // SAFETY: raise takes an integer; it touches no memory of ours.
    match unsafe { libc::raise(signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn full_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set that it is given; it fails for a null pointer only.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

pub(crate) fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given; it fails for a null pointer only.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Replaces the calling thread's mask and returns the former one. Async-signal-safe.
pub(crate) fn swap_mask(new: &libc::sigset_t) -> libc::sigset_t {
    let mut old = empty_set();
    // SAFETY: both sets are initialised and outlive the call. It cannot fail with SIG_SETMASK.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, new, &mut old) };
    old
}

/// Blocks every signal in the calling thread but those of its own faults and `SIGCHLD`, so that handlers run on the
/// threads that expect them. Threads started from this one inherit it.
pub fn block_for_helper_thread() {
    let mut set = full_set();
    for signal in [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGABRT,
        libc::SIGCHLD,
    ] {
        // SAFETY: the set is initialised and the number is a valid signal.
        unsafe { libc::sigdelset(&mut set, signal) };
    }
    swap_mask(&set);
}

/// Lives on when the thread that started this process ends; whoever calls this notices that end in another way.
pub fn outlive_parent() -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, none) }).map(drop)
}

/// Makes writes to a closed pipe an error instead of the end of the process.
pub fn ignore_broken_pipe() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

static CHILD_BELL: OnceLock<io::Result<Bell>> = OnceLock::new();
static CHILD_BELL_FD: AtomicI32 = AtomicI32::new(-1);
static FORMER_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// A descriptor that becomes readable, edge by edge, when a child of this process ends. Never read it: it is shared by
/// all who wait, each with an edge-triggered [`crate::poll::Poller`] of its own.
pub fn child_bell() -> io::Result<BorrowedFd<'static>> {
    match CHILD_BELL.get_or_init(install_child_handler) {
        Ok(bell) => Ok(bell.as_fd()),
        Err(e) => Err(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)),
    }
}

extern "C" fn on_child(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the location of errno is valid for the thread that runs this; it is put back as it was.
    let errno = unsafe { *libc::__errno_location() };
    ring_raw(CHILD_BELL_FD.load(Ordering::Relaxed));
    let former = FORMER_HANDLER.load(Ordering::Relaxed);
    if former != libc::SIG_DFL && former != libc::SIG_IGN {
        // SAFETY: only a handler that was installed with SA_SIGINFO is stored, and that has this signature.
        let former: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(former) };
        former(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn install_child_handler() -> io::Result<Bell> {
    let bell = Bell::new()?;
    CHILD_BELL_FD.store(bell.as_fd().as_raw_fd(), Ordering::Relaxed);
    // SAFETY: all-zero is a valid sigaction: no flags, no handler, empty mask.
    let mut former: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: sigaction with no new action only writes the present one to `former`.
    check(unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), &mut former) })?;
    if former.sa_flags & libc::SA_SIGINFO != 0 {
        FORMER_HANDLER.store(former.sa_sigaction, Ordering::Relaxed);
    }
    let mut action = former;
    action.sa_sigaction = on_child as *const () as usize;
    action.sa_mask = empty_set();
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_NOCLDSTOP | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, is async-signal-safe (an atomic load and a write),
    // and lives as long as the program; the bell that it rings is never dropped, being kept in a static.
    check(unsafe { libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()) })?;
    Ok(bell)
}

/// Whether a signal is set to be ignored, by us or by whoever started us.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zero is a valid value of this plain C struct.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with a null new action nothing is changed; the old one is written to a live local variable.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
    known && action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(name(9), Some("SIGKILL"));
        assert_eq!(number("SIGTERM"), Some(15));
        assert_eq!((name(0), number("TERM")), (None, None));
    }

    #[test]
    fn dangerous_targets_are_refused() {
        for target in [0, -1, -5] {
            assert!(send(target, 0).is_err());
            assert!(send_group(target, 0).is_err());
        }
        assert!(send_group(1, 0).is_err());
    }

    #[test]
    fn a_process_that_is_gone_is_no_error() {
        assert!(send(std::process::id().cast_signed(), 0).unwrap());
        assert!(!send(i32::MAX, 0).unwrap());
    }
}
