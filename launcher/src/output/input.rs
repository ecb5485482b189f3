//! The launcher's standard input on its way to ranks.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::frame::{FLAG_END, Frame, Kind, stream_channel};
use muster_protocol::limits::STDIN_WINDOW_BYTES;
use muster_protocol::message::{Stamp, StdinTo};
use muster_protocol::{HostIndex, ProcId, Stream};
use muster_sys::terminal::in_background_of;
use muster_transport::credit::Unacked;
use tokio::sync::mpsc;

/// Bytes read from standard input at a time.
const READ_BYTES: usize = 64 << 10;
/// Time between two looks whether the user has brought this process to the foreground.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(200);

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
    kept: Unacked,
    at_end: bool,
}

impl Input {
    /// Input of a job whose command line starts this many ranks.
    pub(super) fn new(stamp: Stamp, to: StdinTo, ranks: u32) -> Self {
        let expected = if matches!(to, StdinTo::All) { ranks as usize } else { 1 };
        Self { stamp, to, expected, readers: BTreeMap::new(), kept: Unacked::new(), at_end: false }
    }

    /// A rank says how far it is; the first time it says that it is there. A rank that announces itself again is behind a new
    /// way, and gets everything from there on again.
    pub(super) fn acked(&mut self, proc: ProcId, host: HostIndex, bytes: u64, announced: bool) {
        if !matches!(self.to, StdinTo::All) && self.to != StdinTo::One(proc) {
            return;
        }
        if bytes > self.kept.end() {
            tracing::warn!(proc = proc.0, bytes, "a rank says that it was given more input than there is");
            return;
        }
        let reader = self.readers.entry(proc).or_insert(Reader { host, sent: bytes, acked: bytes, ended: false });
        reader.acked = reader.acked.max(bytes);
        if announced {
            *reader = Reader { host, sent: reader.acked, acked: reader.acked, ended: false };
        }
        // More than was sent since the last announcement can have arrived: bytes that were under way before it.
        reader.sent = reader.sent.max(reader.acked);
        self.forget();
    }

    fn forget(&mut self) {
        if self.readers.len() < self.expected {
            return;
        }
        let done = self.readers.values().map(|r| r.acked).min().unwrap_or(0);
        if let Err(error) = self.kept.ack(done) {
            tracing::error!(%error, "standard input is acknowledged out of range");
        }
    }

    /// Whether more may be read. Nothing is read before there is somebody to give it to.
    pub(super) fn wants_more(&self) -> bool {
        !self.readers.is_empty() && !self.at_end && self.kept.room(STDIN_WINDOW_BYTES) > 0
    }

    /// Bytes were read; none: the end.
    pub(super) fn read(&mut self, bytes: Bytes) {
        self.at_end |= bytes.is_empty();
        self.kept.push(bytes);
    }

    /// Gives out what is to be sent now. A reader whose way does not take a frame (`give` says so) gets no more for now; the others
    /// do not wait for it.
    pub(super) fn offer(&mut self, mut give: impl FnMut(Frame) -> bool) {
        'readers: for (proc, reader) in &mut self.readers {
            let channel = stream_channel(*proc, Stream::Stdin);
            while let Some((offset, piece)) = self.kept.piece_from(reader.sent) {
                let room = reader.acked + u64::from(STDIN_WINDOW_BYTES) - reader.sent;
                let bytes = piece.slice(..piece.len().min(room as usize));
                if bytes.is_empty() {
                    break;
                }
                let end = offset + bytes.len() as u64;
                if !give(self.stamp.raw(Kind::Input, reader.host, bytes).with(0, channel, offset)) {
                    continue 'readers;
                }
                reader.sent = end;
            }
            if self.at_end && reader.sent == self.kept.end() && !reader.ended {
                let frame = self.stamp.raw(Kind::Input, reader.host, Bytes::new());
                reader.ended = give(frame.with(FLAG_END, channel, reader.sent));
            }
        }
    }
}

