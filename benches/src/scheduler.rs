//! The machine's scheduler, as hosts of their own would have it.

use std::fs;
use std::path::Path;

/// Whether Linux shares the cores out among sessions first and among the processes of each session second.
const AUTOGROUP: &str = "/proc/sys/kernel/sched_autogroup_enabled";

/// Takes all processes of the machine for one group until it is dropped.
///
/// Hosts made of namespaces share one scheduler. With groups, a rank with a session of its own that gives way while it waits
/// gives way to nobody, and all of a peer's ranks that were started in one session to each other: neither would be so on hosts
/// of their own.
pub(crate) struct OneGroup {
    before: Option<String>,
}

impl OneGroup {
    pub(crate) fn enter() -> Self {
        let before = fs::read_to_string(AUTOGROUP).ok().filter(|value| value.trim() != "0");
        let before = before.filter(|_| fs::write(AUTOGROUP, "0").is_ok());
        Self { before }
    }

    /// How it is now, for the table.
    pub(crate) fn describe() -> &'static str {
        match fs::read_to_string(Path::new(AUTOGROUP)) {
            Ok(value) if value.trim() != "0" => "processes are scheduled by session",
            _ => "processes are not scheduled by session",
        }
    }
}

impl Drop for OneGroup {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It was written a moment ago; if it cannot be now there is nobody to tell.
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}
