//! Strangers at the agent's port: they are turned away, and launchers with the key get through.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use muster_cluster::{AGENT_PORT, Cluster, Cmd, Host, Memory, Output, PATIENCE, Proc, cluster_or_skip, eventually};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

const HALF_OPEN: usize = 10_000;
/// An agent that serves a job has a few MiB; a flood must not make it grow without limit.
const BOUND_KIB: u64 = 64 * 1024;
/// First bytes of a TLS record that announces more than it brings.
const HALF_A_RECORD: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00];

fn agent_of(host: &Host) -> SocketAddr {
    SocketAddr::from((host.address(), AGENT_PORT))
}

fn dial(from: &Host, to: SocketAddr) -> TcpStream {
    let stream = from.call(move || TcpStream::connect_timeout(&to, PATIENCE)).expect("call").expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Sends bytes, reads to the end and returns what was answered. The agent must end the connection.
fn answer_to(from: &Host, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = dial(from, to);
    // An agent that has seen enough closes while the rest is still being sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the agent does not end the connection: {error}"),
    }
}

/// A frame of the agent protocol: length, kind, class, flags, channel, host, epoch, generation, magic, seq, payload.
fn frame(kind: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend([kind, 0, 0, 0]);
    bytes.extend([0u8; 4]);
    bytes.extend([0xff; 4]);
    bytes.extend([0u8; 12]);
    bytes.extend(0x4d53_5431_u32.to_be_bytes());
    bytes.extend([0u8; 8]);
    assert_eq!(bytes.len(), 40);
    bytes.extend(payload);
    bytes
}

fn serves(cluster: &Cluster) {
    let cmd = cluster.muster(&cluster.host_list(1)).expect("built").args(["-l", "hostname"]);
    let output = cluster.launcher().run(cmd).and_then(Output::ok).expect("a launcher with the key gets through");
    assert_eq!(output.stdout_text().lines().count(), cluster.len());
}

fn assert_unharmed(agent: &Proc) {
    assert!(agent.try_wait().expect("status").is_none(), "the agent ended: {}", agent.stderr_so_far());
    let memory = Memory::of(agent.pid()).expect("it runs");
    assert!(memory.peak_kib <= BOUND_KIB, "{memory:?}");
}

#[test]
fn ten_thousand_half_open_connections_do_not_stop_a_launcher() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(2));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("limit");
    assert!(hard > HALF_OPEN as u64 + 500, "this test needs {HALF_OPEN} descriptors and may have {hard}");
    let agents = cluster.start_agents(&[]).expect("agents");
    let (crowd, victim) = (cluster.host(1), agent_of(&cluster.host(0)));
    let mut open: Vec<_> = (0..HALF_OPEN).map(|_| dial(&crowd, victim)).collect();
    serves(&cluster);

    // And they keep coming while launchers try.
    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let (stop, crowd) = (stop.clone(), crowd.clone());
        move || {
            for slot in (0..HALF_OPEN).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return open;
                }
                open[slot] = dial(&crowd, victim);
                // Half of them begin to speak.
                if slot % 2 == 0 {
                    let _ = open[slot].write_all(HALF_A_RECORD);
                }
            }
            open
        }
    });
    for _ in 0..3 {
        serves(&cluster);
    }
    stop.store(true, Ordering::Relaxed);
    let open = flood.join().expect("flood");
    agents.iter().for_each(assert_unharmed);
    let log = agents[0].stderr_so_far();
    let displaced = log.matches("too many connections had not proven themselves").count();
    assert!((1..=2).contains(&displaced), "once a minute, and this takes less than two: {displaced}\n{log}");
    drop(open);
    // What the strangers held is given back.
    let connections = || cluster.host(0).connections().len();
    eventually(connections, |n| *n == 0).expect("no connection is left");
}

