//! The ranks' PMI sockets: bytes in, bytes out, and a last look when a rank has ended.
//!
//! A client asks one question after the other, so what a question costs is what a fence costs. A socket is watched for bytes
//! only: watched for room as well it would wake the agent whenever a rank has read an answer.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use muster_protocol::ProcId;
use muster_protocol::limits::{PMI_LAST_BYTES_MAX, PMI_WAITING_ANSWERS_MAX};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

/// Bytes read from a rank at a time.
const READ_BYTES: usize = 16 << 10;

/// What happened on a rank's PMI socket.
#[derive(Debug)]
pub enum PmiInput {
    /// It said something.
    Bytes(ProcId, Bytes),
    /// Nothing more will come.
    Closed(ProcId),
}

/// The sockets of all ranks here.
pub(super) struct PmiSockets {
    inbox: mpsc::Sender<PmiInput>,
    sockets: HashMap<ProcId, Handle>,
    tasks: TaskTracker,
}

struct Handle {
    /// Gone when nothing more is to be written.
    answers: Option<mpsc::Sender<Bytes>>,
    /// Beside the answers, so that it neither waits behind them nor finds no room among them.
    drain: Arc<Notify>,
}

impl PmiSockets {
    pub(super) fn new(inbox: mpsc::Sender<PmiInput>) -> Self {
        Self { inbox, sockets: HashMap::new(), tasks: TaskTracker::new() }
    }

    /// Serves a rank's socket from now on. One that cannot be served is reported as closed, as any other at its end.
    pub(super) fn add(&mut self, proc: ProcId, socket: OwnedFd) -> io::Result<()> {
        self.add_with_room(proc, socket, PMI_WAITING_ANSWERS_MAX)
    }

    /// As [`PmiSockets::add`], for one with which so many answers may wait.
    pub(super) fn add_with_room(&mut self, proc: ProcId, socket: OwnedFd, room: usize) -> io::Result<()> {
        let socket = watch(UnixStream::from(socket), Interest::READABLE).inspect_err(|_| {
            let inbox = self.inbox.clone();
            self.tasks.spawn(async move { inbox.send(PmiInput::Closed(proc)).await });
        })?;
        let (answers, queue) = mpsc::channel(room);
        let drain = Arc::new(Notify::new());
        self.sockets.insert(proc, Handle { answers: Some(answers), drain: drain.clone() });
        self.tasks.spawn(serve(proc, socket, queue, drain, self.inbox.clone()));
        Ok(())
    }

    pub(super) fn send(&mut self, proc: ProcId, bytes: Bytes) {
        let Some(handle) = self.sockets.get_mut(&proc) else { return };
        if handle.answers.as_ref().is_some_and(|answers| answers.try_send(bytes).is_err()) {
            // Its task has ended and has said so, or the rank reads none of a thousand answers. With one of them missing
            // the next would be taken for it, so it hears no more.
            tracing::debug!(proc = proc.0, "an answer to a rank was dropped");
            handle.answers = None;
        }
    }

    /// Closes a socket when everything is written.
    pub(super) fn close(&mut self, proc: ProcId) {
        if let Some(handle) = self.sockets.get_mut(&proc) {
            handle.answers = None;
        }
    }

