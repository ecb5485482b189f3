//! Hostile bytes into the frame decoder, the messages and the handshake, for `MUSTER_FUZZ_SECONDS` each (2 unless set).
//!
//! Every case follows from one number. A failure prints it; `MUSTER_FUZZ_SEED=<number>` runs that case alone.

#[path = "../common/mod.rs"]
mod common;
mod messages;
mod rig;

use bytes::BytesMut;
use common::{Numbers, dialer, gate, hello, identity, output, port, welcome};
use muster_protocol::frame::{Frame, HEADER_BYTES, MAGIC, payload_bytes_max};
use muster_transport::connection::FrameReader;
use muster_transport::dial::introduce;
use muster_transport::gate::{Source, greet};
use muster_transport::stream::{boxed, memory};
use muster_transport::tls::{acceptor, connector};
use rig::{fuzz, mutated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::TaskTracker;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode_into(&mut bytes));
    bytes.to_vec()
}

fn stream_of_frames(numbers: &mut Numbers) -> Vec<u8> {
    let frames: Vec<Frame> = (0..numbers.below(6))
        .map(|i| {
            let size = if numbers.below(8) == 0 { 100_000 } else { 200 };
            let size = numbers.below(size);
            output(i as u64, numbers.bytes(size))
        })
        .collect();
    wire(&frames)
}

/// Whatever arrives, and however it is cut: the reader gives frames that were really there, or an error, and it ends.
#[test]
fn the_decoder_survives_any_stream() {
    let runtime = runtime();
    fuzz("decoder", |seed| {
        let mut numbers = Numbers::new(seed);
        let good = stream_of_frames(&mut numbers);
        let bytes = match numbers.below(4) {
            0 => {
                let len = numbers.below(2_000);
                let mut junk = numbers.bytes(len);
                if junk.len() > HEADER_BYTES {
                    junk[28..32].copy_from_slice(&MAGIC.to_be_bytes());
                }
                junk
            }
            _ => mutated(&mut numbers, good),
        };
        let pipe = 1 + numbers.below(5_000);
        runtime.block_on(async {
            let (mut near, far) = memory(pipe);
            let sent = bytes.clone();
            let writing = async move {
                let _ = near.write_all(&sent).await;
            };
            let reading = async move {
                let mut reader = FrameReader::new(far);
                let mut got = Vec::new();
                let ended_well = loop {
                    match reader.next().await {
                        Ok(Some(frame)) => got.push(frame),
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                };
                (got, ended_well)
            };
            let ((), (got, ended_well)) = tokio::join!(writing, reading);
            assert!(got.iter().all(|f| f.payload.len() <= payload_bytes_max(f.header.kind) as usize));
            let again = wire(&got);
            assert!(bytes.starts_with(&again), "frames that were not in the stream");
            assert_eq!(ended_well, again.len() == bytes.len(), "bytes were left over without an error");
        });
    });
}

/// Any first bytes on either side of a plain greeting end in an error or in a hello, never in a panic or a wait for ever.
#[test]
fn the_greeting_survives_any_bytes() {
    let runtime = runtime();
    fuzz("greeting", |seed| {
        let mut numbers = Numbers::new(seed);
        let said = hello("a", numbers.next());
        let from_dialler = mutated(&mut numbers, wire(&[said.frame()]));
        let reply = muster_protocol::hello::HelloReply::Welcome(welcome());
        let from_gate = mutated(&mut numbers, wire(&[reply.frame()]));
        runtime.block_on(async {
            let (mut near, far) = memory(1 << 16);
            near.write_all(&from_dialler).await.unwrap();
            drop(near);
            let _ = greet(far, Source::Local).await;
            let (near, mut far) = memory(1 << 16);
            far.write_all(&from_gate).await.unwrap();
            drop(far);
            let _ = introduce(near, &said).await;
        });
    });
}

/// The bytes that a good dialler sends first, and what a good gate answers.
async fn recorded_handshake() -> (Vec<u8>, Vec<u8>) {
    let (near, mut relay_near) = tokio::io::duplex(1 << 16);
    let (far, mut relay_far) = tokio::io::duplex(1 << 16);
    let (connector, acceptor) = (connector(&identity("a")), acceptor(&identity("a")));
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let relay = async {
        let (mut a, mut b) = ([0; 4_096], [0; 4_096]);
        loop {
            tokio::select! {
                n = relay_near.read(&mut a) => {
                    let n = n.unwrap();
                    up.extend_from_slice(&a[..n]);
                    relay_far.write_all(&a[..n]).await.unwrap();
                }
                n = relay_far.read(&mut b) => {
                    let n = n.unwrap();
                    down.extend_from_slice(&b[..n]);
                    relay_near.write_all(&b[..n]).await.unwrap();
                }
            }
        }
    };
    let both = async { tokio::join!(connector.connect(near), acceptor.accept(far)) };
    tokio::select! {
        (near, far) = both => assert!(near.is_ok() && far.is_ok()),
        () = relay => {}
    }
    (up, down)
}

/// No bytes but those of a key holder get through the handshake, in either direction.
#[test]
fn the_handshake_survives_any_bytes() {
    let runtime = runtime();
    let (up, down) = runtime.block_on(recorded_handshake());
    let (connector, acceptor) = (connector(&identity("a")), acceptor(&identity("a")));
    fuzz("handshake", |seed| {
        let mut numbers = Numbers::new(seed);
        let base = if numbers.below(2) == 0 { &up } else { &down };
        let bytes = match numbers.below(3) {
            0 => {
                let len = numbers.below(600);
                numbers.bytes(len)
            }
            _ => mutated(&mut numbers, base.clone()),
        };
        runtime.block_on(async {
            for accepting in [true, false] {
                let (near, far) = tokio::io::duplex(1 << 16);
                let (mut near_read, mut near_write) = tokio::io::split(near);
                near_write.write_all(&bytes).await.unwrap();
                near_write.shutdown().await.unwrap();
                let secured = async {
                    let far = boxed(far);
                    if accepting { acceptor.accept(far).await.is_ok() } else { connector.connect(far).await.is_ok() }
                };
                let mut answer = Vec::new();
                let (through, _) = tokio::join!(secured, near_read.read_to_end(&mut answer));
                assert!(!through, "bytes without a key got through");
            }
        });
    });
}

/// A gate that has been fed garbage still serves.
#[test]
fn a_gate_serves_between_hostile_connections() {
    runtime().block_on(async {
        let mut gate = gate("a");
        let (port, target) = (port(&gate), common::address(&gate));
        let said = hello("a", 1);
        let mut numbers = Numbers::new(7);
        for _ in 0..10 {
            for _ in 0..10 {
                let len = numbers.below(500);
                let junk = numbers.bytes(len);
                let mut stream = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = stream.write_all(&junk).await;
            }
            let tasks = TaskTracker::new();
            let dialer = dialer("a");
            let serve = async { gate.next().await.welcome(welcome(), 4, &tasks) };
            let (dialed, _served) = tokio::join!(dialer.dial("127.0.0.1", port, &said, common::PATIENCE), serve);
            dialed.unwrap();
        }
    });
}
