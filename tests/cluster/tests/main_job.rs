//! The job that `make demo` shows: the checked allreduce on four hosts, its table, and where the start-up time went.

use muster_cluster::{Cluster, Output, PATIENCE, cluster_or_skip, workspace};

/// Message sizes of `-b 8 -e 32K -f 8`.
const SIZES: [u64; 5] = [8, 64, 512, 4096, 32_768];

/// The rows of the table, a word for each column.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn assert_table(text: &str) {
    for rank in 0..8 {
        assert!(text.contains(&format!("#  Rank {rank:2} on h{}\n", rank / 2)), "{text}");
    }
    let columns = "size         count      type   redop     time   algbw   busbw  #wrong";
    assert!(text.contains(columns), "{text}");
    let rows = rows(text);
    assert_eq!(rows.len(), SIZES.len(), "{text}");
    for (row, size) in rows.iter().zip(SIZES) {
        assert_eq!(row.len(), 8, "{row:?}");
        assert_eq!(row[..4], [&size.to_string(), &(size / 4).to_string(), "float", "sum"], "{row:?}");
        let [time, algbw, busbw] = [4, 5, 6].map(|i| row[i].parse::<f64>().expect("a number"));
        assert!(time > 0.0, "{row:?}");
        // As nccl-tests defines them for 8 ranks; each is rounded to two decimals.
        assert!((algbw - size as f64 / time / 1e3).abs() < 0.011, "{row:?}");
        assert!((busbw - algbw * 1.75).abs() < 0.015, "{row:?}");
        assert_eq!(row[7], "0", "a wrong sum: {row:?}");
    }
    assert!(text.contains("# Out of bounds values : 0 OK\n"), "{text}");
}

/// Times and words of the start-up, in the order in which they were printed.
fn phases(stderr: &str) -> Vec<(u64, String)> {
    let phase = |line: &str| {
        let (time, what) = line.strip_prefix("muster: ")?.trim_start().split_once(" ms  ")?;
        Some((time.parse().ok()?, what.to_owned()))
    };
    stderr.lines().filter_map(phase).collect()
}

#[test]
fn the_demonstration_prints_its_table_and_where_the_time_went() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(4));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let program = workspace::program("muster-allreduce-mpi").expect("built");
    let library = format!("LD_LIBRARY_PATH={}", workspace::mpi_prefix("mpich").join("lib").display());
    let mpi = ["-x", &library, "-x", "MPIR_CVAR_CH4_NETMOD=ofi", "-x", "FI_PROVIDER=tcp"];
    let cmd = cluster.muster(&cluster.host_list(2)).expect("built").arg("-v").args(mpi).arg(program);
    let cmd = cmd.args(["-b", "8", "-e", "32K", "-f", "8", "-n", "2", "-w", "1"]);
    let output = cluster.launcher().run(cmd.timeout(PATIENCE)).and_then(Output::ok).expect("the job runs");
    assert_table(&output.stdout_text());

    let stderr = output.stderr_text();
    assert!(stderr.contains("muster: 8 ranks on 4 hosts\n"), "{stderr}");
    let phases = phases(&stderr);
    let mut names: Vec<_> = phases.iter().map(|(_, what)| what.as_str()).collect();
    let fences: Vec<_> = names.extract_if(.., |name| name.starts_with("fence ")).collect();
    assert_eq!(
        names,
        ["first host connected", "all 4 hosts connected", "all ranks started", "first rank ended", "job over"],
        "{stderr}"
    );
    assert!(fences.first().is_some_and(|fence| fence.starts_with("fence 0: ")), "{stderr}");
    assert!(fences.iter().all(|fence| fence.ends_with(" bytes exchanged")), "{stderr}");
    assert!(phases.is_sorted_by_key(|(time, _)| *time), "{stderr}");
}
