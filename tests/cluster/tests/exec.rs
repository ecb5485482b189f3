//! `muster exec`: unmodified launchers of five MPIs run over agents.

use muster_cluster::{Cluster, Cmd, Family, Host, Output, PATIENCE, Proc, Stdin, cluster_or_skip, eventually};

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
    fn exec(&self, family: Family, options: &[&str]) -> Cmd {
        let cmd = self.cluster.muster_exec(family, &self.cluster.host_list(2)).expect("built");
        cmd.args(options).arg("--").arg(family.launcher())
    }

    fn run(&self, cmd: Cmd) -> Output {
        let output = self.cluster.launcher().run(cmd).expect("it ends");
        self.assert_idle(&output.stderr_text());
        output
    }

    /// Nothing is left of the command anywhere, and the agents are the same processes.
    fn assert_idle(&self, said: &str) {
        for (index, agent) in self.agents.iter().enumerate() {
            assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
            self.cluster.host(index).wait_until_idle().expect(said);
        }
        let here = || self.cluster.launcher().processes().expect("processes");
        eventually(here, Vec::is_empty).expect(said);
    }
}

fn sorted(output: &Output) -> Vec<String> {
    let mut lines: Vec<_> = output.stdout_text().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What `init_allreduce` prints with two ranks on each of so many hosts.
fn assert_allreduce(output: &Output, hosts: usize) {
    let mut wanted: Vec<_> =
        (0..2 * hosts).map(|rank| format!("rank {rank} of {} on h{}", 2 * hosts, rank / 2)).collect();
    wanted.push(format!("allreduce of {} ranks: ok", 2 * hosts));
    wanted.sort();
    assert_eq!(sorted(output), wanted, "{}", output.stderr_text());
}

/// Sixteen ranks on eight hosts: a sum, an abort, a crash, and bytes for rank 0.
fn sixteen_ranks_on_eight_hosts(family: Family, rig: &Rig) {
    let program = |name: &str| family.program(name).expect("built");
    let sum = rig.run(rig.exec(family, &[]).arg(program("init_allreduce"))).ok().expect("it succeeds");
    assert_allreduce(&sum, 8);
    assert_eq!(sum.verdict(), "", "while all is well Muster says nothing");

    let aborted = rig.run(rig.exec(family, &[]).arg(program("abort7")));
    // Intel's mpiexec sometimes writes to a proxy that has ended already and dies of it, under any remote shell.
    let wanted: &[i32] = if family == Family::Intel { &[7, 141] } else { &[7] };
    assert!(aborted.status.code().is_some_and(|code| wanted.contains(&code)), "{}", aborted.stderr_text());
    let crashed = rig.run(rig.exec(family, &[]).arg(program("segv")));
    // Hydra's mpiexec says 255 when its proxies complain of its own end first, and the signal's bare number otherwise.
    let wanted: &[i32] = match family {
        Family::OpenMpi4 | Family::OpenMpi5 => &[139],
        Family::Mpich4 | Family::Mpich5 => &[11, 139, 255],
        Family::Intel => &[139, 141, 255],
    };
    assert!(crashed.status.code().is_some_and(|code| wanted.contains(&code)), "{}", crashed.stderr_text());

    reads_input(family, rig);
}

/// Bytes for rank 0, as many as each launcher can forward: beyond 64 KiB hydra's mpiexec ends with an assertion of its own, under
/// any remote shell, and that of Open MPI 5.0.11 forwards none even without one.
fn reads_input(family: Family, rig: &Rig) {
    let lines = match family {
        Family::OpenMpi4 | Family::Intel => 10_000,
        Family::Mpich4 | Family::Mpich5 => 200,
        Family::OpenMpi5 => return,
    };
    let bytes = b"some lines\n".repeat(lines);
    let wanted = format!("rank 0 of 16 read {} bytes hash {:016x}\n", bytes.len(), hash(&bytes));
    let reader = family.program("stdin_rank0").expect("built");
    let read = rig.run(rig.exec(family, &[]).arg(reader).stdin(Stdin::Bytes(bytes)));
    assert_eq!(read.ok().expect("it succeeds").stdout_text(), wanted);
}

/// FNV-1a, as the program computes it.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn open_mpi_4_runs_over_agents() {
    sixteen_ranks_on_eight_hosts(Family::OpenMpi4, &rig!(8));
}

