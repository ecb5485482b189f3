//! Starting processes.
//!
//! The new process shares our memory until it executes its program, and we stand still meanwhile (`CLONE_VM` with
//! `CLONE_VFORK`, as `posix_spawn` does): no page table is copied, so a start costs the same however large we are, and a
//! failure is reported by writing it into our memory. Everything is therefore prepared before, and what runs in the child
//! ([`child`]) makes system calls only: it allocates nothing, takes no lock and runs with all signals blocked.

mod child;
mod prepare;
mod stack;

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use crate::affinity::CoreMask;
use crate::children::{self, Owner};
use crate::limits::{self, Resource, ResourceLimit};
use crate::pipe::{check, duplicate_above, own};
use crate::signals;
use crate::stage::Stage;
use child::{Plan, Redirect};
use prepare::Image;
use stack::Stack;

/// What to start. The process gets a session and process group of its own, dies with the thread that started it, gains no
/// new privileges, has no signal blocked or ignored, and has no descriptors but those named here.
#[derive(Debug)]
pub struct SpawnOrder<'a> {
    /// Program and arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub argv: &'a [OsString],
    /// The whole environment.
    pub env: &'a [(&'a OsStr, &'a OsStr)],
    /// Working directory; ours when absent. A program path with a slash is relative to it.
    pub cwd: Option<&'a Path>,
    /// Standard input.
    pub stdin: BorrowedFd<'a>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
    /// One more descriptor and the number, above 2, at which the process finds it.
    pub extra: Option<(BorrowedFd<'a>, i32)>,
    /// Cores that it may run on; those of the calling thread when absent.
    pub cpus: Option<&'a [u32]>,
    /// Resource limits; the others are ours, but for open files, where it gets what we had before
    /// [`limits::raise_open_files`].
    pub limits: &'a [ResourceLimit],
    /// File mode creation mask; ours when absent.
    pub umask: Option<u32>,
    /// Standard input is a terminal and becomes the one that the process's session is controlled from.
    pub terminal: bool,
}

/// A process that runs its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its id, taken until [`crate::reap`] has reaped it.
    pub pid: i32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
}

/// Why a process did not get to run its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {}", io::Error::from_raw_os_error(*.errno))]
pub struct SpawnError {
    /// The step that failed.
    pub stage: Stage,
    /// The system's reason.
    pub errno: i32,
}

impl SpawnError {
    fn new(stage: Stage, e: &io::Error) -> Self {
        Self { stage, errno: e.raw_os_error().unwrap_or(libc::EINVAL) }
    }

    fn prepare(e: &io::Error) -> Self {
        Self::new(Stage::Prepare, e)
    }
}

/// Starts processes on behalf of one owner, from one long-lived thread: they die when that thread ends.
#[derive(Debug)]
pub struct Spawner {
    stack: Stack,
    owner: Owner,
    has_close_range: bool,
    oom_score_adj: Option<CString>,
}

/// Tenths of a percent of all memory by which a child is taken for larger than it is when the kernel looks for a process to kill: a
/// parent that is smaller than that outlives its children and can say what has befallen them. An agent has a few MiB; on a node
/// that runs out, where all memory is the node's, much more would draw the kill from whoever has used it up to small ranks.
/// Raising one's own needs no rights.
const OOM_SCORE_MORE: i32 = 10;
const OOM_SCORE_MAX: i32 = 1000;

