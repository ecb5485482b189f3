//! What a new process does until its program runs. It lives in its parent's memory: system calls only.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use crate::affinity::CoreMask;
use crate::limits::ResourceLimit;
use crate::signals;
use crate::stage::Stage;

/// A descriptor to put at a number. No source is the target of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Redirect {
    pub(super) source: i32,
    pub(super) target: i32,
}

/// Everything that the child reads, and where it says what failed.
pub(super) struct Plan<'a> {
    pub(super) parent: i32,
    pub(super) last_signal: i32,
    pub(super) unblocked: libc::sigset_t,
    pub(super) cpus: Option<&'a CoreMask>,
    pub(super) umask: Option<u32>,
    /// What the kernel adds when it looks for a process to kill for want of memory.
    pub(super) oom_score_adj: Option<&'a CStr>,
    pub(super) cwd: Option<&'a CStr>,
    pub(super) redirects: &'a [Redirect],
    pub(super) extra: Option<i32>,
    pub(super) terminal: bool,
    /// Without `close_range`: the highest descriptor to close.
    pub(super) close_up_to: Option<i32>,
    pub(super) limits: &'a [ResourceLimit],
    pub(super) programs: &'a [CString],
    pub(super) argv: *const *const libc::c_char,
    pub(super) shell_argv: Vec<*const libc::c_char>,
    pub(super) envp: *const *const libc::c_char,
    pub(super) failed_stage: AtomicU8,
    pub(super) failed_errno: AtomicI32,
}

/// Whether the kernel (and a filter of system calls, if any) lets us close descriptors by range.
pub(super) fn close_range_works() -> bool {
    close_range(u32::MAX, u32::MAX)
}

/// The highest descriptor that is open now. Later ones of other threads close on exec by themselves.
pub(super) fn highest_descriptor() -> i32 {
    let open = std::fs::read_dir("/proc/self/fd").ok().into_iter().flatten().flatten();
    open.filter_map(|e| e.file_name().to_str()?.parse().ok()).max().unwrap_or(1024)
}

fn close_range(first: u32, last: u32) -> bool {
    // SAFETY: the system call takes three integers. In the child the descriptors closed are its own copies; the probe
    // above names a range in which there can be none.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}

fn errno() -> i32 {
    // SAFETY: the location of errno is valid; the thread whose it is stands still while the child uses it.
    unsafe { *libc::__errno_location() }
}

fn stage(stage: Stage, rc: libc::c_int) -> Result<(), (Stage, i32)> {
    if rc < 0 { Err((stage, errno())) } else { Ok(()) }
}

/// The child's entry. Never returns.
pub(super) extern "C" fn run(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent passes a pointer to its plan and stands still, so that this is the only reference in use.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    let (stage, errno) = match prepare(plan) {
        Ok(()) => (Stage::Exec, execute(plan)),
        Err(failure) => failure,
    };
    plan.failed_errno.store(errno, Ordering::Relaxed);
    plan.failed_stage.store(stage.code(), Ordering::Relaxed);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

fn prepare(plan: &Plan<'_>) -> Result<(), (Stage, i32)> {
    reset_handlers(plan.last_signal);
    // SAFETY: these calls take integers only.
    unsafe {
        stage(Stage::Session, libc::setsid())?;
        stage(Stage::ParentDeath, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong))?;
        if libc::getppid() != plan.parent {
            // It died before we asked to die with it.
            return Err((Stage::ParentDeath, libc::ESRCH));
        }
        let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
        stage(Stage::NoNewPrivileges, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused))?;
        if let Some(mask) = plan.umask {
            libc::umask(mask as libc::mode_t);
        }
    }
    if let Some(score) = plan.oom_score_adj {
        come_before_parent(score);
    }
    if let Some(cpus) = plan.cpus {
        cpus.apply().map_err(|_| (Stage::Affinity, errno()))?;
    }
    if let Some(cwd) = plan.cwd {
        // SAFETY: the path ends with a zero byte.
        stage(Stage::Cwd, unsafe { libc::chdir(cwd.as_ptr()) })?;
    }
    for redirect in plan.redirects {
        // SAFETY: takes integers; the descriptors are the child's own copies. The new one stays open on exec.
        stage(Stage::Descriptors, unsafe { libc::dup2(redirect.source, redirect.target) })?;
    }
    if plan.terminal {
        // SAFETY: takes integers; the descriptor is the new standard input.
        stage(Stage::Session, unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
    }
    close_others(plan);
    // After the descriptors: a low limit on open files would refuse the high number.
    for limit in plan.limits {
        let raw = libc::rlimit { rlim_cur: limit.soft as libc::rlim_t, rlim_max: limit.hard as libc::rlim_t };
        // SAFETY: reads `raw`, which outlives the call; no old limit is asked for.
        stage(Stage::Rlimit, unsafe { libc::prlimit(0, limit.resource.raw() as _, &raw, std::ptr::null_mut()) })?;
    }
    signals::swap_mask(&plan.unblocked);
    Ok(())
}

/// When memory runs out, the kernel shall kill this process rather than its parent. Where `/proc` is missing or not ours, sizes decide.
fn come_before_parent(score: &CStr) {
    // SAFETY: path and text end with zero bytes and outlive the calls; the descriptor is our own.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, score.as_ptr().cast(), score.to_bytes().len());
            libc::close(fd);
        }
    }
}

