//! What a command gives through Muster is what the very same command gives through OpenSSH in the same minute on the same hosts.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use muster_cluster::{Cluster, Cmd, Family, Output, PATIENCE, Proc, Ssh, Stdin, cluster_or_skip, workspace};

/// Pairs of runs after which two launchers whose status a race decides must have agreed once.
const PAIRS_MAX: usize = 20;

/// Hosts with an ssh server and an agent each.
struct Rig {
    // They end before their hosts.
    _agents: Vec<Proc>,
    ssh: Ssh,
    cluster: Cluster,
}

macro_rules! rig {
    ($hosts:expr) => {{
        let cluster = cluster_or_skip!(Cluster::builder().hosts($hosts));
        let agents = cluster.start_agents(&[]).expect("agents");
        let ssh = cluster.start_sshd().expect("servers");
        Rig { _agents: agents, ssh, cluster }
    }};
}

/// What a caller of a remote shell sees.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Rig {
    fn both(&self, script: &str, stdin: &[u8]) -> [Seen; 2] {
        let muster = Cmd::new(workspace::program("muster-rsh").expect("built"));
        let muster = muster.env("MUSTER_OPT_KEY_FILE", self.cluster.key_file());
        [Cmd::new(&self.ssh.client), muster].map(|shell| {
            let cmd = shell.args(["h0", script]).stdin(Stdin::Bytes(stdin.to_vec()));
            let output = self.cluster.launcher().run(cmd).expect("it ends");
            // The login shell's own name for itself: sshd calls it by its last part.
            let stderr = output.stderr_text().replace("/bin/bash: ", "bash: ");
            Seen { code: output.status.code(), stdout: output.stdout, stderr: without_pids(&stderr) }
        })
    }

    /// Through the ssh that everybody knows, then through Muster: the same launcher, program and host file.
    fn job(&self, family: Family, program: &str, stdin: &[u8]) -> [Output; 2] {
        let muster = self.cluster.muster_exec(family, &self.cluster.host_list(2)).expect("built").arg("--");
        let muster = muster.arg(family.launcher());
        [self.over_ssh(family), muster].map(|launcher| {
            let cmd = launcher.arg(family.program(program).expect("built")).stdin(Stdin::Bytes(stdin.to_vec()));
            let output = self.cluster.launcher().run(cmd).expect("it ends");
            // Else the status of a broken connection could pass for the one that a crash has.
            let said = output.stderr_text();
            for sign in ["muster-rsh:", " was lost", " is lost"] {
                assert!(!said.contains(sign), "{family:?} {program}: a host or a connection was lost:\n{said}");
            }
            output
        })
    }

    fn over_ssh(&self, family: Family) -> Cmd {
        let hostfile = self.hostfile(family);
        let cmd = family.environment(Cmd::new(family.launcher())).timeout(PATIENCE).own_session();
        let names: [(&str, &str); 3] = match family {
            Family::OpenMpi4 => {
                [("OMPI_MCA_plm", "rsh"), ("OMPI_MCA_plm_rsh_agent", ""), ("OMPI_MCA_orte_default_hostfile", "")]
            }
            Family::OpenMpi5 => {
                [("PRTE_MCA_plm", "ssh"), ("PRTE_MCA_plm_ssh_agent", ""), ("PRTE_MCA_prte_default_hostfile", "")]
            }
            Family::Mpich4 | Family::Mpich5 => {
                [("HYDRA_LAUNCHER", "ssh"), ("HYDRA_LAUNCHER_EXEC", ""), ("HYDRA_HOST_FILE", "")]
            }
            Family::Intel => {
                [("I_MPI_HYDRA_BOOTSTRAP", "ssh"), ("I_MPI_HYDRA_BOOTSTRAP_EXEC", ""), ("I_MPI_HYDRA_HOST_FILE", "")]
            }
        };
        let [(kind, name), (shell, _), (hosts, _)] = names;
        cmd.env(kind, name).env(shell, &self.ssh.client).env(hosts, hostfile)
    }

    fn hostfile(&self, family: Family) -> PathBuf {
        let line = |i| if family.is_open_mpi() { format!("h{i} slots=2\n") } else { format!("h{i}:2\n") };
        let path = self.cluster.shared_dir().join("hosts.of-ssh");
        std::fs::write(&path, (0..self.cluster.len()).map(line).collect::<String>()).expect("write");
        path
    }

    /// The status of a job that fails. Where a launcher has `races`, their outcomes, each side may give any of them, and runs are
    /// repeated until both have given the same one.
    fn assert_same_status(&self, family: Family, program: &str, races: &[i32]) {
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        for _ in 0..PAIRS_MAX {
            let [ssh, muster] = self.job(family, program, b"");
            let codes = [&ssh, &muster].map(status);
            if races.is_empty() {
                assert_eq!(codes[0], codes[1], "{family:?} {program}\n{}\n{}", ssh.stderr_text(), muster.stderr_text());
                assert_ne!(codes[0], 0, "{family:?} {program}: it fails");
                return;
            }
            for (set, code) in seen.iter_mut().zip(codes) {
                assert!(races.contains(&code), "{family:?} {program}: {codes:?}\n{}", muster.stderr_text());
                set.insert(code);
            }
            if seen[0].intersection(&seen[1]).next().is_some() {
                return;
            }
        }
        panic!("{family:?} {program}: over ssh {:?}, through Muster {:?}", seen[0], seen[1]);
    }

    /// Abort, crash and input of a job of six ranks on three hosts.
    fn assert_same_jobs(&self, family: Family) {
        // Intel's mpiexec sometimes writes to a proxy that has ended already and dies of it.
        let aborted: &[i32] = if family == Family::Intel { &[7, 141] } else { &[] };
        self.assert_same_status(family, "abort7", aborted);
        // Hydra's mpiexec says 255 when its proxies complain of its own end first, and the signal's bare number otherwise.
        let crashed: &[i32] = match family {
            Family::OpenMpi4 | Family::OpenMpi5 => &[],
            Family::Mpich4 | Family::Mpich5 => &[11, 139, 255],
            Family::Intel => &[139, 141, 255],
        };
        self.assert_same_status(family, "segv", crashed);
        // Open MPI 5.0.11 forwards no input that is a pipe, over ssh neither: its ranks wait for ever.
        if family != Family::OpenMpi5 {
            let [ssh, muster] = self.job(family, "stdin_rank0", &b"some lines\n".repeat(200)).map(Output::ok);
            let (ssh, muster) = (ssh.expect("it succeeds"), muster.expect("it succeeds"));
            assert_eq!(ssh.stdout_text(), muster.stdout_text());
            assert!(muster.stdout_text().starts_with("rank 0 of 6 read 2200 bytes"), "{}", muster.stdout_text());
        }
    }
}

