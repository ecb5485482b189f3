//! Finding and ending what hides from its process group. One process-wide matter, so one test at a time.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::Run;
use muster_sys::children::Owner;
use muster_sys::pipe::pipe;
use muster_sys::reap::{reap, reap_adopted, try_reap};
use muster_sys::signals;
use muster_sys::spawn::Spawner;
use muster_sys::status::ExitStatus;
use muster_sys::subreaper::{Strangers, become_subreaper, descendants_of, kill_round, kill_tree, survivors};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Repeats until it holds; a generous safety net only.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn gone(pid: i32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Reads one process id a line.
fn pids(read: impl Read, count: usize) -> Vec<i32> {
    BufReader::new(read).lines().take(count).map(|l| l.unwrap().trim().parse().unwrap()).collect()
}

#[test]
fn a_daemon_of_a_dead_rank_is_found_and_ended_and_others_are_spared() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    become_subreaper().unwrap();
    let (mine, other, none) = (Owner::new(), Owner::new(), Strangers::default());
    let (mut spawner, mut helpers) = (Spawner::new(mine).unwrap(), Spawner::new(other).unwrap());
    let helper_out = pipe().unwrap();
    let helper = Run::sh("sleep 1000 & echo $!; wait").start(&mut helpers, helper_out.write.as_fd()).unwrap();
    let helper_child = pids(File::from(helper_out.read), 1)[0];

    let out = pipe().unwrap();
    // Two forks and a session of its own: neither parent nor group leads to it.
    let script = "(setsid sh -c 'echo $$; exec sleep 1000' &) ; sleep 0; echo done >/dev/null";
    let rank = Run::sh(script).start(&mut spawner, out.write.as_fd()).unwrap();
    drop(out.write);
    let daemon = pids(File::from(out.read), 1)[0];
    assert_eq!(reap(rank.pid).unwrap().status, ExitStatus::Exited(0));
    assert!(!gone(daemon));
    until("the daemon falls to us", || descendants_of(std::process::id().cast_signed()).unwrap().contains(&daemon));
    assert_eq!(survivors(mine, &none).iter().map(|s| s.pid).collect::<Vec<_>>(), [daemon]);

    until("nothing of ours is left", || {
        reap_adopted().unwrap();
        kill_round(mine, &none).unwrap() == 0
    });
    assert!(gone(daemon));
    assert!(survivors(mine, &none).is_empty());
    assert_eq!(try_reap(helper.pid).unwrap(), None, "the helper was spared");
    assert!(!gone(helper_child), "and so was its child");

    kill_tree(helper.pid).unwrap();
    assert_eq!(reap(helper.pid).unwrap().status, ExitStatus::Signaled { signal: signals::KILL, core: false });
    until("the helper's child is reaped", || {
        reap_adopted().unwrap();
        gone(helper_child)
    });
}

#[test]
fn a_tree_is_killed_across_sessions() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    become_subreaper().unwrap();
    let mut spawner = Spawner::new(Owner::new()).unwrap();
    let out = pipe().unwrap();
    let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000 & echo $!; echo $$; wait' & wait";
    let rank = Run::sh(script).start(&mut spawner, out.write.as_fd()).unwrap();
    let below = pids(File::from(out.read), 2);
    assert!(below.iter().all(|pid| descendants_of(rank.pid).unwrap().contains(pid)));
    kill_tree(rank.pid).unwrap();
    assert_eq!(reap(rank.pid).unwrap().status, ExitStatus::Signaled { signal: signals::KILL, core: false });
    until("both below are gone", || {
        reap_adopted().unwrap();
        below.iter().all(|pid| gone(*pid))
    });
}