#[test]
fn whoever_does_not_prove_itself_is_turned_away_and_counted() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let agent = cluster.start_agent(0, &[]).expect("agent");
    let (stranger, to) = (cluster.launcher(), agent_of(&cluster.host(0)));
    // Some that never get to the point; they are looked at below.
    let mut slow: Vec<_> = (0..5).map(|_| dial(&stranger, to)).collect();
    slow.iter_mut().for_each(|one| one.write_all(HALF_A_RECORD).expect("write"));

    let noise: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let hello = frame(1, 5, b"\x80\x80\x80\x80\x80");
    let huge = frame(1, u32::MAX, &noise);
    let greetings: [&[u8]; 6] =
        [&noise, b"GET / HTTP/1.1\r\nHost: h0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", &hello, &huge, &[0; 64]];
    for greeting in greetings {
        for _ in 0..20 {
            let answer = answer_to(&stranger, to, greeting);
            // Nothing but a TLS alert (record type 21) before the proof.
            assert!(answer.is_empty() || answer[0] == 21, "{greeting:.20?} was answered with {answer:?}");
        }
    }
    let log = agent.stderr_so_far();
    assert_eq!(log.matches("it does not speak the agent protocol").count(), 1, "one line for 120 connections:\n{log}");

    for mut one in slow {
        let mut rest = Vec::new();
        let ended = one.read_to_end(&mut rest);
        assert!(ended.is_ok() && rest.is_empty(), "the agent waits no longer than it says: {ended:?} {rest:?}");
    }
    agent.wait_for("it did not prove itself in time", PATIENCE).expect("it is logged");
    assert_unharmed(&agent);
    serves(&cluster);
    let log = log_to_the_end(&agent);
    assert_eq!(log.matches("it did not prove itself in time").count(), 2, "one line, and one in the count:\n{log}");
    let counted = "; 120 because it does not speak the agent protocol; 5 because it did not prove itself in time";
    assert!(log.contains(counted), "{log}");
}

/// Tells an agent to end and gives all that it has said.
fn log_to_the_end(agent: &Proc) -> String {
    agent.signal(Signal::SIGTERM).expect("signal");
    agent.wait(PATIENCE).expect("it ends");
    agent.wait_for("agent ends", PATIENCE).expect("its last words");
    agent.stderr_so_far()
}

/// Passes one connection on to the agent, and gives what its client has said.
fn recorder(from: Arc<Host>, listener: TcpListener, to: SocketAddr) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut near, _) = listener.accept().expect("the client comes");
        let mut far = dial(&from, to);
        let (mut back_from, mut back_to) = (far.try_clone().expect("copy"), near.try_clone().expect("copy"));
        let back = std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let (mut said, mut piece) = (Vec::new(), [0; 4_096]);
        while let Ok(bytes @ 1..) = near.read(&mut piece) {
            said.extend_from_slice(&piece[..bytes]);
            far.write_all(&piece[..bytes]).expect("write");
        }
        let _ = far.shutdown(Shutdown::Both);
        let _ = back.join();
        said
    })
}

#[test]
fn what_a_launcher_has_said_cannot_be_said_again() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let agent = cluster.start_agent(0, &[]).expect("agent");
    let (launcher, to) = (cluster.launcher(), agent_of(&cluster.host(0)));
    let mark = cluster.shared_dir().join("mark");
    let relay = SocketAddr::from((launcher.address(), 2300));
    let listener = launcher.call(move || TcpListener::bind(relay)).expect("call").expect("bind");
    let recording = recorder(launcher.clone(), listener, to);
    // A remote shell says all in one connection: proof, hello and what to do.
    let cmd = Cmd::new(muster_cluster::workspace::program("muster-rsh").expect("built"))
        .env("MUSTER_OPT_KEY_FILE", cluster.key_file())
        .args(["-n", "-p", "2300", "launcher", "echo once >>"])
        .arg(&mark);
    launcher.run(cmd).and_then(Output::ok).expect("the first time it is obeyed");
    let said = recording.join().expect("a recording");
    assert!(said.len() > 300, "a handshake, a hello and a command: {} bytes", said.len());
    for _ in 0..5 {
        answer_to(&launcher, to, &said);
    }
    assert_eq!(std::fs::read_to_string(&mark).expect("it was made"), "once\n");
    assert_unharmed(&agent);
    serves(&cluster);
    let log = log_to_the_end(&agent);
    assert!(log.contains("; 5 because it does not speak the agent protocol"), "{log}");
    assert_eq!(
        log.matches("it does not speak the agent protocol").count(),
        2,
        "one line, and one in the count:\n{log}"
    );
}

