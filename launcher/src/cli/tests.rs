use std::path::Path;

use muster_core::exit::Outcome;
use muster_core::hosts::Origin;
use muster_core::plan::{Bootstrap, Placement, StdinTarget};

use super::*;

fn site(env: &[(&str, &str)]) -> Surroundings {
    Surroundings::new(env.iter().map(|(n, v)| (n.into(), v.into())), Path::new("/nowhere"), 4)
}

fn command(env: &[(&str, &str)], line: &str) -> Result<Command, String> {
    let words = line.split_whitespace().map(OsString::from);
    parse(OsStr::new("/usr/bin/muster"), words, &site(env)).map_err(|e| e.to_string())
}

fn run_in(env: &[(&str, &str)], line: &str) -> RunOptions {
    match command(env, &format!("run {line}")) {
        Ok(Command::Run(run)) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn run(line: &str) -> RunOptions {
    run_in(&[], line)
}

fn error(line: &str) -> String {
    command(&[], line).expect_err(line)
}

fn scratch(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn spellings_of_mpiexec_mean_the_same() {
    for line in [
        "-n 4 -ppn 2 -hosts a,b -l prog",
        "--np=4 --ppn=2 -H a,b --label prog",
        "-np 4 -perhost=2 -host a,b -prepend-rank prog",
    ] {
        let got = run(line);
        assert_eq!((got.spec.apps[0].n, got.spec.ppn, got.spec.output.label), (Some(4), Some(2), true), "{line}");
        assert!(matches!(&got.hosts, HostChoice::List(list) if list.value == "a,b"), "{line}");
    }
    for name in ["-f", "-hostfile", "--hostfile", "-machinefile"] {
        let got = run(&format!("{name} /x/hosts prog"));
        let want = Sourced { value: "/x/hosts".to_owned(), origin: Origin::flag(name) };
        assert_eq!(got.hosts, HostChoice::File(want));
    }
}

#[test]
fn the_program_and_its_arguments_are_not_interpreted() {
    let app = &run("-n 2 prog -n 9 --help -x : -n 1 other --version").spec.apps;
    assert_eq!(app[0].argv, ["prog", "-n", "9", "--help", "-x"]);
    assert_eq!(app[1].argv, ["other", "--version"]);
    assert_eq!((app[0].n, app[1].n), (Some(2), Some(1)));
    assert_eq!(run("-n 2 -- -odd --name").spec.apps[0].argv, ["-odd", "--name"]);
    assert_eq!(run("-n 2 - x").spec.apps[0].argv, ["-", "x"]);
    assert_eq!(run("-n 2 prog a:b ::").spec.apps[0].argv, ["prog", "a:b", "::"]);
}

#[test]
fn a_number_after_local_is_optional() {
    let local = |line: &str| match run(line).hosts {
        HostChoice::Local(k) => k.value,
        other => panic!("{other:?}"),
    };
    assert_eq!(local("--local prog 7"), 1);
    assert_eq!(local("--local 3 prog"), 3);
    assert_eq!(local("--local=3 prog"), 3);
    assert_eq!(local("--local -n 2 prog"), 1);
    assert_eq!(run("prog").hosts, HostChoice::Unsaid);
}

#[test]
fn every_option_of_a_job_arrives() {
    let got = run(
        "--placement cyclic --oversubscribe --timeout 5m --grace 500ms --connect-timeout 10 --stdin all --output-dir out \
         --events ev.ndjson --radix 2 --port 7000 --key-file k --job j-1 --listen :9 --bootstrap none --umask 027 \
         --max-restarts 0 --wdir /w -v -v prog",
    );
    let spec = &got.spec;
    assert_eq!(
        (spec.placement, spec.oversubscribe, spec.apps[0].bootstrap),
        (Placement::Cyclic, true, Bootstrap::None)
    );
    assert_eq!((spec.timeout_ms, spec.grace_ms, spec.connect_timeout_ms), (Some(300_000), 500, 10_000));
    assert_eq!((spec.stdin, spec.output.dir.as_deref()), (StdinTarget::All, Some("out")));
    assert_eq!((spec.radix, spec.umask, spec.job.as_str()), (2, Some(0o27), "j-1"));
    assert_eq!(spec.apps[0].wdir.as_deref(), Some("/w"));
    assert_eq!(got.port.map(|p| p.value), Some(7000));
    assert_eq!(got.key_file.map(|k| k.value).as_deref(), Some("k"));
    assert_eq!(got.listen.map(|l| l.value.to_string()).as_deref(), Some("0.0.0.0:9"));
    assert_eq!(got.events.map(|e| e.value).as_deref(), Some("ev.ndjson"));
    assert_eq!(got.log, LogLevel::Debug);
    let plain = run("prog");
    assert_eq!(plain.spec.apps[0].n, None);
    assert_eq!((plain.spec.stdin, plain.spec.grace_ms, plain.log), (StdinTarget::Rank(0), 5_000, LogLevel::Warn));
}

#[test]
fn a_bootstrap_is_its_programs_own_and_that_of_the_environment_everybodys() {
    let kinds = |vars: &[(&str, &str)]| {
        let got = run_in(vars, "--bootstrap pmix -n 2 a : -n 1 b : --bootstrap none -n 1 c");
        got.spec.apps.iter().map(|app| app.bootstrap).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&[]), [Bootstrap::Pmix, Bootstrap::Auto, Bootstrap::None]);
    assert_eq!(kinds(&[("MUSTER_OPT_BOOTSTRAP", "pmi")]), [Bootstrap::Pmix, Bootstrap::Pmi, Bootstrap::None]);
}

#[test]
fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
    let (_dir, file) =
        scratch("m.toml", "timeout = \"1m\"\nradix = 3\nport = 1\nhosts = [\"f:2\"]\nwdir = \"/file\"\n");
    let env = [
        ("MUSTER_OPT_CONFIG", file.as_str()),
        ("MUSTER_OPT_RADIX", "4"),
        ("MUSTER_OPT_PORT", "2"),
        ("MUSTER_OPT_LABEL", "1"),
    ];
    let got = run_in(&env, "--port 3 a : --wdir /own b");
    assert_eq!((got.spec.timeout_ms, got.spec.radix, got.spec.output.label), (Some(60_000), 4, true));
    assert_eq!(got.port, Some(Sourced { value: 3, origin: Origin::flag("--port") }));
    assert_eq!(got.hosts, HostChoice::List(Sourced { value: "f:2".into(), origin: Origin::file(&file, 4) }));
    let wdirs: Vec<_> = got.spec.apps.iter().map(|a| a.wdir.as_deref()).collect();
    assert_eq!(wdirs, [Some("/file"), Some("/own")]);
    let got = run_in(&[("MUSTER_OPT_HOSTFILE", "/h"), ("MUSTER_OPT_CONFIG", file.as_str())], "prog");
    assert_eq!(got.hosts, HostChoice::File(Sourced { value: "/h".into(), origin: Origin::env("MUSTER_OPT_HOSTFILE") }));
    assert_eq!(run_in(&[("MUSTER_OPT_HOSTS", "a"), ("MUSTER_OPT_RADIX", "")], "-H b -H c:2 prog").hosts, {
        HostChoice::List(Sourced { value: "b,c:2".into(), origin: Origin::flag("-H") })
    });
}

#[test]
fn variables_of_the_ranks() {
    let env = [("A", "la"), ("PATH", "/l"), ("PMI_RANK", "1"), ("MUSTER_OPT_EXPORT", "A,E=2")];
    let vars = |line: &str| {
        let got = run_in(&env, line);
        let flat = |app: &muster_core::plan::AppSpec| {
            app.env.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ")
        };
        (got.spec.apps.iter().map(flat).collect::<Vec<_>>(), got.notes)
    };
    assert_eq!(vars("p").0, ["A=la E=2"]);
    assert_eq!(vars("-x PATH -x B=1,2 -genv C 3 -genv D=4 p").0, ["A=la E=2 PATH=/l B=1,2 C=3 D=4"]);
    assert_eq!(vars("-genvlist A,PATH p").0, ["A=la E=2 A=la PATH=/l"]);
    assert_eq!(vars("-env B 1 p : -envlist PATH q").0, ["A=la E=2 B=1", "A=la E=2 PATH=/l"]);
    assert_eq!(vars("-genvall p : -envnone q").0, ["A=la A=la E=2", "A=la E=2"]);
    assert_eq!(vars("-genvall -genvnone p : -envall q").0, ["A=la E=2", "A=la A=la E=2"]);
    insta::assert_snapshot!(vars("-x MISSING p").1.join("\n"), @"-x: MISSING is not set here, so it is not set for the ranks");
    assert_eq!(run("--unset-env A,B --unset-env C p").spec.apps[0].env_unset, ["A", "B", "C"]);
}

#[test]
fn a_configuration_file_is_the_rest_of_the_command_line() {
    let (_dir, file) = scratch("job.conf", "# two programs\n-n 1 ./server 'a b'\n-n 3 \\\n  -wdir /w ./client\n");
    let got = run(&format!("-H a:4 -configfile {file}"));
    let short: Vec<_> = got.spec.apps.iter().map(|a| (a.n, a.wdir.as_deref(), a.argv.join("|"))).collect();
    assert_eq!(short, [(Some(1), None, "./server|a b".to_owned()), (Some(3), Some("/w"), "./client".to_owned())]);
    let hide = |text: String| text.replace(&file, "job.conf");
    insta::assert_snapshot!(hide(error(&format!("run -configfile {file} prog"))), @r#"-configfile: "job.conf" takes the place of the rest of the command line, but "prog" follows; put it into the file"#);
    std::fs::write(&file, "-n 1 ./a\n-n x ./b\n").unwrap();
    insta::assert_snapshot!(hide(error(&format!("run -configfile {file}"))), @r#"job.conf:2: -n: "x" is not a whole number from 1 to 4194304"#);
    std::fs::write(&file, "\n-nn 1 ./a\n").unwrap();
    insta::assert_snapshot!(hide(error(&format!("run -configfile {file}"))), @r#"job.conf:2: unknown option "-nn"; options stand before the program, and muster run --help lists them"#);
    std::fs::write(&file, format!("-configfile {file}\n")).unwrap();
    insta::assert_snapshot!(hide(error(&format!("run -configfile {file}"))), @r#"job.conf:1: -configfile: "job.conf" stands in a configuration file itself; one cannot name another"#);
    insta::assert_snapshot!(error("run -configfile /nowhere/f"), @"-configfile: /nowhere/f: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn called_as_mpiexec_it_runs() {
    for name in ["mpiexec", "/opt/bin/mpirun"] {
        let got = parse(OsStr::new(name), ["-n", "2", "run"].map(OsString::from), &site(&[])).unwrap();
        assert!(matches!(&got, Command::Run(run) if run.spec.apps[0].argv == ["run"]), "{name}");
    }
}

#[test]
fn other_commands() {
    assert!(matches!(command(&[], "plan --json -n 2 p"), Ok(Command::Plan { json: true, .. })));
    assert!(matches!(command(&[], "plan -n 2 p"), Ok(Command::Plan { json: false, .. })));
    assert_eq!(command(&[], "key new"), Ok(Command::KeyNew { file: None }));
    assert_eq!(command(&[], "key new f"), Ok(Command::KeyNew { file: Some("f".into()) }));
    assert_eq!(command(&[], "version"), Ok(Command::Version));
    assert_eq!(command(&[], "run --version"), Ok(Command::Version));
    for line in [
        "",
        "help",
        "--help",
        "help run",
        "run --help",
        "run -n 2 -h",
        "key --help",
        "key",
        "key new --help",
        "plan -h",
        "hosts --help",
        "help hosts",
    ] {
        assert!(matches!(command(&[], line), Ok(Command::Help(text)) if text.len() > 100), "{line}");
    }
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    insta::assert_snapshot!(error("run --timout 3 p"), @r#"unknown option "--timout" (did you mean --timeout?); options stand before the program, and muster run --help lists them"#);
    insta::assert_snapshot!(error("run -n4 p"), @r#"unknown option "-n4" (did you mean -n 4?); options stand before the program, and muster run --help lists them"#);
    insta::assert_snapshot!(error("run --zzz p"), @r#"unknown option "--zzz"; options stand before the program, and muster run --help lists them"#);
    insta::assert_snapshot!(error("run --bind-to core p"), @r#"option "--bind-to" is not supported: binding ranks to hardware is not in this release; leave it out"#);
    insta::assert_snapshot!(error("run --timeout 5x p"), @r#"--timeout: "5x" is not a time; write a number with ms, s, m or h, such as 500ms, 10s, 1.5m (a plain number is seconds)"#);
    insta::assert_snapshot!(command(&[("MUSTER_OPT_TIMEOUT", "soon")], "run p").unwrap_err(), @r#"environment variable MUSTER_OPT_TIMEOUT: "soon" is not a time; write a number with ms, s, m or h, such as 500ms, 10s, 1.5m (a plain number is seconds)"#);
    insta::assert_snapshot!(error("run -n"), @"-n needs a value: -n N");
    insta::assert_snapshot!(error("run -genv A : p"), @"-genv needs a value: -genv NAME VALUE");
    insta::assert_snapshot!(error("run -n 0 p"), @r#"-n: "0" is not a whole number from 1 to 4194304"#);
    insta::assert_snapshot!(error("run --radix 1 p"), @r#"--radix: "1" is not a whole number from 2 to 1024"#);
    insta::assert_snapshot!(error("run --port 70000 p"), @r#"--port: "70000" is not a whole number from 1 to 65535"#);
    insta::assert_snapshot!(error("run --max-restarts 3 p"), @r#"--max-restarts: "3" asks for restarts, which are not in this release; only 0 is accepted"#);
    insta::assert_snapshot!(error("run --bootstrap env p"), @r#"--bootstrap: "env" is not in this release; it has auto, pmi, pmix and none"#);
    insta::assert_snapshot!(error("run --bootstrap mpi p"), @r#"--bootstrap: "mpi" is not a bootstrap; there are auto, pmi, pmix and none"#);
    insta::assert_snapshot!(error("run --stdin one p"), @r#"--stdin: "one" is not a rank; write a rank, all or none"#);
    insta::assert_snapshot!(error("run -x =3 p"), @r#"-x: "=3" does not name a variable; write NAME=VALUE"#);
    insta::assert_snapshot!(error("run -H a -f hosts p"), @"-H and -f are both given; keep one of them");
    insta::assert_snapshot!(error("run -n 2"), @"no program to run; write it after the options: muster run [OPTIONS] PROGRAM [ARGUMENTS]");
    insta::assert_snapshot!(error("run a : : b"), @"program 2 is missing: each ':' stands between two programs");
    insta::assert_snapshot!(error("run --json p"), @"--json goes with muster plan only");
    insta::assert_snapshot!(error("topo"), @"muster topo is not in this release; it has run, exec, plan, hosts, key new, version and help");
    insta::assert_snapshot!(error("rnu p"), @r#"unknown command "rnu" (did you mean muster run?); muster --help lists the commands"#);
    insta::assert_snapshot!(error("-n 4 p"), @r#"unknown command "-n" (did you mean muster run -n?); muster --help lists the commands"#);
    insta::assert_snapshot!(error("key old"), @r#"muster key does not take "old"; muster key --help tells what it takes"#);
    insta::assert_snapshot!(error("run --config /nowhere/m.toml p"), @"--config: /nowhere/m.toml: cannot be read: No such file or directory (os error 2)");
    assert_eq!(Outcome::Usage.code(), 64);
}

#[test]
fn an_argument_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let words = [OsString::from("run"), OsString::from_vec(b"p\xff".to_vec())];
    insta::assert_snapshot!(parse(OsStr::new("muster"), words, &site(&[])).unwrap_err(), @r#"argument 2 is not valid UTF-8: "p�"; rename the file or pass the bytes another way"#);
}

/// Every option with an environment form: a value, as the command line has it.
const FORMS: &[(&str, &str)] = &[
    ("np", "3"),
    ("ppn", "2"),
    ("placement", "cyclic"),
    ("oversubscribe", "true"),
    ("wdir", "/data"),
    ("rlimit", "nofile=1000"),
    ("umask", "027"),
    ("bootstrap", "none"),
    ("pmix-lib", "/x/libpmix.so.2"),
    ("on-failure", "continue"),
    ("max-restarts", "0"),
    ("hosts", "a:2,b"),
    ("hostfile", "/x/hosts"),
    ("local", "2"),
    ("radix", "4"),
    ("key-file", "/x/key"),
    ("job", "mine"),
    ("port", "2300"),
    ("listen", "127.0.0.1:2400"),
    ("connect-timeout", "7s"),
    ("export", "A=1"),
    ("unset-env", "B"),
    ("label", "true"),
    ("output-dir", "/x/out"),
    ("stdin", "all"),
    ("events", "/x/events"),
    ("termination-message", "/x/message"),
    ("trainer-status", "false"),
    ("log", "debug"),
    ("timeout", "9m"),
    ("grace", "1s"),
];

#[test]
fn every_environment_form_means_what_its_option_means() {
    // What differs is only where a value came from.
    let bare = |mut run: RunOptions| {
        let place = Origin::flag("here");
        for origin in [
            run.key_file.as_mut().map(|s| &mut s.origin),
            run.port.as_mut().map(|s| &mut s.origin),
            run.listen.as_mut().map(|s| &mut s.origin),
            run.events.as_mut().map(|s| &mut s.origin),
            match &mut run.hosts {
                HostChoice::List(s) | HostChoice::File(s) => Some(&mut s.origin),
                HostChoice::Local(s) => Some(&mut s.origin),
                HostChoice::Unsaid => None,
            },
        ]
        .into_iter()
        .flatten()
        {
            *origin = place.clone();
        }
        run
    };
    let keys: Vec<_> = table::all().filter(|o| o.everywhere).map(|o| o.key()).collect();
    assert_eq!(keys, FORMS.iter().map(|(key, _)| *key).collect::<Vec<_>>());
    let plain = bare(run("prog"));
    for opt in table::all().filter(|o| o.everywhere) {
        let (key, value) = FORMS.iter().find(|(key, _)| *key == opt.key()).unwrap();
        let from_env = bare(run_in(&[(&opt.env_name(), value)], "prog"));
        assert_eq!(from_env, bare(run(&format!("--{key}={value} prog"))), "{key}");
        // Only the number of restarts cannot be another one than without it.
        assert!(from_env != plain || *key == "max-restarts", "{key} changes something");
    }
}

#[test]
fn a_variable_that_only_looks_like_an_option_is_told() {
    let got = run_in(
        &[("MUSTER_OPT_TIMOUT", "3"), ("MUSTER_OPT_GENV", "A=1"), ("MUSTER_OPT_EXIT_WITH_JOB", "1"), ("MUSTER_X", "")],
        "prog",
    );
    insta::assert_snapshot!(got.notes.join("\n"), @r"
    MUSTER_OPT_GENV is ignored: no option has this environment form
    MUSTER_OPT_TIMOUT is ignored: no option has this environment form (did you mean MUSTER_OPT_TIMEOUT?)
    ");
}

fn exec(env: &[(&str, &str)], line: &str) -> ExecOptions {
    match command(env, &format!("exec {line}")) {
        Ok(Command::Exec(exec)) => *exec,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_command_is_not_looked_into() {
    let got = exec(
        &[("MUSTER_OPT_PLACEMENT", "cyclic"), ("MUSTER_OPT_TIMEOUT", "9s")],
        "-H a:2,b --max-restarts 2 --placement strict -- mpirun -n 4 -H x prog : -n 1 other -- --help",
    );
    assert_eq!(
        got.argv,
        ["mpirun", "-n", "4", "-H", "x", "prog", ":", "-n", "1", "other", "--", "--help"],
        "not even where it looks like ours"
    );
    assert_eq!((got.restarts, got.strict, got.timeout_ms), (2, true, Some(9_000)));
    assert!(matches!(&got.hosts, HostChoice::List(list) if list.value == "a:2,b"));
    let plain = exec(&[], "-f /x mpiexec -l prog");
    assert_eq!((plain.argv.join(" ").as_str(), plain.strict), ("mpiexec -l prog", false));
    let Ok(Command::PlanExec { json: true, .. }) = command(&[], "plan exec --json -H a -- mpirun x") else {
        panic!("a plan")
    };
    assert_eq!(run("exec prog").spec.apps[0].argv, ["exec", "prog"], "a program of this name can be run");
}

#[test]
fn what_a_command_line_of_exec_gets_wrong_is_said() {
    insta::assert_snapshot!(error("exec -n 4 mpirun x"), @"-n: muster exec does not take it; what belongs to the command stands behind it: muster exec [OPTIONS] -- COMMAND");
    insta::assert_snapshot!(error("exec -H a"), @"no command to run; write it after the options: muster exec [OPTIONS] -- mpirun [ARGUMENTS]");
    insta::assert_snapshot!(error("exec --placement cyclic -H a -- x"), @r#"--placement: "cyclic" is neither strict nor warn; the order of ranks is the command's own business"#);
    insta::assert_snapshot!(error("exec --json -H a -- x"), @"--json goes with muster plan only");
    insta::assert_snapshot!(error("exec --max-restart 1 -H a -- x"), @r#"unknown option "--max-restart" (did you mean --max-restarts?); options stand before the program, and muster run --help lists them"#);
}

#[test]
fn hosts_are_asked_for_five_seconds_whatever_a_job_waits_unless_the_command_line_says_how_long() {
    let asked = |line: &str| match command(&[("MUSTER_OPT_CONNECT_TIMEOUT", "10m"), ("MUSTER_OPT_JOB", "pi")], line) {
        Ok(Command::Hosts(options)) => *options,
        other => panic!("{line}: {other:?}"),
    };
    let options = asked("hosts -f /x --port 2223");
    assert!(matches!(&options.hosts, HostChoice::File(file) if file.value == "/x"));
    assert_eq!(
        (options.limit_ms, options.job.as_str(), options.port.map(|port| port.value)),
        (5_000, "pi", Some(2223))
    );
    assert_eq!(asked("hosts --connect-timeout 500ms").limit_ms, 500);
    insta::assert_snapshot!(error("hosts -n 4"), @"-n: muster hosts does not take it; muster hosts --help tells what it takes");
    insta::assert_snapshot!(error("hosts a,b"), @r#"muster hosts does not take "a,b"; muster hosts --help tells what it takes"#);
}
