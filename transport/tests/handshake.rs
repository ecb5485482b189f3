//! A gate and those who come to it: the right ones, the wrong ones, and the ones who mean harm.

#[expect(dead_code, reason = "each test program uses its part")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{PATIENCE, address, dialer, gate, hello, identity, output, port, welcome};
use muster_protocol::HostIndex;
use muster_protocol::frame::Kind;
use muster_protocol::hello::{Hello, Refusal};
use muster_transport::connection::FrameReader;
use muster_transport::dial::{DialError, Dialer, Failure, introduce};
use muster_transport::gate::{Gate, GateError, Guest, Reason, Source, greet};
use muster_transport::resolve::Resolver;
use muster_transport::stream::{boxed, memory};
use muster_transport::tls::connector;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Answers everyone as `decide` says, for as long as the test runs.
fn serve(mut gate: Gate, decide: impl Fn(&Hello) -> Option<Refusal> + Send + 'static) {
    tokio::spawn(async move {
        let tasks = TaskTracker::new();
        let mut kept = Vec::new();
        loop {
            let guest = gate.next().await;
            match decide(&guest.hello) {
                Some(refusal) => guest.refuse(refusal, &tasks),
                None => kept.push(guest.welcome(welcome(), 16, &tasks)),
            }
        }
    });
}

async fn dial(key: &str, port: u16, hello: &Hello) -> Result<(), DialError> {
    dialer(key).dial("localhost", port, hello, PATIENCE).await.map(|_| ())
}

async fn fail(key: &str, port: u16, hello: &Hello) -> Failure {
    dial(key, port, hello).await.unwrap_err().failure
}

/// Lets a gate work until it has turned someone away for this reason.
async fn turned_away(gate: &mut Gate, reason: Reason) {
    let ledger = gate.ledger().clone();
    let watch = async {
        while ledger.refused(reason) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        guest = gate.next() => panic!("let in: {:?}", guest.hello),
        done = timeout(PATIENCE, watch) => done.unwrap(),
    }
}

#[tokio::test]
async fn a_proven_peer_is_welcomed_and_frames_flow_both_ways() {
    let mut gate = gate("a");
    let (port, tasks) = (port(&gate), TaskTracker::new());
    let (dialer, said) = (dialer("a"), hello("job", 7));
    let (dialed, guest) = tokio::join!(
        async {
            let dialed = dialer.dial("localhost", port, &said, PATIENCE).await.unwrap();
            assert_eq!(dialed.welcome, welcome());
            dialed.spawn(16, &tasks)
        },
        async {
            let guest = gate.next().await;
            assert_eq!(guest.hello, said);
            assert!(matches!(guest.source, Source::Network(from) if from.ip().is_loopback()));
            guest.welcome(welcome(), 16, &tasks)
        }
    );
    let ((near_tx, mut near_rx), (far_tx, mut far_rx)) = (dialed, guest);
    let payload = Bytes::from(vec![5; 200_000]);
    near_tx.send(output(1, payload.clone())).await.unwrap();
    far_tx.send(output(2, payload.clone())).await.unwrap();
    assert_eq!(far_rx.recv().await.unwrap().unwrap(), output(1, payload.clone()));
    assert_eq!(near_rx.recv().await.unwrap().unwrap(), output(2, payload));
    near_tx.close();
    assert!(far_rx.recv().await.unwrap().is_none(), "closing is a goodbye, not a failure");
    assert_eq!((gate.unproven(), gate.ledger().accepted(), gate.ledger().refused_in_all()), (0, 1, 0));
}

#[tokio::test]
async fn another_key_is_told_apart_from_silence_on_both_sides() {
    let mut gate = gate("a");
    let port = port(&gate);
    let said = hello("job", 1);
    let (failure, ()) = tokio::join!(fail("b", port, &said), turned_away(&mut gate, Reason::WrongKey));
    assert!(matches!(failure, Failure::WrongKey), "{failure}");
    assert!(failure.retryable());
}