#[test]
fn open_mpi_5_runs_over_agents() {
    sixteen_ranks_on_eight_hosts(Family::OpenMpi5, &rig!(8));
}

#[test]
fn mpich_4_runs_over_agents() {
    sixteen_ranks_on_eight_hosts(Family::Mpich4, &rig!(8));
}

#[test]
fn mpich_5_runs_over_agents() {
    sixteen_ranks_on_eight_hosts(Family::Mpich5, &rig!(8));
}

#[test]
fn intel_mpi_runs_over_agents() {
    sixteen_ranks_on_eight_hosts(Family::Intel, &rig!(8));
}

/// Daemons start further daemons: the remote shell runs on workers, too, and dials their siblings.
fn daemons_start_daemons(family: Family, rig: &Rig) {
    let program = family.program("init_allreduce").expect("built");
    let cmd = family.radix_2(rig.exec(family, &["--placement", "strict"]));
    let output = rig.run(cmd.arg(program)).ok().expect("it succeeds");
    assert_allreduce(&output, 8);
    assert_eq!(output.verdict(), "", "what siblings have started counts as started");
    let from_workers = |agent: &Proc| agent.stderr_so_far().matches("remote shell begins from=\"h").count();
    let started: usize = rig.agents.iter().map(from_workers).sum();
    assert!(started >= 6, "{started} of 8 daemons were started by others than the launcher");
}

#[test]
fn open_mpi_4_spawns_its_daemons_as_a_tree() {
    daemons_start_daemons(Family::OpenMpi4, &rig!(8));
}

#[test]
fn open_mpi_5_spawns_its_daemons_as_a_tree() {
    daemons_start_daemons(Family::OpenMpi5, &rig!(8));
}

#[test]
fn intel_mpi_spawns_its_proxies_as_a_tree() {
    daemons_start_daemons(Family::Intel, &rig!(8));
}

/// More hosts than one daemon of Open MPI has children.
fn seventy_hosts(family: Family) {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(70));
    let rig = Rig { agents: cluster.start_agents(&[]).expect("agents"), cluster };
    let hosts = rig.cluster.host_list(1);
    let cmd = rig.cluster.muster_exec(family, &hosts).expect("built").args(["--placement", "strict", "--"]);
    // Ranks of an MPI never sleep while they wait, unless they are asked to let others run.
    let cmd = cmd.env("OMPI_MCA_mpi_yield_when_idle", "1").arg(family.launcher());
    let cmd = cmd.arg(family.program("init_allreduce").expect("built")).timeout(2 * PATIENCE);
    let output = rig.run(cmd).ok().expect("it succeeds");
    let mut wanted: Vec<_> = (0..70).map(|host| format!("rank {host} of 70 on h{host}")).collect();
    wanted.push("allreduce of 70 ranks: ok".to_owned());
    wanted.sort();
    assert_eq!(sorted(&output), wanted);
    assert_eq!(output.verdict(), "");
    let from_workers = |agent: &Proc| agent.stderr_so_far().matches("remote shell begins from=\"h").count();
    assert!(rig.agents.iter().map(from_workers).sum::<usize>() >= 6, "they spawn as a tree by themselves");
}

#[test]
fn seventy_hosts_of_open_mpi_4_are_a_large_tree() {
    seventy_hosts(Family::OpenMpi4);
}

#[test]
fn seventy_hosts_of_open_mpi_5_are_a_large_tree() {
    seventy_hosts(Family::OpenMpi5);
}

