//! `--events FILE`: one JSON object on each line, `at_ms` since the start of the command and the event's fields.

use std::fs::File;
use std::io::{LineWriter, Write};

use anyhow::Context;
use muster_protocol::event::Event;
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
}

/// The file.
pub(super) struct EventLog {
    file: LineWriter<File>,
    path: String,
    failed: bool,
}

impl EventLog {
    pub(super) fn create(path: &str) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("event file {path} cannot be created"))?;
        Ok(Self { file: LineWriter::new(file), path: path.to_owned(), failed: false })
    }

    /// Writes an event. A job does not end because its log cannot be written, but the user is told, once.
    pub(super) fn write(&mut self, event: &Event, at_ms: u64) {
        if self.failed {
            return;
        }
        let line = serde_json::to_string(&Line { at_ms, event }).map_err(std::io::Error::from);
        if let Err(error) = line.and_then(|line| writeln!(self.file, "{line}")) {
            self.failed = true;
            tracing::error!(%error, file = self.path, "events are no longer written");
        }
    }
}
