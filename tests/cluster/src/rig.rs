//! Jobs on a cluster, one after the other on the same agents.

use crate::{Cluster, Cmd, Leftover, Output, PATIENCE, Proc};

/// A cluster with its agents.
#[derive(Debug)]
pub struct Rig {
    /// The hosts.
    pub cluster: Cluster,
    /// An agent on each.
    pub agents: Vec<Proc>,
}

impl Rig {
    /// Starts an agent on each host.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        let agents = cluster.start_agents(&[]).expect("agents");
        Self { cluster, agents }
    }

    /// `muster run` on these hosts.
    ///
    /// # Panics
    /// When it has not been built.
    #[must_use]
    pub fn muster(&self, hosts: &str, options: &[&str]) -> Cmd {
        self.cluster.muster(hosts).expect("built").args(options)
    }

    /// Runs a job to its end; nothing of it may be left when the launcher is back.
    ///
    /// # Panics
    /// When it does not end, or leaves something.
    pub fn run(&self, cmd: Cmd) -> Output {
        let output = self.cluster.launcher().run(cmd.timeout(PATIENCE)).expect("it ends");
        for index in 0..self.cluster.len() {
            let host = self.cluster.host(index);
            assert_eq!(host.ranks().expect("processes"), [], "{}: {}", host.name(), output.stderr_text());
        }
        output
    }

    /// Lines of a job that ends well and says nothing but them, in alphabetical order.
    ///
    /// # Panics
    /// When it does not, or does.
    pub fn lines(&self, cmd: Cmd) -> Vec<String> {
        let what = cmd.to_string();
        let output = self.run(cmd).ok().expect(&what);
        assert_eq!(stderr(&output), "", "{what}");
        let mut lines: Vec<_> = output.stdout_text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The agents are still the same processes, and nothing but what `spared` names is left on their hosts.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_clean(&self, spared: &[&str]) {
        for (index, agent) in self.agents.iter().enumerate() {
            assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
            let mut left = self.cluster.host(index).leftovers().expect("leftovers");
            left.retain(
                |l| !matches!(l, Leftover::File(path) if spared.iter().any(|s| path.to_string_lossy().contains(s))),
            );
            assert_eq!(left, [], "h{index}");
        }
    }
}

/// Standard error without the lines about waiting, which only come when the machine is busy.
#[must_use]
pub fn stderr(output: &Output) -> String {
    let stderr = output.stderr_text();
    stderr.lines().filter(|line| !line.starts_with("muster: waiting for ")).collect::<Vec<_>>().join("\n")
}

/// What muster itself says; ranks write to standard error, too.
#[must_use]
pub fn said(output: &Output) -> String {
    stderr(output).lines().filter(|line| line.starts_with("muster: ")).collect::<Vec<_>>().join("\n")
}