#[test]
fn orphans_are_reaped_and_claimed_children_are_not() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    become_subreaper().unwrap();
    let mut spawner = Spawner::new(Owner::new()).unwrap();
    let out = pipe().unwrap();
    let script = "(sh -c 'echo $$' &); sleep 0";
    let rank = Run::sh(script).start(&mut spawner, out.write.as_fd()).unwrap();
    drop(out.write);
    let orphan = pids(File::from(out.read), 1)[0];
    // The rank is claimed: however often orphans are reaped, its end is left for us.
    for _ in 0..50 {
        reap_adopted().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(reap(rank.pid).unwrap().status, ExitStatus::Exited(0));
    until("the orphan is reaped", || {
        reap_adopted().unwrap();
        gone(orphan)
    });
}

/// Takes the descriptors away from this process while it lives.
struct NoDescriptors(libc::rlimit);

impl NoDescriptors {
    fn new() -> Self {
        let mut former = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit writes to a live local variable.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut former) }, 0);
        // SAFETY: setrlimit reads a live temporary.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 0, ..former }) };
        assert_eq!(set, 0);
        Self(former)
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        // SAFETY: setrlimit reads a live field.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.0) };
    }
}

#[test]
fn who_cannot_look_does_not_say_that_nothing_is_left() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    become_subreaper().unwrap();
    let (mine, none) = (Owner::new(), Strangers::default());
    let mut spawner = Spawner::new(mine).unwrap();
    let null = File::open("/dev/null").unwrap();
    let rank = Run::sh("exec sleep 1000").start(&mut spawner, null.as_fd()).unwrap();
    let (round, left, tree) = {
        let _poor = NoDescriptors::new();
        (kill_round(mine, &none), survivors(mine, &none), kill_tree(rank.pid))
    };
    assert_eq!(round.unwrap_err().raw_os_error(), Some(libc::EMFILE));
    assert_eq!(left.iter().map(|s| (s.pid, s.state)).collect::<Vec<_>>(), [(0, '?')]);
    assert!(left[0].name.contains("Too many open files"), "{}", left[0].name);
    // What needs no looking is done nevertheless.
    assert_eq!(tree.unwrap_err().raw_os_error(), Some(libc::EMFILE));
    assert_eq!(reap(rank.pid).unwrap().status, ExitStatus::Signaled { signal: signals::KILL, core: false });
    // Without children nobody is left, and that is known without looking.
    let _poor = NoDescriptors::new();
    assert_eq!(kill_round(mine, &none).unwrap(), 0);
    assert!(survivors(mine, &none).is_empty());
}

#[test]
fn who_was_here_before_is_spared_with_all_that_belongs_to_it() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    become_subreaper().unwrap();
    let (mine, elsewhere) = (Owner::new(), Owner::new());
    let (before, out) = (pipe().unwrap(), pipe().unwrap());
    // Leads a session of its own and leaves an orphan in it, as a supervisor in the background may.
    let script = "echo $$; (sleep 1000 & echo $!); exec sleep 1000";
    let stranger = Run::sh(script).start(&mut Spawner::new(elsewhere).unwrap(), before.write.as_fd()).unwrap();
    let orphan = pids(File::from(before.read), 2)[1];
    // Nobody claims it any more, as if an earlier program in this process had started it.
    muster_sys::children::hold().disclaim(stranger.pid);
    let strangers = Strangers::here().unwrap();
    let rank = Run::sh("(setsid sh -c 'echo $$; exec sleep 1000' &) ; sleep 0")
        .start(&mut Spawner::new(mine).unwrap(), out.write.as_fd())
        .unwrap();
    let daemon = pids(File::from(out.read), 1)[0];
    reap(rank.pid).unwrap();
    until("nothing of ours is left", || {
        reap_adopted().unwrap();
        kill_round(mine, &strangers).unwrap() == 0
    });
    assert!(gone(daemon) && survivors(mine, &strangers).is_empty());
    assert!(!gone(stranger.pid) && !gone(orphan));
    // Who does not know them ends them.
    until("they are ended", || {
        reap_adopted().unwrap();
        kill_round(mine, &Strangers::default()).unwrap() == 0
    });
    assert!(gone(stranger.pid) && gone(orphan));
}
