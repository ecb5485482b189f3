//! What a rank is born with: its environment, working directory, file mode mask and resource limits, through a real agent.

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
    assert_eq!(output.said(), "");
    here.plain(&output.stdout_text())
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The launcher has variables that belong to its machine, and some that do not.
fn with_launcher_variables(cmd: Cmd) -> Cmd {
    cmd.env("LD_LIBRARY_PATH", "/launcher")
        .env("KUBERNETES_PORT", "1")
        .env("NVIDIA_VISIBLE_DEVICES", "all")
        .env("MINE", "launcher")
        .env("SLURM_NTASKS", "1")
        .env("HOSTNAME", "launcher")
}

#[test]
fn the_environment_of_a_rank() {
    let (here, _agent) = agent();
    let env = |options: &[&str]| {
        let cmd = with_launcher_variables(here.run_on(1, 1).expect("built")).args(options);
        let text = output(&here, cmd.args(["--job", "j", "env"]));
        // The number of the descriptor is whatever was free in the agent.
        let known = |line: &str| if line.starts_with("PMI_FD=") { "PMI_FD=N".to_owned() } else { line.to_owned() };
        sorted(&text.lines().map(known).collect::<Vec<_>>().join("\n"))
    };
    assert_snapshot!(env(&[]), @r"
    GFORTRAN_UNBUFFERED_PRECONNECTED=y
    HOME=DIR/home
    MPIR_CVAR_CH3_INTERFACE_HOSTNAME=A0
    MPI_LOCALNRANKS=1
    MPI_LOCALRANKID=0
    MUSTER_GENERATION=0
    MUSTER_HOST=A0
    MUSTER_JOB=j
    MUSTER_LOCAL_RANK=0
    MUSTER_LOCAL_SIZE=1
    MUSTER_NODES=1
    MUSTER_NODE_RANK=0
    MUSTER_RANK=0
    MUSTER_WORLD_SIZE=1
    OMPI_MCA_btl=tcp
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    PMI_FD=N
    PMI_HOSTNAME=A0
    PMI_RANK=0
    PMI_SIZE=1
    WORKER=own
    XDG_RUNTIME_DIR=DIR/runtime
    ");
    assert_snapshot!(env(&["--bootstrap", "none", "-x", "MINE", "-genv", "PATH", "/bin:/usr/bin", "--unset-env", "WORKER"]), @r"
    GFORTRAN_UNBUFFERED_PRECONNECTED=y
    HOME=DIR/home
    MINE=launcher
    MUSTER_GENERATION=0
    MUSTER_HOST=A0
    MUSTER_JOB=j
    MUSTER_LOCAL_RANK=0
    MUSTER_LOCAL_SIZE=1
    MUSTER_NODES=1
    MUSTER_NODE_RANK=0
    MUSTER_RANK=0
    MUSTER_WORLD_SIZE=1
    OMPI_MCA_btl=tcp
    PATH=/bin:/usr/bin
    XDG_RUNTIME_DIR=DIR/runtime
    ");
    assert_snapshot!(env(&["--bootstrap", "none", "-genvall", "--unset-env", "OMPI_MCA_btl"]), @r"
    GFORTRAN_UNBUFFERED_PRECONNECTED=y
    HOME=DIR/home
    MINE=launcher
    MUSTER_GENERATION=0
    MUSTER_HOST=A0
    MUSTER_JOB=j
    MUSTER_LOCAL_RANK=0
    MUSTER_LOCAL_SIZE=1
    MUSTER_NODES=1
    MUSTER_NODE_RANK=0
    MUSTER_RANK=0
    MUSTER_WORLD_SIZE=1
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    WORKER=own
    XDG_RUNTIME_DIR=DIR/runtime
    ");
}

#[test]
fn named_variables_that_are_not_there_are_told() {
    let (here, _agent) = agent();
    let cmd =
        here.run_on(1, 1).expect("built").args(["-x", "ABSENT", "-genvlist", "MINE,GONE", "sh", "-c", "echo $MINE"]);
    let output = here.run(cmd.env("MINE", "1")).and_then(Output::ok).expect("it runs");
    assert_eq!(output.stdout_text(), "1\n");
    assert_snapshot!(output.said(), @r"
    muster: -x: ABSENT is not set here, so it is not set for the ranks
    muster: -genvlist: GONE is not set here, so it is not set for the ranks
    ");
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

#[test]
fn resource_limits_are_the_agents_unless_told() {
    let (here, _agent) = agent();
    let run = |options: &[&str]| {
        let cmd = here.run_on(1, 2).expect("built").args(options);
        output(&here, cmd.args(["-n", "1", "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"]))
    };
    let own = here.run(here.cmd("sh").args(["-c", "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"])).expect("runs");
    assert_eq!(run(&[]), own.stdout_text());
    assert_eq!(run(&["--rlimit", "nofile=123,core=0"]), "123\n123\n0\n0\n");
    assert_eq!(run(&["--rlimit", "nofile=123:456,core=0"]), "123\n456\n0\n0\n");

    // More than the kernel gives anybody (fs.nr_open), whatever the hard limit and the rights of the agent are.
    let cmd = here.run_on(1, 2).expect("built").args(["-n", "1", "--rlimit", "nofile=4000000000", "true"]);
    let refused = here.run(cmd).expect("it ends");
    assert_eq!(refused.status.code(), Some(242));
    assert_snapshot!(here.plain(&refused.said()), @r#"muster: rank 0 on A0 could not be started: cannot set a resource limit for program "true": Operation not permitted (os error 1)"#);
}
