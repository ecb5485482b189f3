//! Signals to the launcher and to agents: what the ranks get of them, and when everything is over.

use std::time::Duration;

use muster_cluster::{
    Cluster, Cmd, Here, Output, PATIENCE, Proc, cluster_or_skip, eventually, process_state, workspace,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A grace that no test waits for.
const NEVER: &str = "--grace=1h";
/// Says its pid, then goes on as the program that follows.
const PID: &str = "echo pid $$; exec \"$@\"";
/// Ends well when it is asked to; its last word is the signal that it got.
const POLITE: &str =
    "for s in 1 2 15; do trap \"echo bye $s; exit 0\" $s; done; echo ready; while :; do sleep 0.01; done";

/// Two ranks of a program on this machine, of which each says its pid first.
struct Job {
    here: Here,
    proc: Proc,
    pids: Vec<i32>,
}

impl Job {
    fn start(options: &[&str], program: &[&str]) -> Self {
        let here = Here::new().expect("a folder");
        let cmd = here.muster(&["run", "--local", "2", "-n", "2"]).expect("built").args(options);
        let proc = here.spawn(cmd.args(["sh", "-c", PID, "sh"]).args(program)).expect("spawn");
        proc.wait_for_count("ready\n", 2).expect("both ranks are ready");
        let pids = pids(&proc.stdout_so_far());
        assert_eq!(pids.len(), 2);
        Self { here, proc, pids }
    }

    fn sleepers(options: &[&str]) -> Self {
        let sleeper = workspace::test_program("plain", "sleeper").expect("built");
        Self::start(options, &[sleeper.to_str().expect("text")])
    }

    fn signal(&self, signal: Signal) {
        self.proc.signal(signal).expect("it lives");
    }

    /// Its end: nothing is left then.
    fn end(self) -> (Output, Here) {
        let output = self.proc.finish(PATIENCE).expect("it ends");
        assert_eq!(self.pids.iter().filter_map(|pid| process_state(*pid)).collect::<Vec<_>>(), []);
        assert_eq!(std::fs::read_dir(self.here.runtime_dir()).expect("folder").count(), 0);
        (output, self.here)
    }
}

fn pids(stdout: &str) -> Vec<i32> {
    let pid = |line: &str| line.rsplit_once("pid ")?.1.parse().ok();
    stdout.lines().filter_map(pid).collect()
}

fn assert_ended(output: &Output, code: i32, told: &str) {
    assert_eq!((output.status.code(), output.said().as_str()), (Some(code), told));
}

#[test]
fn the_first_signal_lets_ranks_end_by_themselves() {
    for (signal, heard, code, told) in [
        (Signal::SIGTERM, "bye 15\n", 143, "muster: ended by SIGTERM (signal 15)\n"),
        (Signal::SIGINT, "bye 2\n", 130, "muster: ended by SIGINT (signal 2)\n"),
        (Signal::SIGHUP, "bye 1\n", 129, "muster: ended by SIGHUP (signal 1)\n"),
    ] {
        let job = Job::start(&[NEVER], &["sh", "-c", POLITE]);
        job.signal(signal);
        let (output, _) = job.end();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(output.stdout_text().matches(heard).count(), 2, "{signal}: {}", output.stdout_text());
        // The shell of a rank may tell of its own child's end, too.
        assert!(output.said().ends_with(told), "{}", output.said());
    }
}

#[test]
fn the_second_signal_kills() {
    for (first, second, code, told) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143, "muster: ended by SIGTERM (signal 15)\n"),
        (Signal::SIGINT, Signal::SIGTERM, 130, "muster: ended by SIGINT (signal 2)\n"),
    ] {
        let job = Job::sleepers(&[NEVER]);
        job.signal(first);
        // Signals of one kind that come together are one signal: the ranks must have got the first before.
        std::thread::sleep(Duration::from_millis(50));
        assert!(job.proc.try_wait().expect("status").is_none(), "ranks have their grace");
        job.signal(second);
        assert_ended(&job.end().0, code, told);
    }
}

#[test]
fn ranks_that_do_not_end_are_killed_after_the_grace() {
    let job = Job::sleepers(&["--grace", "200ms"]);
    job.signal(Signal::SIGINT);
    assert_ended(&job.end().0, 130, "muster: ended by SIGINT (signal 2)\n");
}

