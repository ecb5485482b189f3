//! The remote shell against real agents: what MPI launchers and people rely on.

use std::time::Duration;

use muster_cluster::{Cluster, Cmd, Output, PATIENCE, Proc, Stdin, Terminal, cluster_or_skip, eventually, workspace};
use nix::sys::signal::Signal;

/// A cluster with agents on all hosts.
struct Rig {
    // Agents end before their hosts.
    agents: Vec<Proc>,
    cluster: Cluster,
}

macro_rules! rig {
    ($hosts:expr) => {{
        let cluster = cluster_or_skip!(Cluster::builder().hosts($hosts));
        let agents = cluster.start_agents(&[]).expect("agents");
        Rig { agents, cluster }
    }};
}

impl Rig {
    fn rsh<S: AsRef<str>>(&self, words: &[S]) -> Cmd {
        let words = words.iter().map(AsRef::as_ref);
        let cmd = Cmd::new(workspace::program("muster-rsh").expect("built")).args(words);
        cmd.env("MUSTER_OPT_KEY_FILE", self.cluster.key_file())
    }

    fn run(&self, words: &[&str]) -> Output {
        self.cluster.launcher().run(self.rsh(words)).expect("it ends")
    }

    /// The sleepers on a host, without the shells that have started them.
    fn sleepers(&self, host: usize) -> Vec<String> {
        let processes = self.cluster.host(host).processes().expect("processes");
        processes.into_iter().map(|p| p.command).filter(|c| c.starts_with("sleep ")).collect()
    }

    fn wait_for_sleepers(&self, host: usize, wanted: &[&str]) {
        let sorted = || {
            let mut names = self.sleepers(host);
            names.sort();
            names
        };
        eventually(sorted, |names| names == wanted).expect("these sleep");
    }
}

#[test]
fn commands_run_in_a_shell_and_give_their_status() {
    let rig = rig!(2);
    let hello = rig.run(&["h0", "echo", "on", "$(hostname);", "echo", "aside", ">&2;", "exit", "7"]);
    assert_eq!((hello.stdout_text().as_str(), hello.stderr_text().as_str()), ("on h0\n", "aside\n"));
    assert_eq!(hello.status.code(), Some(7));
    // As launchers write it: options on both sides of the host, literal quotes, leading blanks.
    let words =
        ["-x", "-q", "-o", "ConnectionAttempts=10", "root@h1", "-p", "2222", "  \"/bin/echo\"", "\"a  b\"", "'c'"];
    let quoted = rig.run(&words).ok().expect("it succeeds");
    assert_eq!((quoted.stdout_text().as_str(), quoted.stderr_text().as_str()), ("a  b c\n", ""));
    let environment =
        rig.run(&["h0", "echo $HOME $USER $SHELL; pwd; ls /proc/self/fd | wc -l"]).ok().expect("it succeeds");
    assert_eq!(environment.stdout_text(), "/root root /bin/bash\n/root\n4\n");
    let killed = rig.run(&["h0", "kill -SEGV $$"]);
    assert_eq!(killed.status.code(), Some(139));
    assert_eq!(killed.said(), "muster-rsh: h0: the command was ended by signal 11 (SIGSEGV)\n");
}