/// Reads standard input on a thread of its own, one piece for each request; ends with the end of the input.
pub(super) fn reader() -> (mpsc::Sender<()>, mpsc::Receiver<Bytes>) {
    let (requests, mut wanted) = mpsc::channel::<()>(1);
    let (pieces, queue) = mpsc::channel(1);
    let read = move || {
        let mut buffer = vec![0; READ_BYTES];
        while wanted.blocking_recv().is_some() {
            while in_background_of(std::io::stdin().as_fd()) {
                // Reading would stop this process, and with it the ranks.
                std::thread::sleep(BACKGROUND_PAUSE);
            }
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

    impl Input {
        fn frames(&mut self) -> Vec<Frame> {
            let mut frames = Vec::new();
            self.offer(|frame| {
                frames.push(frame);
                true
            });
            frames
        }
    }

    const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };

    #[test]
    fn nothing_is_read_before_a_reader_is_there_and_all_readers_get_everything() {
        let mut input = Input::new(STAMP, StdinTo::All, 2);
        assert!(!input.wants_more());
        input.acked(ProcId(0), HostIndex(0), 0, false);
        input.acked(ProcId(1), HostIndex(1), 0, false);
        input.read(Bytes::from_static(b"hello"));
        let sent: Vec<_> = input.frames().iter().map(|f| (f.header.host.0, f.header.seq, f.payload.clone())).collect();
        assert_eq!(sent, [(0, 0, Bytes::from_static(b"hello")), (1, 0, Bytes::from_static(b"hello"))]);
        assert!(input.frames().is_empty());
        input.acked(ProcId(0), HostIndex(0), 5, false);
        assert_eq!(input.kept.len(), 5);
        input.acked(ProcId(1), HostIndex(1), 5, false);
        assert!(input.kept.is_empty());
        input.read(Bytes::new());
        let ends = input.frames();
        assert!(ends.len() == 2 && ends.iter().all(|f| f.header.flags == FLAG_END && f.header.seq == 5));
        assert!(!input.wants_more() && input.frames().is_empty());
    }

    #[test]
    fn a_reader_that_comes_late_gets_everything() {
        let mut input = Input::new(STAMP, StdinTo::All, 2);
        input.acked(ProcId(0), HostIndex(0), 0, false);
        input.read(Bytes::from_static(b"hello"));
        input.read(Bytes::new());
        assert_eq!(input.frames().len(), 2);
        input.acked(ProcId(0), HostIndex(0), 5, false);
        input.acked(ProcId(1), HostIndex(1), 0, false);
        let late: Vec<_> =
            input.frames().iter().map(|f| (f.header.host.0, f.header.flags, f.payload.clone())).collect();
        assert_eq!(late, [(1, 0, Bytes::from_static(b"hello")), (1, FLAG_END, Bytes::new())]);
    }

    #[test]
    fn a_way_that_takes_nothing_keeps_only_its_own_readers_waiting() {
        let mut input = Input::new(STAMP, StdinTo::All, 2);
        input.acked(ProcId(0), HostIndex(0), 0, false);
        input.acked(ProcId(1), HostIndex(1), 0, false);
        let mut got = Vec::new();
        for word in ["hel", "lo", ""] {
            input.read(Bytes::from_static(word.as_bytes()));
            input.offer(|frame| {
                let taken = frame.header.host == HostIndex(1);
                got.extend(taken.then_some((frame.header.flags, frame.payload)));
                taken
            });
        }
        assert_eq!(got, [(0, Bytes::from("hel")), (0, Bytes::from("lo")), (FLAG_END, Bytes::new())]);
        // Nothing was lost for the other one, not even when its way is blocked just before the end.
        let mut rest = Vec::new();
        input.offer(|frame| {
            let taken = frame.header.flags != FLAG_END;
            rest.extend(taken.then_some(frame.payload));
            taken
        });
        assert_eq!(rest.concat(), b"hello");
        assert_eq!(sent(&mut input), [(5, FLAG_END, 0)]);
        assert!(sent(&mut input).is_empty());
    }

    #[test]
    fn a_reader_that_does_not_read_stops_the_reading() {
        let mut input = Input::new(STAMP, StdinTo::One(ProcId(0)), 2);
        input.acked(ProcId(0), HostIndex(0), 0, false);
        input.acked(ProcId(7), HostIndex(0), 0, false);
        assert_eq!(input.readers.len(), 1);
        while input.wants_more() {
            input.read(Bytes::from(vec![0; READ_BYTES]));
        }
        assert_eq!(input.kept.end(), u64::from(STDIN_WINDOW_BYTES));
        let sent: usize = input.frames().iter().map(|f| f.payload.len()).sum();
        assert_eq!(sent, STDIN_WINDOW_BYTES as usize);
    }

    fn sent(input: &mut Input) -> Vec<(u64, u16, usize)> {
        input.frames().iter().map(|f| (f.header.seq, f.header.flags, f.payload.len())).collect()
    }

    #[test]
    fn a_rank_behind_a_new_way_gets_again_what_was_under_way() {
        let mut input = Input::new(STAMP, StdinTo::One(ProcId(0)), 1);
        input.acked(ProcId(0), HostIndex(0), 0, true);
        input.read(Bytes::from_static(b"hello "));
        input.read(Bytes::from_static(b"world"));
        input.read(Bytes::new());
        assert_eq!(sent(&mut input), [(0, 0, 11), (11, FLAG_END, 0)]);
        input.acked(ProcId(0), HostIndex(0), 4, true);
        assert_eq!(sent(&mut input), [(4, 0, 7), (11, FLAG_END, 0)]);
        // Announced again, and then it has taken more of what was under way than has been sent since.
        input.acked(ProcId(0), HostIndex(0), 4, true);
        input.acked(ProcId(0), HostIndex(0), 9, false);
        assert_eq!(sent(&mut input), [(9, 0, 2), (11, FLAG_END, 0)]);
        input.acked(ProcId(0), HostIndex(0), 4, true);
        assert_eq!(
            sent(&mut input),
            [(9, 0, 2), (11, FLAG_END, 0)],
            "an announcement that is overtaken takes nothing back"
        );
        input.acked(ProcId(0), HostIndex(0), 12, false);
        input.acked(ProcId(0), HostIndex(0), 11, false);
        assert!(input.kept.is_empty() && sent(&mut input).is_empty());
    }

    #[test]
    fn no_more_than_the_window_is_under_way_and_what_waits_goes_in_few_frames() {
        let mut input = Input::new(STAMP, StdinTo::One(ProcId(0)), 1);
        input.acked(ProcId(0), HostIndex(0), 0, true);
        for _ in 1..STDIN_WINDOW_BYTES as usize / READ_BYTES {
            input.read(Bytes::from(vec![0; READ_BYTES]));
        }
        input.read(Bytes::from(vec![0; READ_BYTES - 10]));
        assert_eq!(sent(&mut input).len(), STDIN_WINDOW_BYTES as usize / READ_BYTES);
        for _ in 0..1_000 {
            input.read(Bytes::from_static(b"x"));
        }
        let window = u64::from(STDIN_WINDOW_BYTES);
        assert_eq!(sent(&mut input), [(window - 10, 0, 10)]);
        assert!(sent(&mut input).is_empty());
        input.acked(ProcId(0), HostIndex(0), window, false);
        assert_eq!(sent(&mut input), [(window, 0, 990)]);
    }
}