#[test]
fn user_signals_are_passed_on_and_the_job_goes_on() {
    let job = Job::sleepers(&["-l", "--grace", "0"]);
    for (signal, number) in [(Signal::SIGUSR1, 10), (Signal::SIGUSR2, 12), (Signal::SIGUSR1, 10)] {
        let before = job.proc.stdout_so_far().matches(&format!("got signal {number}\n")).count();
        job.signal(signal);
        job.proc.wait_for_count(&format!("got signal {number}\n"), before + 2).expect("both ranks get it");
    }
    assert!(job.proc.stdout_so_far().contains("[1] rank 1 got signal 12\n"));
    job.signal(Signal::SIGTERM);
    assert_ended(&job.end().0, 143, "muster: ended by SIGTERM (signal 15)\n");
}

#[test]
fn a_suspended_job_stops_with_its_ranks_and_outlives_its_lease() {
    let job = Job::sleepers(&[NEVER]);
    let states = || job.pids.iter().chain([&job.proc.pid()]).map(|pid| process_state(*pid)).collect::<Vec<_>>();
    job.signal(Signal::SIGTSTP);
    eventually(states, |seen| seen.iter().all(|state| *state == Some('T'))).expect("all stop");
    // Longer than agents let ranks live without a word from an ordinary launcher, which is 15 s.
    std::thread::sleep(Duration::from_secs(17));
    assert_eq!(states(), [Some('T'); 3]);
    job.signal(Signal::SIGCONT);
    job.proc.wait_for_count("got signal 18\n", 2).expect("ranks go on");
    assert!(states().iter().all(|state| *state != Some('T')));
    job.signal(Signal::SIGUSR1);
    job.proc.wait_for_count("got signal 10\n", 2).expect("and are reached");
    job.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(50));
    job.signal(Signal::SIGTERM);
    assert_ended(&job.end().0, 143, "muster: ended by SIGTERM (signal 15)\n");
}

#[test]
fn a_stopped_rank_is_woken_to_end() {
    let job = Job::start(&[NEVER], &["sh", "-c", POLITE]);
    job.signal(Signal::SIGTSTP);
    eventually(|| process_state(job.proc.pid()), |state| *state == Some('T')).expect("it stops");
    job.signal(Signal::SIGTERM);
    job.signal(Signal::SIGCONT);
    let (output, _) = job.end();
    assert_eq!((output.status.code(), output.stdout_text().matches("bye 15\n").count()), (Some(143), 2));
}

#[test]
fn a_signal_while_hosts_are_waited_for_ends_the_waiting() {
    let here = Here::new().expect("a folder");
    let job = here.spawn(here.run_on(1, 1).expect("built").arg("true")).expect("spawn");
    job.wait_for("waiting for 1 host", PATIENCE).expect("it waits");
    job.signal(Signal::SIGINT).expect("it lives");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(output.said().ends_with("muster: ended by SIGINT (signal 2)\n"), "{}", output.said());
}

#[test]
fn a_quit_tells_who_has_not_arrived() {
    let here = Here::new().expect("a folder");
    let program = workspace::test_program("mpich4", "init_allreduce").expect("built");
    let late = "if [ $MUSTER_RANK = 1 ]; then echo ready; read line; fi; exec \"$0\"";
    let cmd = here.muster(&["run", "--local", "2", "-n", "2", "--stdin", "1", "sh", "-c", late]).expect("built");
    let mut job = here.spawn(cmd.arg(program).stdin(muster_cluster::Stdin::Piped)).expect("spawn");
    job.wait_for("ready\n", PATIENCE).expect("rank 1 waits");
    let told = "muster: fence 0: 1 ranks wait, 1 have not arrived: rank 1 on local-1\n";
    let ask = || {
        job.signal(Signal::SIGQUIT).expect("it lives");
        job.stderr_so_far()
    };
    // Until rank 0 has come to the fence, nobody waits.
    eventually(ask, |stderr| stderr.contains(told)).expect("an answer");
    job.write_stdin(b"\n").expect("rank 1 reads");
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("the job is unharmed");
    assert!(output.stdout_text().contains("allreduce of 2 ranks: ok\n"), "{}", output.stdout_text());
}

