//! `--events FILE`: one JSON object on each line, `at_ms` since the start of the command and the event's fields.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use muster_protocol::event::Event;
use serde::Serialize;

/// Time for the last lines to be written when the command ends.
const LAST_LINES: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
}

/// The file, written by a thread of its own: a disk or a pipe that does not take it holds nobody up.
pub(super) struct EventLog {
    /// Unbounded by type, bounded by what happens: a few events for each rank and host.
    lines: Option<Sender<String>>,
    written: Receiver<()>,
}

impl EventLog {
    pub(super) fn create(path: &str) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("event file {path} cannot be created"))?;
        let (lines, queue) = mpsc::channel();
        let (done, written) = mpsc::channel();
        let path = path.to_owned();
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            write_all(file, &path, &queue);
            drop(done);
        })?;
        Ok(Self { lines: Some(lines), written })
    }

    pub(super) fn write(&mut self, event: &Event, at_ms: u64) {
        // Every event is plain data with text keys, which always has a JSON form.
        if let (Some(lines), Ok(line)) = (&self.lines, serde_json::to_string(&Line { at_ms, event })) {
            let _ = lines.send(line + "\n");
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.written.recv_timeout(LAST_LINES);
    }
}

/// A job does not end because its log cannot be written, but the user is told, once.
fn write_all(mut file: File, path: &str, queue: &Receiver<String>) {
    while let Ok(first) = queue.recv() {
        let text: String = std::iter::once(first).chain(queue.try_iter()).collect();
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::error!(%error, file = path, "events are no longer written");
            return;
        }
    }
}
