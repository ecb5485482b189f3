//! Where one kind of output goes: to standard output or to standard error, and to files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::memrchr;
use muster_protocol::{Group, ProcId, Rank, Stream};

use super::lines::Lines;

/// Collected bytes after which they are written.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes from which copying them together with others costs more than a write of their own.
const UNCOPIED_BYTES: usize = 16 << 10;
/// Pause when a descriptor that somebody made non-blocking takes nothing.
const FULL_PAUSE: Duration = Duration::from_millis(1);

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
    pending: Vec<u8>,
    /// Our own standard output or error without the buffers of the library, which would copy everything once more.
    terminal: File,
    reader_gone: bool,
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
        Ok(Self {
            stream,
            label,
            dir: dir.map(Path::to_owned),
            groups: Vec::new(),
            ranks: HashMap::new(),
            pending: Vec::new(),
            terminal: File::from(terminal),
            reader_gone: false,
        })
    }

    pub(super) fn group(&mut self, group: Group, first: ProcId, size: u32) {
        self.groups.push(Numbering { group, first: first.0, size });
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
    pub(super) fn feed(&mut self, proc: ProcId, bytes: &[u8]) -> Result<(), SinkError> {
        let direct = self.passes_through();
        let whole = if direct { bytes.len() } else { memrchr(b'\n', bytes).map_or(0, |at| at + 1) };
        if !self.label && self.dir.is_none() && whole >= UNCOPIED_BYTES {
            return self.feed_uncopied(proc, bytes.split_at(whole));
        }
        let mut pending = std::mem::take(&mut self.pending);
        let filed = self.rank(proc).and_then(|one| {
            if direct {
                pending.extend_from_slice(bytes);
            } else {
                one.lines.feed(bytes, one.label.as_deref(), &mut pending);
            }
            match &mut one.file {
                Some((path, file)) => file.write_all(bytes).map_err(|e| file_error(path, &e)),
                None => Ok(()),
            }
        });
        // A file that cannot be written takes nothing away from what others have for the terminal.
        self.pending = pending;
        let written = if self.pending.len() >= WRITE_BYTES { self.write() } else { Ok(()) };
        filed.and(written)
    }

    /// Much at once that needs no labels is written from where it is.
    fn feed_uncopied(&mut self, proc: ProcId, (whole, rest): (&[u8], &[u8])) -> Result<(), SinkError> {
        let mut pending = std::mem::take(&mut self.pending);
        self.rank(proc)?.lines.flush(None, &mut pending);
        self.pending = pending;
        self.write()?;
        let result = if self.reader_gone { Ok(()) } else { write_fully(&mut self.terminal, whole) };
        let mut pending = std::mem::take(&mut self.pending);
        self.rank(proc)?.lines.feed(rest, None, &mut pending);
        self.pending = pending;
        self.judge(result)
    }

    /// Writes what has come together.
    pub(super) fn write(&mut self) -> Result<(), SinkError> {
        let result = if self.reader_gone { Ok(()) } else { write_fully(&mut self.terminal, &self.pending) };
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
        for (_, sink) in ranks {
            sink.lines.flush(sink.label.as_deref(), &mut self.pending);
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

/// Writes everything, also to a descriptor that somebody else made non-blocking.
fn write_fully(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