#[test]
fn the_launcher_may_be_the_first_process() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let host = cluster.launcher();
    let muster = workspace::program("muster").expect("built");
    let first = |program: &str| {
        let cmd = Cmd::new("unshare").args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(&muster);
        cmd.args(["run", "--local", "2", "-n", "2", NEVER, "sh", "-c", program])
    };
    let output = host.run(first("sh -c 'sleep 0.01 & exit 0'; exit $((3 * MUSTER_RANK))")).expect("it ends");
    assert_ended(&output, 3, "muster: rank 1 on local-1 exited with status 3\n");
    let job = host.spawn(first(POLITE)).expect("spawn");
    job.wait_for_count("ready\n", 2).expect("both ranks are ready");
    kill(Pid::from_raw(descendants(job.pid())[0]), Signal::SIGTERM).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!((output.status.code(), output.stdout_text().matches("bye 15\n").count()), (Some(143), 2));
    assert_eq!((host.processes().expect("processes"), host.leftovers().expect("leftovers")), (vec![], vec![]));
}

#[test]
fn a_launcher_that_cannot_be_suspended_does_not_leave_its_ranks_stopped() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let host = cluster.launcher();
    let cmd = Cmd::new("unshare").args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    let cmd = cmd.arg(workspace::program("muster").expect("built")).args(["run", "--local", "2", "-n", "2", NEVER]);
    let sleeper = workspace::test_program("plain", "sleeper").expect("built");
    let job = host.spawn(cmd.arg(sleeper)).expect("spawn");
    job.wait_for_count("ready\n", 2).expect("both ranks are ready");
    // The kernel does not stop the first process of a namespace for a signal of its own.
    let launcher = Pid::from_raw(descendants(job.pid())[0]);
    kill(launcher, Signal::SIGTSTP).expect("signal");
    // Long enough for ranks to be stopped, if that is what it leads to; nothing else tells that it was heard.
    std::thread::sleep(Duration::from_millis(500));
    kill(launcher, Signal::SIGUSR1).expect("signal");
    job.wait_for_count("got signal 10\n", 2).expect("ranks go on");
    for _ in 0..2 {
        kill(launcher, Signal::SIGTERM).expect("signal");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(job.finish(PATIENCE).expect("it ends").status.code(), Some(143));
    assert_eq!((host.processes().expect("processes"), host.leftovers().expect("leftovers")), (vec![], vec![]));
}

/// What a process has started, zombies included, parents before children; as the machine counts.
fn descendants(pid: i32) -> Vec<i32> {
    let children = |task: &std::path::Path| std::fs::read_to_string(task.join("children")).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children: Vec<i32> = tasks
        .flat_map(|task| children(&task.path()).split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|word| word.parse().ok())
        .collect();
    children.iter().flat_map(|child| [vec![*child], descendants(*child)].concat()).collect()
}

#[test]
fn an_agent_as_the_first_process_reaps_and_ends_its_ranks() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let host = cluster.host(0);
    let agent = Cmd::new("unshare").args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    let agent = agent.arg(workspace::program("muster-agent").expect("built")).arg("--key-file").arg(cluster.key_file());
    let agent = host.spawn(agent).expect("spawn");
    agent.wait_for("agent is ready", PATIENCE).expect("it is ready");
    let quiet = descendants(agent.pid());
    assert_eq!(quiet.len(), 1, "unshare has started the agent");

    let run = |program: &str| cluster.muster("h0:2").expect("built").args([NEVER, "sh", "-c", program]);
    let orphans = "(sleep 0.05 & sleep 0.05 &); (sleep 1000 &); echo done";
    let output = cluster.launcher().run(run(orphans)).and_then(Output::ok).expect("the job runs");
    assert_eq!((output.stdout_text().as_str(), output.said().as_str()), ("done\ndone\n", ""));
    eventually(|| descendants(agent.pid()), |seen| *seen == quiet).expect("neither orphans nor zombies");

    let polite = "for s in 10 12; do trap \"echo got $s\" $s; done; ".to_owned() + POLITE;
    let job = cluster.launcher().spawn(run(&polite)).expect("spawn");
    job.wait_for_count("ready\n", 2).expect("both ranks are ready");
    for (signal, heard) in [(Signal::SIGUSR1, "got 10\n"), (Signal::SIGUSR2, "got 12\n")] {
        kill(Pid::from_raw(quiet[0]), signal).expect("signal");
        job.wait_for_count(heard, 2).expect("both ranks get it");
    }
    kill(Pid::from_raw(quiet[0]), Signal::SIGTERM).expect("signal");
    assert_eq!(agent.wait(PATIENCE).expect("it ends").code(), Some(0));
    assert_eq!(job.finish(PATIENCE).expect("it ends").status.code(), Some(241));
    assert_eq!((host.processes().expect("processes"), host.leftovers().expect("leftovers")), (vec![], vec![]));
}

