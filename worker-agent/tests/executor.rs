//! The executor with real processes. Sweeps concern the whole process, so one test at a time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use muster_protocol::ProcId;
use muster_sys::children::Owner;
use muster_sys::pipe::set_nonblocking;
use muster_sys::stage::Stage;
use muster_sys::status::ExitStatus;
use muster_worker_agent::executor::border::{PMI_FD_NUMBER, Resource, ResourceLimit};
use muster_worker_agent::executor::{
    Executor, LocalExecutor, Order, OrderError, RankEnv, RankOrder, Report, StdinSource, Which,
};

/// A generous safety net, never a measurement.
const NET: Duration = Duration::from_secs(30);
const TERM: i32 = 15;
const KILLED: ExitStatus = ExitStatus::Signaled { signal: 9, core: false };

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Bench {
    executor: Option<LocalExecutor>,
    reports: Receiver<Report>,
    _guard: MutexGuard<'static, ()>,
}

struct Ends {
    pid: i32,
    stdin: Option<OwnedFd>,
    stdout: Box<dyn BufRead>,
    stderr: OwnedFd,
    pmi: Option<OwnedFd>,
}

fn reader(fd: OwnedFd) -> Box<dyn BufRead> {
    set_nonblocking(fd.as_fd(), false).unwrap();
    Box::new(BufReader::new(File::from(fd)))
}

