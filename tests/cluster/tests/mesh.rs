//! Pods with a service mesh's sidecar: a proxy between launcher and agent that is ready later than the pod, on either side.

use std::time::Duration;

use muster_cluster::{AGENT_PORT, Cluster, Cmd, Family, Manner, MeshProxy, Output, PATIENCE, Proc, cluster_or_skip};

/// Where the agent is, behind its proxy.
const HIDDEN_PORT: u16 = 3333;
/// Long enough for heartbeats, and no longer.
const IDLE: Duration = Duration::from_secs(4);

/// Host 1's agent is behind a proxy, host 0's is not.
struct Rig {
    // Agents end before their hosts.
    _agents: Vec<Proc>,
    proxy: MeshProxy,
    cluster: Cluster,
}

impl Rig {
    fn new(cluster: Cluster, manner: Manner) -> Self {
        let proxy = MeshProxy::start(&cluster.host(1), AGENT_PORT, HIDDEN_PORT, IDLE, manner).expect("a proxy");
        // Which sees all its launchers come from its own host.
        let port = HIDDEN_PORT.to_string();
        let agents = [&[][..], &["--listen", "127.0.0.1", "--port", &port]];
        let agents = agents.iter().enumerate().map(|(i, args)| cluster.start_agent(i, args).expect("agent")).collect();
        Self { _agents: agents, proxy, cluster }
    }

    /// The same program on both hosts, by our launcher and by another one.
    fn commands(&self, script: &str) -> [Cmd; 2] {
        let run = self.cluster.muster("h0:1,h1:1").expect("built").args(["sh", "-c", script]);
        let family = Family::OpenMpi4;
        let exec = self.cluster.muster_exec(family, "h0:1,h1:1").expect("built").arg("--");
        [run, exec.arg(family.launcher()).args(["-n", "2", "sh", "-c", script])]
    }

    fn ends_on_both(&self, job: Proc) {
        let output = job.finish(PATIENCE).and_then(Output::ok).expect("it succeeds");
        let text = output.stdout_text();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!((&lines[..], output.verdict().as_str()), (&["h0", "h1"][..], ""), "{}", output.stderr_text());
    }
}

#[test]
fn c22_a_proxy_that_is_not_ready_is_waited_for_and_told_by_what_it_does() {
    for manner in [Manner::Close, Manner::Reset] {
        let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)), manner);
        let told = format!(
            "muster: waiting for 1 host: h1: connected, but {}:{AGENT_PORT} closed the connection before it answered; is its \
             agent running and has it a job key, and is a proxy in between (a service mesh's sidecar) ready?\n",
            rig.cluster.host(1).address()
        );
        for command in rig.commands("hostname") {
            rig.proxy.turn(manner);
            let job = rig.cluster.launcher().spawn(command).expect("spawn");
            job.wait_for(&told, PATIENCE).expect("it says what it sees");
            assert!(rig.proxy.turned_away() > 0);
            rig.proxy.turn(Manner::Forward);
            rig.ends_on_both(job);
        }
    }
}

#[test]
fn c22_a_launchers_proxy_that_is_not_ready_is_waited_for() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)), Manner::Forward);
    let route = |what: &str| {
        let words = ["route", what, "unreachable", &rig.cluster.host(1).address().to_string()].map(str::to_owned);
        rig.cluster.launcher().run(Cmd::new("ip").args(words)).and_then(Output::ok).expect("a route");
    };
    for command in rig.commands("hostname") {
        route("add");
        let job = rig.cluster.launcher().spawn(command).expect("spawn");
        let told = format!(
            "muster: waiting for 1 host: h1: {}:{AGENT_PORT} cannot be reached: No route to host (os error 113)\n",
            rig.cluster.host(1).address()
        );
        job.wait_for(&told, PATIENCE).expect("it says what it sees");
        route("del");
        rig.ends_on_both(job);
    }
}

#[test]
fn c22_a_quiet_job_outlives_the_proxys_patience_with_quiet_connections() {
    let rig = Rig::new(cluster_or_skip!(Cluster::builder().hosts(2)), Manner::Forward);
    // Every connection has been in use, and says nothing of its own for three times as long as the proxy waits.
    let script = format!("hostname; sleep {}; echo late", 3 * IDLE.as_secs());
    for command in rig.commands(&script) {
        let output = rig.cluster.launcher().run(command).and_then(Output::ok).expect("it succeeds");
        let text = output.stdout_text();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!((&lines[..], output.verdict().as_str()), (&["h0", "h1", "late", "late"][..], ""));
    }
}
