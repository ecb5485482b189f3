//! Horovod's launcher over agents: it looks whether ssh works, asks each host for its interfaces, and then starts ranks by an
//! `mpirun`, or each by an ssh of its own.

use std::os::unix::fs::{PermissionsExt, symlink};

use muster_cluster::{Cluster, Cmd, Family, Output, PATIENCE, Proc, cluster_or_skip, workspace};

struct Rig {
    // Agents end before their hosts.
    agents: Vec<Proc>,
    cluster: Cluster,
}

macro_rules! rig {
    () => {{
        let cluster = cluster_or_skip!(Cluster::builder().hosts(4));
        let agents = cluster.start_agents(&[]).expect("agents");
        Rig { agents, cluster }
    }};
}

impl Rig {
    /// `muster exec -- horovodrun` on all hosts; how it starts ranks, and the ranks are to be added.
    fn horovodrun(&self, family: Family) -> Cmd {
        let bin = self.cluster.shared_dir().join(format!("bin-{}", family.programs()));
        std::fs::create_dir_all(&bin).expect("folder");
        let [python, program] = workspace::horovodrun().expect("installed");
        let script = format!("#!/bin/sh\nexec {} {} \"$@\"\n", python.display(), program.display());
        std::fs::write(bin.join("horovodrun"), script).expect("write");
        std::fs::set_permissions(bin.join("horovodrun"), PermissionsExt::from_mode(0o755)).expect("mode");
        // Which `mpirun` an image has; Debian gives its MPIs other names.
        let launcher = family.launcher();
        if family != Family::Intel && !bin.join("mpirun").exists() {
            symlink(&launcher, bin.join("mpirun")).expect("link");
        }
        let mpi = launcher.parent().expect("a folder").display();
        let path = format!("{}:{mpi}:/usr/local/bin:/usr/bin:/bin", bin.display());
        let cmd = self.cluster.muster_exec(family, "h0:2,h1:2,h2:2,h3:2").expect("built").env("PATH", path);
        // It would remember for an hour, for all jobs of this user, which hosts it has reached.
        let horovodrun = ["--placement", "strict", "--", "horovodrun", "--disable-cache", "-np", "8"];
        // Dozens of Python processes start on few cores here, for which its own 30 s may not do.
        let cmd = cmd.args(horovodrun).args(["--start-timeout", "150"]).timeout(2 * PATIENCE);
        cmd.args(["-H", "h0:2,h1:2,h2:2,h3:2"])
    }

    fn run(&self, cmd: Cmd) -> Output {
        let output = self.cluster.launcher().run(cmd).expect("it ends");
        for host in 0..self.cluster.len() {
            self.cluster.host(host).wait_until_idle().expect("nothing is left");
        }
        assert!(self.agents.iter().all(|agent| agent.try_wait().expect("status").is_none()));
        output
    }
}

/// Every rank in its place, whatever a launcher writes before a line.
fn assert_all_ranks(output: &Output) {
    let text = output.stdout_text();
    for rank in 0..8 {
        let wanted = format!("rank {rank} of 8 on h{}", rank / 2);
        assert_eq!(text.lines().filter(|line| line.ends_with(&wanted)).count(), 1, "{wanted}:\n{text}");
    }
}

#[test]
fn horovodrun_starts_ranks_by_mpirun_over_agents() {
    let rig = rig!();
    // Horovod 0.28 takes no mpirun of Open MPI 5, whose options are others, and knows no MPICH by its version.
    for family in [Family::OpenMpi4, Family::Intel] {
        let job = rig.horovodrun(family).arg("--mpi").arg(family.program("init_allreduce").expect("built"));
        let output = rig.run(job).ok().expect("it succeeds");
        assert_all_ranks(&output);
        assert!(output.stdout_text().contains("allreduce of 8 ranks: ok"), "{}", output.stdout_text());
    }
}

#[test]
fn horovodrun_starts_every_rank_by_a_remote_shell_of_its_own() {
    let rig = rig!();
    let job = |script: &str| rig.horovodrun(Family::OpenMpi4).args(["--gloo", "sh", "-c", script]);
    let output = rig.run(job("echo rank $HOROVOD_RANK of $HOROVOD_SIZE on $(hostname)")).ok().expect("it succeeds");
    assert_all_ranks(&output);
    assert_eq!(output.verdict(), "");
    // The end of one is the end of all, on every host.
    let failed = rig.run(job("[ $HOROVOD_RANK = 3 ] && exit 5; exec sleep 1000"));
    assert_eq!(failed.status.code(), Some(1), "{}", failed.stderr_text());
    let told = "Process name: 3\nExit code: 5\n";
    assert!(failed.stderr_text().contains(told), "{}", failed.stderr_text());
}
