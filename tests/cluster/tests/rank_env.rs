//! What a rank is born with: its environment, working directory and file mode mask, through a real agent.

use insta::assert_snapshot;
use muster_cluster::{Cmd, Here, Output, Proc};

/// An agent with a few variables of an outer launcher around it.
fn agent() -> (Here, Proc) {
    let here = Here::new().expect("a folder");
    let agent = here.agent(0, here.key_file()).expect("built").args(["--grace-ms", "100"]);
    let around = [
        ("WORKER", "own"),
        ("PMI_RANK", "77"),
        ("PMIX_NAMESPACE", "outer"),
        ("OMPI_COMM_WORLD_SIZE", "9"),
        ("OMPI_MCA_btl", "tcp"),
        ("SLURM_JOB_ID", "1"),
        ("MUSTER_OPT_LOG", "info"),
        ("MUSTER_RANK", "5"),
        ("HYDRA_LAUNCHER", "ssh"),
    ];
    let agent = around.into_iter().fold(agent, |cmd, (name, value)| cmd.env(name, value));
    let agent = here.start(agent, 0).expect("agent");
    (here, agent)
}

fn output(here: &Here, cmd: Cmd) -> String {
    let output = here.run(cmd).and_then(Output::ok).expect("it runs");
    assert_eq!(output.stderr_text(), "");
    here.plain(&output.stdout_text())
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The launcher has variables that belong to its machine, and some that do not.
fn with_launcher_variables(cmd: Cmd) -> Cmd {
    cmd.env("LD_LIBRARY_PATH", "/launcher").env("KUBERNETES_PORT", "1").env("NVIDIA_VISIBLE_DEVICES", "all")
        .env("MINE", "launcher").env("SLURM_NTASKS", "1").env("HOSTNAME", "launcher")
}

#[test]
fn the_environment_of_a_rank() {
    let (here, _agent) = agent();
    let env = |options: &[&str]| {
        let cmd = with_launcher_variables(here.run_on(1, 1).expect("built")).args(options);
        sorted(&output(&here, cmd.args(["--job", "j", "env"])))
    };
    assert_snapshot!(env(&[]), @"");
    assert_snapshot!(env(&["--bootstrap", "none", "-x", "MINE", "-genv", "PATH", "/bin:/usr/bin", "--unset-env", "WORKER"]), @"");
    assert_snapshot!(env(&["--bootstrap", "none", "-genvall", "--unset-env", "OMPI_MCA_btl"]), @"");
}

#[test]
fn named_variables_that_are_not_there_are_told() {
    let (here, _agent) = agent();
    let cmd = here.run_on(1, 1).expect("built").args(["-x", "ABSENT", "-genvlist", "MINE,GONE", "sh", "-c", "echo $MINE"]);
    let output = here.run(cmd.env("MINE", "1")).and_then(Output::ok).expect("it runs");
    assert_eq!(output.stdout_text(), "1\n");
    assert_snapshot!(output.stderr_text(), @"");
}

#[test]
fn directory_and_mask_are_the_agents_unless_told() {
    let here = Here::new().expect("a folder");
    let home = here.dir().join("home");
    let agent = here.agent(0, here.key_file()).expect("built");
    let agent = here.cmd("sh").args(["-c", "umask 031; exec \"$@\"", "sh"]).args(agent.words()).dir(&home);
    let _agent = here.start(agent, 0).expect("agent");
    let run = |options: &[&str]| {
        let cmd = here.run_on(1, 2).expect("built").args(options);
        output(&here, cmd.args(["-n", "1", "sh", "-c", "umask; pwd; echo $PWD"]))
    };
    assert_eq!(run(&[]), "0031\nDIR/home\nDIR/home\n");
    assert_eq!(run(&["--umask", "027", "-wdir", "/usr/bin"]), "0027\n/usr/bin\n/usr/bin\n");
    assert_eq!(run(&["-wdir", ".."]), "0031\nDIR\nDIR\n");
    let cmd = here.run_on(1, 2).expect("built").args(["-n", "1", "-wdir", "/usr", "pwd", ":", "-n", "1", "pwd"]);
    assert_eq!(sorted(&output(&here, cmd)), "/usr\nDIR/home");
}
