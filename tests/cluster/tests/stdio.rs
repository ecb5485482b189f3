//! The ranks' standard streams: who reads what, and whose lines come out how.

use std::collections::BTreeMap;
use std::io::Read;

use muster_cluster::{
    Cluster, Cmd, Here, Output, PATIENCE, Stdin, cluster_or_skip, eventually, process_state, workspace,
};
use nix::sys::signal::Signal;

/// Two ranks on each of two agents.
fn agents_and_run() -> (Here, Vec<muster_cluster::Proc>, Cmd) {
    let here = Here::new().expect("a folder");
    let agents = here.start_agents(2, &[]).expect("agents");
    let run = here.run_on(2, 2).expect("built");
    (here, agents, run)
}

fn program(name: &str) -> std::path::PathBuf {
    workspace::test_program("plain", name).expect("built")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Bytes of all values, without a period that a buffer's size could be a multiple of.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// As `stdin_echo` hashes.
fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[test]
fn standard_input_goes_to_whom_it_is_meant_for() {
    let (here, _agents, run) = agents_and_run();
    let input = bytes(300_001);
    let all = format!("300001 bytes hash {}", hash(&input));
    let none = format!("0 bytes hash {}", hash(b""));
    for (options, readers) in [
        (&[][..], &[0][..]),
        (&["--stdin", "3"], &[3]),
        (&["--stdin", "all"], &[0, 1, 2, 3]),
        (&["--stdin", "none"], &[]),
    ] {
        let cmd = run.clone().args(options).arg(program("stdin_echo")).stdin(Stdin::Bytes(input.clone()));
        let output = here.run(cmd).and_then(Output::ok).expect("it runs");
        let read = |rank| if readers.contains(&rank) { &all } else { &none };
        let want: Vec<_> = (0..4).map(|rank| format!("rank {rank} read {}", read(rank))).collect();
        assert_eq!(sorted(&output.stdout_text()), want, "{options:?}");
    }
}

#[test]
fn binary_input_and_output_pass_over_hosts_unchanged() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let _agents = cluster.start_agents(&[]).expect("agents");
    let input = bytes(5_000_011);
    let run = |hosts: &str, reader: &str| {
        let cmd =
            cluster.muster(hosts).expect("built").args(["--stdin", reader]).arg(program("stdin_echo")).arg("copy");
        cluster.launcher().run(cmd.stdin(Stdin::Bytes(input.clone()))).and_then(Output::ok).expect("it runs")
    };
    let told = format!("read 5000011 bytes hash {}", hash(&input));
    let alone = run("h1", "0");
    assert!(alone.stdout == input, "what a lone rank writes comes out as it is");
    assert_eq!(alone.said(), format!("rank 0 {told}\n"));
    let one_of_three = run("h0,h1,h2", "2");
    assert!(one_of_three.stdout == input, "so it does with others beside it that write nothing");
    assert!(one_of_three.stderr_text().contains(&format!("rank 2 {told}\n")));
}

#[test]
fn a_lone_rank_can_be_talked_to() {
    let here = Here::new().expect("a folder");
    let cmd =
        here.muster(&["run", "--local", "sh", "-c", "printf 'name? '; read name; echo hello $name"]).expect("built");
    let mut job = here.spawn(cmd.args::<&str>([]).stdin(Stdin::Piped)).expect("spawn");
    job.wait_for("name? ", PATIENCE).expect("a prompt without a line end");
    job.write_stdin(b"bob\n").expect("it reads");
    // Its input is still open when it ends.
    job.wait_for("hello bob\n", PATIENCE).expect("an answer");
    assert_eq!(job.wait(PATIENCE).expect("the job is over").code(), Some(0));
}

#[test]
fn input_that_nobody_reads_holds_nothing_up() {
    let (here, _agents, run) = agents_and_run();
    let many = Stdin::Bytes(bytes(8 << 20));
    for reader in ["0", "all"] {
        let cmd = run.clone().args(["--stdin", reader, "sh", "-c", "head -c 5 | wc -c"]).stdin(many.clone());
        let output = here.run(cmd).and_then(Output::ok).expect("it runs");
        let want = if reader == "all" { ["5"; 4] } else { ["0", "0", "0", "5"] };
        assert_eq!(sorted(&output.stdout_text()), want);
    }
}

#[test]
fn lines_carry_labels_and_partial_last_lines_are_kept() {
    let (here, _agents, run) = agents_and_run();
    let script = "printf \"a$MUSTER_RANK\\n\\nlast$MUSTER_RANK\"; printf \"e$MUSTER_RANK\" >&2";
    let labelled = run.clone().args(["-n", "2", "-l", "sh", "-c", script]);
    let output = here.run(labelled).and_then(Output::ok).expect("it runs");
    let want = ["[0] ", "[0] a0", "[0] last0", "[1] ", "[1] a1", "[1] last1"];
    assert_eq!(sorted(&output.stdout_text()), want);
    assert_eq!(sorted(&output.said()), ["[0] e0", "[1] e1"]);

    let plain = run.args(["-n", "2", "sh", "-c", script]);
    let output = here.run(plain).and_then(Output::ok).expect("it runs");
    let text = output.stdout_text();
    let lines = text.strip_suffix("last0last1").expect("unfinished lines come last, in the order of ranks");
    assert_eq!(sorted(lines), ["", "", "a0", "a1"]);
    assert_eq!(output.said(), "e0e1");
}

