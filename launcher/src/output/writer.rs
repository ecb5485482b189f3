//! The threads that write, one for standard output and one for standard error unless both are one place: only they wait for
//! terminals and disks.
//!
//! What is queued for it is bounded by the ranks' windows: nothing is acknowledged, and so nothing more comes, before it has
//! been written. So the connections are always read, and a terminal that stands still for an hour costs no connection.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
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
#[derive(Clone)]
pub(super) enum Job {
    /// Bytes of a rank's stream, and the offset after them.
    Bytes(ProcId, Stream, Bytes, u64),
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
    /// Everything of one thread's streams.
    Finished,
}

/// The threads.
pub(super) struct Writers {
    /// For standard output and standard error; twice the same when one thread writes both.
    queues: Vec<std_mpsc::Sender<Job>>,
}

impl Writers {
    /// Starts them.
    pub(super) fn start(
        label: bool,
        dir: Option<&Path>,
        done: &mpsc::UnboundedSender<Done>,
        reports: &mpsc::UnboundedSender<OutputReport>,
    ) -> io::Result<Self> {
        let sink = |stream| io::Result::Ok((stream, Sink::new(stream, label, dir)?));
        let [mut out, mut err] = [sink(Stream::Stdout)?, sink(Stream::Stderr)?];
        let sets = if Sink::one_place() {
            err.1.beside(&mut out.1);
            vec![vec![out, err]]
        } else {
            vec![vec![out], vec![err]]
        };
        let start = |sinks: Vec<(Stream, Sink)>| {
            let (jobs, queue) = std_mpsc::channel();
            let writer = Writer { sinks, done: done.clone(), reports: reports.clone() };
            thread::Builder::new().name("writer".to_owned()).spawn(move || writer.run(&queue))?;
            Ok(jobs)
        };
        Ok(Self { queues: sets.into_iter().map(start).collect::<io::Result<_>>()? })
    }

    /// How many there are: so often is [`Done::Finished`] said.
    pub(super) fn count(&self) -> usize {
        self.queues.len()
    }

    /// Hands bytes to the thread of their stream.
    pub(super) fn write(&self, proc: ProcId, stream: Stream, bytes: Bytes, end: u64) {
        let at = if stream == Stream::Stderr { self.queues.len() - 1 } else { 0 };
        // The threads end only after their senders.
        let _ = self.queues[at].send(Job::Bytes(proc, stream, bytes, end));
    }

    /// Tells all threads.
    pub(super) fn tell(&self, job: &Job) {
        for queue in &self.queues {
            let _ = queue.send(job.clone());
        }
    }
}

struct Writer {
    sinks: Vec<(Stream, Sink)>,
    done: mpsc::UnboundedSender<Done>,
    reports: mpsc::UnboundedSender<OutputReport>,
}

impl Writer {
    fn run(mut self, queue: &std_mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut written = BTreeMap::new();
            let mut finish = false;
            for job in std::iter::once(first).chain(queue.try_iter().take(BATCH_PIECES_MAX)) {
                match job {
                    Job::Bytes(proc, stream, bytes, end) => {
                        self.each(|one, sink| if one == stream { sink.feed(proc, &bytes) } else { Ok(()) });
                        written.insert((proc, stream), end);
                    }
                    Job::Group(group, first, size) => self.each(|_, sink| sink.group(group, first, size)),
                    Job::Finish => finish = true,
                }
            }
            self.each(|_, sink| sink.write());
            for ((proc, stream), end) in written {
                let _ = self.done.send(Done::Written(proc, stream, end));
            }
            if finish {
                self.each(|_, sink| sink.finish());
                let _ = self.done.send(Done::Finished);
            }
        }
    }

    fn each(&mut self, mut call: impl FnMut(Stream, &mut Sink) -> Result<(), SinkError>) {
        for (stream, sink) in &mut self.sinks {
            let report = match call(*stream, sink) {
                Ok(()) => continue,
                Err(SinkError::ReaderGone) => OutputReport::ReaderGone,
                Err(SinkError::Failed(why)) => OutputReport::Failed(why),
            };
            let _ = self.reports.send(report);
        }
    }
}
