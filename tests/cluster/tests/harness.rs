//! The harness itself: hosts are apart, links fail as told, and nothing stays behind.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_cluster::{
    Cluster, Cmd, Host, Leftover, LiteCluster, Manner, MeshProxy, Stdin, cluster_or_skip, eventually, workspace,
};
use nix::sys::signal::Signal;

const LONG: Duration = Duration::from_secs(30);

/// Answers every line on a port of the host, on a thread of the test, until the connection or the test ends.
fn echo_server(host: &Host, port: u16) {
    let listener = host
        .call(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .expect("call")
        .expect("the port is free in a new network");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0u8; 1024];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn connect(from: &Host, to: &Host, port: u16) -> std::io::Result<Line> {
    let address = SocketAddr::from((to.address(), port));
    let stream = from.call(move || TcpStream::connect_timeout(&address, Duration::from_secs(5))).expect("call")?;
    Ok(Line { stream, sent: 0 })
}

/// A connection to an echo server. Every byte sent is another, so that a late answer is not taken for a new one.
struct Line {
    stream: TcpStream,
    sent: u8,
}

impl Line {
    /// Whether a byte makes it there and back before the deadline.
    fn round_trip(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).expect("timeout");
        self.sent += 1;
        self.stream.write_all(&[self.sent]).expect("the socket takes a byte");
        let mut byte = [0u8; 1];
        while byte[0] != self.sent {
            if self.stream.read_exact(&mut byte).is_err() {
                return false;
            }
        }
        true
    }
}

fn text(host: &Host, script: &str) -> String {
    host.run(Cmd::sh(script)).and_then(muster_cluster::Output::ok).expect("runs").stdout_text()
}

#[test]
fn hosts_have_names_and_resolve_each_other() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    for index in 0..3 {
        let host = cluster.host(index);
        let expected = format!("h{index}\nh{index}\n{} launcher\n10.77.0.2 h1\n", cluster.launcher().address());
        assert_eq!(
            text(&host, "hostname; cat /etc/hostname; grep -w -e launcher -e h1 /etc/hosts | sort -r -k2"),
            expected
        );
    }
    assert_eq!(text(&cluster.launcher(), "hostname"), "launcher\n");
    assert_eq!(text(&cluster.host(0), "ls /sys/class/net | grep -v bonding_masters"), "eth0\nlo\n");
}

#[test]
fn a_proxy_that_is_dropped_lets_go_of_its_host() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let host = cluster.host(0);
    let held = Arc::strong_count(&host);
    let proxy = MeshProxy::start(&host, 2222, 3333, LONG, Manner::Close).expect("a proxy");
    assert!(Arc::strong_count(&host) > held);
    drop(proxy);
    eventually(|| Arc::strong_count(&host), |count| *count == held).expect("its thread ends");
}

#[test]
fn hosts_share_no_files_processes_or_ipc() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let (a, b) = (cluster.host(0), cluster.host(1));
    assert!(a.leftovers().expect("leftovers").is_empty());
    text(&a, "echo a > /tmp/mine; echo a > /dev/shm/mine; ipcmk -M 4096");
    assert!(b.leftovers().expect("leftovers").is_empty());
    assert_eq!(text(&b, "ls /tmp/mine /dev/shm/mine 2>/dev/null; ipcs -m | grep -c 0x || true"), "0\n");
    let sleeper = a.spawn(Cmd::new("sleep").arg("1000")).expect("spawn");
    assert_eq!(text(&b, "ps -e -o comm= | grep -c sleep || true"), "0\n");
    let left = a.leftovers().expect("leftovers");
    for wanted in ["/dev/shm/mine", "/tmp/mine"] {
        assert!(left.contains(&Leftover::File(wanted.into())), "{wanted} in {left:?}");
    }
    assert!(left.iter().any(|l| matches!(l, Leftover::SystemV(line) if line.starts_with("shm:"))), "{left:?}");
    let commands: Vec<_> = a.processes().expect("processes").into_iter().map(|p| p.command).collect();
    assert_eq!(commands, ["sleep 1000"]);
    assert!(b.leftovers().expect("leftovers").is_empty());
    drop(sleeper);
    assert!(a.processes().expect("processes").is_empty());
}

