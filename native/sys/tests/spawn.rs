//! Starting real processes.

mod common;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::Run;
use muster_sys::children::Owner;
use muster_sys::limits::{Resource, ResourceLimit, get};
use muster_sys::pipe::{pipe, socketpair};
use muster_sys::poll::{Poller, Trigger};
use muster_sys::reap::{Reaped, reap, try_reap};
use muster_sys::signals;
use muster_sys::spawn::{SpawnError, Spawner};
use muster_sys::stage::Stage;
use muster_sys::status::ExitStatus;

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;

/// What came of a program that ran to its end.
struct Ran {
    output: String,
    reaped: Reaped,
}

impl Run<'_> {
    fn run(&self) -> Result<Ran, SpawnError> {
        let mut spawner = Spawner::new(Owner::new()).unwrap();
        let pipe = pipe().unwrap();
        let spawned = self.start(&mut spawner, pipe.write.as_fd())?;
        drop(pipe.write);
        let mut output = String::new();
        File::from(pipe.read).read_to_string(&mut output).unwrap();
        Ok(Ran { output, reaped: reap(spawned.pid).unwrap() })
    }
}

fn failure(run: &Run<'_>) -> (Stage, i32) {
    match run.run() {
        Ok(ran) => panic!("it ran: {:?} {}", ran.reaped, ran.output),
        Err(SpawnError { stage, errno }) => (stage, errno),
    }
}

fn write_program(path: &Path, text: &[u8], mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn ends_are_told_apart() {
    assert_eq!(Run::sh("exit 0").run().unwrap().reaped.status, ExitStatus::Exited(0));
    assert_eq!(Run::sh("exit 7").run().unwrap().reaped.status, ExitStatus::Exited(7));
    let killed = Run::sh("ulimit -c 0; kill -SEGV $$").run().unwrap().reaped;
    assert_eq!(killed.status, ExitStatus::Signaled { signal: 11, core: false });
    assert!(killed.maxrss_kib > 0);
}

#[test]
fn what_cannot_start_says_at_which_step() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let program = |name: &str| Run::new(&[at(name).to_str().unwrap()]);
    write_program(&at("data"), b"no program", 0o644);
    write_program(&at("lost"), b"#!/nowhere/interpreter\n", 0o755);
    write_program(&at("other"), b"\x7fELF\x02\x01\x01 for no machine at all", 0o755);

    assert_eq!(failure(&program("none")), (Stage::Exec, ENOENT));
    assert_eq!(failure(&Run::new(&["no-such-program"])), (Stage::Exec, ENOENT));
    assert_eq!(failure(&Run::new(&[""])), (Stage::Exec, ENOENT));
    assert_eq!(failure(&program("data")), (Stage::Exec, EACCES));
    assert_eq!(failure(&program("lost")), (Stage::Interpreter, ENOENT));
    assert_eq!(failure(&program("other")), (Stage::Exec, ENOEXEC));
    assert_eq!(failure(&Run { cwd: Some(&at("none")), ..Run::new(&["true"]) }), (Stage::Cwd, ENOENT));
    assert_eq!(failure(&Run { cpus: Some(&[8191]), ..Run::new(&["true"]) }), (Stage::Affinity, EINVAL));
    assert_eq!(failure(&Run { cpus: Some(&[]), ..Run::new(&["true"]) }), (Stage::Affinity, EINVAL));
    assert_eq!(failure(&Run::new(&[])), (Stage::Prepare, EINVAL));
    assert_eq!(failure(&Run::new(&["true", "a\0b"])), (Stage::Prepare, EINVAL));
    let twisted = ResourceLimit { resource: Resource::OpenFiles, soft: 20, hard: 10 };
    assert_eq!(failure(&Run { limits: &[twisted], ..Run::new(&["true"]) }), (Stage::Rlimit, EINVAL));
}