/// As a shell tells it: under `muster exec` a launcher's end by a signal is told so, too.
fn status(output: &Output) -> i32 {
    output.status.code().or_else(|| Some(128 + output.status.signal()?)).expect("it has ended")
}

/// Numbers of processes, which nobody chooses.
fn without_pids(text: &str) -> String {
    let words = text.split(' ').map(|word| if word.len() > 2 && word.parse::<u32>().is_ok() { "PID" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_remote_shell_gives_what_ssh_gives() {
    let rig = rig!(1);
    let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 7", 7),
        ("exit 126", 126),
        ("exit 127", 127),
        ("exit 128", 128),
        ("exit 255", 255),
        ("/etc/passwd", 126),
        ("no-such-command", 127),
        // A command that the user's shell has waited for.
        ("sh -c 'kill -KILL $$'; exit $?", 137),
        ("sh -c 'kill -SEGV $$'; exit $?", 139),
        ("sh -c 'kill -TERM $$'; exit $?", 143),
        ("echo out; echo err >&2; exit 3", 3),
        ("  echo  'a  b' \"c\" $HOME $SHELL $USER; pwd; umask; ulimit -c", 0),
        ("exec >&-; exec 2>&-; exit 4", 4),
        ("cat", 0),
        ("head -c 1000; exit 5", 5),
        ("wc -c; ls /proc/self/fd | wc -l", 0),
    ] {
        let [ssh, muster] = rig.both(script, &bytes);
        assert_eq!((ssh.code, &muster), (Some(code), &ssh), "{script}");
    }
    // Here they differ on purpose. Who is ended by a signal says so to ssh, which makes its own failure's status of it and
    // tells nobody; as with any shell's child, it is 128 and the signal here, and somebody is told.
    for (signal, number, name) in [("KILL", 9, "SIGKILL"), ("SEGV", 11, "SIGSEGV"), ("TERM", 15, "SIGTERM")] {
        let [ssh, muster] = rig.both(&format!("kill -{signal} $$"), b"");
        assert_eq!((ssh.code, ssh.stderr.as_str()), (Some(255), ""));
        assert_eq!(muster.code, Some(128 + number));
        let told = format!("muster-rsh: h0: the command was ended by signal {number} ({name})\n");
        assert_eq!(muster.stderr, told);
    }
}

#[test]
fn open_mpi_4_ends_as_over_ssh() {
    rig!(3).assert_same_jobs(Family::OpenMpi4);
}

#[test]
fn open_mpi_5_ends_as_over_ssh() {
    rig!(3).assert_same_jobs(Family::OpenMpi5);
}

#[test]
fn mpich_4_ends_as_over_ssh() {
    rig!(3).assert_same_jobs(Family::Mpich4);
}

#[test]
fn mpich_5_ends_as_over_ssh() {
    rig!(3).assert_same_jobs(Family::Mpich5);
}

#[test]
fn intel_mpi_ends_as_over_ssh() {
    rig!(3).assert_same_jobs(Family::Intel);
}