#[tokio::test]
async fn refusals_reach_the_dialler_in_words() {
    let gate = gate("a");
    let (port, ledger) = (port(&gate), gate.ledger().clone());
    serve(gate, |hello| (hello.job != "b").then(|| Refusal::WrongJob { theirs: "b".to_owned() }));
    let error = dial("a", port, &hello("a", 1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "localhost: connected, but its agent serves job \"b\" (this is job \"a\"); is an old pod still terminating?"
    );
    assert!(error.retryable());
    assert_eq!(ledger.refused(Reason::Refused), 1);
    assert!(dial("a", port, &hello("b", 1)).await.is_ok());
}

/// What was recorded of a good handshake is of no use to one who sends it again.
#[tokio::test]
async fn a_recorded_connection_cannot_be_replayed() {
    let mut gate = gate("a");
    let target = address(&gate);
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay_port = relay.local_addr().unwrap().port();
    let recorder = tokio::spawn(async move {
        let (mut near, _) = relay.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        let (mut near_read, mut near_write) = near.split();
        let (mut far_read, mut far_write) = far.split();
        let mut recorded = Vec::new();
        let up = async {
            let mut piece = [0; 4_096];
            while let Ok(n @ 1..) = near_read.read(&mut piece).await {
                recorded.extend_from_slice(&piece[..n]);
                far_write.write_all(&piece[..n]).await.unwrap();
            }
        };
        tokio::select! {
            () = up => {}
            _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
        }
        recorded
    });
    let said = hello("a", 1);
    let (dialed, ()) = tokio::join!(dial("a", relay_port, &said), async { drop(gate.next().await) });
    assert!(matches!(dialed.unwrap_err().failure, Failure::Closed { .. }));
    let recorded = timeout(PATIENCE, recorder).await.unwrap().unwrap();
    assert!(recorded.len() > 300, "the recording has a handshake and a hello");
    let mut replay = TcpStream::connect(target).await.unwrap();
    replay.write_all(&recorded).await.unwrap();
    turned_away(&mut gate, Reason::Garbage).await;
}

#[tokio::test]
async fn what_is_not_an_agent_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 4_096]).await;
        }
    });
    let failure = fail("a", other, &hello("a", 1)).await;
    assert!(matches!(failure, Failure::NotMuster { .. }) && !failure.retryable(), "{failure}");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = dial("a", free, &hello("a", 1)).await.unwrap_err();
    assert!(error.to_string().contains("is the agent running there, and on this port?"), "{error}");
    assert!(matches!(error.failure, Failure::Refused { .. }) && error.retryable());
}

#[tokio::test]
async fn a_peer_that_accepts_and_then_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = dialer("a").dial("127.0.0.1", port, &hello("a", 1), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.to_string(), "127.0.0.1: timed out after 0.3 s: connected, but the handshake got no answer");
    let error = dialer("a").dial("no host", port, &hello("a", 1), PATIENCE).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Unresolved(_)) && !error.retryable());
}

#[tokio::test]
async fn garbage_gets_no_answer_and_is_counted() {
    let mut gate = gate("a");
    let mut stream = TcpStream::connect(address(&gate)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    turned_away(&mut gate, Reason::Garbage).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty() || (answer.len() == 7 && answer[0] == 0x15), "more than a TLS alert: {answer:?}");
}

