//! A start that the kernel keeps waiting. A lease on the program's file makes one: whoever executes the file waits until the
//! holder of the lease lets go, or for the system's 45 s.

mod common;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use common::Run;
use muster_sys::children::{self, Owner};
use muster_sys::reap::{reap, reap_adopted};
use muster_sys::signals;
use muster_sys::spawn::{Spawner, kill_starting};
use muster_sys::status::ExitStatus;

/// A generous safety net, never a measurement.
const NET: Duration = Duration::from_secs(30);

/// The program's file, with a lease that keeps everybody from executing it.
fn held_program(path: &std::path::Path) -> File {
    std::fs::write(path, "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = File::open(path).unwrap();
    // SAFETY: ignoring a signal installs no handler. It comes when somebody wants the file, and would end us.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    // SAFETY: this fcntl takes an open descriptor and integers.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    assert_eq!(rc, 0, "a lease on {}: {}", path.display(), std::io::Error::last_os_error());
    file
}

#[test]
fn a_start_that_hangs_locks_nothing_and_can_be_killed_by_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let _lease = held_program(&path);
    let owner = Owner::new();
    let (done, result) = mpsc::channel();
    let program = path.to_str().unwrap().to_owned();
    let thread = std::thread::spawn(move || {
        let mut spawner = Spawner::new(owner).unwrap();
        let null = File::open("/dev/null").unwrap();
        done.send(Run::new(&[&program]).start(&mut spawner, null.as_fd()).unwrap()).unwrap();
        done.send(Run::sh("exit 3").start(&mut spawner, null.as_fd()).unwrap()).unwrap();
        // Its children die with this thread.
        std::thread::park();
    });
    assert_eq!(result.recv_timeout(Duration::from_millis(200)).unwrap_err(), RecvTimeoutError::Timeout);
    // What others do about children goes on meanwhile.
    drop(children::hold());
    reap_adopted().unwrap();
    assert!(!kill_starting(Owner::new()).unwrap(), "it is not theirs");
    let start = Instant::now();
    while !kill_starting(owner).unwrap() {
        assert!(start.elapsed() < NET, "there is never a process");
        std::thread::yield_now();
    }
    let spawned = result.recv_timeout(NET).unwrap();
    assert_eq!(reap(spawned.pid).unwrap().status, ExitStatus::Signaled { signal: signals::KILL, core: false });
    let next = result.recv_timeout(NET).unwrap();
    assert_eq!(reap(next.pid).unwrap().status, ExitStatus::Exited(3), "the thread starts others again");
    thread.thread().unpark();
    thread.join().unwrap();
}