#[test]
fn an_output_directory_has_a_file_for_every_rank_and_stream() {
    let (here, _agents, run) = agents_and_run();
    let script = "echo out $MUSTER_RANK; printf 'no line end' ; [ $MUSTER_RANK = 2 ] || echo err $MUSTER_RANK >&2";
    let output = here.run(run.args(["-l", "--output-dir", "logs/of/this", "sh", "-c", script])).expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout_text().lines().count(), 8, "the terminal has it, too");
    let folder = std::fs::read_dir(here.dir().join("logs/of/this")).expect("folder");
    let text = |path| std::fs::read_to_string(path).expect("text");
    let files: BTreeMap<_, _> =
        folder.flatten().map(|e| (e.file_name().into_string().expect("name"), text(e.path()))).collect();
    let out = |rank: u32| (format!("rank.{rank}.out"), format!("out {rank}\nno line end"));
    let err = |rank: u32| (format!("rank.{rank}.err"), if rank == 2 { String::new() } else { format!("err {rank}\n") });
    assert_eq!(files, (0..4).map(out).chain((0..4).map(err)).collect());
}

/// The lines that `writer` makes.
fn written(rank: u32, total: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(total + 128);
    for number in 0.. {
        if all.len() >= total {
            break;
        }
        let head = format!("{rank} {number} ");
        all.extend_from_slice(head.as_bytes());
        all.extend((head.len()..127).map(|i| b'A' + ((number + i) % 26) as u8));
        all.push(b'\n');
    }
    all.truncate(total);
    all
}

#[test]
fn whole_lines_of_many_ranks_never_mix() {
    const EACH: usize = 128 * 20_000;
    let (here, _agents, run) = agents_and_run();
    // Pieces that never end with a line, at different places for each rank.
    let script = format!("exec \"$0\" {EACH} $1 $((997 + MUSTER_RANK))");
    for stream in ["out", "err"] {
        let cmd = run.clone().args(["sh", "-c", &script]).arg(program("writer")).arg(stream);
        let output = here.run(cmd).and_then(Output::ok).expect("it runs");
        let said = output.said().into_bytes();
        let (full, empty) = if stream == "out" { (output.stdout, said) } else { (said, output.stdout) };
        assert!(empty.is_empty(), "{stream}: {}", String::from_utf8_lossy(&empty));
        assert_eq!(full.len(), 4 * EACH, "{stream}");
        let mut of_rank: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for line in full.split_inclusive(|b| *b == b'\n') {
            of_rank.entry(line[0]).or_default().extend_from_slice(line);
        }
        for rank in 0..4 {
            let got = of_rank.remove(&(b'0' + rank as u8)).unwrap_or_default();
            assert!(got == written(rank, EACH), "{stream} of rank {rank} is whole and in order");
        }
        assert!(of_rank.is_empty(), "{stream}: lines of nobody: {:?}", of_rank.keys());
    }
}

#[test]
fn a_reader_that_takes_its_time_loses_nothing() {
    const EACH: usize = 12_000_000;
    let (here, _agents, run) = agents_and_run();
    let cmd = run.args(["-n", "2"]).arg(program("writer")).arg(EACH.to_string()).raw_stdout();
    let mut job = here.spawn(cmd).expect("spawn");
    let mut stdout = job.take_stdout().expect("a pipe");
    let mut first = [0u8; 1000];
    stdout.read_exact(&mut first).expect("it writes");
    // More is written than may lie around anywhere, so both ranks stand still.
    let ranks = || (job.try_wait().expect("status").is_none(), std::fs::read_to_string(io_of(job.pid())).expect("io"));
    let mut before = ranks();
    let still = || {
        let now = ranks();
        (std::mem::replace(&mut before, now.clone()) == now).then_some(now.0)
    };
    assert_eq!(eventually(still, Option::is_some).expect("everything stands still"), Some(true));
    let mut rest = first.to_vec();
    stdout.read_to_end(&mut rest).expect("the rest");
    assert_eq!((job.wait(PATIENCE).expect("it ends").code(), rest.len()), (Some(0), 2 * EACH));
    for rank in [b'0', b'1'] {
        let got: Vec<u8> =
            rest.split_inclusive(|b| *b == b'\n').filter(|line| line[0] == rank).flatten().copied().collect();
        assert!(got == written(u32::from(rank - b'0'), EACH));
    }
}

/// What a process has read and written so far.
fn io_of(pid: i32) -> String {
    format!("/proc/{pid}/io")
}

