//! Where one kind of output goes: to standard output or to standard error, and to files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use memchr::memrchr;
use muster_protocol::{Group, ProcId, Rank, Stream};
use muster_sys::pipe::grow;

use super::bars::Bars;
use super::lines::Lines;
use super::pending::Pending;

/// Collected bytes after which they are written.
const WRITE_BYTES: usize = 512 << 10;
/// Bytes from which copying them together with others costs more than a place of their own in a write.
const UNCOPIED_BYTES: usize = 16 << 10;
/// What is asked for when our output is a pipe: with little room each of the two sides wakes the other far more often.
const PIPE_BYTES: u32 = 1 << 20;

/// Why output was not written.
#[derive(Debug)]
pub(super) enum SinkError {
    /// Nobody reads it any more.
    ReaderGone,
    /// Anything else.
    Failed(String),
}

/// One process group's numbering.
#[derive(Debug, Clone, Copy)]
struct Numbering {
    group: Group,
    first: u32,
    size: u32,
}

#[derive(Debug, Default)]
struct RankSink {
    lines: Lines,
    label: Option<Vec<u8>>,
    file: Option<(PathBuf, File)>,
}

/// The standard output, or the standard error, of all ranks.
pub(super) struct Sink {
    stream: Stream,
    label: bool,
    dir: Option<PathBuf>,
    groups: Vec<Numbering>,
    ranks: HashMap<ProcId, RankSink>,
    pending: Pending,
    /// Our own standard output or error without the buffers of the library, which would copy everything once more.
    terminal: File,
    /// It has been asked for a large buffer, in case that it is a pipe.
    large_pipe: bool,
    /// When it is a terminal: unfinished pieces that are shown.
    bars: Option<Bars>,
    reader_gone: bool,
    /// What it writes stands where our own messages stand.
    beside_messages: bool,
}

/// Whether the ranks' last line where our own messages stand has no end yet.
static LINE_IS_OPEN: AtomicBool = AtomicBool::new(false);

/// See there.
pub(super) fn line_is_open() -> bool {
    LINE_IS_OPEN.load(Ordering::Relaxed)
}

