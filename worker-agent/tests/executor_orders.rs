//! The executor's orders under load: what is to end does not wait for what is to start.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_protocol::ProcId;
use muster_sys::spawn::{SpawnError, SpawnOrder, Spawned, Spawner};
use muster_sys::stage::Stage;
use muster_sys::status::ExitStatus;
use muster_worker_agent::executor::{
    Executor, LocalExecutor, Order, RankEnv, RankOrder, Report, Starter, StdinSource, Which,
};

/// A generous safety net, never a measurement.
const NET: Duration = Duration::from_secs(30);
const KILLED: ExitStatus = ExitStatus::Signaled { signal: 9, core: false };

/// Sweeps concern the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn spawn(proc: u32, script: &str) -> Order {
    Order::Spawn(Box::new(RankOrder {
        proc: ProcId(proc),
        argv: ["/bin/sh", "-c", script].map(Into::into).into(),
        env: RankEnv { base: [("PATH".into(), "/usr/bin:/bin".into())].into(), own: vec![] },
        cwd: None,
        stdin: StdinSource::Null,
        pmi: false,
        cpus: None,
        limits: vec![],
        umask: None,
    }))
}

/// Reports come on one thread, one after the other, so the listener may keep something of its own.
fn start(listener: impl FnMut(Report) + Send + 'static) -> LocalExecutor {
    let listener = Mutex::new(listener);
    LocalExecutor::start(Box::new(move |report| (listener.lock().unwrap())(report))).unwrap()
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

/// An executor whose first report waits until it is told to go on.
fn held_at_the_first_report() -> (LocalExecutor, Receiver<Report>, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let (sender, reports) = mpsc::channel();
    let executor = start(move |report| {
        drop(sender.send(report));
        // Waits once: the other end is gone afterwards.
        let _ = wait.recv_timeout(NET);
    });
    (executor, reports, go)
}

#[test]
fn starts_that_wait_are_given_up_when_all_is_to_end() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for ending in [Order::Kill { which: Which::All, grace_ms: 0 }, Order::Sweep, Order::Shutdown] {
        let (executor, reports, go) = held_at_the_first_report();
        let next = || reports.recv_timeout(NET).unwrap();
        for i in 0..3 {
            executor.order(spawn(i, "exec sleep 1000")).unwrap();
        }
        assert!(matches!(next(), Report::Spawned { proc: ProcId(0), .. }));
        executor.order(ending).unwrap();
        drop(go);
        for i in 1..3 {
            let Report::SpawnFailed(failure) = next() else { panic!("rank {i} was started") };
            assert_eq!((failure.proc, failure.stage, failure.errno), (ProcId(i), Stage::Prepare, 125));
        }
        assert!(matches!(next(), Report::Exited { proc: ProcId(0), status: KILLED, .. }));
        executor.join();
    }
}

#[test]
fn deadlines_and_ends_are_looked_at_between_starts() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (go, wait) = mpsc::channel::<()>();
    let (sender, reports) = mpsc::channel();
    let mut first = 0;
    let executor = start(move |report| {
        let started = if let Report::Spawned { proc, pid, .. } = &report { Some((proc.0, *pid)) } else { None };
        drop(sender.send(report));
        match started {
            Some((0, pid)) => {
                first = pid;
                let _ = wait.recv_timeout(NET);
            }
            // Past the deadline of the first.
            Some((1, _)) => std::thread::sleep(Duration::from_millis(20)),
            // Killed between two starts, it ends.
            Some((2, _)) => until("the first has ended", || {
                fs::read_to_string(format!("/proc/{first}/stat")).is_ok_and(|s| s.contains(") Z ")) || gone(first)
            }),
            _ => {}
        }
    });
    executor.order(spawn(0, "trap '' TERM; while :; do sleep 0.05; done")).unwrap();
    let next = || reports.recv_timeout(NET).unwrap();
    assert!(matches!(next(), Report::Spawned { proc: ProcId(0), .. }));
    executor.order(Order::Kill { which: Which::Some(vec![ProcId(0)]), grace_ms: 1 }).unwrap();
    for i in 1..4 {
        executor.order(spawn(i, "exec sleep 1000")).unwrap();
    }
    drop(go);
    let name = |report| match report {
        Report::Spawned { proc, .. } => ("spawned", proc.0),
        Report::Exited { proc, .. } => ("exited", proc.0),
        other => panic!("unexpected {other:?}"),
    };
    let order: Vec<_> = std::iter::from_fn(|| Some(name(next()))).take(4).collect();
    assert!(order.contains(&("exited", 0)), "it was told after all starts: {order:?}");
    assert_eq!(order[3], ("spawned", 3), "{order:?}");
    executor.join();
}

/// Starts as ever, but for a program that hangs until it is told to go on.
struct Hanging {
    spawner: Spawner,
    go: Receiver<()>,
}

impl Starter for Hanging {
    fn start(&mut self, order: &SpawnOrder<'_>) -> Result<Spawned, SpawnError> {
        if order.argv.last().is_some_and(|script| script.to_string_lossy().contains("hang")) {
            let _ = self.go.recv_timeout(NET);
        }
        self.spawner.spawn(order)
    }
}

#[test]
fn a_start_that_hangs_keeps_no_other_rank_alive_and_its_own_ends_when_it_comes_back() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (go, wait) = mpsc::channel();
    let (sender, reports) = mpsc::channel();
    let report = Box::new(move |report| drop(sender.send(report)));
    let executor =
        LocalExecutor::start_with(report, |owner| Ok(Box::new(Hanging { spawner: Spawner::new(owner)?, go: wait })))
            .unwrap();
    let next = || reports.recv_timeout(NET).unwrap();
    executor.order(spawn(0, "exec sleep 1000")).unwrap();
    assert!(matches!(next(), Report::Spawned { proc: ProcId(0), .. }));
    executor.order(spawn(1, ": hang; exec sleep 1000")).unwrap();
    executor.order(spawn(2, "exec sleep 1000")).unwrap();
    executor.order(Order::Kill { which: Which::Some(vec![ProcId(0)]), grace_ms: 0 }).unwrap();
    assert!(matches!(next(), Report::Exited { proc: ProcId(0), status: KILLED, .. }));
    // What waits behind it is given up; it is itself named when it does not come back.
    executor.order(Order::Sweep).unwrap();
    assert!(matches!(next(), Report::SpawnFailed(failure) if failure.proc == ProcId(2) && failure.errno == 125));
    let Report::Swept { survivors } = next() else { panic!("a sweep without an end") };
    assert_eq!(
        survivors.iter().map(|s| (s.pid, s.name.as_str())).collect::<Vec<_>>(),
        [(0, "the start of /bin/sh hangs")]
    );
    drop(go);
    assert!(matches!(next(), Report::Spawned { proc: ProcId(1), .. }));
    assert!(matches!(next(), Report::Exited { proc: ProcId(1), status: KILLED, .. }));
    executor.order(Order::Sweep).unwrap();
    assert!(matches!(next(), Report::Swept { survivors } if survivors.is_empty()));
    executor.join();
}
