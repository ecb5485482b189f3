//! How a job goes, for a server that keeps one small status for each: from events to a body, and when it may be sent.

mod body;
mod progress;
mod throttle;

pub use progress::Progress;
pub use throttle::Throttle;

#[cfg(test)]
mod tests;
