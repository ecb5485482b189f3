//! The command as a user starts it, on agents of this machine.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SAFETY_NET: Duration = Duration::from_secs(120);

fn muster(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MUSTER_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SAFETY_NET;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a command whose output nobody reads.
fn status(child: &mut Child) -> i32 {
    until("its end", || child.try_wait().unwrap()).code().unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// The end of the job as the log of events has it: once, last, and with the status of the command.
fn ends_as_told(events: &Path, status: i32) {
    let text = std::fs::read_to_string(events).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends: Vec<_> = lines.iter().filter(|line| line["event"] == "job_ended").collect();
    assert_eq!(ends.len(), 1, "{text}");
    assert_eq!(ends[0]["status"], status, "{text}");
    assert_eq!(lines.last(), Some(ends[0]), "{text}");
}

#[test]
fn options_of_the_launcher_do_not_reach_its_agents() {
    let mut command = muster(&["run", "--local", "--job", "b", "-n", "1", "sh", "-c", "echo served"]);
    for (name, value) in [("JOB", "a"), ("JOIN", "nowhere:1"), ("NAME", "x"), ("GRACE_MS", "x"), ("EXIT_WITH_JOB", "x")]
    {
        command.env(format!("MUSTER_OPT_{name}"), value);
    }
    assert_eq!(run(command), (Some(0), "served\n".to_owned(), String::new()));
}

#[test]
fn an_agent_of_this_machine_that_ends_at_once_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, fifo) = (dir.path().join("muster"), dir.path().join("events"));
    std::fs::copy(env!("CARGO_BIN_EXE_muster"), &copy).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut child = Command::new(&copy)
        .args(["run", "--local", "--connect-timeout", "1h", "--events"])
        .arg(&fifo)
        .args(["-n", "1", "true"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It starts its agents from where it came itself, and only once somebody reads its events. Of a program that is removed
    // meanwhile the kernel says so in its name, and there it finds another one.
    let other = dir.path().join("muster (deleted)");
    std::fs::write(&other, "#!/bin/sh\necho 'I cannot' >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_file(&copy).unwrap();
    let mut events = String::new();
    std::fs::File::open(&fifo).unwrap().read_to_string(&mut events).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status(&mut child), 240, "{said}");
    let cause = "muster: 1 host could not be connected: localhost: its agent on this machine has ended (exit status: 3); what it said stands above\n";
    assert_eq!(said, format!("I cannot\n{cause}"));
    assert!(events.trim_end().lines().next_back().unwrap().contains(r#""event":"job_ended","status":240"#), "{events}");
}

#[test]
fn a_disk_that_is_full_for_the_last_words_is_in_status_and_events() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    // Unfinished lines of several ranks wait for the end of the job.
    let mut command = muster(&["run", "--local", "--oversubscribe", "-n", "2", "--events"]);
    command.arg(&events).args(["printf", "x"]).stdout(std::fs::File::create("/dev/full").unwrap());
    let (status, _, said) = run(command);
    assert_eq!(status, Some(242), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    ends_as_told(&events, 242);
}

#[test]
fn a_reader_that_stands_still_keeps_neither_the_time_limit_nor_its_event() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    let mut command = muster(&["run", "--local", "-n", "1", "--timeout", "1s", "--grace", "0", "--events"]);
    let mut child = command.arg(&events).arg("yes").stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(status(&mut child), 243);
    ends_as_told(&events, 243);
}

#[test]
fn the_time_limit_counts_until_the_last_output_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    let mut command = muster(&["run", "--local", "-n", "1", "--timeout", "2s", "--grace", "0", "--events"]);
    // More than a pipe holds and less than may be on its way: the rank ends, and so does the job.
    command.arg(&events).args(["head", "-c", "300000", "/dev/zero"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert_eq!(status(&mut child), 243);
    ends_as_told(&events, 243);
    assert!(!std::fs::read_to_string(&events).unwrap().contains(r#""event":"ending""#), "the job was over before");
}

#[test]
fn ranks_on_this_machine_have_the_limit_on_open_files_that_the_command_was_given() {
    let script = r#"ulimit -S -n 500 && exec "$0" run --local -n 1 sh -c 'ulimit -S -n'"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_muster")]).stdin(Stdio::null());
    assert_eq!(run(command), (Some(0), "500\n".to_owned(), String::new()));
}

#[test]
fn the_third_signal_ends_without_waiting_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    let mut command = muster(&["run", "--local", "-n", "1", "--grace", "1h", "--events"]);
    command.arg(&events).args(["sh", "-c", "trap '' TERM; exec yes"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let told = |word: &str| until(word, || std::fs::read_to_string(&events).ok().filter(|t| t.contains(word)));
    told("group_running");
    signal(&child, "-TERM");
    told("signal_forwarded");
    signal(&child, "-TERM");
    signal(&child, "-TERM");
    assert_eq!(status(&mut child), 143);
    ends_as_told(&events, 143);
}

#[test]
fn words_of_a_host_file_without_effect_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts");
    std::fs::write(&file, "127.0.0.1 slots=2 user=me\n").unwrap();
    std::fs::write(dir.path().join("key"), "0123456789abcdef").unwrap();
    let note = "muster: hosts:1: user=me has no effect here and is ignored\n";
    let mut plan = muster(&["plan", "-f", "hosts", "-n", "1", "true"]);
    plan.current_dir(&dir);
    let (status, _, said) = run(plan);
    assert_eq!((status, said.as_str()), (Some(0), note));
    let mut start =
        muster(&["run", "-f", "hosts", "--key-file", "key", "--port", "1", "--connect-timeout", "1ms", "true"]);
    start.current_dir(&dir);
    let (status, _, said) = run(start);
    assert_eq!(status, Some(240), "{said}");
    assert!(said.starts_with(note), "{said}");
}