#[test]
fn input_and_output_pass_as_they_are() {
    let rig = rig!(1);
    let bytes: Vec<u8> = (0..8 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let copied = rig.cluster.launcher().run(rig.rsh(&["h0", "cat"]).stdin(Stdin::Bytes(bytes.clone())));
    let copied = copied.and_then(Output::ok).expect("it succeeds");
    assert!(copied.stdout == bytes, "{} of {} bytes", copied.stdout.len(), bytes.len());
    // A command that reads nothing ends all the same, and -n gives it nothing.
    let unread = rig.cluster.launcher().run(rig.rsh(&["h0", "true"]).stdin(Stdin::Bytes(bytes.clone())));
    unread.and_then(Output::ok).expect("it succeeds");
    let closed = rig.cluster.launcher().run(rig.rsh(&["-n", "h0", "wc -c"]).stdin(Stdin::Bytes(bytes)));
    assert_eq!(closed.and_then(Output::ok).expect("it succeeds").stdout_text(), "0\n");
}

#[test]
fn a_client_that_is_killed_takes_its_own_processes_along_and_no_others() {
    let rig = rig!(1);
    // One that leaves its session and its parent, as a daemon does.
    let script = |seconds: u32| format!("setsid sleep {seconds} & echo ready; trap '' TERM HUP; sleep {seconds}; :");
    let spawn = |seconds| {
        let shell = rig.cluster.launcher().spawn(rig.rsh(&["h0".to_owned(), script(seconds)])).expect("spawn");
        shell.wait_for("ready", PATIENCE).expect("it runs");
        shell
    };
    let (victim, other) = (spawn(1111), spawn(2222));
    rig.wait_for_sleepers(0, &["sleep 1111", "sleep 1111", "sleep 2222", "sleep 2222"]);
    victim.signal(Signal::SIGKILL).expect("signal");
    rig.wait_for_sleepers(0, &["sleep 2222", "sleep 2222"]);
    assert!(other.try_wait().expect("status").is_none());
    // A daemon of a command that has ended lives on, and ends with the agent.
    let left_behind = rig.run(&["h0", "setsid sleep 3333 > /dev/null 2>&1 < /dev/null &"]);
    left_behind.ok().expect("it succeeds");
    rig.wait_for_sleepers(0, &["sleep 2222", "sleep 2222", "sleep 3333"]);
    rig.agents[0].signal(Signal::SIGKILL).expect("signal");
    let output = other.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(255));
    assert!(output.said().starts_with("muster-rsh: h0: "), "{}", output.said());
    rig.wait_for_sleepers(0, &[]);
}

#[test]
fn a_host_that_is_cut_off_ends_the_command_here_and_there() {
    let rig = rig!(1);
    let shell = rig.cluster.launcher().spawn(rig.rsh(&["h0", "echo ready; sleep 1234"])).expect("spawn");
    shell.wait_for("ready", PATIENCE).expect("it runs");
    rig.cluster.cut(0).expect("cut");
    let output = shell.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(output.said(), "muster-rsh: h0: no sign of life for 5 s; is the host down, or the network cut?\n");
    rig.wait_for_sleepers(0, &[]);
}

#[test]
fn a_terminal_has_a_size_and_passes_keys_on() {
    let rig = rig!(1);
    let size = rig.run(&["-tt", "h0", "stty size; tty; test -t 2 && echo errors too"]).ok().expect("it succeeds");
    let text = size.stdout_text();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_eq!((lines[0], lines[2]), ("24 80", "errors too"), "{text}");
    assert!(lines[1].starts_with("/dev/pts/"), "{text}");
    let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do read x; done";
    let mut shell = rig.cluster.launcher().spawn(rig.rsh(&["-tt", "h0", script]).stdin(Stdin::Piped)).expect("spawn");
    shell.wait_for("ready", PATIENCE).expect("it runs");
    shell.write_stdin(b"\x03").expect("write");
    let output = shell.finish(PATIENCE).expect("it ends");
    assert!(output.stdout_text().contains("interrupted"), "{}", output.stdout_text());
    assert_eq!(output.status.code(), Some(9));
}

#[test]
fn at_a_terminal_it_is_a_login_like_any_other() {
    let rig = rig!(1);
    let terminal = Terminal::open(30, 100).expect("a terminal");
    let modes = terminal.modes().expect("modes");
    let login = || {
        let cmd = rig.rsh(&["h0"]).env("TERM", "dumb").on_terminal(&terminal);
        rig.cluster.launcher().spawn(cmd).expect("spawn")
    };
    // What is waited for is never what is typed, which is printed as well.
    let ask = |question: &str, answer: &str| {
        terminal.press(&format!("{question}\n")).and_then(|()| terminal.wait_for(answer)).expect("it answers");
    };
    let shell = login();
    ask("echo on $(hostname), size $(stty size)", "on h0, size 30 100");
    assert_ne!(terminal.modes().expect("modes"), modes, "keys are for the other side");
    // A program in the foreground is told of another size, and Ctrl-C ends it and not its shell.
    ask("bash -c 'trap \"stty size\" WINCH; echo rea\"\"dy; while :; do sleep 0.1; done'", "ready");
    terminal.resize(50, 132).expect("resized");
    terminal.wait_for("50 132").expect("it is told");
    terminal.press("\x03").expect("typed");
    ask("echo ended with $?, size $(stty size)", "ended with 130, size 50 132");
    terminal.press("sleep 4321\n").expect("typed");
    rig.wait_for_sleepers(0, &["sleep 4321"]);
    terminal.press("\x03").expect("typed");
    rig.wait_for_sleepers(0, &[]);
    ask("echo again $?", "again 130");
    assert!(shell.try_wait().expect("status").is_none(), "{}", terminal.printed());
    terminal.press("exit 3\n").expect("typed");
    assert_eq!(shell.wait(PATIENCE).expect("it ends").code(), Some(3));
    assert_eq!(terminal.modes().expect("modes"), modes, "the terminal is as it was");
    // A client that is asked to end leaves it in order, too, and nothing on the host.
    let shell = login();
    ask("echo another $((1 + 1))", "another 2");
    terminal.press("sleep 4322\n").expect("typed");
    rig.wait_for_sleepers(0, &["sleep 4322"]);
    shell.signal(Signal::SIGTERM).expect("signal");
    assert_eq!(shell.wait(PATIENCE).expect("it ends").code(), Some(143));
    assert_eq!(terminal.modes().expect("modes"), modes, "the terminal is as it was");
    rig.cluster.host(0).wait_until_idle().expect("nothing is left");
}

