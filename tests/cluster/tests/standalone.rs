//! The programs need nothing but themselves: no library, no folder, no other program, and no file but a key and `/etc/hosts`.

use std::fs;
use std::path::{Path, PathBuf};

use muster_cluster::{Cluster, Cmd, PATIENCE, cluster_or_skip, workspace};

/// A root file system with the two programs, a key and the names of the hosts, and nothing else.
fn bare_root(cluster: &Cluster, name: &str) -> PathBuf {
    let root = cluster.shared_dir().join(name);
    fs::create_dir(&root).expect("create");
    for program in ["muster", "muster-agent"] {
        fs::copy(workspace::program(program).expect("built"), root.join(program)).expect("copy");
    }
    fs::copy(cluster.key_file(), root.join("key")).expect("copy");
    fs::create_dir(root.join("etc")).expect("create");
    fs::copy(cluster.shared_dir().join("hosts"), root.join("etc/hosts")).expect("copy");
    root
}

fn inside(root: &Path, program: &str) -> Cmd {
    Cmd::new("chroot").arg(root).args([program]).timeout(PATIENCE)
}

fn content(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(root).expect("read").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn launcher_and_agents_run_in_an_empty_root_file_system() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let roots: Vec<_> = ["h0", "h1", "h2", "launcher"].map(|name| bare_root(&cluster, name)).into_iter().collect();
    // Names are resolved on both sides: the launcher dials h0 and h1, and h2 dials the launcher.
    let agents: Vec<_> = [&[][..], &[], &["--join", "launcher:4001"]]
        .iter()
        .enumerate()
        .map(|(i, args)| {
            let agent = inside(&roots[i], "/muster-agent").args(["--key-file", "/key"]).args(*args);
            let agent = cluster.host(i).spawn(agent).expect("spawn");
            agent.wait_for("agent is ready", PATIENCE).expect("ready");
            agent
        })
        .collect();
    let run = |rank: &[&str]| {
        let cmd = inside(&roots[3], "/muster").args(["run", "--key-file", "/key", "-H", "h0:2,h1:2,h2:2"]);
        cluster.launcher().run(cmd.args(["--listen", "10.77.255.1:4001"]).args(rank)).expect("it ends")
    };

    // The only program there is.
    let output = run(&["-l", "/muster-agent", "--version"]).ok().expect("the job runs");
    let text = output.stdout_text();
    assert_eq!(text.lines().filter(|line| line.contains("] muster-agent ")).count(), 6, "{text}");
    assert_eq!(output.verdict(), "");

    let missing = run(&["/bin/true"]);
    assert_eq!(missing.status.code(), Some(127), "{}", missing.stderr_text());

    for root in &roots {
        assert_eq!(content(root), ["etc", "key", "muster", "muster-agent"], "nothing was written");
        assert_eq!(content(&root.join("etc")), ["hosts"], "nothing was written");
    }
    for agent in &agents {
        assert!(agent.try_wait().expect("status").is_none(), "an agent ended: {}", agent.stderr_so_far());
    }
}
