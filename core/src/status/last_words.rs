//! The message that a container leaves behind: why its job has failed, in the few bytes that are kept of it.

use std::collections::BTreeSet;

use muster_protocol::event::Event;
use muster_protocol::limits::TERMINATION_MESSAGE_BYTES_MAX;
use serde::Serialize;

/// What of a job's events belongs into that message.
#[derive(Debug, Clone, Default)]
pub struct LastWords {
    /// Hosts that were lost and have not come back.
    lost: BTreeSet<String>,
    restarts: u32,
}

/// What is to be left when a job has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// Why it has failed.
    Failed(String),
    /// Nothing: what an earlier job has left is not true any more.
    Fine,
}

/// Whether a text is such a message.
pub fn is_last_words(text: &str) -> bool {
    let has = |value: &serde_json::Value| {
        ["status", "cause", "hosts_lost", "restarts"].iter().all(|key| value.get(key).is_some())
    };
    serde_json::from_str(text).is_ok_and(|value| has(&value))
}

#[derive(Serialize)]
struct Message<'a> {
    status: u8,
    cause: &'a str,
    hosts_lost: usize,
    /// As many names as there is room for.
    lost_hosts: &'a [&'a str],
    restarts: u32,
}

impl LastWords {
    /// Takes an event in. When it ends the job, that is what it leaves.
    pub fn note(&mut self, event: &Event) -> Option<Words> {
        match event {
            Event::HostLost { host, .. } => drop(self.lost.insert(host.clone())),
            Event::HostJoined { host, .. } => drop(self.lost.remove(host)),
            Event::CommandStarted { restarts } => self.restarts = *restarts,
            Event::JobEnded { status: status @ 1.., cause } => {
                return Some(Words::Failed(self.message(*status, cause.as_deref().unwrap_or_default())));
            }
            Event::JobEnded { .. } => return Some(Words::Fine),
            _ => {}
        }
        None
    }

    fn message(&self, status: u8, cause: &str) -> String {
        let mut names: Vec<&str> = self.lost.iter().map(String::as_str).collect();
        let mut cause = cause.to_owned();
        loop {
            let (hosts_lost, restarts) = (self.lost.len(), self.restarts);
            let message = Message { status, cause: &cause, hosts_lost, lost_hosts: &names, restarts };
            // Plain data with text keys always has a JSON form.
            let text = serde_json::to_string(&message).unwrap_or_default();
            if text.len() <= TERMINATION_MESSAGE_BYTES_MAX {
                return text;
            }
            // The cause says more than names do.
            if names.is_empty() {
                let kept = cause.chars().count() * 7 / 8;
                cause = cause.chars().take(kept).chain(['…']).collect();
            } else {
                names.truncate(names.len() - names.len().div_ceil(8));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_protocol::ids::HostIndex;

    fn lost(host: &str) -> Event {
        Event::HostLost { host: host.to_owned(), why: "no sign of life".to_owned() }
    }

    fn ended(status: u8, cause: &str) -> Event {
        Event::JobEnded { status, cause: Some(cause.to_owned()) }
    }

    fn failed(words: &mut LastWords, event: &Event) -> String {
        match words.note(event) {
            Some(Words::Failed(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_that_has_failed_leaves_its_cause_and_one_that_has_not_leaves_nothing() {
        let mut words = LastWords::default();
        assert_eq!(words.note(&lost("w-1")), None);
        assert_eq!(words.note(&lost("w-2")), None);
        assert_eq!(words.note(&Event::HostJoined { index: HostIndex(2), host: "w-2".to_owned() }), None);
        assert_eq!(words.note(&Event::CommandStarted { restarts: 1 }), None);
        assert_eq!(words.clone().note(&Event::JobEnded { status: 0, cause: None }), Some(Words::Fine));
        let message = failed(&mut words, &ended(241, "host w-1 was lost: no sign of life"));
        let wanted = r#"{"status":241,"cause":"host w-1 was lost: no sign of life","hosts_lost":1,"lost_hosts":["w-1"],"restarts":1}"#;
        assert_eq!(message, wanted);
        assert!(is_last_words(&message) && !is_last_words("loss is NaN") && !is_last_words(r#"{"status":1}"#));
    }

    #[test]
    fn what_is_too_long_is_cut_names_before_the_cause() {
        let mut words = LastWords::default();
        for host in 0..2_000 {
            words.note(&lost(&format!("pi-worker-{host}.pi.tenant.svc")));
        }
        let message = failed(&mut words, &ended(241, "host w-1 was lost"));
        assert!(message.len() <= TERMINATION_MESSAGE_BYTES_MAX && message.len() > TERMINATION_MESSAGE_BYTES_MAX / 2);
        let read: serde_json::Value = serde_json::from_str(&message).unwrap();
        assert_eq!((&read["cause"], &read["hosts_lost"]), (&"host w-1 was lost".into(), &2_000.into()));
        // Characters that take six bytes each as JSON has them.
        let message = failed(&mut words, &ended(1, &"\u{1}ä".repeat(10_000)));
        assert!(message.len() <= TERMINATION_MESSAGE_BYTES_MAX && message.len() > TERMINATION_MESSAGE_BYTES_MAX / 2);
        let read: serde_json::Value = serde_json::from_str(&message).unwrap();
        assert!(read["cause"].as_str().unwrap().ends_with('…') && read["lost_hosts"] == serde_json::json!([]));
    }
}
