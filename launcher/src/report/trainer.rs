//! Keeps a TrainJob's status up to date, from a thread of its own: the job never waits for it and never ends because of it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use muster_core::status::{Progress, Throttle};
use muster_https::{Ask, Client, Method};
use muster_protocol::event::Event;
use muster_protocol::limits::{STATUS_PERIOD_MS, STATUS_POST_TIMEOUT_MS};
use muster_sys::clock::boottime_ms;
use muster_sys::{signal_count, signals};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::discover::{StatusServer, Surroundings, find_status_server};

/// Time for one report.
const POST_LIMIT: Duration = Duration::from_millis(STATUS_POST_TIMEOUT_MS);
/// The longest that the end of a command waits: a report that is on its way, the period after it, and the last one.
const LAST_LIMIT: Duration = Duration::from_millis(STATUS_POST_TIMEOUT_MS + STATUS_PERIOD_MS + STATUS_POST_TIMEOUT_MS);

/// Time between two looks at signals while the last report is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Signals that end this waiting.
const END_SIGNALS: [&str; 3] = ["SIGINT", "SIGTERM", "SIGHUP"];

/// An event, and when it happened.
type News = (Event, u64);

/// The thread. When this goes, the last state is on its way first.
#[derive(Debug)]
pub struct TrainerStatus {
    /// Unbounded by type, bounded by what happens: a few events for each rank and host.
    news: Option<UnboundedSender<News>>,
    told: Receiver<()>,
}

impl TrainerStatus {
    /// Starts to report, where there is somebody to report to. What is in the way of that is told, and is no error.
    pub fn start(wanted: bool, site: &Surroundings) -> Option<Self> {
        if !wanted {
            return None;
        }
        let started = find_status_server(site).and_then(|server| server.map(Self::of_server).transpose());
        started.unwrap_or_else(|why| {
            tracing::warn!(why, "the TrainJob's status is not kept up to date");
            None
        })
    }

    fn of_server(server: StatusServer) -> Result<Self, String> {
        let (news, inbox) = unbounded_channel();
        let (done, told) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let report = move || {
            runtime.block_on(report(&server, inbox));
            drop(done);
        };
        let thread = thread::Builder::new().name("trainer-status".to_owned()).spawn(report);
        thread.map(|_| Self { news: Some(news), told }).map_err(|e| e.to_string())
    }

    /// Something happened.
    pub fn event(&self, event: &Event, at_ms: u64) {
        if let Some(news) = &self.news {
            let _ = news.send((event.clone(), at_ms));
        }
    }
}

impl Drop for TrainerStatus {
    fn drop(&mut self) {
        self.news = None;
        wait(&self.told, LAST_LIMIT, end_signal_came);
    }
}

/// Waits until the last report is gone, for a while, or until somebody wants no waiting. Says whether it is gone.
fn wait(told: &Receiver<()>, limit: Duration, mut enough: impl FnMut() -> bool) -> bool {
    let mut left = limit;
    while !left.is_zero() && !enough() {
        let look = left.min(LOOK);
        if told.recv_timeout(look) != Err(RecvTimeoutError::Timeout) {
            return true;
        }
        left -= look;
    }
    false
}

/// Whether the user or the system has asked for the end since the command's loop has heard signals for the last time: they are counted
/// until this process ends.
fn end_signal_came() -> bool {
    let mut came = END_SIGNALS.iter().filter_map(|name| signals::number(name)).map(signal_count::take);
    came.any(|count| count > 0)
}

/// Reports until nobody has news any more and the last state was told.
async fn report(server: &StatusServer, mut inbox: UnboundedReceiver<News>) {
    let client = Client::new(server.authority.clone(), server.token.clone());
    let (mut progress, mut throttle) = (Progress::default(), Throttle::new(boottime_ms()));
    let (mut open, mut warned) = (true, false);
    while open || !throttle.is_over() {
        let due = throttle.due_ms().map(|at| Duration::from_millis(at.saturating_sub(boottime_ms())));
        tokio::select! {
            biased;
            news = inbox.recv(), if open => match news {
                Some((event, at_ms)) => {
                    if progress.note(&event, at_ms) {
                        throttle.changed();
                    }
                }
                // A command that ended before it began has nothing to tell.
                None if !progress.has_begun() => return,
                None => {
                    open = false;
                    throttle.last(boottime_ms());
                }
            },
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {
                throttle.leaves();
                let failure = post(&client, server, &progress).await.err();
                throttle.ended(failure.is_none(), boottime_ms());
                if let Some(why) = failure.filter(|_| !std::mem::replace(&mut warned, true)) {
                    tracing::warn!(why, "the TrainJob's status cannot be kept up to date; the job is not concerned");
                }
            }
        }
    }
}

async fn post(client: &Client, server: &StatusServer, progress: &Progress) -> Result<(), String> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let body = progress.body(&now).into_bytes();
    let ask = Ask { method: Method::POST, url: &server.url, content_type: "application/json", body };
    let reply = client.ask(ask, POST_LIMIT).await.map_err(|e| e.to_string())?;
    if reply.is_success() { Ok(()) } else { Err(format!("{} answers with status {}", server.url, reply.status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_is_waited_for_until_it_is_gone_or_somebody_has_had_enough() {
        let (done, told) = channel::<()>();
        let mut looks = 0;
        // Without an end to it this would take an hour.
        let gone = wait(&told, Duration::from_secs(3_600), || {
            looks += 1;
            looks > 2
        });
        assert!(!gone && looks == 3);
        assert!(!wait(&told, LOOK * 2, || false), "there is an end to it");
        drop(done);
        assert!(wait(&told, Duration::from_secs(3_600), || false));
    }
}
