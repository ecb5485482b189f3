//! Frames over streams that end, stall, lie and dribble.

#[expect(dead_code, reason = "each test program uses its part")]
mod common;

use std::time::Duration;

use bytes::BytesMut;
use common::{Numbers, PATIENCE, output};
use muster_protocol::frame::{Frame, FrameError, HEADER_BYTES, Kind};
use muster_transport::connection::{FrameReader, ReceiveError, TrySendError};
use muster_transport::identity::JobKey;
use muster_transport::stream::{boxed, memory};
use muster_transport::tls::{acceptor, connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

fn wire(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode_into(&mut bytes));
    bytes
}

fn some_frames(seed: u64) -> Vec<Frame> {
    let mut numbers = Numbers::new(seed);
    let sizes = [0, 1, 39, 41, 1_000, 1_025, 5_000, 20_000, 70_000, 262_144, 3];
    sizes.iter().enumerate().map(|(i, size)| output(i as u64, numbers.bytes(*size))).collect()
}

#[tokio::test]
async fn frames_arrive_whole_however_the_stream_cuts_them() {
    let frames = some_frames(1);
    for capacity in [1, 7, 40, 4_096, 1 << 20] {
        let (near, far) = memory(capacity);
        let tasks = TaskTracker::new();
        let (sender, _receiver) = FrameReader::new(near).spawn(64, &tasks);
        let mut reader = FrameReader::new(far);
        for frame in &frames {
            sender.send(frame.clone()).await.unwrap();
        }
        sender.close();
        for frame in &frames {
            assert!(reader.next().await.unwrap().as_ref() == Some(frame), "capacity {capacity}");
        }
        assert!(reader.next().await.unwrap().is_none(), "the queue is drained, then comes the goodbye");
        assert_eq!(reader.traffic().received(), wire(&frames).len() as u64);
        assert_eq!(sender.traffic().sent(), reader.traffic().received());
    }
}