#[test]
fn a_launcher_with_another_key_or_job_gets_nothing() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let agent = cluster.start_agent(0, &["--job", "mine"]).expect("agent");
    let other = cluster.shared_dir().join("other.key");
    std::fs::write(&other, "a secret that the agent does not have").expect("write");
    let mark = cluster.shared_dir().join("mark");
    let touch = |cmd: Cmd| cmd.args(["--connect-timeout", "2s", "touch"]).arg(&mark);

    let wrong_key = cluster.muster("h0").expect("built").args(["--job", "mine", "--key-file"]).arg(&other);
    let output = cluster.launcher().run(touch(wrong_key)).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("another job key"), "{stderr}");
    assert_eq!(output.status.code(), Some(77), "{stderr}");
    let log = agent.stderr_so_far();
    assert_eq!(log.matches("its job key differs from ours").count(), 1, "{log}");

    let wrong_job = cluster.muster("h0").expect("built").args(["--job", "yours"]);
    let output = cluster.launcher().run(touch(wrong_job)).expect("it ends");
    let stderr = output.stderr_text();
    assert!(stderr.contains("its agent serves job \"mine\" (this is job \"yours\")"), "{stderr}");
    assert_eq!(output.status.code(), Some(77), "{stderr}");
    let log = agent.stderr_so_far();
    assert_eq!(log.matches("its hello was refused").count(), 1, "{log}");

    assert!(!mark.exists(), "nothing was started");
    assert_unharmed(&agent);
    let right = touch(cluster.muster("h0").expect("built").args(["--job", "mine"]));
    cluster.launcher().run(right).and_then(Output::ok).expect("the right key and job");
    assert!(mark.exists());
}

#[test]
fn an_agent_without_a_key_reads_no_frame_that_it_should_not() {
    let cluster = cluster_or_skip!(Cluster::builder().hosts(1));
    let host = cluster.host(0);
    // Without a key it listens on loopback and speaks without TLS: frames can be sent to it as they are.
    let program = muster_cluster::workspace::program("muster-agent").expect("built");
    let agent = host.spawn(Cmd::new(program)).expect("spawn");
    agent.wait_for("agent is ready", PATIENCE).expect("ready");
    let to = SocketAddr::from(([127, 0, 0, 1], AGENT_PORT));

    let heartbeat = frame(3, 3, &[0x82, 0, 0]);
    let unknown = frame(99, 0, &[]);
    let oversized = frame(1, 16 * 1024 + 1, &[0; 17 * 1024]);
    let endless = frame(1, u32::MAX, &[0; 64 * 1024]);
    let unreadable = frame(1, 4, &[0xff; 4]);
    for bytes in [&heartbeat, &unknown, &oversized, &endless, &unreadable] {
        for _ in 0..20 {
            assert_eq!(answer_to(&host, to, bytes), [], "{:?}", &bytes[..8]);
        }
    }
    assert_unharmed(&agent);
    let log = agent.stderr_so_far();
    assert_eq!(log.matches("it does not speak the agent protocol").count(), 1, "{log}");
    // It still answers those who speak the protocol.
    let program = muster_cluster::workspace::program("muster-agent").expect("built");
    host.run(Cmd::new(program).arg("--check").timeout(Duration::from_secs(30))).and_then(Output::ok).expect("ready");
}