#[test]
fn what_is_wrong_is_said() {
    let rig = rig!(1);
    let other = rig.cluster.shared_dir().join("other.key");
    std::fs::write(&other, "a secret that the agent does not have").expect("write");
    let wrong = rig.rsh(&["-o", "ConnectTimeout=1", "h0", "true"]).env("MUSTER_OPT_KEY_FILE", &other);
    let wrong = rig.cluster.launcher().run(wrong).expect("it ends");
    assert_eq!(wrong.status.code(), Some(255));
    assert!(wrong.said().contains("another job key"), "{}", wrong.said());
    let user = rig.run(&["-l", "somebody", "h0", "true"]);
    assert_eq!(user.said(), "muster-rsh: h0: the agent runs as root and cannot become somebody\n");
    assert_eq!(user.status.code(), Some(255));
    let nobody = rig.run(&["-o", "ConnectTimeout=1", "no-such-host", "true"]);
    assert_eq!(nobody.status.code(), Some(255));
    assert!(nobody.said().contains("no-such-host"), "{}", nobody.said());
    assert_eq!(
        rig.run(&[]).said(),
        "muster-rsh: no host is named; usage: muster-rsh [OPTIONS] [USER@]HOST [COMMAND…]\n"
    );
}

#[test]
fn a_command_waits_for_an_agent_that_starts_later() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let rig = Rig { agents: Vec::new(), cluster };
    let shell = rig.cluster.launcher().spawn(rig.rsh(&["h0", "hostname"])).expect("spawn");
    std::thread::sleep(Duration::from_millis(700));
    let _agent = rig.cluster.start_agent(0, &[]).expect("agent");
    let output = shell.finish(PATIENCE).and_then(Output::ok).expect("it succeeds");
    assert_eq!((output.stdout_text().as_str(), output.said().as_str()), ("h0\n", ""));
}

#[test]
fn descriptors_that_a_remote_shell_has_inherited_are_closed() {
    let rig = rig!(1);
    let shell = workspace::program("muster-rsh").expect("built");
    let mark = rig.cluster.shared_dir().join("mark");
    // As launchers leave them open: a file, one of their pipes, and one with a high number.
    let script =
        format!("exec 3>{0} 9<{0} 200>&3; exec {1} h0 'echo begun; exec sleep 1000'", mark.display(), shell.display());
    let script = Cmd::new("bash").args(["-c", &script]).env("MUSTER_OPT_KEY_FILE", rig.cluster.key_file());
    let shell = rig.cluster.launcher().spawn(script.own_session()).expect("spawn");
    eventually(|| shell.stdout_so_far(), |text| text == "begun\n").expect("it runs");
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", shell.pid())).expect("a command");
    assert!(command.contains("muster-rsh"), "it is the remote shell that is looked at: {command}");
    let folder = format!("/proc/{}/fd", shell.pid());
    let open = std::fs::read_dir(&folder).expect("descriptors").flatten();
    let open: Vec<_> = open.filter_map(|fd| Some((fd.file_name(), std::fs::read_link(fd.path()).ok()?))).collect();
    assert!(open.len() >= 3, "they can be seen: {open:?}");
    assert!(open.iter().all(|(_, file)| *file != mark), "{open:?}");
}