#[test]
fn a_command_that_leaves_hosts_unused_is_told_so() {
    let rig = rig!(3);
    // Open MPI starts its daemons on every host of the list, needed or not; hydra only where ranks are.
    let family = Family::Mpich4;
    let four = |options: &[&str]| rig.run(rig.exec(family, options).args(["-n", "4", "hostname"]));
    let told = "muster: the command has started nothing on h2; its 4 ranks fit into the 4 slots of the others";
    let output = four(&[]);
    assert_eq!((output.verdict().as_str(), output.status.code()), (told, Some(0)));
    let strict = four(&["--placement", "strict"]);
    assert_eq!((strict.verdict().as_str(), strict.status.code()), (told, Some(1)));

    // As under an operator's variables alone: everything on one node, and all is said to be well.
    let family = Family::OpenMpi5;
    let alone = rig.exec(family, &[]).args(["-n", "2", "hostname"]).env("PRTE_MCA_prte_default_hostfile", "/dev/null");
    let output = rig.run(alone);
    assert_eq!((output.stdout_text().as_str(), output.status.code()), ("launcher\nlauncher\n", Some(0)));
    let verdict = output.verdict();
    assert!(
        verdict.starts_with("muster: the command has started nothing on any of its hosts (h0, h1, h2): "),
        "{verdict}"
    );
}

#[test]
fn any_command_finds_a_remote_shell_by_its_name() {
    let rig = rig!(2);
    let cmd = |script: &str| {
        let cmd = rig.cluster.muster_exec(Family::Mpich4, "h0:2,h1:2").expect("built");
        cmd.args(["--", "sh", "-c", script])
    };
    let script = "echo $MUSTER_HOSTS; cat $MUSTER_HOSTFILE; ssh h0 hostname; echo to h1 | rsh h1 cat; ssh -n h1 'exit 9'; \
                  echo status $?; muster-rsh h0 'kill -9 $$'; echo status $?; ssh h7 true; echo status $?";
    let output = rig.run(cmd(script)).ok().expect("it succeeds");
    assert_eq!(
        output.stdout_text(),
        "h0:2,h1:2\nh0 slots=2\nh1 slots=2\nh0\nto h1\nstatus 9\nstatus 137\nstatus 255\n"
    );
    assert_eq!(
        output.stderr_text(),
        "muster-rsh: h0: the command was ended by signal 9 (SIGKILL)\n\
         muster-rsh: h7: not a host of this command; see its host list\n"
    );
    // Several at once to one host, and one that leaves the input to whoever comes after it.
    let script =
        "for i in 1 2 3 4 5 6; do ssh h0 sleep 0.1 & done; wait; ssh h1 true; sleep 0.2; read line; echo \"$line\"";
    let mut job = rig.cluster.launcher().spawn(cmd(script).stdin(Stdin::Piped)).expect("spawn");
    std::thread::sleep(std::time::Duration::from_millis(600));
    job.write_stdin(b"kept\n").expect("write");
    let output = job.finish(PATIENCE).and_then(Output::ok).expect("it succeeds");
    assert_eq!((output.stdout_text().as_str(), output.stderr_text().as_str()), ("kept\n", ""));
    // A host of the list may be this machine.
    let here = rig.cluster.muster_exec(Family::Mpich4, "launcher,h0").expect("built");
    let here = rig.run(here.args(["--", "sh", "-c", "ssh launcher 'hostname; exit 4'; echo $?; ssh h0 hostname"]));
    assert_eq!(here.ok().expect("it succeeds").stdout_text(), "launcher\n4\nh0\n");
    // The status is the command's; what it leaves in the background goes with it.
    let failed = rig.run(cmd("ssh h0 'sleep 1000' & setsid sleep 1000 & ssh h1 true; exit 5"));
    assert_eq!((failed.status.code(), failed.verdict().as_str()), (Some(5), ""));
    let missing = rig.run(cmd("x").args(["y"]));
    assert_eq!(missing.status.code(), Some(127));
    let nobody = rig.cluster.muster_exec(Family::Mpich4, "h0").expect("built").args(["--", "no-such-command"]);
    let nobody = rig.run(nobody);
    assert_eq!(nobody.verdict(), "muster: the command \"no-such-command\" is not found; is it on PATH?");
    assert_eq!(nobody.status.code(), Some(127));
}