impl Sink {
    /// Whether what is written to standard output and standard error goes to the same place, a terminal for example. Then
    /// one thread must write both, or it would tear the lines of the other.
    pub(super) fn one_place() -> bool {
        let place = |fd: BorrowedFd<'_>| {
            let file = File::from(fd.try_clone_to_owned()?).metadata()?;
            io::Result::Ok((file.dev(), file.ino()))
        };
        match (place(io::stdout().as_fd()), place(io::stderr().as_fd())) {
            (Ok(out), Ok(err)) => out == err,
            _ => false,
        }
    }

    pub(super) fn new(stream: Stream, label: bool, dir: Option<&Path>) -> io::Result<Self> {
        let terminal = match stream {
            Stream::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
            _ => io::stdout().as_fd().try_clone_to_owned()?,
        };
        let bars = terminal.is_terminal().then(Bars::default);
        Ok(Self {
            stream,
            label,
            dir: dir.map(Path::to_owned),
            groups: Vec::new(),
            ranks: HashMap::new(),
            pending: Pending::default(),
            terminal: File::from(terminal),
            large_pipe: false,
            bars,
            reader_gone: false,
            beside_messages: stream == Stream::Stderr,
        })
    }

    /// Both are written to one place.
    pub(super) fn beside(&mut self, other: &mut Self) {
        self.bars = other.bars.as_ref().map(Bars::beside);
        (self.beside_messages, other.beside_messages) = (true, true);
    }

    /// Processes that are to come. Their files are made now: one that an earlier run has left must not pass for this one's.
    pub(super) fn group(&mut self, group: Group, first: ProcId, size: u32) -> Result<(), SinkError> {
        self.groups.push(Numbering { group, first: first.0, size });
        if self.dir.is_some() {
            for proc in first.0..first.0 + size {
                self.rank(ProcId(proc))?;
            }
        }
        Ok(())
    }

    fn name(&self, proc: ProcId) -> (Group, Rank) {
        let inside = |n: &&Numbering| (n.first..n.first + n.size).contains(&proc.0);
        self.groups.iter().find(inside).map_or((Group(0), Rank(proc.0)), |n| (n.group, Rank(proc.0 - n.first)))
    }

    /// A lone rank's bytes pass as they come, so that prompts without a line end are seen.
    fn passes_through(&self) -> bool {
        !self.label && matches!(self.groups.as_slice(), [only] if only.size == 1)
    }

    fn rank(&mut self, proc: ProcId) -> Result<&mut RankSink, SinkError> {
        if !self.ranks.contains_key(&proc) {
            let (group, rank) = self.name(proc);
            let number = if group == Group(0) { rank.to_string() } else { format!("{group}.{rank}") };
            let label = self.label.then(|| format!("[{number}] ").into_bytes());
            let file = self.dir.as_ref().map(|dir| open(dir, &number, self.stream)).transpose()?;
            self.ranks.insert(proc, RankSink { lines: Lines::default(), label, file });
        }
        Ok(self.ranks.entry(proc).or_default())
    }

    /// Takes bytes of a rank; they are written by [`Sink::write`], or before when much has come together.
    pub(super) fn feed(&mut self, proc: ProcId, bytes: &Bytes) -> Result<(), SinkError> {
        let direct = self.passes_through();
        let whole = if direct { bytes.len() } else { memrchr(b'\n', bytes).map_or(0, |at| at + 1) };
        let uncopied = !self.label && whole >= UNCOPIED_BYTES && self.bars.is_none();
        let mut pending = std::mem::take(&mut self.pending);
        let mut bars = self.bars.take();
        let filed = self.rank(proc).and_then(|one| {
            if uncopied {
                one.lines.flush(None, &mut pending.copied);
                pending.push(bytes.slice(..whole));
                one.lines.feed(&bytes[whole..], None, &mut pending.copied);
            } else if direct {
                pending.copied.extend_from_slice(bytes);
            } else {
                let at = pending.copied.len();
                one.lines.feed(bytes, one.label.as_deref(), &mut pending.copied);
                if let Some(bars) = &mut bars {
                    one.lines.release(one.label.as_deref(), &mut pending.copied);
                    bars.given(proc, &mut pending.copied, at);
                }
            }
            match &mut one.file {
                Some((path, file)) => file.write_all(bytes).map_err(|e| file_error(path, &e)),
                None => Ok(()),
            }
        });
        // A file that cannot be written takes nothing away from what others have for the terminal.
        (self.pending, self.bars) = (pending, bars);
        let written = if self.pending.len() >= WRITE_BYTES { self.write() } else { Ok(()) };
        filed.and(written)
    }

    /// Writes what has come together.
    pub(super) fn write(&mut self) -> Result<(), SinkError> {
        if !self.large_pipe && self.pending.len() >= WRITE_BYTES {
            self.large_pipe = true;
            grow(self.terminal.as_fd(), PIPE_BYTES);
        }
        let broken_off = self.pending.len() > 0 && self.bars.as_ref().is_some_and(|bars| bars.turn(self.stream));
        let result = match (self.reader_gone, broken_off) {
            (true, _) => Ok(()),
            (false, false) => self.pending.write_to(&mut self.terminal),
            (false, true) => Pending::from(b"\n".to_vec())
                .write_to(&mut self.terminal)
                .and_then(|()| self.pending.write_to(&mut self.terminal)),
        };
        if let Some(last) = self.pending.last().filter(|_| self.beside_messages) {
            LINE_IS_OPEN.store(last != b'\n', Ordering::Relaxed);
        }
        self.pending.clear();
        self.judge(result)
    }

    fn judge(&mut self, result: io::Result<()>) -> Result<(), SinkError> {
        match (result, self.stream) {
            (Ok(()), _) => Ok(()),
            (Err(error), stream) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader_gone = true;
                // Nobody is left to be told that standard error is gone, and programs go on without it.
                if stream == Stream::Stderr { Ok(()) } else { Err(SinkError::ReaderGone) }
            }
            (Err(error), Stream::Stderr) => Err(SinkError::Failed(format!("standard error: {error}"))),
            (Err(error), _) => Err(SinkError::Failed(format!("standard output: {error}"))),
        }
    }

    /// Writes unfinished last lines, in the order of ranks.
    pub(super) fn finish(&mut self) -> Result<(), SinkError> {
        let mut ranks: Vec<_> = self.ranks.iter_mut().filter(|(_, s)| !s.lines.is_empty()).collect();
        ranks.sort_by_key(|(proc, _)| **proc);
        for (proc, sink) in ranks {
            let at = self.pending.copied.len();
            sink.lines.flush(sink.label.as_deref(), &mut self.pending.copied);
            if let Some(bars) = &mut self.bars {
                bars.given(*proc, &mut self.pending.copied, at);
            }
        }
        self.write()
    }
}