impl Spawner {
    /// A spawner whose children are claimed for `owner`.
    pub fn new(owner: Owner) -> io::Result<Self> {
        Ok(Self {
            stack: Stack::new()?,
            owner,
            has_close_range: child::close_range_works(),
            oom_score_adj: std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|own| oom_score(&own)),
        })
    }

    /// Starts a process. It returns when the program runs or has failed to, so it waits for the file system that the
    /// program lies on.
    pub fn spawn(&mut self, order: &SpawnOrder<'_>) -> Result<Spawned, SpawnError> {
        let image = Image::new(order).map_err(|e| SpawnError::prepare(&e))?;
        let descriptors = Descriptors::new(order).map_err(|e| SpawnError::prepare(&e))?;
        let cpus = match order.cpus {
            Some(cores) => {
                Some(CoreMask::new(cores).ok_or(SpawnError { stage: Stage::Affinity, errno: libc::EINVAL })?)
            }
            None => None,
        };
        let limits = effective_limits(order.limits);
        let oom_score_adj = self.oom_score_adj.clone();
        let mut plan = Plan {
            parent: std::process::id().cast_signed(),
            last_signal: libc::SIGRTMAX(),
            unblocked: signals::empty_set(),
            cpus: cpus.as_ref(),
            umask: order.umask,
            oom_score_adj: oom_score_adj.as_deref(),
            cwd: image.cwd.as_deref(),
            redirects: &descriptors.redirects,
            extra: order.extra.map(|(_, number)| number),
            terminal: order.terminal,
            close_up_to: (!self.has_close_range).then(child::highest_descriptor),
            limits: &limits,
            programs: &image.programs,
            argv: image.argv.as_ptr(),
            shell_argv: image.shell_argv.clone(),
            envp: image.envp.as_ptr(),
            failed_stage: AtomicU8::new(0),
            failed_errno: AtomicI32::new(0),
        };
        let spawned = self.start(&mut plan)?;
        let Some(stage) = Stage::from_code(plan.failed_stage.load(Ordering::Relaxed)) else { return Ok(spawned) };
        let errno = plan.failed_errno.load(Ordering::Relaxed);
        // It has said why, and is ending; nobody else knows of it.
        let _ = crate::reap::reap(spawned.pid);
        let missing_inside = stage == Stage::Exec && errno == libc::ENOENT && image.program_exists(order.cwd);
        Err(SpawnError { stage: if missing_inside { Stage::Interpreter } else { stage }, errno })
    }

    /// Makes the process and waits until it has left our memory.
    fn start(&mut self, plan: &mut Plan<'_>) -> Result<Spawned, SpawnError> {
        let mut pidfd: libc::c_int = -1;
        // The last of them has the kernel write the new process's id to our memory before that process does anything.
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_CHILD_SETTID | libc::SIGCHLD;
        // Nothing is locked during the start: it waits for the file system that the program lies on.
        let start = children::hold().begin(self.owner);
        let no_tls = std::ptr::null_mut::<libc::c_void>();
        let mask = signals::swap_mask(&signals::full_set());
        // SAFETY: `child::run` gets a pointer to a plan that outlives the child's use of our memory, because CLONE_VFORK
        // keeps this thread here until the child has executed a program or exited. The stack is ours alone (&mut self) and
        // large enough; the child makes async-signal-safe calls only, never returns into or unwinds our frames, and no
        // signal handler can run in it: all signals are blocked here and handlers are reset there before they are not. The
        // kernel writes the process's id to an atomic that lives as long as `start`.
        let pid = unsafe {
            let plan = (&raw mut *plan).cast();
            libc::clone(child::run, self.stack.top(), flags, plan, &raw mut pidfd, no_tls, start.pid_cell())
        };
        let made = check(pid);
        signals::swap_mask(&mask);
        children::hold().end(&start, made.as_ref().ok().copied());
        let pid = made.map_err(|e| SpawnError::new(Stage::Clone, &e))?;
        // SAFETY: CLONE_PIDFD has stored a fresh descriptor there.
        Ok(Spawned { pid, pidfd: unsafe { own(pidfd) } })
    }
}

/// Kills what `owner` is starting and what does not run its program yet, from another thread than the one that starts it:
/// a start that waits for a file system may never come back by itself. Says whether there was anything to kill. The start
/// then returns a process that was killed.
pub fn kill_starting(owner: Owner) -> io::Result<bool> {
    let hold = children::hold();
    let starting = hold.starting(owner);
    for pid in &starting {
        signals::send(*pid, signals::KILL)?;
    }
    Ok(!starting.is_empty())
}

