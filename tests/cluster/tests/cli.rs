//! The command line with real programs: bad input with its exact words, and every place that options can come from.

use std::net::TcpListener;

use insta::assert_snapshot;
use muster_cluster::{Cluster, Cmd, Here, Output, PATIENCE, cluster_or_skip, workspace};

/// Short enough for a test, and long enough for every answer.
const SOON: &str = "--connect-timeout=3s";

fn here() -> Here {
    Here::new().expect("a folder")
}

/// Exit status and standard error of a command that says nothing on standard output and leaves nothing behind.
fn told(here: &Here, cmd: Cmd) -> String {
    let output = here.run(cmd).expect("it ends");
    assert_eq!(output.stdout_text(), "");
    let left: Vec<_> = std::fs::read_dir(here.runtime_dir()).expect("folder").flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let code = output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string());
    format!("{code}: {}", here.plain(output.said().trim_end()))
}

fn run(here: &Here, args: &[&str]) -> String {
    told(here, here.muster(&["run"]).expect("built").args(args))
}

fn stdout(here: &Here, cmd: Cmd) -> String {
    let output = here.run(cmd).and_then(Output::ok).expect("it runs well");
    assert_eq!(output.said(), "");
    here.plain(&output.stdout_text())
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn mistyped_commands_and_options() {
    let here = here();
    let muster = |args: &[&str]| told(&here, here.muster(args).expect("built"));
    assert_snapshot!(muster(&["runn", "true"]), @r#"64: muster: unknown command "runn" (did you mean muster run?); muster --help lists the commands"#);
    assert_snapshot!(muster(&["topo"]), @"64: muster: muster topo is not in this release; it has run, exec, plan, hosts, key new, version and help");
    assert_snapshot!(muster(&["key", "old"]), @r#"64: muster: muster key does not take "old"; muster key --help tells what it takes"#);
    assert_snapshot!(run(&here, &["--timeot", "3", "true"]), @r#"64: muster: unknown option "--timeot" (did you mean --timeout?); options stand before the program, and muster run --help lists them"#);
    assert_snapshot!(run(&here, &["--frobnicate", "true"]), @r#"64: muster: unknown option "--frobnicate"; options stand before the program, and muster run --help lists them"#);
    assert_snapshot!(run(&here, &["-n4", "true"]), @r#"64: muster: unknown option "-n4" (did you mean -n 4?); options stand before the program, and muster run --help lists them"#);
    assert_snapshot!(run(&here, &["-mca", "btl", "tcp", "true"]), @r#"64: muster: option "-mca" is not supported: parameters of Open MPI's mpirun have no meaning here; set the variable with -x"#);
    assert_snapshot!(run(&here, &["-n", "four", "true"]), @r#"64: muster: -n: "four" is not a whole number from 1 to 4194304"#);
    assert_snapshot!(run(&here, &["-n"]), @"64: muster: -n needs a value: -n N");
    assert_snapshot!(run(&here, &[]), @"64: muster: no program to run; write it after the options: muster run [OPTIONS] PROGRAM [ARGUMENTS]");
    assert_snapshot!(run(&here, &["-n", "1", "true", ":", "-n", "1"]), @"64: muster: program 2 is missing: each ':' stands between two programs");
    assert_snapshot!(run(&here, &["-H", "a", "--local", "true"]), @"64: muster: -H and --local are both given; keep one of them");
    assert_snapshot!(run(&here, &["--json", "true"]), @"64: muster: --json goes with muster plan only");
    assert_snapshot!(run(&here, &["--max-restarts", "3", "true"]), @r#"64: muster: --max-restarts: "3" asks for restarts, which are not in this release; only 0 is accepted"#);
}

#[test]
fn files_and_values_that_cannot_be_used() {
    let here = here();
    let file = |name: &str, text: &str| here.write(name, text).expect("written").to_str().expect("text").to_owned();
    let hosts = file("hosts", "a slots=2\nb slots=two\n");
    assert_snapshot!(run(&here, &["-f", &hosts, "true"]), @r#"64: muster: DIR/hosts:2:3: slots of "b" are "two"; write a whole number from 1 to 4096"#);
    assert_snapshot!(run(&here, &["-f", "none", "true"]), @"64: muster: -f: host file none: cannot be read: No such file or directory (os error 2); name a readable file, or hosts with -H");
    assert_snapshot!(run(&here, &["-f", "/dev/null", "true"]), @"64: muster: /dev/null:1:1: no host in this file; write one NAME [slots=N] on each line");
    assert_snapshot!(run(&here, &["-H", "a:x", "true"]), @r#"64: muster: -H: host 1 of the list: slots of "a" are "x"; write a whole number from 1 to 4096"#);
    assert_snapshot!(run(&here, &["-H", "127.0.0.1", "--key-file", "none", "true"]), @"64: muster: --key-file: job key none cannot be read: No such file or directory (os error 2)");
    assert_snapshot!(run(&here, &["-H", "127.0.0.1", "--key-file", "/dev/null", "true"]), @"64: muster: --key-file: job key /dev/null is empty; `muster key new` makes one");
    assert_snapshot!(run(&here, &["-configfile", "none"]), @"64: muster: -configfile: none: cannot be read: No such file or directory (os error 2)");
    let words = file("words", "-n 1 ./a\n-n 1 ./b 'x\n");
    assert_snapshot!(run(&here, &["-configfile", &words]), @"64: muster: DIR/words:2: a quote is not closed on this line");
    let config = file("m.toml", "np = 2\nlable = true\n");
    assert_snapshot!(run(&here, &["--config", &config, "true"]), @r#"64: muster: DIR/m.toml:2: unknown key "lable" (did you mean label?); keys are the long names of the options of muster run"#);
    let by_variable = here.muster(&["run", "true"]).expect("built").env("MUSTER_OPT_TIMEOUT", "x");
    assert_snapshot!(told(&here, by_variable), @r#"64: muster: environment variable MUSTER_OPT_TIMEOUT: "x" is not a time; write a number with ms, s, m or h, such as 500ms, 10s, 1.5m (a plain number is seconds)"#);
    assert_snapshot!(run(&here, &["--umask", "9", "true"]), @r#"64: muster: --umask: "9" is not a file mode mask; write it in octal, such as 022"#);
    assert_snapshot!(run(&here, &["--local", "2", "-n", "2", "--stdin", "2", "true"]), @"64: muster: --stdin 2: there is no such rank, the job has 2 (0 to 1)");
    assert_snapshot!(run(&here, &["--local", "--events", "none/e", "true"]), @"64: muster: --events: event file none/e cannot be created: No such file or directory (os error 2)");
    assert_snapshot!(run(&here, &["--local", "--output-dir", "/dev/null/o", "true"]), @"64: muster: --output-dir: output directory /dev/null/o: Not a directory (os error 20)");
}

#[test]
fn hosts_to_ask_that_are_not_there() {
    let here = here();
    let hosts = |args: &[&str]| told(&here, here.muster(&[&["hosts"], args].concat()).expect("built"));
    assert_snapshot!(hosts(&["--config", "none"]), @"64: muster: --config: none: cannot be read: No such file or directory (os error 2)");
    let local = here.write("m.toml", "local = 1\n").expect("written").display().to_string();
    assert_snapshot!(hosts(&["--config", &local]), @"64: muster: muster hosts asks the agents of hosts: name them with -H or -f");
    let file = |name, text: &str| here.write(name, text).expect("written").display().to_string();
    let (empty, comments, key) =
        (file("empty", ""), file("comments", "# gone\n\n"), here.key_file().display().to_string());
    assert_snapshot!(hosts(&["-f", &empty, "--key-file", &key]), @"0: ");
    assert_snapshot!(hosts(&["-f", &comments, "--key-file", &key]), @"0: ");
    assert_snapshot!(hosts(&["-f", &empty, "--key-file", "none"]), @"64: muster: --key-file: job key none cannot be read: No such file or directory (os error 2)");
    assert_snapshot!(hosts(&["-f", &file("wrong", "a slots=two\n"), "--key-file", &key]), @r#"64: muster: DIR/wrong:1:3: slots of "a" are "two"; write a whole number from 1 to 4096"#);
    assert_snapshot!(hosts(&["-H", "127.0.0.1", "--key-file", "none"]), @"64: muster: --key-file: job key none cannot be read: No such file or directory (os error 2)");
    assert_snapshot!(hosts(&["-H", "127.0.0.1", "-n", "2"]), @"64: muster: -n: muster hosts does not take it; muster hosts --help tells what it takes");
    assert_snapshot!(hosts(&["127.0.0.1"]), @r#"64: muster: muster hosts does not take "127.0.0.1"; muster hosts --help tells what it takes"#);
}

#[test]
fn more_ranks_than_slots() {
    let here = here();
    assert_snapshot!(run(&here, &["--local", "2", "-H", "h"]), @"64: muster: --local and -H are both given; keep one of them");
    assert_snapshot!(run(&here, &["-H", "h1:2,h2", "-n", "4", "true"]), @"64: muster: 4 ranks do not fit into 3 slots on 2 hosts; use fewer ranks, more hosts or slots, or allow more ranks than slots with --oversubscribe");
    let hosts = here.write("hosts", "h1 slots=1 max_slots=2\n").expect("written");
    let cmd = here.muster(&["run", "--oversubscribe", "-n", "3", "-f"]).expect("built").arg(hosts).arg("true");
    assert_snapshot!(told(&here, cmd), @"64: muster: 3 ranks do not fit: --oversubscribe never passes a host's max_slots, and that leaves room for 2; use fewer ranks or raise max_slots");
}

#[test]
fn programs_that_cannot_be_started() {
    let here = here();
    let script = here.write("script", "#!/none/sh\n").expect("written");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    let local = |args: &[&str]| run(&here, &[&["--local", "-n", "1"], args].concat());
    assert_snapshot!(local(&["no-such-program"]), @r#"127: muster: rank 0 on localhost could not be started: program "no-such-program" not found in the PATH of the rank; give its path, or set PATH with -x"#);
    assert_snapshot!(local(&["./none"]), @r#"127: muster: rank 0 on localhost could not be started: program "./none" not found; is it in this host's image and file system?"#);
    assert_snapshot!(local(&["/etc/passwd"]), @r#"126: muster: rank 0 on localhost could not be started: program "/etc/passwd" cannot be executed: permission denied; is it a program, is its mode executable?"#);
    assert_snapshot!(local(&["/tmp"]), @r#"126: muster: rank 0 on localhost could not be started: program "/tmp" cannot be executed: permission denied; is it a program, is its mode executable?"#);
    assert_snapshot!(local(&["./script"]), @r#"126: muster: rank 0 on localhost could not be started: program "./script" cannot be executed: the interpreter or loader that it names is missing here"#);
    assert_snapshot!(local(&["-wdir", "/none", "true"]), @r#"126: muster: rank 0 on localhost could not be started: working directory "/none" cannot be entered: No such file or directory (os error 2); choose another with --wdir"#);
    assert_snapshot!(local(&["-x", "PATH=/none", "true"]), @r#"127: muster: rank 0 on localhost could not be started: program "true" not found in the PATH of the rank; give its path, or set PATH with -x"#);
}

#[test]
fn agents_that_cannot_be_reached() {
    let here = here();
    let other_key = here.write("other.key", [7; 32]).expect("written");
    let agent = here.start(here.agent(0, here.key_file()).expect("built").args(["--job", "a"]), 0).expect("agent");
    let [address, nobody] = [0, 1].map(|i| here.address(i).to_string());
    let port = here.port().to_string();
    let key = here.key_file().to_str().expect("text");
    let dial = |host: &str, key: &str, more: &[&str]| {
        run(&here, &[&["-H", host, "--port", &port, "--key-file", key, SOON], more, &["true"]].concat())
    };
    let both = format!("{address},{nobody}");
    let other_key = other_key.to_str().expect("text");
    let cases: [(&str, &str, &[&str]); 4] = [
        (&nobody, key, &[]),
        (&address, other_key, &[]),
        (&address, key, &["--job", "b"]),
        (&both, key, &["--job", "a"]),
    ];
    // All at once: each waits for as long as it may.
    let [refused, wrong_key, wrong_job, one_of_two] = std::thread::scope(|scope| {
        let dial = &dial;
        cases
            .map(|(host, key, more)| scope.spawn(move || dial(host, key, more)))
            .map(|case| case.join().expect("a case"))
    });
    assert_snapshot!(refused, @"240: muster: 1 host could not be connected: A1: connection refused by A1:PORT; is the agent running there, and on this port?");
    assert_snapshot!(wrong_key, @"77: muster: 1 host could not be connected: A0: connected, but its agent has another job key; do both sides read the same key file?");
    assert_snapshot!(wrong_job, @r#"77: muster: 1 host could not be connected: A0: connected, but its agent serves job "a" (this is job "b"); is an old pod still terminating?"#);
    assert_snapshot!(one_of_two, @"240: muster: 1 host could not be connected: A1: connection refused by A1:PORT; is the agent running there, and on this port?");
    // Its agent has not suffered.
    assert_snapshot!(dial(&address, key, &["--job", "a"]), @"0:");
    assert!(agent.try_wait().expect("status").is_none());

    // An ssh server, as in a pod whose image was not replaced.
    let ssh = TcpListener::bind((here.address(2), here.port())).expect("a free port");
    std::thread::spawn(move || {
        for mut stream in ssh.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2p1\r\n");
        }
    });
    assert_snapshot!(dial(&here.address(2).to_string(), key, &[]), @"240: muster: 1 host could not be connected: A2: connected, but what answers at A2:PORT is not a muster agent (received corrupt message of type InvalidContentType)");
}

#[test]
fn an_agent_that_is_busy_names_its_job() {
    let here = here();
    let _agents = here.start_agents(1, &[]).expect("agent");
    let first = here.run_on(1, 1).expect("built").args(["--job", "first", "sh", "-c", "echo up; read line"]);
    let mut first = here.spawn(first.stdin(muster_cluster::Stdin::Piped)).expect("spawn");
    first.wait_for("up", PATIENCE).expect("it runs");
    let second = told(&here, here.run_on(1, 1).expect("built").args(["--job", "second", SOON, "true"]));
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("host name");
    assert_snapshot!(second.replace(name.trim(), "HOST"), @r#"240: muster: 1 host could not be connected: A0: connected, but its agent is busy with job "first" of HOST"#);
    first.write_stdin(b"\n").expect("it reads");
    assert_eq!(first.finish(PATIENCE).expect("it ends").status.code(), Some(0));
    assert_snapshot!(told(&here, here.run_on(1, 1).expect("built").args(["--job", "second", "true"])), @"0:");
}

#[test]
fn a_job_that_takes_too_long() {
    let here = here();
    let output = run(&here, &["--local", "2", "-n", "2", "--timeout", "300ms", "--grace", "100ms", "sleep", "1000"]);
    assert_snapshot!(output, @"243: muster: the job did not end within its time limit of 0.300 s");
}

#[test]
fn a_late_agent_is_waited_for_and_the_wait_is_told() {
    let here = here();
    let job = here.spawn(here.run_on(2, 1).expect("built").args(["-l", "echo", "here"])).expect("spawn");
    let missing = |i| {
        let (address, port) = (here.address(i), here.port());
        format!("{address}: connection refused by {address}:{port}; is the agent running there, and on this port?")
    };
    let both = format!("muster: waiting for 2 hosts: {}; {}\n", missing(0), missing(1));
    job.wait_for(&both, PATIENCE).expect("a progress line");
    let _first = here.start(here.agent(1, here.key_file()).expect("built"), 1).expect("agent");
    job.wait_for(&format!("muster: waiting for 1 host: {}\n", missing(0)), PATIENCE).expect("a new progress line");
    let _second = here.start(here.agent(0, here.key_file()).expect("built"), 0).expect("agent");
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("it runs");
    assert_eq!(sorted(&output.stdout_text()), ["[0] here", "[1] here"]);
    assert_eq!(output.said(), "");
}

#[test]
fn an_agent_checks_itself() {
    let here = here();
    let other_key = here.write("other.key", [7; 32]).expect("written");
    let check = |key, args: &[&str]| {
        let output = here.run(here.agent(0, key).expect("built").arg("--check").args(args)).expect("it ends");
        let text = here.plain(&output.stderr_text());
        // A log line begins with the time.
        let told = text.split_once(" ERROR ").map_or(text.as_str(), |(_, told)| told);
        format!("{:?} {}", output.status.code(), told.trim_end())
    };
    assert_snapshot!(check(here.key_file(), &[]), @"Some(1) muster_agent: not ready: A0: connection refused by A0:PORT; is the agent running there, and on this port?");
    let agent = here.start(here.agent(0, here.key_file()).expect("built").args(["--job", "a"]), 0).expect("agent");
    assert_snapshot!(check(here.key_file(), &["--job", "a"]), @"Some(0) ");
    assert_snapshot!(check(&other_key, &["--job", "a"]), @"Some(1) muster_agent: not ready: A0: connected, but its agent has another job key; do both sides read the same key file?");
    assert_snapshot!(check(here.key_file(), &["--job", "b"]), @r#"Some(1) muster_agent: not ready: A0: connected, but its agent serves job "a" (this is job "b"); is an old pod still terminating?"#);
    agent.signal(nix::sys::signal::Signal::SIGTERM).expect("signal");
    assert_eq!(agent.wait(PATIENCE).expect("it ends").code(), Some(0));
}

#[test]
fn an_agent_with_wrong_flags_does_not_start() {
    let here = here();
    let agent = |args: &[&str]| {
        let output =
            here.run(here.cmd(workspace::program("muster-agent").expect("built")).args(args)).expect("it ends");
        let text = here.plain(&output.stderr_text());
        let told = text.split_once(" ERROR ").map_or(text.as_str(), |(_, told)| told);
        format!("{:?} {}", output.status.code(), told.lines().next().unwrap_or_default())
    };
    assert_snapshot!(agent(&["--frob"]), @"Some(64) error: unexpected argument '--frob' found");
    assert_snapshot!(agent(&["--key-file", "none"]), @"Some(64) muster_agent: --key-file: job key none cannot be read: No such file or directory (os error 2)");
    assert_snapshot!(agent(&["--listen", "here"]), @"Some(64) error: invalid value 'here' for '--listen <ADDR>': not an address to listen at; write IP, IP:PORT, [IPV6]:PORT or :PORT");
    let _taken = here.start_agents(1, &[]).expect("agent");
    let (address, port) = (here.address(0).to_string(), here.port().to_string());
    let key = here.key_file().to_str().expect("text");
    assert_snapshot!(agent(&["--listen", &address, "--port", &port, "--key-file", key]), @"Some(242) muster_agent: cannot listen on A0:PORT: Address already in use (os error 98)");
}

#[test]
fn options_come_from_flags_variables_and_files() {
    let here = here();
    let show = ["sh", "-c", "echo $MUSTER_WORLD_SIZE $A"];
    let config = here.write("m.toml", "np = 3\nlocal = 3\nlabel = true\n[export]\nA = \"file\"\n").expect("written");
    let from_file =
        |args: &[&str]| here.muster(&["run", "--config"]).expect("built").arg(&config).args(args).args(show);
    assert_eq!(sorted(&stdout(&here, from_file(&[]))), ["[0] 3 file", "[1] 3 file", "[2] 3 file"]);
    let variables = from_file(&[]).env("MUSTER_OPT_NP", "2").env("MUSTER_OPT_EXPORT", "A=variable");
    assert_eq!(sorted(&stdout(&here, variables.clone())), ["[0] 2 variable", "[1] 2 variable"]);
    let cmd = from_file(&["-n", "1", "-genv", "A", "flag", "--label=false"]);
    assert_eq!(stdout(&here, cmd.env("MUSTER_OPT_NP", "2")), "1 flag\n");
}

#[test]
fn a_configfile_holds_several_programs() {
    let here = here();
    let text = "# two programs\n-n 1 sh -c 'echo first $A'\n-n 2 -env A \"b c\" \\\n  sh -c 'echo second $A'\n";
    let file = here.write("job", text).expect("written");
    let cmd = here.muster(&["run", "--local", "3", "-l", "-genv", "A", "a", "-configfile"]).expect("built").arg(file);
    assert_eq!(sorted(&stdout(&here, cmd)), ["[0] first a", "[1] second b c", "[2] second b c"]);
}

#[test]
fn called_as_mpiexec_it_runs() {
    let here = here();
    for name in ["mpiexec", "mpirun"] {
        let link = here.dir().join(name);
        std::os::unix::fs::symlink(workspace::program("muster").expect("built"), &link).expect("link");
        let cmd =
            here.cmd(&link).args(["-np", "2", "-oversubscribe", "-l", "-genvlist", "A,B", "sh", "-c", "echo $A $B"]);
        assert_eq!(sorted(&stdout(&here, cmd.env("A", "1").env("B", "2"))), ["[0] 1 2", "[1] 1 2"], "{name}");
    }
}

#[test]
fn a_plan_needs_no_key_and_no_agent() {
    let here = here();
    let plan = |args: &[&str]| stdout(&here, here.muster(&["plan"]).expect("built").args(args));
    let text = plan(&["-H", "h1:2,h2:2", "-n", "3", "-wdir", "/data", "./solve", "in.dat", ":", "-n", "1", "./watch"]);
    // Which control plane has started the test is the machine's business; that it is told is not.
    assert!(text.starts_with("control plane: "), "{text}");
    let of_job = text.find("job default").expect("the job's line");
    assert_snapshot!(text[of_job..].split("\nvariables").next().unwrap_or_default(), @r"
    job default: 4 ranks on 2 of 2 hosts, placement block, bootstrap auto

    HOST  NODE  USED/SLOTS  RANKS  PROGRAM
    h1    0     2/2         0-1    1
    h2    1     2/2         2-3    1-2

    PROGRAM  DIRECTORY      COMMAND
    1        /data          ./solve in.dat
    2        (the agent's)  ./watch

    PROGRAM  WORLD  BOOTSTRAP  WHY
    1        0      auto       nothing is known of it
    2        0      auto       nothing is known of it
    ");
    let json = plan(&["--json", "-H", "h1:2,h2:2", "--placement", "cyclic", "true"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["world"], 4);
    assert!(json["surroundings"]["reason"].is_string(), "{json}");
    let hosts: Vec<_> = json["ranks"].as_array().expect("list").iter().map(|r| r["host"].as_u64()).collect();
    assert_eq!(hosts, [Some(0), Some(1), Some(0), Some(1)]);
    assert_snapshot!(told(&here, here.muster(&["plan", "-n", "9", "-H", "a", "true"]).expect("built")), @"64: muster: 9 ranks do not fit into 1 slot on 1 host; use fewer ranks, more hosts or slots, or allow more ranks than slots with --oversubscribe");
}

#[test]
fn keys_are_made_once() {
    let here = here();
    let new = |args: &[&str]| here.muster(&["key", "new"]).expect("built").args(args);
    assert_snapshot!(told(&here, new(&["key"])), @"0:");
    let file = here.dir().join("key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_snapshot!(told(&here, new(&["key"])), @"64: muster: key file key cannot be created: File exists (os error 17)");
    let (first, second) = (stdout(&here, new(&[])), stdout(&here, new(&[])));
    assert_ne!(first, second);
    assert_eq!(first.len(), std::fs::read(&file).expect("key").len());
    // The key is one: an agent with it serves a launcher with it.
    let _agent = here.start(here.agent(0, &file).expect("built"), 0).expect("agent");
    let cmd = here.run_on(1, 1).expect("built").arg("--key-file").arg(file).args(["echo", "trusted"]);
    assert_eq!(stdout(&here, cmd), "trusted\n");
}

#[test]
fn without_a_key_an_agent_serves_this_machine_only_and_says_so() {
    let here = here();
    let port = here.port().to_string();
    let address = here.address(0).to_string();
    let agent =
        |args: &[&str]| here.cmd(workspace::program("muster-agent").expect("built")).args(["--port", &port]).args(args);
    if muster_keys_lie_around() {
        return;
    }
    let refused = here.run(agent(&["--listen", "0.0.0.0"])).expect("it ends");
    assert_eq!(refused.status.code(), Some(64));
    let why = "no job key: without one the agent listens on loopback only; give --key-file, or --listen 127.0.0.1";
    assert!(refused.stderr_text().contains(why), "{}", refused.stderr_text());
    let served = here.start(agent(&["--listen", &address]), 0).expect("agent");
    served.wait_for("no job key: listening on loopback only", PATIENCE).expect("a warning");
}

/// Whether this machine has a key where operators mount theirs, which agents would find.
fn muster_keys_lie_around() -> bool {
    ["/root/.ssh/id_rsa", "/home/mpiuser/.ssh/id_rsa"].iter().any(|file| std::path::Path::new(file).exists())
}

#[test]
fn a_host_without_an_address_is_named() {
    // On a host of its own, because what a machine's name servers say is up to them.
    let cluster = cluster_or_skip!(Cluster::builder().hosts(0));
    let cmd = cluster.muster("none").expect("built").args([SOON, "true"]);
    let output = cluster.launcher().run(cmd).expect("it ends");
    assert_snapshot!(format!("{:?}: {}", output.status.code(), output.said().trim_end()), @r#"Some(240): muster: 1 host could not be connected: none: no address for "none": it is not in /etc/hosts, and /etc/resolv.conf names no DNS server (io error: no nameservers found in config)"#);
}

#[test]
fn hosts_come_from_a_variable_as_well() {
    let here = here();
    let _agents = here.start_agents(2, &[]).expect("agents");
    let hosts = format!("{},{}:2", here.address(0), here.address(1));
    let cmd =
        here.muster(&["run", "-l", "sh", "-c", "echo $MUSTER_HOST"]).expect("built").env("MUSTER_OPT_HOSTS", hosts);
    let cmd = cmd.env("MUSTER_OPT_PORT", here.port().to_string()).env("MUSTER_OPT_KEY_FILE", here.key_file());
    assert_eq!(sorted(&stdout(&here, cmd)), ["[0] A0", "[1] A1", "[2] A1"]);
}

#[test]
fn what_an_operator_mounts_is_enough() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let ssh = cluster.shared_dir().join("home/.ssh");
    std::fs::create_dir_all(&ssh).expect("folder");
    std::fs::copy(cluster.key_file(), ssh.join("id_rsa")).expect("key");
    let home = ssh.parent().expect("a folder");
    let program = |name| workspace::program(name).expect("built");
    let agent = |i| {
        let agent = cluster.host(i).spawn(Cmd::new(program("muster-agent")).env("HOME", home)).expect("spawn");
        agent.wait_for("agent is ready", PATIENCE).expect("it finds the key");
        agent
    };
    let _agents = [agent(0), agent(1)];
    // A copy of /etc, so that the machine's own stays as it is.
    let script = "cp -a /etc /tmp/etc && mkdir -p /tmp/etc/mpi && mount --bind /tmp/etc /etc && \
                  printf 'h0 slots=1\\nh1 slots=2\\n' >/etc/mpi/hostfile && exec \"$@\"";
    let cmd = Cmd::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).arg(program("muster"));
    let cmd = cmd.args(["run", "-l", "hostname"]).env("HOME", home);
    let output = cluster.launcher().run(cmd).and_then(Output::ok).expect("it runs");
    assert_eq!(sorted(&output.stdout_text()), ["[0] h0", "[1] h1", "[2] h1"]);
}
