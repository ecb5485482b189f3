//! The launcher's standard input on its way to ranks.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;

use bytes::Bytes;
use muster_protocol::frame::{FLAG_END, Frame, Kind, stream_channel};
use muster_protocol::limits::STDIN_WINDOW_BYTES;
use muster_protocol::message::{Stamp, StdinTo};
use muster_protocol::{HostIndex, ProcId, Stream};
use tokio::sync::mpsc;

/// Bytes read from standard input at a time.
const READ_BYTES: usize = 64 << 10;

/// One reading rank.
#[derive(Debug)]
struct Reader {
    host: HostIndex,
    sent: u64,
    acked: u64,
    ended: bool,
}

/// What has been read and not yet been given to every reader.
#[derive(Debug)]
pub(super) struct Input {
    stamp: Stamp,
    to: StdinTo,
    /// Ranks that will read; nothing is forgotten before all of them have come.
    expected: usize,
    readers: BTreeMap<ProcId, Reader>,
    chunks: VecDeque<Bytes>,
    start: u64,
    end: u64,
    at_end: bool,
}

impl Input {
    /// Input of a job whose first group has this many ranks.
    pub(super) fn new(stamp: Stamp, to: StdinTo, ranks: u32) -> Self {
        let expected = if matches!(to, StdinTo::All) { ranks as usize } else { 1 };
        Self { stamp, to, expected, readers: BTreeMap::new(), chunks: VecDeque::new(), start: 0, end: 0, at_end: false }
    }

    /// A rank says how far it is; the first time it says that it is there. A rank behind a new way gets everything again
    /// from there.
    pub(super) fn acked(&mut self, proc: ProcId, host: HostIndex, bytes: u64) {
        if !matches!(self.to, StdinTo::All) && self.to != StdinTo::One(proc) {
            return;
        }
        let reader = self.readers.entry(proc).or_insert(Reader { host, sent: bytes, acked: bytes, ended: false });
        reader.acked = reader.acked.max(bytes.min(reader.sent));
        self.forget();
    }

    fn forget(&mut self) {
        if self.readers.len() < self.expected {
            return;
        }
        let done = self.readers.values().map(|r| r.acked).min().unwrap_or(0);
        while let Some(front) = self.chunks.front() {
            let after = self.start + front.len() as u64;
            if after > done {
                return;
            }
            self.start = after;
            self.chunks.pop_front();
        }
    }

    /// Whether more may be read. Nothing is read before there is somebody to give it to.
    pub(super) fn wants_more(&self) -> bool {
        !self.readers.is_empty() && !self.at_end && self.end - self.start < u64::from(STDIN_WINDOW_BYTES)
    }

    /// Bytes were read; none: the end.
    pub(super) fn read(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            self.at_end = true;
        } else {
            self.end += bytes.len() as u64;
            self.chunks.push_back(bytes);
        }
    }

    /// What is to be sent now.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (proc, reader) in &mut self.readers {
            let mut at = self.start;
            for chunk in &self.chunks {
                let after = at + chunk.len() as u64;
                let window = reader.acked + u64::from(STDIN_WINDOW_BYTES);
                if after > reader.sent && reader.sent < window {
                    let bytes = chunk.slice((reader.sent - at.min(reader.sent)) as usize..);
                    let frame = self.stamp.raw(Kind::Input, reader.host, bytes);
                    frames.push(frame.with(0, stream_channel(*proc, Stream::Stdin), reader.sent.max(at)));
                    reader.sent = after;
                }
                at = after;
            }
            if self.at_end && reader.sent == self.end && !reader.ended {
                reader.ended = true;
                let frame = self.stamp.raw(Kind::Input, reader.host, Bytes::new());
                frames.push(frame.with(FLAG_END, stream_channel(*proc, Stream::Stdin), reader.sent));
            }
        }
        frames
    }
}

/// Reads standard input on a thread of its own, one piece for each request; ends with the end of the input.
pub(super) fn reader() -> (mpsc::Sender<()>, mpsc::Receiver<Bytes>) {
    let (requests, mut wanted) = mpsc::channel::<()>(1);
    let (pieces, queue) = mpsc::channel(1);
    let read = move || {
        let mut buffer = vec![0; READ_BYTES];
        while wanted.blocking_recv().is_some() {
            // An input that cannot be read has ended for the ranks, too.
            let bytes = std::io::stdin().lock().read(&mut buffer).unwrap_or(0);
            if pieces.blocking_send(Bytes::copy_from_slice(&buffer[..bytes])).is_err() || bytes == 0 {
                return;
            }
        }
    };
    // Without the thread the channel closes, which ranks see as the end of input.
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
    (requests, queue)
}

#[cfg(test)]
mod tests {
    use muster_protocol::{Epoch, Generation};

    use super::*;

    const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };

    #[test]
    fn nothing_is_read_before_a_reader_is_there_and_all_readers_get_everything() {
        let mut input = Input::new(STAMP, StdinTo::All, 2);
        assert!(!input.wants_more());
        input.acked(ProcId(0), HostIndex(0), 0);
        input.acked(ProcId(1), HostIndex(1), 0);
        input.read(Bytes::from_static(b"hello"));
        let sent: Vec<_> = input.frames().iter().map(|f| (f.header.host.0, f.header.seq, f.payload.clone())).collect();
        assert_eq!(sent, [(0, 0, Bytes::from_static(b"hello")), (1, 0, Bytes::from_static(b"hello"))]);
        assert!(input.frames().is_empty());
        input.acked(ProcId(0), HostIndex(0), 5);
        assert_eq!(input.chunks.len(), 1);
        input.acked(ProcId(1), HostIndex(1), 5);
        assert!(input.chunks.is_empty());
        input.read(Bytes::new());
        let ends = input.frames();
        assert!(ends.len() == 2 && ends.iter().all(|f| f.header.flags == FLAG_END && f.header.seq == 5));
        assert!(!input.wants_more() && input.frames().is_empty());
    }

    #[test]
    fn a_reader_that_comes_late_gets_everything() {
        let mut input = Input::new(STAMP, StdinTo::All, 2);
        input.acked(ProcId(0), HostIndex(0), 0);
        input.read(Bytes::from_static(b"hello"));
        input.read(Bytes::new());
        assert_eq!(input.frames().len(), 2);
        input.acked(ProcId(0), HostIndex(0), 5);
        input.acked(ProcId(1), HostIndex(1), 0);
        let late: Vec<_> = input.frames().iter().map(|f| (f.header.host.0, f.header.flags, f.payload.clone())).collect();
        assert_eq!(late, [(1, 0, Bytes::from_static(b"hello")), (1, FLAG_END, Bytes::new())]);
    }

    #[test]
    fn a_reader_that_does_not_read_stops_the_reading() {
        let mut input = Input::new(STAMP, StdinTo::One(ProcId(0)), 2);
        input.acked(ProcId(0), HostIndex(0), 0);
        input.acked(ProcId(7), HostIndex(0), 0);
        assert_eq!(input.readers.len(), 1);
        while input.wants_more() {
            input.read(Bytes::from(vec![0; READ_BYTES]));
        }
        assert_eq!(input.end, u64::from(STDIN_WINDOW_BYTES));
        let sent: usize = input.frames().iter().map(|f| f.payload.len()).sum();
        assert_eq!(sent, STDIN_WINDOW_BYTES as usize);
    }
}