#[test]
fn an_agent_that_is_told_to_go_ends_its_ranks_and_the_job() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let agents = cluster.start_agents(&["--grace-ms", "3600000"]).expect("agents");
    let job = cluster.muster("h0,h1").expect("built").args([NEVER, "-l", "sh", "-c", POLITE]);
    let job = cluster.launcher().spawn(job).expect("spawn");
    job.wait_for_count("ready\n", 2).expect("both ranks are ready");
    agents[1].signal(Signal::SIGTERM).expect("signal");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(241));
    let told = "muster: host h1 was lost: its agent was told to end (SIGTERM)\n";
    assert!(output.said().ends_with(told), "{}", output.said());
    assert_eq!(agents[1].wait(PATIENCE).expect("the agent ends").code(), Some(0));
    assert_eq!(cluster.host(1).processes().expect("processes"), []);
    cluster.host(0).wait_until_idle().expect("the other rank is gone");
    assert!(agents[0].try_wait().expect("status").is_none(), "the other agent stays");
    let next = cluster.launcher().run(cluster.muster("h0").expect("built").args(["echo", "next"]));
    assert_eq!(next.and_then(Output::ok).expect("and serves").stdout_text(), "next\n");
}

#[test]
fn an_agents_second_signal_kills() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let agent = cluster.start_agent(0, &["--grace-ms", "3600000"]).expect("agent");
    let sleeper = workspace::test_program("plain", "sleeper").expect("built");
    let job = cluster.launcher().spawn(cluster.muster("h0:2").expect("built").arg(NEVER).arg(sleeper)).expect("spawn");
    job.wait_for_count("ready\n", 2).expect("both ranks are ready");
    agent.signal(Signal::SIGTERM).expect("signal");
    agent.wait_for("ending", PATIENCE).expect("it has heard");
    assert!(agent.try_wait().expect("status").is_none(), "ranks have their grace");
    agent.signal(Signal::SIGINT).expect("signal");
    assert_eq!(agent.wait(PATIENCE).expect("it ends").code(), Some(0));
    assert_eq!(job.finish(PATIENCE).expect("it ends").status.code(), Some(241));
    assert_eq!(cluster.host(0).processes().expect("processes"), []);
}

#[test]
fn a_killed_launcher_leaves_nothing_on_its_own_machine() {
    let job = Job::start(&[], &["sh", "-c", POLITE]);
    assert_killed_without_traces(&job);
}

#[test]
fn nor_does_one_that_is_killed_while_it_is_suspended() {
    let job = Job::sleepers(&[NEVER]);
    job.signal(Signal::SIGTSTP);
    let states = || job.pids.iter().chain([&job.proc.pid()]).map(|pid| process_state(*pid)).collect::<Vec<_>>();
    eventually(states, |seen| seen.iter().all(|state| *state == Some('T'))).expect("all stop");
    // The long lease that ranks of a suspended launcher have is not for one that will never go on.
    assert_killed_without_traces(&job);
}

/// Kills the launcher. What its agents let live, they end when its lease is over; then they go, and their folder with them.
fn assert_killed_without_traces(job: &Job) {
    let started = descendants(job.proc.pid());
    job.proc.kill();
    let left = || std::fs::read_dir(job.here.runtime_dir()).expect("folder").count();
    let alive = || job.pids.iter().filter_map(|pid| process_state(*pid)).count();
    let seen = eventually(|| (alive(), left()), |seen| *seen == (0, 0));
    if seen.is_err() {
        // Nobody else would end them today.
        for pid in &started {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }
    seen.expect("nothing is left");
}