#[test]
fn a_job_whose_reader_stands_still_can_be_ended() {
    let (here, _agents, run) = agents_and_run();
    let next = run.clone().args(["-n", "1", "echo", "next"]);
    let script = "echo $$ >pid.$MUSTER_RANK; exec yes";
    let cmd = run.args(["-n", "2", "--grace", "0", "sh", "-c", script]).raw_stdout();
    let mut job = here.spawn(cmd).expect("spawn");
    let mut stdout = job.take_stdout().expect("a pipe");
    stdout.read_exact(&mut [0; 1]).expect("it writes");
    let pid = |rank| std::fs::read_to_string(here.dir().join(format!("pid.{rank}"))).ok()?.trim().parse::<i32>().ok();
    let pids = eventually(|| [0, 1].map(pid), |pids| pids.iter().all(Option::is_some)).expect("both ranks run");
    job.signal(Signal::SIGTERM).expect("it lives");
    let alive = || pids.iter().flatten().filter_map(|pid| process_state(*pid)).count();
    eventually(alive, |n| *n == 0).expect("ranks end though nobody reads");
    // Now it waits for its reader only. Whoever asks three times wants to wait for nothing.
    let ask = || job.signal(Signal::SIGTERM).is_err();
    eventually(ask, |gone| *gone).expect("it does not insist");
    assert_eq!(job.wait(PATIENCE).expect("it is over").code(), Some(143));
    let next =
        here.run(next).and_then(Output::ok).expect("agents serve the next job, at the latest when the lease ends");
    assert_eq!(next.stdout_text(), "next\n");
}

#[test]
fn a_reader_that_leaves_ends_the_job_without_a_word() {
    let (here, agents, run) = agents_and_run();
    let cmd = run.clone().args(["sh", "-c", "exec yes $MUSTER_RANK"]).raw_stdout();
    let mut job = here.spawn(cmd).expect("spawn");
    let mut stdout = job.take_stdout().expect("a pipe");
    let mut first = [0u8; 2];
    stdout.read_exact(&mut first).expect("it writes");
    assert!((b'0'..=b'3').contains(&first[0]) && first[1] == b'\n');
    drop(stdout);
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!((output.status.code(), output.said().as_str()), (Some(141), ""));
    assert!(agents.iter().all(|agent| agent.try_wait().expect("status").is_none()));
    let next = here.run(run.args(["-l", "echo", "next"])).and_then(Output::ok).expect("agents serve the next job");
    assert_eq!(next.stdout_text().lines().count(), 4);
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let here = Here::new().expect("a folder");
    let muster = workspace::program("muster").expect("built");
    let cmd = here.cmd("sh").args(["-c", "exec \"$0\" run --local 2 -n 2 echo x >/dev/full"]).arg(muster);
    let output = here.run(cmd).expect("it ends");
    let told =
        "muster: internal fault: output cannot be written: standard output: No space left on device (os error 28)\n";
    assert_eq!((output.status.code(), output.said().as_str()), (Some(242), told));
}

#[test]
fn closed_streams_of_the_launcher_do_no_harm() {
    let here = Here::new().expect("a folder");
    let muster = workspace::program("muster").expect("built");
    let cmd = here.cmd("sh").args(["-c", "exec \"$0\" run --local 2 -n 2 sh -c 'cat; echo x; exit 5' <&- >&- 2>&-"]);
    assert_eq!(here.run(cmd.arg(muster)).expect("it ends").status.code(), Some(5));
}

#[test]
fn events_are_written_one_object_a_line() {
    let (here, _agents, run) = agents_and_run();
    let script = "while [ ! -e go ]; do sleep 0.01; done; exit $((MUSTER_RANK == 3 ? 4 : 0))";
    let job = here.spawn(run.args(["--job", "j", "--events", "e.ndjson", "sh", "-c", script])).expect("spawn");
    let so_far = || std::fs::read_to_string(here.dir().join("e.ndjson")).unwrap_or_default();
    eventually(so_far, |text| text.contains("group_running")).expect("all ranks run");
    here.write("go", "").expect("written");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(4));
    let text = std::fs::read_to_string(here.dir().join("e.ndjson")).expect("events");
    let events: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let times: Vec<_> = events.iter().map(|e| e["at_ms"].as_u64().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let count = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    let place =
        |name: &str| events.iter().position(|e| e["event"] == name).unwrap_or_else(|| panic!("no {name}: {text}"));
    let order = ["job_starting", "host_joined", "rank_started", "group_running", "ending", "job_ended"].map(place);
    assert!(order.is_sorted(), "{text}");
    assert_eq!((order[0], order[5]), (0, events.len() - 1));
    assert_eq!((count("host_joined"), count("rank_started"), count("rank_ended"), count("job_ended")), (2, 4, 4, 1));
    assert_eq!((&events[0]["job"], &events[0]["hosts"], &events[0]["ranks"]), (&"j".into(), &2.into(), &4.into()));
    let cause = format!("rank 3 on {} exited with status 4", here.address(1));
    assert_eq!((&events[order[5]]["status"], &events[order[5]]["cause"]), (&4.into(), &cause.clone().into()));
    assert_eq!(output.said(), format!("muster: {cause}\n"));
}