    /// Reads what is left in the socket of a rank that has ended, then closes it; what was to be written is not.
    pub(super) fn drain(&mut self, proc: ProcId) {
        if let Some(handle) = self.sockets.remove(&proc) {
            handle.drain.notify_one();
        }
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe because of types that lie about their descriptor; this one does not"
)]
fn watch(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

async fn serve(
    proc: ProcId,
    socket: AsyncFd<UnixStream>,
    queue: mpsc::Receiver<Bytes>,
    drain: Arc<Notify>,
    inbox: mpsc::Sender<PmiInput>,
) {
    converse(proc, socket, queue, &drain, &inbox).await;
    let _ = inbox.send(PmiInput::Closed(proc)).await;
}

async fn converse(
    proc: ProcId,
    socket: AsyncFd<UnixStream>,
    mut queue: mpsc::Receiver<Bytes>,
    drain: &Notify,
    inbox: &mpsc::Sender<PmiInput>,
) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        tokio::select! {
            // The end of the answers is part of draining and must not be taken for all of it.
            biased;
            () = drain.notified() => return read_rest(proc, socket, &mut buffer, inbox).await,
            answer = queue.recv() => {
                let Some(bytes) = answer else { return };
                tokio::select! {
                    biased;
                    // Somebody to whom the rank has left the socket may keep it open and never read.
                    () = drain.notified() => drain.notify_one(),
                    written = write_all(socket.get_ref(), &bytes) => if written.is_err() {
                        return;
                    },
                }
            }
            ready = socket.readable() => {
                let Ok(mut ready) = ready else { return };
                match socket.get_ref().read(&mut buffer) {
                    Ok(0) => return,
                    Ok(bytes) => {
                        if bytes < READ_BYTES {
                            // There was no more; what comes from now on is heard of anew.
                            ready.clear_ready();
                        }
                        if !tell(inbox, proc, &buffer[..bytes]).await {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    Err(_) => return,
                }
            }
        }
    }
}

/// Writes an answer. Few clients are so slow that their socket is full.
async fn write_all(mut socket: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let room = watch(socket.try_clone()?, Interest::WRITABLE)?;
                room.writable().await?.retain_ready();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what the kernel has, by the kernel's own word: the runtime may not have heard of it yet.
async fn read_rest(proc: ProcId, socket: AsyncFd<UnixStream>, buffer: &mut [u8], inbox: &mpsc::Sender<PmiInput>) {
    let mut socket = socket.into_inner();
    let mut total = 0;
    while let Ok(bytes) = socket.read(buffer) {
        total += bytes;
        if bytes == 0 || !tell(inbox, proc, &buffer[..bytes]).await || total >= PMI_LAST_BYTES_MAX {
            return;
        }
    }
}

async fn tell(inbox: &mpsc::Sender<PmiInput>, proc: ProcId, bytes: &[u8]) -> bool {
    inbox.send(PmiInput::Bytes(proc, Bytes::copy_from_slice(bytes))).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use muster_sys::pipe::{set_nonblocking, socketpair};

    use super::*;

    const PROC: ProcId = ProcId(3);

    fn rig() -> (PmiSockets, mpsc::Receiver<PmiInput>, UnixStream) {
        let (sender, inbox) = mpsc::channel(16);
        let mut sockets = PmiSockets::new(sender);
        let (ours, theirs) = socketpair().unwrap();
        set_nonblocking(ours.as_fd(), true).unwrap();
        sockets.add(PROC, ours).unwrap();
        (sockets, inbox, UnixStream::from(theirs))
    }

    /// What was said until the socket was closed; the wait is a safety net.
    async fn said(inbox: &mut mpsc::Receiver<PmiInput>) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(30), inbox.recv()).await.unwrap().unwrap() {
                PmiInput::Bytes(PROC, bytes) => all.extend_from_slice(&bytes),
                PmiInput::Closed(PROC) => return all,
                other => panic!("of another rank: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn the_last_words_of_a_rank_are_heard_though_its_socket_is_held_and_never_read() {
        let (mut sockets, mut inbox, mut held) = rig();
        // More than a socket takes, so that writing it never ends.
        sockets.send(PROC, Bytes::from(vec![b'x'; 16 << 20]));
        tokio::task::yield_now().await;
        held.write_all(b"cmd=abort exitcode=4\n").unwrap();
        sockets.drain(PROC);
        assert_eq!(said(&mut inbox).await, b"cmd=abort exitcode=4\n");
    }

    #[tokio::test]
    async fn a_thousand_unread_answers_do_not_hide_the_end() {
        let (mut sockets, mut inbox, mut held) = rig();
        for _ in 0..=2 * PMI_WAITING_ANSWERS_MAX {
            sockets.send(PROC, Bytes::from(vec![b'x'; 1 << 10]));
        }
        held.write_all(b"last").unwrap();
        sockets.drain(PROC);
        assert_eq!(said(&mut inbox).await, b"last");
    }

    #[tokio::test]
    async fn what_was_answered_is_written_before_a_socket_is_closed() {
        let (mut sockets, mut inbox, mut theirs) = rig();
        sockets.send(PROC, Bytes::from_static(b"one "));
        sockets.send(PROC, Bytes::from_static(b"two"));
        sockets.close(PROC);
        assert_eq!(said(&mut inbox).await, b"");
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "one two");
    }

    #[tokio::test]
    async fn an_answer_that_does_not_fit_goes_on_when_the_rank_has_read() {
        let (mut sockets, mut inbox, mut theirs) = rig();
        let answer: Vec<u8> = (0..4 << 20).map(|i| (i % 251) as u8).collect();
        sockets.send(PROC, Bytes::from(answer.clone()));
        sockets.close(PROC);
        let reader = std::thread::spawn(move || {
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).map(|_| heard)
        });
        assert_eq!(said(&mut inbox).await, b"");
        assert!(reader.join().unwrap().unwrap() == answer);
    }

    #[tokio::test]
    async fn questions_of_any_length_are_heard_whole() {
        let (mut sockets, mut inbox, mut theirs) = rig();
        let mut asked = Vec::new();
        for bytes in [1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 5 * READ_BYTES] {
            let part = vec![b'a' + asked.len() as u8 % 26; bytes];
            asked.extend_from_slice(&part);
            theirs.write_all(&part).unwrap();
            tokio::task::yield_now().await;
        }
        drop(theirs);
        let heard = said(&mut inbox).await;
        sockets.close(PROC);
        assert!(heard == asked);
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_served_is_reported_as_closed() {
        let (sender, mut inbox) = mpsc::channel(1);
        let mut sockets = PmiSockets::new(sender);
        // The kernel refuses to watch a file.
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        set_nonblocking(file.as_fd(), true).unwrap();
        assert!(sockets.add(PROC, file).is_err());
        assert_eq!(said(&mut inbox).await, b"");
    }
}