#[test]
fn programs_are_found_in_the_path_given() {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["a", "b"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    write_program(&dir.path().join("a/tool"), b"#!/bin/sh\necho a", 0o644);
    write_program(&dir.path().join("b/tool"), b"#!/bin/sh\necho b $0", 0o755);
    let path = OsString::from(format!("{0}/none:{0}/a:{0}/b", dir.path().display()));
    let found = Run { env: vec![("PATH".into(), path)], ..Run::new(&["tool"]) };
    assert_eq!(found.run().unwrap().output, format!("b {}/b/tool\n", dir.path().display()));
    let only_a = OsString::from(format!("{}/a", dir.path().display()));
    assert_eq!(failure(&Run { env: vec![("PATH".into(), only_a)], ..Run::new(&["tool"]) }), (Stage::Exec, EACCES));
    // With a slash, from the working directory; without PATH, from the default one.
    assert!(Run { cwd: Some(dir.path()), ..Run::new(&["b/tool"]) }.run().unwrap().output.ends_with("b/tool\n"));
    assert!(Run { env: vec![], ..Run::new(&["true"]) }.run().unwrap().reaped.status.success());
}

#[test]
fn a_script_without_interpreter_runs_by_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    write_program(&dir.path().join("plain"), b"echo \"$0|$1|$2\"\n", 0o755);
    let program = dir.path().join("plain");
    let ran = Run::new(&[program.to_str().unwrap(), "one", "two words"]).run().unwrap();
    assert_eq!(ran.output, format!("{}|one|two words\n", program.display()));
}

#[test]
fn settings_reach_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let core = muster_sys::affinity::get().unwrap().last().copied().unwrap();
    let hard = get(Resource::OpenFiles).unwrap().hard.min(500);
    let limits = [
        ResourceLimit { resource: Resource::OpenFiles, soft: 99, hard },
        ResourceLimit { resource: Resource::Core, soft: 0, hard: 0 },
    ];
    let script = "pwd; umask; ulimit -Sn; ulimit -Hn; ulimit -c; grep Cpus_allowed_list /proc/self/status; echo $A; env | sort | grep -v -e ^_= -e ^PWD= -e ^SHLVL= -e ^OLDPWD=";
    let run = Run {
        env: vec![("A".into(), "x y=z".into()), ("PATH".into(), "/usr/bin:/bin".into())],
        cwd: Some(dir.path()),
        cpus: Some(&[core]),
        limits: &limits,
        umask: Some(0o027),
        ..Run::sh(script)
    };
    let expected = format!(
        "{}\n0027\n99\n{hard}\n0\nCpus_allowed_list:\t{core}\nx y=z\nA=x y=z\nPATH=/usr/bin:/bin\n",
        real.display()
    );
    assert_eq!(run.run().unwrap().output, expected);
}

#[test]
fn the_program_leads_a_clean_session() {
    signals::ignore_broken_pipe();
    let script = "read pid comm state ppid pgrp session rest < /proc/self/stat; echo $$ $pgrp $session; \
                  exec grep -e ^SigBlk -e ^SigIgn -e ^NoNewPrivs /proc/self/status";
    let ran = Run::sh(script).run().unwrap();
    let mut lines = ran.output.lines();
    let ids: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    let rest: Vec<String> = lines.map(|l| l.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rest, ["SigBlk: 0000000000000000", "SigIgn: 0000000000000000", "NoNewPrivs: 1"]);
}

#[test]
fn one_more_descriptor_arrives_and_no_other() {
    let (strays, (ours, theirs)) = (pipe().unwrap(), socketpair().unwrap());
    // SAFETY: dup takes an integer. The copy, unlike the original, would survive an exec; it stays open until the end.
    let survivor = unsafe { libc::dup(strays.write.as_raw_fd()) };
    assert!(survivor > 2);
    let run = Run { extra: Some((theirs.as_fd(), 9)), ..Run::sh("echo hello >&9; ls /proc/$$/fd") };
    let output = run.run().unwrap().output;
    drop(theirs);
    assert_eq!(output, "0\n1\n2\n9\n");
    let mut text = String::new();
    File::from(ours).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n");
}

