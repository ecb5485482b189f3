//! The jobs that `make demo` shows: the checked allreduce of both families of MPI on four hosts, its table, and where the start-up
//! time went.

use muster_cluster::{Cluster, Cmd, Output, PATIENCE, cluster_or_skip, workspace};

const ARGUMENTS: [&str; 10] = ["-b", "8", "-e", "32K", "-f", "8", "-n", "2", "-w", "1"];
/// Message sizes of these.
const SIZES: [u64; 5] = [8, 64, 512, 4096, 32_768];

/// The rows of the table, a word for each column.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Asserts the table of a job whose ranks run on these hosts.
fn assert_table(text: &str, hosts: &[&str]) {
    for (rank, host) in hosts.iter().enumerate() {
        assert!(text.contains(&format!("#  Rank {rank:2} on {host}\n")), "{text}");
    }
    let ranks = hosts.len() as f64;
    let columns = "size         count      type   redop     time   algbw   busbw  #wrong";
    assert!(text.contains(columns), "{text}");
    let rows = rows(text);
    assert_eq!(rows.len(), SIZES.len(), "{text}");
    for (row, size) in rows.iter().zip(SIZES) {
        assert_eq!(row.len(), 8, "{row:?}");
        assert_eq!(row[..4], [&size.to_string(), &(size / 4).to_string(), "float", "sum"], "{row:?}");
        let [time, algbw, busbw] = [4, 5, 6].map(|i| row[i].parse::<f64>().expect("a number"));
        assert!(time > 0.0, "{row:?}");
        // As nccl-tests defines them; each is rounded to two decimals.
        assert!((algbw - size as f64 / time / 1e3).abs() < 0.011, "{row:?}");
        assert!((busbw - algbw * 2.0 * (ranks - 1.0) / ranks).abs() < 0.015, "{row:?}");
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

fn demonstrate(program: &str, mpi: &[&str]) {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(4));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let program = workspace::program(program).expect("built");
    let cmd = cluster
        .muster(&cluster.host_list(2))
        .expect("built")
        .arg("-v")
        .args(mpi.iter().flat_map(|set| ["-x", set]))
        .arg(program);
    let cmd = cmd.args(ARGUMENTS);
    let output = cluster.launcher().run(cmd.timeout(PATIENCE)).and_then(Output::ok).expect("the job runs");
    assert_table(&output.stdout_text(), &["h0", "h0", "h1", "h1", "h2", "h2", "h3", "h3"]);

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

#[test]
fn mpich_prints_its_table_and_where_the_time_went() {
    let library = format!("LD_LIBRARY_PATH={}", workspace::mpi_prefix("mpich").join("lib").display());
    demonstrate("muster-allreduce-mpi", &[&library, "MPIR_CVAR_CH4_NETMOD=ofi", "FI_PROVIDER=tcp"]);
}

#[test]
fn open_mpi_prints_its_table_and_where_the_time_went() {
    demonstrate("muster-allreduce-mpi-openmpi", &["OMPI_MCA_mpi_yield_when_idle=1"]);
}

#[test]
fn open_mpi_needs_no_hosts() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(0));
    let program = workspace::program("muster-allreduce-mpi-openmpi").expect("built");
    let prefix = workspace::mpi_prefix("openmpi");
    let (own, library) = (prefix.display(), prefix.join("lib"));
    let (own, library) = (format!("OPAL_PREFIX={own}"), format!("LD_LIBRARY_PATH={}", library.display()));
    // Debian's 4.1.4, and 5.0.11 in its place.
    for (version, mpi) in [("v4.1.4", &[][..]), ("v5.0.11", &["-x", &own, "-x", &library])] {
        let cmd = Cmd::new(workspace::program("muster").expect("built")).args(["run", "--local", "4"]).args(mpi);
        let cmd = cmd.arg(&program).args(ARGUMENTS).timeout(PATIENCE);
        let output = cluster.launcher().run(cmd).and_then(Output::ok).expect("the job runs");
        let text = output.stdout_text();
        assert!(text.contains(&format!("# Library: Open MPI {version}")), "{text}");
        assert_table(&text, &["launcher"; 4]);
    }
}