/// What is written for a child, given what is written for us; none where more is not possible.
fn oom_score(own: &str) -> Option<CString> {
    let own: i32 = own.trim().parse().ok()?;
    if own >= OOM_SCORE_MAX {
        return None;
    }
    CString::new(own.saturating_add(OOM_SCORE_MORE).min(OOM_SCORE_MAX).to_string()).ok()
}

/// The limits to set: those ordered, and what we have changed for ourselves put back.
fn effective_limits(ordered: &[ResourceLimit]) -> Vec<ResourceLimit> {
    let mut all = ordered.to_vec();
    if let Some(original) = limits::original_open_files()
        && !ordered.iter().any(|l| l.resource == Resource::OpenFiles)
    {
        all.push(original);
    }
    all
}

/// The descriptors to put in place, each with a source that no target overwrites.
struct Descriptors {
    redirects: Vec<Redirect>,
    _copies: Vec<OwnedFd>,
}

impl Descriptors {
    fn new(order: &SpawnOrder<'_>) -> io::Result<Self> {
        let extra_number = order.extra.map_or(2, |(_, number)| number);
        if order.extra.is_some() && extra_number <= 2 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let standard = [(order.stdin, 0), (order.stdout, 1), (order.stderr, 2)];
        let mut this = Self { redirects: Vec::with_capacity(4), _copies: Vec::new() };
        for (fd, target) in standard.into_iter().chain(order.extra) {
            let mut source = fd.as_raw_fd();
            if source <= extra_number {
                let copy = duplicate_above(fd, extra_number + 1)?;
                source = copy.as_raw_fd();
                this._copies.push(copy);
            }
            this.redirects.push(Redirect { source, target });
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;
    use crate::pipe::pipe;

    fn inherited(has_close_range: bool) -> String {
        let mut spawner = Spawner::new(Owner::new()).unwrap();
        spawner.has_close_range &= has_close_range;
        let (out, strays) = (pipe().unwrap(), pipe().unwrap());
        // SAFETY: dup takes an integer; unlike its original the copy would survive an exec.
        let _survivor = unsafe { own(check(libc::dup(strays.read.as_raw_fd())).unwrap()) };
        let null = File::open("/dev/null").unwrap();
        let argv = ["/bin/sh", "-c", "ls /proc/$$/fd"].map(OsString::from);
        let order = SpawnOrder {
            argv: &argv,
            env: &[],
            cwd: None,
            stdin: null.as_fd(),
            stdout: out.write.as_fd(),
            stderr: null.as_fd(),
            extra: Some((null.as_fd(), 5)),
            cpus: None,
            limits: &[],
            umask: None,
            terminal: false,
        };
        let spawned = spawner.spawn(&order).unwrap();
        drop(out.write);
        let mut text = String::new();
        File::from(out.read).read_to_string(&mut text).unwrap();
        crate::reap::reap(spawned.pid).unwrap();
        text
    }

    #[test]
    fn children_come_before_their_parent_when_memory_runs_out() {
        let text = |own| oom_score(own).map(|score| score.into_string().unwrap());
        assert_eq!(text("0\n").as_deref(), Some("10"));
        // As the kubelet writes them: a container whose memory is its own, one that shares, one that asked for none.
        assert_eq!(text("-997\n").as_deref(), Some("-987"));
        assert_eq!(text("995\n").as_deref(), Some("1000"));
        assert_eq!((text("1000\n"), text("")), (None, None));
    }

    #[test]
    fn descriptors_are_closed_with_and_without_the_call_for_it() {
        assert_eq!(inherited(true), "0\n1\n2\n5\n");
        assert_eq!(inherited(false), "0\n1\n2\n5\n");
    }
}