#[test]
fn commands_carry_input_output_status_and_signals() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let host = cluster.host(0);
    let echoed = host.run(Cmd::new("cat").stdin(Stdin::Bytes(b"in\0put".to_vec()))).expect("run");
    assert_eq!((echoed.status.code(), echoed.stdout), (Some(0), b"in\0put".to_vec()));
    let failed = host.run(Cmd::sh("echo out; echo err >&2; echo $MINE; exit 7").env("MINE", "1")).expect("run");
    assert_eq!(
        (failed.status.code(), failed.stdout_text(), failed.stderr_text()),
        (Some(7), "out\n1\n".into(), "err\n".into())
    );

    let mut chatty =
        host.spawn(Cmd::sh("read line; echo got $line; exec sleep 1000").stdin(Stdin::Piped)).expect("spawn");
    chatty.write_stdin(b"hello\n").expect("write");
    chatty.wait_for("got hello", LONG).expect("its answer");
    chatty.signal(Signal::SIGTERM).expect("signal");
    assert_eq!(chatty.wait(LONG).expect("end").signal(), Some(15));
    assert!(chatty.signal(Signal::SIGTERM).is_err(), "the dead take no signals");

    let slow = host.run(Cmd::sh("echo begun; exec sleep 1000").timeout(Duration::from_millis(300)));
    let message = format!("{:#}", slow.expect_err("too slow"));
    assert!(message.contains("still running") && message.contains("begun"), "{message}");
    assert!(host.processes().expect("processes").is_empty());
    assert!(host.run(Cmd::new("no-such-program")).is_err());
}

#[test]
fn a_cut_host_is_silent_and_comes_back() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let (a, b, c) = (cluster.host(0), cluster.host(1), cluster.host(2));
    echo_server(&b, 4000);
    let mut from_a = connect(&a, &b, 4000).expect("connect");
    let mut from_c = connect(&c, &b, 4000).expect("connect");
    assert!(from_a.round_trip(LONG) && from_c.round_trip(LONG));

    cluster.cut(1).expect("cut");
    // No error of the socket: silence. The byte sent now arrives when the link is healed.
    assert!(!from_a.round_trip(Duration::from_millis(300)));
    assert_eq!(text(&b, "cat /sys/class/net/eth0/carrier"), "1\n");
    cluster.heal(1).expect("heal");
    assert!(from_a.round_trip(LONG));

    cluster.cut_between(0, 1).expect("cut");
    let refused = connect(&a, &c, 1).err().map(|e| e.kind());
    assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused), "a still reaches c");
    assert!(!from_a.round_trip(Duration::from_millis(300)));
    assert!(from_c.round_trip(LONG));
    cluster.heal_between(0, 1).expect("heal");
    assert!(from_a.round_trip(LONG));
}

#[test]
fn a_shaped_link_delays_and_loses() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let (a, b) = (cluster.host(0), cluster.host(1));
    echo_server(&b, 4000);
    let mut stream = connect(&a, &b, 4000).expect("connect");
    let delay = Duration::from_millis(60);
    cluster.delay(1, delay).expect("delay");
    let begun = Instant::now();
    assert!(stream.round_trip(LONG));
    // There and back; only ever longer on a busy machine.
    assert!(begun.elapsed() >= 2 * delay, "{:?}", begun.elapsed());
    // Frames larger than the link's size must not be lost for good.
    let bulk = vec![7u8; 1 << 20];
    let mut writer = stream.stream.try_clone().expect("clone");
    let sent = bulk.clone();
    let sender = std::thread::spawn(move || writer.write_all(&sent));
    let mut got = vec![0u8; bulk.len()];
    stream.stream.read_exact(&mut got).expect("all of it comes back");
    sender.join().expect("join").expect("write");
    assert!(got == bulk);

    cluster.drop_rate(1, 100.0).expect("loss");
    assert!(!stream.round_trip(Duration::from_millis(300)));
    cluster.unshape(1).expect("unshape");
    assert!(stream.round_trip(LONG));
    cluster.cut(1).expect("cut");
    assert!(!stream.round_trip(Duration::from_millis(300)));
    cluster.heal(1).expect("heal");
    assert!(stream.round_trip(LONG));
}

#[test]
fn a_killed_host_keeps_no_process_and_can_be_restarted() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let host = cluster.host(1);
    let orphan = "sleep 1000 & setsid sleep 1001 & exec sleep 1002";
    let proc = host.spawn(Cmd::sh(&format!("({orphan}) & echo up; wait"))).expect("spawn");
    proc.wait_for("up", LONG).expect("up");
    cluster.kill_host(1);
    assert_eq!(proc.wait(LONG).expect("status").signal(), Some(9));
    assert!(host.processes().expect("processes").is_empty());
    assert!(host.run(Cmd::new("true")).is_err(), "a killed host starts nothing");
    cluster.kill_host(1);
    drop((proc, host));

    cluster.restart_host(1).expect("restart");
    let (a, b) = (cluster.host(0), cluster.host(1));
    echo_server(&b, 4000);
    let mut stream = connect(&a, &b, 4000).expect("connect");
    assert!(stream.round_trip(LONG));
    assert_eq!(text(&b, "hostname"), "h1\n");
}

