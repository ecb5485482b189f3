//! Who follows the hosts that there are: `muster hosts` alone, and as the discovery script of somebody else's elastic launcher.

use std::path::PathBuf;

use muster_cluster::{Cluster, Cmd, Output, PATIENCE, cluster_or_skip, eventually, workspace};

/// The host file of an operator, which changes it as it likes.
struct List<'a> {
    cluster: &'a Cluster,
    file: PathBuf,
}

impl<'a> List<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, file: cluster.shared_dir().join("hostfile") }
    }

    fn write(&self, text: &str) {
        // As the kubelet does: nobody sees half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.file)).expect("write");
    }

    fn command(&self) -> Cmd {
        let hosts = Cmd::new(workspace::program("muster").expect("built")).args(["hosts", "--key-file"]);
        hosts.arg(self.cluster.key_file()).arg("-f").arg(&self.file).timeout(PATIENCE)
    }

    fn asked(&self, options: &[&str]) -> Output {
        self.cluster.launcher().run(self.command().args(options)).and_then(Output::ok).expect("it succeeds")
    }

    /// With more time to answer in than a busy machine needs: who is not there refuses at once.
    fn shown(&self) -> String {
        let output = self.asked(&["--connect-timeout", "30s"]);
        assert_eq!(output.stderr_text(), "");
        output.stdout_text()
    }
}

#[test]
fn c17_hosts_are_shown_with_their_slots_while_their_agents_live() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(4));
    let list = List::new(&cluster);
    list.write("h0 slots=2\nh1:3\nh2\n");
    assert_eq!(list.shown(), "", "nobody is there yet, which is no error");
    let agents: Vec<_> = (0..3).map(|index| cluster.start_agent(index, &[]).expect("agent")).collect();
    assert_eq!(list.shown(), "h0:2\nh1:3\nh2:1\n");

    // The operator's list goes before its pods, and outlives them.
    list.write("h0 slots=2\nh1:3\nh2\nh3 slots=4\nnowhere slots=4\n");
    assert_eq!(list.shown(), "h0:2\nh1:3\nh2:1\n");
    let new = cluster.start_agent(3, &[]).expect("agent");
    assert_eq!(list.shown(), "h0:2\nh1:3\nh2:1\nh3:4\n");
    agents[1].kill();
    assert_eq!(eventually(|| list.shown(), |text| !text.contains("h1")).expect("it goes"), "h0:2\nh2:1\nh3:4\n");
    list.write("# all are gone\n");
    assert_eq!(list.shown(), "", "no hosts is an answer, too");
    list.write("h0 slots=1\nh3 slots=4\n");
    assert_eq!(list.shown(), "h0:1\nh3:4\n");

    // One that hears nothing any more is not waited for, and who wants to know why is told.
    cluster.cut(3).expect("cut");
    let asked = || list.asked(&["-v", "--connect-timeout", "2s"]);
    let told = eventually(asked, |told| told.stdout_text() == "h0:1\n").expect("it is left out");
    assert!(
        told.stderr_text().contains("h3 is left out: timed out after 2 s: no answer from its address"),
        "{}",
        told.stderr_text()
    );
    drop(new);
}

#[test]
fn c17_a_host_with_another_key_or_job_is_not_shown() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let list = List::new(&cluster);
    list.write("h0:2\nh1:2\nh2:2\n");
    let other = cluster.shared_dir().join("other.key");
    std::fs::write(&other, "a secret that the launcher does not have").expect("write");
    let agent = Cmd::new(workspace::program("muster-agent").expect("built")).arg("--key-file").arg(&other);
    let stranger = cluster.host(0).spawn(agent).expect("spawn");
    stranger.wait_for("agent is ready", PATIENCE).expect("ready");
    let _agents =
        [cluster.start_agent(1, &["--job", "old"]).expect("agent"), cluster.start_agent(2, &[]).expect("agent")];
    assert_eq!(list.shown(), "h2:2\n");
    let job = list.asked(&["--job", "old", "-v", "--connect-timeout", "30s"]);
    assert_eq!(job.stdout_text(), "h1:2\nh2:2\n");
    assert!(
        job.stderr_text().contains("h0 is left out: connected, but its agent has another job key"),
        "{}",
        job.stderr_text()
    );
}

#[test]
fn c17_hosts_that_run_a_job_are_shown_and_a_list_that_cannot_be_read_is_an_error() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let list = List::new(&cluster);
    let run = cluster.muster("h0,h1").expect("built").args(["sh", "-c", "echo up; exec sleep 1000"]);
    let job = cluster.launcher().spawn(run).expect("spawn");
    job.wait_for_count("up\n", 2).expect("it runs");
    // On its own machine nobody needs an agent to start a command.
    let own = cluster.launcher().run(Cmd::new("hostname")).and_then(Output::ok).expect("a name").stdout_text();
    list.write(&format!("h0:1\nh1:1\n{}:1\n", own.trim()));
    assert_eq!(list.shown(), format!("h0:1\nh1:1\n{}:1\n", own.trim()));
    std::fs::remove_file(&list.file).expect("remove");
    let output = cluster.launcher().run(list.command()).expect("it ends");
    assert_eq!((output.status.code(), output.stdout_text().as_str()), (Some(64), ""));
    assert!(output.verdict().contains("cannot be read: No such file or directory"), "{}", output.verdict());
}