fn text(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

fn sh(proc: u32, script: &str) -> RankOrder {
    RankOrder {
        proc: ProcId(proc),
        argv: ["/bin/sh", "-c", script].map(OsString::from).into(),
        env: RankEnv { base: [("PATH".into(), "/usr/bin:/bin".into())].into(), own: vec![] },
        cwd: None,
        stdin: StdinSource::Null,
        pmi: false,
        cpus: None,
        limits: vec![],
        umask: None,
    }
}

impl Bench {
    fn new() -> Self {
        Self::after(|| {})
    }

    /// After something that the executor is to find.
    fn after(before: impl FnOnce()) -> Self {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        before();
        let (sender, reports) = mpsc::channel();
        let executor = LocalExecutor::start(Box::new(move |r| drop(sender.send(r)))).unwrap();
        Self { executor: Some(executor), reports, _guard: guard }
    }

    fn try_order(&self, order: Order) -> Result<(), OrderError> {
        self.executor.as_ref().unwrap().order(order)
    }

    fn order(&self, order: Order) {
        self.try_order(order).unwrap();
    }

    fn next(&self) -> Report {
        self.reports.recv_timeout(NET).unwrap()
    }

    fn spawn(&self, rank: RankOrder) -> Ends {
        self.order(Order::Spawn(Box::new(rank)));
        match self.next() {
            Report::Spawned { pid, stdin, stdout, stderr, pmi, .. } => {
                Ends { pid, stdin, stdout: reader(stdout), stderr, pmi }
            }
            other => panic!("expected Spawned, got {other:?}"),
        }
    }

    fn exited(&self) -> (u32, ExitStatus) {
        match self.next() {
            Report::Exited { proc, status, .. } => (proc.0, status),
            other => panic!("expected Exited, got {other:?}"),
        }
    }

    fn swept(&self) {
        match self.next() {
            Report::Swept { survivors } => assert_eq!(survivors, []),
            other => panic!("expected Swept, got {other:?}"),
        }
    }

    fn refused(&self, rank: RankOrder) -> (Stage, i32, Option<u8>) {
        self.order(Order::Spawn(Box::new(rank)));
        match self.next() {
            Report::SpawnFailed(failure) => (failure.stage, failure.errno, failure.shell_code()),
            other => panic!("expected SpawnFailed, got {other:?}"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Its last sweep must not reach into the next test.
        if let Some(executor) = self.executor.take() {
            executor.join();
        }
    }
}

fn line(from: &mut dyn BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn gone(pid: i32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < NET, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn output_and_end_come_back() {
    let bench = Bench::new();
    let ends = bench.spawn(sh(0, "echo out; echo err >&2; exit 3"));
    assert_eq!(bench.exited(), (0, ExitStatus::Exited(3)));
    assert_eq!(text(ends.stdout), "out\n");
    assert_eq!(text(reader(ends.stderr)), "err\n");
    assert!(gone(ends.pid) && ends.stdin.is_none() && ends.pmi.is_none());
}

#[test]
fn input_arrives_and_ends() {
    let bench = Bench::new();
    let ends = bench.spawn(RankOrder { stdin: StdinSource::Pipe, ..sh(0, "cat; echo end") });
    let mut input = File::from(ends.stdin.unwrap());
    input.write_all(b"one\ntwo\n").unwrap();
    drop(input);
    assert_eq!(text(ends.stdout), "one\ntwo\nend\n");
    assert_eq!(bench.exited(), (0, ExitStatus::Exited(0)));
    let ends = bench.spawn(sh(1, "cat; echo end"));
    assert_eq!(text(ends.stdout), "end\n");
}

#[test]
fn agent_ends_do_not_block() {
    let bench = Bench::new();
    bench.order(Order::Spawn(Box::new(RankOrder { stdin: StdinSource::Pipe, pmi: true, ..sh(0, "sleep 1000") })));
    let Report::Spawned { stdin, stdout, stderr, pmi, .. } = bench.next() else { panic!("not spawned") };
    for fd in [stdout, stderr, pmi.unwrap()] {
        assert_eq!(File::from(fd).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let mut input = File::from(stdin.unwrap());
    let refused = loop {
        if let Err(e) = input.write(&[0; 65_536]) {
            break e.kind();
        }
    };
    assert_eq!(refused, ErrorKind::WouldBlock);
}

#[test]
fn a_rank_finds_its_pmi_socket_and_nothing_else() {
    let bench = Bench::new();
    // A shell redirects single digits only, so the number is proven by the link and the way by the descriptor's copy. The last
    // descriptor is the folder that `ls` reads.
    let script = "echo $PMI_FD; readlink /proc/$$/fd/$PMI_FD; exec ls /proc/self/fd";
    let rank = RankOrder { pmi: true, ..sh(0, script) };
    let env = RankEnv { own: vec![("PMI_FD".into(), "99".into())], ..rank.env };
    let ends = bench.spawn(RankOrder { env, ..rank });
    let output = text(ends.stdout);
    let lines: Vec<_> = output.lines().collect();
    let number = PMI_FD_NUMBER.to_string();
    assert!(lines[0] == number && lines[1].starts_with("socket:"), "{output}");
    assert_eq!(lines[2..], ["0", "1", &number, "2", "3"]);
    // The rank is gone, so its end is closed, and nobody else held it.
    set_nonblocking(ends.pmi.as_ref().unwrap().as_fd(), false).unwrap();
    assert_eq!(text(File::from(ends.pmi.unwrap())), "");
}

#[test]
fn settings_apply() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let core = muster_sys::affinity::get().unwrap()[0];
    let rank = RankOrder {
        cwd: Some(dir.path().canonicalize().unwrap()),
        cpus: Some(vec![core]),
        limits: vec![ResourceLimit { resource: Resource::Core, soft: 0, hard: 0 }],
        umask: Some(0o077),
        ..sh(0, "pwd; umask; ulimit -c; grep Cpus_allowed_list /proc/self/status; echo $X")
    };
    let env = RankEnv { own: vec![("X".into(), "a b".into())], ..rank.env };
    let ends = bench.spawn(RankOrder { env, ..rank });
    let cwd = dir.path().canonicalize().unwrap();
    assert_eq!(text(ends.stdout), format!("{}\n0077\n0\nCpus_allowed_list:\t{core}\na b\n", cwd.display()));
}

#[test]
fn what_cannot_start_is_told_apart() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::write(&data, "no program").unwrap();
    let program = |name: &str| RankOrder { argv: [name.into()].into(), ..sh(0, "") };
    assert_eq!(bench.refused(program("no-such-program")), (Stage::Exec, 2, Some(127)));
    assert_eq!(bench.refused(program(data.to_str().unwrap())), (Stage::Exec, 13, Some(126)));
    assert_eq!(bench.refused(RankOrder { cwd: Some(dir.path().join("x")), ..sh(0, "") }), (Stage::Cwd, 2, Some(126)));
    let _ends = bench.spawn(sh(0, "sleep 1000"));
    assert_eq!(bench.refused(sh(0, "true")), (Stage::Prepare, 17, None));
}

#[test]
fn who_ignores_the_polite_end_is_killed_after_the_grace() {
    let bench = Bench::new();
    // Says that it was asked, and goes on.
    let mut stubborn = bench.spawn(sh(0, "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"));
    let mut polite = bench.spawn(sh(1, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"));
    let mut spared = bench.spawn(sh(2, "echo ready; exec sleep 1000"));
    for ends in [&mut stubborn, &mut polite, &mut spared] {
        assert_eq!(line(&mut ends.stdout), "ready");
    }
    let which = Which::Some(vec![ProcId(0), ProcId(1)]);
    bench.order(Order::Kill { which, grace_ms: 500 });
    assert_eq!(bench.exited(), (1, ExitStatus::Exited(9)));
    assert_eq!(bench.exited(), (0, KILLED));
    assert_eq!(text(stubborn.stdout), "asked\n");
    assert!(!gone(spared.pid));
    bench.order(Order::Signal { procs: Which::All, signal: TERM });
    assert_eq!(bench.exited(), (2, ExitStatus::Signaled { signal: TERM, core: false }));
}

#[test]
fn a_hard_kill_reaches_other_sessions_of_that_rank_only() {
    let bench = Bench::new();
    let script = "setsid sh -c 'echo $$; exec sleep 1000' & wait";
    let (mut meant, mut spared) = (bench.spawn(sh(0, script)), bench.spawn(sh(1, script)));
    let (below, other): (i32, i32) =
        (line(&mut meant.stdout).parse().unwrap(), line(&mut spared.stdout).parse().unwrap());
    bench.order(Order::Kill { which: Which::Some(vec![ProcId(0)]), grace_ms: 0 });
    assert_eq!(bench.exited(), (0, KILLED));
    until("what was below is gone", || gone(below));
    assert!(!gone(spared.pid) && !gone(other));
}

#[test]
fn a_sweep_ends_daemons_of_ranks_that_are_gone() {
    let bench = Bench::new();
    let script = "(setsid sh -c 'trap \"\" TERM HUP; echo $$; exec sleep 1000' &); exit 0";
    let mut ends = bench.spawn(sh(0, script));
    let daemon: i32 = line(&mut ends.stdout).parse().unwrap();
    assert_eq!(bench.exited(), (0, ExitStatus::Exited(0)));
    assert!(!gone(daemon));
    // With a rank that lives and one more level of hiding below it.
    let mut living =
        bench.spawn(sh(1, "(setsid sh -c '(setsid sleep 1000 & echo $!); exec sleep 1000' &); sleep 1000"));
    let hidden: i32 = line(&mut living.stdout).parse().unwrap();
    bench.order(Order::Sweep);
    assert_eq!(bench.exited(), (1, KILLED));
    bench.swept();
    assert!(gone(daemon) && gone(hidden) && gone(living.pid));
    assert_eq!(text(ends.stdout), "");
}

#[test]
fn a_sweep_spares_the_ranks_of_another_executor() {
    let bench = Bench::new();
    let (sender, reports) = mpsc::channel();
    let other = LocalExecutor::start(Box::new(move |r| drop(sender.send(r)))).unwrap();
    other.order(Order::Spawn(Box::new(sh(0, "sleep 1000 & echo $!; wait")))).unwrap();
    let Report::Spawned { pid, stdout, .. } = reports.recv_timeout(NET).unwrap() else { panic!("not spawned") };
    let below: i32 = line(&mut reader(stdout)).parse().unwrap();
    let mine = bench.spawn(sh(0, "sleep 1000"));
    bench.order(Order::Sweep);
    assert_eq!(bench.exited(), (0, KILLED));
    bench.swept();
    assert!(gone(mine.pid) && !gone(pid) && !gone(below));
    other.join();
    assert!(gone(pid) && gone(below));
}

#[test]
fn a_sweep_spares_who_was_there_before() {
    // When told to, the shell leaves a process behind: an orphan that nobody had seen before.
    let script = "echo ready; read line; sleep 1000 & echo $!";
    let run = |argv: &[&str]| {
        Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut strangers = None;
    let bench = Bench::after(|| strangers = Some((run(&["sleep", "1000"]), run(&["/bin/sh", "-c", script]))));
    let (mut staying, mut shell) = strangers.unwrap();
    let mut said = BufReader::new(shell.stdout.take().unwrap());
    assert_eq!(line(&mut said), "ready");
    let mut ends = bench.spawn(sh(0, "(setsid sh -c 'echo $$; exec sleep 1000' &)"));
    let daemon: i32 = line(&mut ends.stdout).parse().unwrap();
    assert_eq!(bench.exited(), (0, ExitStatus::Exited(0)));
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    let orphan: i32 = line(&mut said).parse().unwrap();
    until("the shell is gone", || gone(shell.id().cast_signed()));
    bench.order(Order::Sweep);
    bench.swept();
    assert!(gone(daemon));
    let lives = |pid| !gone(pid) && !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ");
    assert!(lives(orphan) && lives(staying.id().cast_signed()));
    muster_sys::signals::send(orphan, 9).unwrap();
    staying.kill().unwrap();
    until("both are reaped", || gone(orphan) && gone(staying.id().cast_signed()));
}

#[test]
fn a_stopped_rank_stands_still_and_still_ends() {
    let bench = Bench::new();
    // It forks nothing: a parent whose child is stopped before its exec is not stopped but waits.
    let script = "trap 'exit 4' TERM; echo ready; read line";
    let mut ends = bench.spawn(RankOrder { stdin: StdinSource::Pipe, ..sh(0, script) });
    assert_eq!(line(&mut ends.stdout), "ready");
    let state =
        || fs::read_to_string(format!("/proc/{}/stat", ends.pid)).unwrap().split(' ').nth(2).unwrap().to_owned();
    bench.order(Order::Signal { procs: Which::All, signal: 20 });
    until("it stands still", || state() == "T");
    bench.order(Order::Signal { procs: Which::All, signal: 18 });
    until("it goes on", || state() != "T");
    bench.order(Order::Signal { procs: Which::All, signal: 20 });
    until("it stands still again", || state() == "T");
    bench.order(Order::Kill { which: Which::All, grace_ms: 20_000 });
    assert_eq!(bench.exited(), (0, ExitStatus::Exited(4)));
}

#[test]
fn two_hundred_ranks_leave_nothing() {
    let bench = Bench::new();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    // The first one sets up what stays.
    drop(bench.spawn(sh(0, "true")));
    bench.exited();
    let before = descriptors();
    let mut pids = Vec::new();
    for i in 0..200 {
        bench.order(Order::Spawn(Box::new(RankOrder { pmi: true, stdin: StdinSource::Pipe, ..sh(i, "exit 0") })));
    }
    let mut ended = 0;
    while ended < 200 {
        match bench.next() {
            Report::Spawned { pid, .. } => pids.push(pid),
            // The output pipe's reader is gone, yet nothing is written.
            Report::Exited { status, .. } => {
                assert_eq!(status, ExitStatus::Exited(0));
                ended += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    bench.order(Order::Sweep);
    bench.swept();
    assert_eq!(pids.len(), 200);
    assert!(pids.into_iter().all(gone));
    assert_eq!(descriptors(), before);
    assert!(!muster_sys::reap::has_children().unwrap());
}

#[test]
fn an_idle_executor_does_not_wake() {
    let bench = Bench::new();
    let mut ends = bench.spawn(sh(0, "echo ready; exec sleep 1000"));
    assert_eq!(line(&mut ends.stdout), "ready");
    let wakes = || -> Vec<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let of_executor = tasks
            .filter(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|name| name.trim() == "muster-executor"));
        let status = of_executor.filter_map(|t| fs::read_to_string(t.path().join("status")).ok());
        status.map(|s| s.lines().find(|l| l.starts_with("voluntary")).unwrap().to_owned()).collect()
    };
    // The thread of the test before may still be listed.
    until("there is one", || wakes().len() == 1);
    // Until it has gone to sleep after the start.
    let mut before = wakes();
    until("it sleeps", || {
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut before, wakes()) == before
    });
    let before = wakes();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(wakes(), before);
}

#[test]
fn after_shutdown_comes_one_report_and_nothing() {
    let bench = Bench::new();
    let ends = bench.spawn(sh(0, "trap '' TERM; sleep 1000"));
    bench.order(Order::Shutdown);
    assert_eq!(bench.exited(), (0, KILLED));
    bench.swept();
    assert!(bench.reports.recv_timeout(NET).is_err());
    until("the inbox is closed", || bench.try_order(Order::Sweep) == Err(OrderError::Gone));
    assert!(gone(ends.pid));
}

/// The ids of all System V shared memory segments.
fn segments() -> Vec<String> {
    let list = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    list.lines().filter_map(|line| line.split_ascii_whitespace().nth(1).map(str::to_owned)).collect()
}

/// What a program prints that is no rank's: somebody in this process waits for it.
fn output_of(command: &mut Command) -> String {
    let mut hold = muster_sys::children::hold();
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id().cast_signed();
    hold.claim(pid, Owner::new());
    drop(hold);
    let output = child.wait_with_output().unwrap();
    muster_sys::children::hold().disclaim(pid);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_sweep_removes_shared_memory_that_ranks_left_and_nobody_elses() {
    let made = |output: &str| output.trim_end().rsplit(' ').next().unwrap().to_owned();
    let bench = Bench::new();
    let mut rank = bench.spawn(sh(0, "exec ipcmk -M 4096"));
    let ranks = made(&line(&mut *rank.stdout));
    assert_eq!(bench.exited(), (0, ExitStatus::Exited(0)));
    let others = made(&output_of(Command::new("ipcmk").args(["-M", "4096"])));
    assert!(segments().contains(&ranks) && segments().contains(&others));
    bench.order(Order::Sweep);
    bench.swept();
    assert!(!segments().contains(&ranks), "it is left");
    assert!(segments().contains(&others), "it was not a rank's");
    output_of(Command::new("ipcrm").args(["-m", &others]));
}