#[test]
fn a_host_that_is_switched_off_says_no_goodbye() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let (a, b) = (cluster.host(0), cluster.host(1));
    let listening = Cmd::new("python3").args(["-c", LISTENER]);
    let server = b.spawn(listening).expect("spawn");
    server.wait_for("listening", LONG).expect("listening");
    let mut stream = connect(&a, &b, 4001).expect("connect");
    cluster.power_off(1).expect("power off");
    stream.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    let kind = stream.stream.read(&mut [0u8; 1]).expect_err("no end of file").kind();
    assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
}

const LISTENER: &str = "import socket,time\ns=socket.create_server(('0.0.0.0',4001))\nprint('listening',flush=True)\nc=s.accept()\ntime.sleep(1000)";

#[test]
fn nothing_stays_behind_after_a_panic() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(3));
    let folder = cluster.shared_dir().to_path_buf();
    let inits: Vec<_> = (0..3).map(|i| cluster.host(i).init_pid()).collect();
    assert!(folder.join("hosts").is_file());
    // Quiet: the panic is the test.
    let result = std::thread::spawn(move || {
        let _proc = cluster.host(0).spawn(Cmd::sh("sleep 1000 & sleep 1001")).expect("spawn");
        let _cluster = cluster;
        std::panic::resume_unwind(Box::new("as a failing test would"));
    })
    .join();
    assert!(result.is_err());
    assert!(!folder.exists());
    for pid in inits {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn a_killed_owner_leaves_nothing_either() {
    let outer = cluster_or_skip!(Cluster::builder().hosts(1));
    let mut cluster_up = std::process::Command::new(env!("CARGO_BIN_EXE_cluster-up"))
        .args(["--hosts", "2", "--", "sh", "-c", "hostname; sleep 424242 & exec sleep 424242"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut line = [0u8; 9];
    cluster_up.stdout.as_mut().expect("piped").read_exact(&mut line).expect("the command runs");
    assert_eq!(&line, b"launcher\n");
    let pid = cluster_up.id();
    cluster_up.kill().expect("kill");
    cluster_up.wait().expect("wait");
    let survivors = || {
        let out = std::process::Command::new("pgrep").args(["-f", "^sleep 424242"]).output().expect("pgrep");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let deadline = Instant::now() + LONG;
    while !survivors().is_empty() {
        assert!(Instant::now() < deadline, "still alive: {}", survivors());
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(outer);
    // The next cluster sweeps the folder of the dead one.
    drop(Cluster::builder().hosts(1).start().expect("start"));
    let folders = std::fs::read_dir(workspace::root().join("target/cluster")).expect("read");
    let prefix = format!("{pid}-");
    assert!(folders.flatten().all(|f| !f.file_name().to_string_lossy().starts_with(&prefix)));
}

#[test]
fn cluster_up_passes_the_commands_status_on() {
    let _needs_root = cluster_or_skip!(Cluster::builder().hosts(1));
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_cluster-up")).args(args).output().expect("run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["--hosts", "1", "--", "sh", "-c", "test -s $MUSTER_DEMO_KEY && exit 9"]).0, Some(9));
    assert_eq!(run(&["--", "sh", "-c", "kill -SEGV $$"]).0, Some(139));
    let (code, stderr) = run(&["--hosts", "many"]);
    assert_eq!(
        (code, stderr.as_str()),
        (Some(1), "cluster-up: --hosts takes a number, not \"many\": invalid digit found in string\n")
    );
}

#[test]
fn a_lite_cluster_names_many_addresses() {
    let lite = cluster_or_skip!(LiteCluster::builder(1000));
    assert_eq!(lite.address(999), Ipv4Addr::new(127, 77, 3, 250));
    let script =
        format!("grep -w n999 /etc/hosts; grep -c n /etc/hosts; test -s {} && echo key", lite.key_file().display());
    assert_eq!(text(lite.host(), &script), "127.77.3.250 n999\n1000\nkey\n");
    let address = lite.address(500);
    let listener = lite.host().call(move || TcpListener::bind((address, 4000))).expect("call").expect("bind");
    let to = listener.local_addr().expect("address");
    lite.host().call(move || TcpStream::connect_timeout(&to, LONG)).expect("call").expect("connect");
}

#[test]
fn large_cluster_connects_all_hosts() {
    let count = 64;
    let cluster = cluster_or_skip!(Cluster::builder().hosts(count));
    let launcher = cluster.launcher();
    for index in 0..count {
        echo_server(&cluster.host(index), 4000);
        let mut stream = connect(&launcher, &cluster.host(index), 4000).expect("connect");
        assert!(stream.round_trip(LONG));
    }
}
