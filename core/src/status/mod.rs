//! How a job goes, for a server that keeps one small status for each: from events to a body, and when it may be sent.

mod body;
mod last_words;
mod progress;
mod throttle;

pub use last_words::{LastWords, Words, is_last_words};
pub use progress::Progress;
pub use throttle::Throttle;

#[cfg(test)]
mod tests;
