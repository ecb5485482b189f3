//! The body of a report, within what the server takes.

use muster_protocol::limits::{STATUS_BODY_BYTES_MAX, STATUS_METRIC_CHARS_MAX, STATUS_METRICS_ENTRIES_MAX};
use serde::Serialize;

use super::Progress;

/// Metrics that one long sentence may take.
const PIECES: usize = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    trainer_status: Status<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_percentage: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_remaining_seconds: Option<u64>,
    metrics: &'a [Metric],
    last_updated_time: &'a str,
}

#[derive(Debug, Serialize)]
struct Metric {
    name: String,
    value: String,
}

impl Progress {
    /// The state as the Trainer's status server takes it; the time is RFC 3339.
    ///
    /// How far the program is nobody here knows, so there is a percentage only when it has ended well.
    pub fn body(&self, last_updated_time: &str) -> String {
        let mut metrics = self.metrics();
        metrics.truncate(STATUS_METRICS_ENTRIES_MAX);
        let done = self.status == Some(0);
        loop {
            let trainer_status = Status {
                progress_percentage: done.then_some(100),
                estimated_remaining_seconds: done.then_some(0),
                metrics: &metrics,
                last_updated_time,
            };
            // Plain data with text keys always has a JSON form.
            let text = serde_json::to_string(&Body { trainer_status }).unwrap_or_default();
            if text.len() <= STATUS_BODY_BYTES_MAX || metrics.is_empty() {
                return text;
            }
            // The most important come first.
            metrics.truncate(metrics.len() - metrics.len().div_ceil(8));
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        let mut put = |name: &str, value: String| metrics.push(Metric { name: cut(name), value: cut(&value) });
        put("phase", self.phase().name().to_owned());
        if let Some(status) = self.status {
            put("exit_status", status.to_string());
        }
        for (i, piece) in self.first_failure.as_deref().map(pieces).unwrap_or_default().into_iter().enumerate() {
            let name = if i == 0 { "first_failure".to_owned() } else { format!("first_failure_{}", i + 1) };
            put(&name, piece);
        }
        put("job", self.job.clone().unwrap_or_default());
        put("hosts", self.hosts.to_string());
        put("hosts_ready", self.ready.len().to_string());
        put("hosts_lost", self.lost.len().to_string());
        if let Some(ranks) = self.ranks {
            put("ranks", ranks.to_string());
            put("ranks_up", self.ranks_up().to_string());
            put("ranks_ended", self.ended.to_string());
        }
        put("restarts", self.restarts.to_string());
        if let Some(ms) = self.startup_ms {
            put("startup_seconds", format!("{}.{:03}", ms / 1000, ms % 1000));
        }
        // As many as there is room for; how many there are follows from the numbers above.
        for (i, (host, why)) in self.missing.iter().take(STATUS_METRICS_ENTRIES_MAX).enumerate() {
            let value = if why.starts_with(host.as_str()) { why.clone() } else { format!("{host}: {why}") };
            put(&format!("missing_host_{}", i + 1), value);
        }
        metrics
    }
}

/// At most as many characters as a metric may have, never a part of one.
fn cut(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if text.chars().count() <= STATUS_METRIC_CHARS_MAX {
        return text.chars().map(clean).collect();
    }
    text.chars().map(clean).take(STATUS_METRIC_CHARS_MAX - 1).chain(['…']).collect()
}

/// A sentence in pieces of whole words; what no longer fits is cut off.
fn pieces(sentence: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for word in sentence.split_whitespace() {
        let last = pieces.len() - 1;
        let used = pieces[last].chars().count();
        let fits = used + 1 + word.chars().count() <= STATUS_METRIC_CHARS_MAX;
        if used == 0 {
            pieces[last].push_str(word);
        } else if fits || pieces.len() == PIECES {
            pieces[last].push(' ');
            pieces[last].push_str(word);
        } else {
            pieces.push(word.to_owned());
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