/// Size of the kernel's signal set, which the C library's own is larger than.
const KERNEL_SIGSET_BYTES: usize = 8;

/// Puts every signal back to its default, so that no handler of the parent's runs here and nothing ignored stays so.
fn reset_handlers(last: i32) {
    // The kernel's own action structure, larger than on any architecture; all-zero means the default. The C library's
    // function would leave out the two signals that it keeps for itself.
    let default = [0u64; 8];
    for signal in 1..=last {
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: reads `default`, which outlives the call. Dispositions are the child's own (no CLONE_SIGHAND). The
        // signals for which this is refused cannot be caught or ignored anyway.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, KERNEL_SIGSET_BYTES) };
    }
}

fn close_others(plan: &Plan<'_>) {
    let Some(last) = plan.close_up_to else {
        match plan.extra {
            Some(extra) => {
                if extra > 3 {
                    close_range(3, extra.unsigned_abs() - 1);
                }
                close_range(extra.unsigned_abs() + 1, u32::MAX);
            }
            None => {
                close_range(3, u32::MAX);
            }
        }
        return;
    };
    for fd in 3..=last {
        if Some(fd) != plan.extra {
            // SAFETY: closes the child's own copy; a number that is not open is no harm.
            unsafe { libc::close(fd) };
        }
    }
}

/// Tries each path as `execvp` does. Returns, with the reason, only if none could be executed.
fn execute(plan: &mut Plan<'_>) -> i32 {
    let mut reason = libc::ENOENT;
    for program in plan.programs {
        // SAFETY: path, arguments and environment end with zero bytes and null pointers and outlive the call.
        unsafe { libc::execve(program.as_ptr(), plan.argv, plan.envp) };
        match errno() {
            libc::ENOEXEC => return run_by_shell(program, &mut plan.shell_argv, plan.envp),
            // Remembered, but a later directory may have one that can be executed.
            libc::EACCES => reason = libc::EACCES,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            other => return other,
        }
    }
    reason
}

/// A file that the kernel knows no format for is a script of the shell's, unless it is a program for another machine.
fn run_by_shell(program: &CStr, shell_argv: &mut [*const libc::c_char], envp: *const *const libc::c_char) -> i32 {
    if is_elf(program) {
        return libc::ENOEXEC;
    }
    if let Some(slot) = shell_argv.get_mut(1) {
        *slot = program.as_ptr();
    }
    if let Some(shell) = shell_argv.first() {
        // SAFETY: as in `execute`; the array has the shell first, the program's path second and a null pointer last.
        unsafe { libc::execve(*shell, shell_argv.as_ptr(), envp) };
    }
    errno()
}

fn is_elf(program: &CStr) -> bool {
    let mut magic = [0u8; 4];
    // SAFETY: the path ends with a zero byte; read writes at most four bytes into `magic`; the descriptor is our own.
    unsafe {
        let fd = libc::open(program.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return false;
        }
        let n = libc::read(fd, magic.as_mut_ptr().cast(), magic.len());
        libc::close(fd);
        n == 4 && magic == *b"\x7fELF"
    }
}