/// Gives up waiting at every second poll.
#[tokio::test]
async fn a_wait_that_is_cancelled_loses_nothing() {
    let frames = some_frames(2);
    let (mut near, far) = memory(1_000);
    let bytes = wire(&frames);
    let writer = tokio::spawn(async move {
        for piece in bytes.chunks(613) {
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        near
    });
    let mut reader = FrameReader::new(far);
    let (mut got, mut cancelled) = (Vec::new(), 0);
    while got.len() < frames.len() {
        tokio::select! {
            biased;
            frame = reader.next() => got.push(frame.unwrap().unwrap()),
            () = tokio::task::yield_now() => cancelled += 1,
        }
    }
    assert!(got == frames);
    assert!(cancelled > frames.len(), "the test did not cancel anything");
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn garbage_and_oversized_frames_are_refused_by_their_header() {
    let (mut near, far) = memory(1 << 16);
    near.write_all(b"GET / HTTP/1.1\r\nHost: worker-3.training.svc\r\n\r\n").await.unwrap();
    let error = FrameReader::new(far).next().await.unwrap_err();
    assert!(matches!(error, ReceiveError::Frame(FrameError::Magic(_))), "{error}");

    let (mut near, far) = memory(1 << 16);
    let mut header = output(0, "").header;
    header.length = 300 << 10;
    near.write_all(&header.encode()).await.unwrap();
    let error = FrameReader::new(far).next().await.unwrap_err();
    assert_eq!(error.to_string(), "frame of kind Output announces 307200 bytes, limit 262144");
}

#[tokio::test]
async fn the_first_frame_must_be_of_the_kind_that_is_due() {
    let (mut near, far) = memory(1 << 16);
    let header = output(0, vec![0; 100_000]).header;
    near.write_all(&header.encode()).await.unwrap();
    let error = timeout(PATIENCE, FrameReader::new(far).next_of(Kind::Hello)).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "a frame of kind Output came where Hello was due");
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_no_goodbye() {
    let whole = wire(&[output(0, vec![7; 500])]);
    for cut in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 499] {
        let (mut near, far) = memory(1 << 16);
        near.write_all(&whole[..cut]).await.unwrap();
        drop(near);
        let error = FrameReader::new(far).next().await.unwrap_err();
        let missing = if cut < HEADER_BYTES { HEADER_BYTES - cut } else { whole.len() - cut };
        assert!(matches!(error, ReceiveError::Truncated { missing: m } if m == missing), "{cut}: {error}");
    }
}

#[tokio::test]
async fn a_full_queue_says_so_and_gives_the_frame_back() {
    let (near, _far) = memory(64);
    let tasks = TaskTracker::new();
    let (sender, _receiver) = FrameReader::new(near).spawn(3, &tasks);
    let mut taken = 0;
    let refused = loop {
        match sender.try_send(output(taken, vec![0; 100_000])) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(taken, 3);
    assert_eq!(sender.queued(), 3);
    assert!(matches!(refused, TrySendError::Full(frame) if frame.header.seq == 3));
}

#[tokio::test]
async fn giving_up_ends_both_ends_at_once_though_nobody_reads() {
    let (near, mut far) = memory(64);
    let tasks = TaskTracker::new();
    let (sender, mut receiver) = FrameReader::new(near).spawn(8, &tasks);
    for seq in 0..8 {
        sender.try_send(output(seq, vec![0; 100_000])).unwrap();
    }
    tokio::task::yield_now().await;
    sender.abort();
    assert!(matches!(receiver.recv().await, Err(ReceiveError::Aborted)));
    timeout(PATIENCE, sender.closed()).await.unwrap();
    assert!(matches!(sender.try_send(output(9, "")), Err(TrySendError::Closed(_))));
    drop(receiver);
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, far.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.len() <= 64, "queued frames are dropped");
}

#[tokio::test(start_paused = true)]
async fn closing_or_forgetting_a_connection_that_nobody_reads_ends_after_all() {
    for close in [true, false] {
        let (near, _far) = memory(64);
        let tasks = TaskTracker::new();
        let (sender, _receiver) = FrameReader::new(near).spawn(8, &tasks);
        sender.try_send(output(0, vec![0; 100_000])).unwrap();
        let kept = close.then(|| sender.clone());
        if close {
            sender.close();
        }
        drop(sender);
        tasks.close();
        timeout(Duration::from_secs(3_600), tasks.wait()).await.unwrap();
        drop(kept);
    }
}

#[tokio::test]
async fn the_other_side_going_away_is_seen_by_both_ends() {
    let (near, far) = memory(64);
    let tasks = TaskTracker::new();
    let (sender, mut receiver) = FrameReader::new(near).spawn(8, &tasks);
    drop(far);
    assert!(receiver.recv().await.unwrap().is_none());
    sender.send(output(0, vec![0; 100])).await.unwrap();
    timeout(PATIENCE, sender.closed()).await.unwrap();
}

#[tokio::test]
async fn unix_sockets_carry_frames() {
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let tasks = TaskTracker::new();
    let (sender, _keep) = FrameReader::new(boxed(near)).spawn(64, &tasks);
    let (_keep, mut receiver) = FrameReader::new(boxed(far)).spawn(64, &tasks);
    let frames = some_frames(3);
    let send = async {
        for frame in &frames {
            sender.send(frame.clone()).await.unwrap();
        }
    };
    let receive = async {
        for frame in &frames {
            assert!(receiver.recv().await.unwrap().as_ref() == Some(frame));
        }
    };
    tokio::join!(send, receive);
}

/// Each end is moved to a runtime of its own while the one that it was made in is gone.
#[test]
fn a_connection_outlives_the_runtime_that_made_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made_in = runtime();
    let (tcp, unix) = made_in.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let identity = JobKey::from_bytes(b"a key that is long enough").unwrap().identity();
        let (connector, acceptor) = (connector(&identity), acceptor(&identity));
        let tls = tokio::join!(connector.connect(dialled.unwrap()), acceptor.accept(accepted.unwrap().0));
        let unix = tokio::net::UnixStream::pair().unwrap();
        ((tls.0.unwrap(), tls.1.unwrap()), (boxed(unix.0), boxed(unix.1)))
    });
    let mut pairs = [tcp, unix].map(|(near, far)| (FrameReader::new(near), FrameReader::new(far)));
    let moved_to = runtime();
    for (near, far) in &mut pairs {
        let _inside = moved_to.enter();
        near.rehome().unwrap();
        far.rehome().unwrap();
    }
    drop(made_in);
    for (near, far) in pairs {
        moved_to.block_on(async {
            let tasks = TaskTracker::new();
            let (sender, _keep) = near.spawn(4, &tasks);
            let (_keep, mut receiver) = far.spawn(4, &tasks);
            let frames = some_frames(20);
            let send = async {
                for frame in &frames {
                    sender.send(frame.clone()).await.unwrap();
                }
            };
            let receive = async {
                for frame in &frames {
                    assert_eq!(&timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap().unwrap(), frame);
                }
            };
            tokio::join!(send, receive);
        });
    }
}