#[tokio::test]
async fn a_handshake_that_drips_ends_with_its_deadline() {
    let mut gate = gate("a").with_deadline(Duration::from_millis(300));
    let mut stream = TcpStream::connect(address(&gate)).await.unwrap();
    let drip = tokio::spawn(async move {
        for byte in [0x16, 0x03, 0x01, 0x02, 0x00].into_iter().chain(std::iter::repeat(0)) {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    turned_away(&mut gate, Reason::TooSlow).await;
    timeout(PATIENCE, drip).await.expect("the connection was closed").unwrap();
    assert_eq!(gate.unproven(), 0);
}

#[tokio::test]
async fn a_proven_peer_without_a_hello_has_no_more_time_than_others() {
    let mut gate = gate("a").with_deadline(Duration::from_millis(300));
    let target = address(&gate);
    let proven = tokio::spawn(async move {
        let tcp = TcpStream::connect(target).await.unwrap();
        connector(&identity("a")).connect(tcp).await.unwrap()
    });
    turned_away(&mut gate, Reason::TooSlow).await;
    drop(proven.await.unwrap());
}

#[tokio::test]
async fn a_proven_peer_that_begins_with_another_frame_is_refused_before_its_payload() {
    let mut gate = gate("a");
    let target = address(&gate);
    let proven = tokio::spawn(async move {
        let tcp = TcpStream::connect(target).await.unwrap();
        let mut stream = connector(&identity("a")).connect(tcp).await.unwrap();
        let header = output(0, vec![0; 100_000]).header;
        stream.write_all(&header.encode()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    });
    turned_away(&mut gate, Reason::Garbage).await;
    drop(proven.await.unwrap());
}

#[tokio::test]
async fn a_probe_that_connects_and_leaves_is_counted_as_such() {
    let mut gate = gate("a");
    drop(TcpStream::connect(address(&gate)).await.unwrap());
    turned_away(&mut gate, Reason::Left).await;
    assert_eq!(gate.ledger().refused_in_all(), 1);
}

#[tokio::test]
async fn without_a_key_only_loopback_is_served() {
    let open = ["0.0.0.0:0".parse().unwrap()];
    let error = Gate::listen(&open, None).err().unwrap();
    assert!(matches!(error, GateError::Open { .. }), "{error}");
    let gate = Gate::listen(&["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()], None).unwrap();
    let ports: Vec<u16> = gate.addresses().iter().map(|a| a.port()).collect();
    serve(gate, |_| None);
    let plain = Dialer::new(Arc::new(Resolver::default()), None);
    for port in &ports {
        plain.dial("localhost", *port, &hello("a", 1), PATIENCE).await.unwrap();
    }
    let failure = fail("a", ports[0], &hello("a", 1)).await;
    assert!(matches!(failure, Failure::Closed { .. }), "{failure}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Gate::listen(&[address], None).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {address}: Address already in use (os error 98)"));
}

#[tokio::test]
async fn the_same_greeting_works_in_memory_and_over_unix_sockets() {
    let unix = tokio::net::UnixStream::pair().unwrap();
    let streams = [memory(1 << 12), (boxed(unix.0), boxed(unix.1))];
    for (near, far) in streams {
        let tasks = TaskTracker::new();
        let said = hello("a", 1);
        let welcome_guest = async {
            let guest: Guest = greet(far, Source::Local).await.unwrap();
            assert_eq!(guest.hello.you, HostIndex(3));
            guest.welcome(welcome(), 4, &tasks)
        };
        let (dialed, (sender, _receiver)) = tokio::join!(introduce(near, &said), welcome_guest);
        let (_sender, mut receiver) = dialed.unwrap().spawn(4, &tasks);
        sender.send(output(9, "frame right behind the welcome")).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap().header.seq, 9);
    }
}

#[tokio::test]
async fn a_hello_that_cannot_be_read_is_garbage() {
    let (mut near, far) = memory(1 << 12);
    let mut frame = hello("a", 1).frame();
    frame.payload = Bytes::from(vec![0xff; frame.payload.len()]);
    let mut bytes = bytes::BytesMut::new();
    frame.encode_into(&mut bytes);
    near.write_all(&bytes).await.unwrap();
    let error = greet(far, Source::Local).await.err().unwrap();
    assert!(error.to_string().starts_with("the hello cannot be read"), "{error}");
    let (near, far) = memory(1 << 12);
    let mut far = FrameReader::new(far);
    let answer = async {
        let frame = far.next_of(Kind::Hello).await.unwrap().unwrap();
        far.write(&output(0, frame.payload)).await.unwrap();
    };
    let said = hello("a", 1);
    let (introduced, ()) = tokio::join!(introduce(near, &said), answer);
    assert_eq!(introduced.unwrap_err().to_string(), "a frame of kind Output came where HelloReply was due");
}