fn open(dir: &Path, number: &str, stream: Stream) -> Result<(PathBuf, File), SinkError> {
    let ending = if stream == Stream::Stderr { "err" } else { "out" };
    let path = dir.join(format!("rank.{number}.{ending}"));
    match OpenOptions::new().write(true).create(true).truncate(true).open(&path) {
        Ok(file) => Ok((path, file)),
        Err(error) => Err(file_error(&path, &error)),
    }
}

fn file_error(path: &Path, error: &io::Error) -> SinkError {
    SinkError::Failed(format!("output file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sinks of both streams on what passes for one terminal.
    fn terminal(label: bool) -> (tempfile::NamedTempFile, [Sink; 2]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut sinks = [Stream::Stdout, Stream::Stderr].map(|stream| {
            let mut sink = Sink::new(stream, label, None).unwrap();
            sink.terminal = OpenOptions::new().append(true).open(file.path()).unwrap();
            sink.bars = Some(Bars::default());
            sink.group(Group(0), ProcId(0), 2).unwrap();
            sink
        });
        let [out, err] = &mut sinks;
        err.beside(out);
        (file, sinks)
    }

    #[test]
    fn progress_bars_of_several_ranks_are_shown_on_a_terminal_and_never_mixed() {
        for (label, shown) in [
            (false, "1%\r2%\r\nother\n3%\r\nerror\ndone\nrest"),
            (true, "[0] 1%\r[0] 2%\r\n[1] other\n[0] 3%\r\n[1] error\n[0] done\n[1] rest\n"),
        ] {
            let (file, [mut out, mut err]) = terminal(label);
            for (proc, bytes) in [(0, "1%\r2"), (0, "%\r3%"), (1, "other\nre"), (0, "\r")] {
                out.feed(ProcId(proc), &Bytes::from(bytes)).unwrap();
                out.write().unwrap();
            }
            err.feed(ProcId(1), &Bytes::from("error\n")).unwrap();
            err.write().unwrap();
            out.feed(ProcId(0), &Bytes::from("done\n")).unwrap();
            out.feed(ProcId(1), &Bytes::from("st")).unwrap();
            out.finish().unwrap();
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), shown);
        }
    }

    #[test]
    fn files_of_an_earlier_run_do_not_pass_for_those_of_ranks_that_say_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rank.1.err"), "of yesterday").unwrap();
        let mut sink = Sink::new(Stream::Stderr, false, Some(dir.path())).unwrap();
        sink.group(Group(0), ProcId(0), 2).unwrap();
        for rank in 0..2 {
            let text = std::fs::read_to_string(dir.path().join(format!("rank.{rank}.err"))).unwrap();
            assert_eq!(text, "");
        }
    }
}