#[test]
fn hosts_are_waited_for_and_named() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let _first = cluster.start_agent(0, &[]).expect("agent");
    let exec = |options: &[&str]| {
        let cmd = cluster.muster_exec(Family::Mpich4, "h0,h1").expect("built");
        cmd.args(options).args(["--", "sh", "-c", "ssh h1 hostname"])
    };
    let late = cluster.launcher().spawn(exec(&[])).expect("spawn");
    late.wait_for("muster: waiting for 1 host: h1: connection refused", PATIENCE).expect("it says whom it waits for");
    let second = cluster.start_agent(1, &[]).expect("agent");
    assert_eq!(late.finish(PATIENCE).and_then(Output::ok).expect("it runs").stdout_text(), "h1\n");
    drop(second);
    let never = cluster.launcher().run(exec(&["--connect-timeout", "1s"])).expect("it ends");
    assert_eq!(never.status.code(), Some(240), "{}", never.stderr_text());
    assert!(never.verdict().starts_with("muster: 1 host could not be connected: h1: "), "{}", never.verdict());
}

/// A bridge as container runtimes make it: up, and under the same address on every host.
const BRIDGE: &str =
    "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up";

/// Open MPI uses every interface that is up, and waits for itself where it takes itself for another host.
fn passes_over_networks_that_connect_nobody(family: Family) {
    let rig = rig!(3);
    let bridge = |host: &Host| host.run(Cmd::sh(BRIDGE)).and_then(Output::ok).map(drop).expect("a bridge");
    let exec = |options: &[&str]| rig.exec(family, &[]).args(options).args(["-n", "6"]);
    let sums = |cmd: Cmd| {
        let output = rig.run(cmd.arg(family.program("init_allreduce").expect("built")));
        assert_allreduce(&output, 3);
        assert!(!output.stderr_text().contains("_if_"), "{}", output.stderr_text());
    };
    // A command that has the name in its own words would be taken for one that chooses. Ranks that end at once make Open MPI 5's
    // launcher hang now and then, without bridges as well.
    let told = |name: &str| -> Vec<String> {
        let all =
            sorted(&rig.run(exec(&[]).args(["sh", "-c", "env | grep -e tcp_if_ -e prte_if_; sleep 1"]))).into_iter();
        all.filter_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned())).collect()
    };
    assert_eq!(told("OMPI_MCA_btl_tcp_if_exclude"), [""; 0], "the usual case");
    bridge(&rig.cluster.launcher());
    bridge(&rig.cluster.host(0));
    // No rank is on the launcher: one host alone may have whatever network it has.
    sums(exec(&[]));
    assert_eq!(told("OMPI_MCA_btl_tcp_if_exclude"), [""; 0]);
    bridge(&rig.cluster.host(1));
    // The third has none: nobody complains there of a network that is not found.
    sums(exec(&[]));
    assert_eq!(told("OMPI_MCA_btl_tcp_if_exclude"), ["127.0.0.1/8,sppp,172.17.0.0/16"; 6]);
    assert_eq!(told("OMPI_MCA_oob_tcp_if_exclude"), [""; 0]);
    bridge(&rig.cluster.host(2));
    sums(exec(&[]));
    assert_eq!(told("OMPI_MCA_oob_tcp_if_exclude"), ["172.17.0.0/16"; 6]);
    // What people say themselves would contradict it.
    let (own, network) = ("btl_tcp_if_include", "10.77.0.0/16");
    sums(exec(&["--mca", own, network]));
    sums(exec(&[]).env(format!("OMPI_MCA_{own}"), network));
}

#[test]
fn open_mpi_4_passes_over_networks_that_are_the_same_on_every_host() {
    passes_over_networks_that_connect_nobody(Family::OpenMpi4);
}

#[test]
fn open_mpi_5_passes_over_networks_that_are_the_same_on_every_host() {
    passes_over_networks_that_connect_nobody(Family::OpenMpi5);
}
