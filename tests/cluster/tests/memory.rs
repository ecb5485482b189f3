//! Ranks whose memory is used up: the kernel kills them, and says so in a counter only.

use muster_cluster::{Cluster, Cmd, MemoryGroup, Output, PATIENCE, cluster_or_skip, workspace};

/// Rank 1 takes memory until it is stopped.
const EATER: &str = "[ $MUSTER_RANK = 0 ] && exec sleep 1000; exec tail /dev/zero";
const LIMIT_BYTES: u64 = 96 << 20;

#[test]
fn c14_a_rank_that_the_kernel_kills_for_memory_is_told_as_such_and_its_agent_lives() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let group = match MemoryGroup::with_limit(LIMIT_BYTES) {
        Ok(group) => group,
        Err(error) => {
            // Not every machine lets its tests limit memory.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {error:#}\n"));
            return;
        }
    };
    let _h0 = cluster.start_agent(0, &[]).expect("agent");
    let agent = Cmd::new(workspace::program("muster-agent").expect("built")).arg("--key-file").arg(cluster.key_file());
    let agent = cluster.host(1).spawn(group.inside(&agent).own_session()).expect("spawn");
    let (events, message) = (cluster.shared_dir().join("events"), cluster.shared_dir().join("message"));
    let ends = |script: &str| {
        let run = cluster.muster("h0:1,h1:1").expect("built").arg("--events").arg(&events);
        let run = run.arg("--termination-message").arg(&message).args(["sh", "-c", script]);
        let output = cluster.launcher().run(run).expect("it ends");
        let events = std::fs::read_to_string(&events).expect("events");
        let all = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let rank = all.into_iter().find(|e| e["event"] == "rank_ended" && e["rank"] == 1).expect("its end");
        (output, rank["end"]["signaled"].clone())
    };

    let told = "rank 1 on h1 was killed by SIGKILL (signal 9): out of memory, the kernel has killed 1 process of the host's \
                control group (limit 96.0 MiB); raise its memory limit or start fewer ranks there";
    for _ in 0..2 {
        let (output, end) = ends(EATER);
        assert_eq!(output.status.code(), Some(137), "{}", output.stderr_text());
        assert_eq!(output.verdict(), format!("muster: {told}"));
        assert_eq!(end["memory"], serde_json::json!({ "killed": 1, "limit_bytes": LIMIT_BYTES }), "{end}");
        let text = std::fs::read_to_string(&message).expect("a message");
        assert!(text.contains(told), "{text}");
    }

    // Somebody else's signal is not taken for that, whatever has happened before.
    let (output, end) = ends("[ $MUSTER_RANK = 0 ] && exec sleep 1000; kill -KILL $$");
    assert_eq!(output.verdict(), "muster: rank 1 on h1 was killed by SIGKILL (signal 9)");
    assert_eq!((output.status.code(), end.get("memory")), (Some(137), None), "{end}");

    // Whoever has to tell of it is what the kernel takes last.
    let score = "[ $MUSTER_RANK = 0 ] || cat /proc/$PPID/oom_score_adj /proc/self/oom_score_adj";
    let run = cluster.muster("h0:1,h1:1").expect("built").args(["sh", "-c", score]);
    let scores = cluster.launcher().run(run).and_then(Output::ok).expect("it runs").stdout_text();
    let scores: Vec<i32> = scores.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(matches!(scores[..], [agent, rank] if rank > agent || agent == 1000), "{scores:?}");
    assert!(agent.try_wait().expect("status").is_none(), "{}", agent.stderr_so_far());
    agent.kill();
    agent.wait(PATIENCE).expect("it ends");
}

#[test]
fn c14_a_limit_that_was_not_reached_is_not_named_and_a_group_that_is_killed_as_a_whole_is_announced() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    // A container's files of version 2, in which each rank stands in for the kernel.
    let files = "mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup && echo 67108864 > memory.max && \
                 echo 1 > memory.oom.group && printf 'oom 4\\noom_kill 2\\n' > memory.events";
    cluster.host(0).run(Cmd::sh(files)).and_then(Output::ok).expect("files");
    let agent = cluster.start_agent(0, &[]).expect("agent");
    let log = agent.stderr_so_far();
    assert_eq!(log.matches("memory.oom.group is set for this agent's control group").count(), 1, "{log}");
    for (events, told) in [
        ("oom 4\\noom_kill 3\\n", "group; start fewer ranks there"),
        ("oom 5\\noom_kill 4\\n", "group (limit 64.0 MiB); raise its memory limit or start fewer ranks there"),
    ] {
        let script = format!("printf '{events}' > /sys/fs/cgroup/memory.events; kill -KILL $$");
        let output = cluster.launcher().run(cluster.muster("h0:1").expect("built").args(["sh", "-c", &script]));
        let told = "muster: rank 0 on h0 was killed by SIGKILL (signal 9): out of memory, the kernel has killed 1 process of the \
                    host's control "
            .to_owned()
            + told;
        assert_eq!(output.expect("it ends").verdict(), told);
    }
}