#[test]
fn low_and_crossed_numbers_are_no_harm() {
    // The source lies below its target's number, where another target would overwrite it.
    let (ours, theirs) = socketpair().unwrap();
    assert!(theirs.as_raw_fd() > 2);
    let number = theirs.as_raw_fd() + 3;
    let run = Run { extra: Some((theirs.as_fd(), number)), ..Run::sh("ls -l /proc/$$/fd") };
    let output = run.run().unwrap().output;
    assert!(output.lines().any(|l| l.contains(&format!(" {number} -> socket:"))), "{output}");
    let run = Run { extra: Some((ours.as_fd(), 2)), ..Run::sh("true") };
    assert_eq!(failure(&run), (Stage::Prepare, EINVAL));
}

#[test]
fn a_pidfd_tells_the_end_and_the_id_stays_until_reaped() {
    let mut spawner = Spawner::new(Owner::new()).unwrap();
    let (out, input) = (pipe().unwrap(), pipe().unwrap());
    let script = "read line; exit 5";
    let run = Run { extra: Some((input.read.as_fd(), 9)), ..Run::sh(&format!("exec <&9; {script}")) };
    let spawned = run.start(&mut spawner, out.write.as_fd()).unwrap();
    assert_eq!(try_reap(spawned.pid).unwrap(), None);
    let (poller, mut ready) = (Poller::new().unwrap(), Vec::new());
    poller.add(spawned.pidfd.as_fd(), 1, Trigger::Level).unwrap();
    poller.wait(&mut ready, Some(0)).unwrap();
    assert_eq!(ready, []);
    File::from(input.write).write_all(b"go\n").unwrap();
    while ready.is_empty() {
        poller.wait(&mut ready, Some(10_000)).unwrap();
    }
    assert!(signals::send(spawned.pid, 0).unwrap());
    assert_eq!(try_reap(spawned.pid).unwrap().unwrap().status, ExitStatus::Exited(5));
    assert!(try_reap(spawned.pid).is_err());
}

#[test]
fn a_process_dies_with_the_thread_that_started_it() {
    let out = pipe().unwrap();
    let writer = out.write;
    let pid = std::thread::spawn(move || {
        let mut spawner = Spawner::new(Owner::new()).unwrap();
        Run::sh("exec sleep 1000").start(&mut spawner, writer.as_fd()).unwrap().pid
    })
    .join()
    .unwrap();
    assert_eq!(reap(pid).unwrap().status, ExitStatus::Signaled { signal: 9, core: false });
}

#[test]
fn when_memory_runs_out_a_child_is_taken_before_its_parent() {
    let score = |text: &str| text.trim().parse::<i32>().unwrap();
    let own = score(&std::fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    let out = pipe().unwrap();
    let mut spawner = Spawner::new(Owner::new()).unwrap();
    let spawned = Run::sh("cat /proc/self/oom_score_adj").start(&mut spawner, out.write.as_fd()).unwrap();
    drop(out.write);
    let mut text = String::new();
    std::fs::File::from(out.read).read_to_string(&mut text).unwrap();
    reap(spawned.pid).unwrap();
    assert_eq!(score(&text), (own + 10).min(1000));
    assert_eq!(
        score(&std::fs::read_to_string("/proc/self/oom_score_adj").unwrap()),
        own,
        "the parent's stays as it was"
    );
}

#[test]
fn a_symlink_loop_is_a_failure_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop");
    symlink(&path, &path).unwrap();
    let (stage, errno) = failure(&Run::new(&[path.to_str().unwrap()]));
    assert_eq!((stage, errno), (Stage::Exec, 40));
}

#[test]
fn two_hundred_starts_leave_nothing() {
    let mut spawner = Spawner::new(Owner::new()).unwrap();
    let out = pipe().unwrap();
    let mut pids = Vec::new();
    for i in 0..200 {
        if i % 10 == 0 {
            // A failing start must leave nothing either.
            assert!(Run::new(&["no-such-program"]).start(&mut spawner, out.write.as_fd()).is_err());
        }
        pids.push(Run::new(&["true"]).start(&mut spawner, out.write.as_fd()).unwrap());
    }
    for spawned in &pids {
        assert_eq!(reap(spawned.pid).unwrap().status, ExitStatus::Exited(0));
        assert!(!Path::new(&format!("/proc/{}/exe", spawned.pid)).exists());
    }
}
