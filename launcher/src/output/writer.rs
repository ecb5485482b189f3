//! The threads that write, one for standard output and one for standard error: only they wait for terminals and disks.
//!
//! What is queued for it is bounded by the ranks' windows: nothing is acknowledged, and so nothing more comes, before it has
//! been written. So the connections are always read, and a terminal that stands still for an hour costs no connection.

use std::collections::BTreeMap;
use std::sync::mpsc as std_mpsc;
use std::thread;

use bytes::Bytes;
use muster_protocol::{Group, ProcId, Stream};
use tokio::sync::mpsc;

use super::OutputReport;
use super::sink::{Sink, SinkError};

/// Pieces taken from the queue before what they make is written and acknowledged.
const BATCH_PIECES_MAX: usize = 64;

/// What is to be written.
pub(super) enum Job {
    /// Bytes of a rank, and the offset after them.
    Bytes(ProcId, Bytes, u64),
    /// How processes of a group are numbered.
    Group(Group, ProcId, u32),
    /// Everything has come: unfinished lines, too.
    Finish,
}

/// What has been written.
#[derive(Debug)]
pub(super) enum Done {
    /// A stream, up to this offset.
    Written(ProcId, Stream, u64),
    /// Everything of this thread's stream.
    Finished,
}

/// Starts the thread of one stream.
pub(super) fn start(
    stream: Stream,
    sink: Sink,
    done: mpsc::UnboundedSender<Done>,
    reports: mpsc::UnboundedSender<OutputReport>,
) -> std::io::Result<std_mpsc::Sender<Job>> {
    let (jobs, queue) = std_mpsc::channel();
    thread::Builder::new().name("writer".to_owned()).spawn(move || run(stream, sink, &queue, &done, &reports))?;
    Ok(jobs)
}

fn run(
    stream: Stream,
    mut sink: Sink,
    queue: &std_mpsc::Receiver<Job>,
    done: &mpsc::UnboundedSender<Done>,
    reports: &mpsc::UnboundedSender<OutputReport>,
) {
    let tell = |result: Result<(), SinkError>| {
        let report = match result {
            Ok(()) => return,
            Err(SinkError::ReaderGone) => OutputReport::ReaderGone,
            Err(SinkError::Failed(why)) => OutputReport::Failed(why),
        };
        let _ = reports.send(report);
    };
    while let Ok(first) = queue.recv() {
        let mut written = BTreeMap::new();
        let mut finish = false;
        for job in std::iter::once(first).chain(queue.try_iter().take(BATCH_PIECES_MAX)) {
            match job {
                Job::Bytes(proc, bytes, end) => {
                    tell(sink.feed(proc, &bytes));
                    written.insert(proc, end);
                }
                Job::Group(group, first, size) => sink.group(group, first, size),
                Job::Finish => finish = true,
            }
        }
        tell(sink.write());
        for (proc, end) in written {
            let _ = done.send(Done::Written(proc, stream, end));
        }
        if finish {
            tell(sink.finish());
            let _ = done.send(Done::Finished);
        }
    }
}
