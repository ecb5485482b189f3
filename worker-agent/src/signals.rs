//! Signals to the agent, by what they ask for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The agent's end, and why its host is lost with it.
    End(&'static str),
    /// To be passed on to the ranks: as the first process of a container the agent is whom others signal.
    Pass(i32),
}

/// All signals that are heard.
pub(crate) struct Signals {
    ends: Vec<(Signal, &'static str)>,
    passed: Vec<(Signal, i32)>,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let ends = [
            (SignalKind::terminate(), "its agent was told to end (SIGTERM)"),
            (SignalKind::interrupt(), "its agent was told to end (SIGINT)"),
            (SignalKind::quit(), "its agent was told to end (SIGQUIT)"),
            (SignalKind::hangup(), "its agent was told to end (SIGHUP)"),
        ];
        // What whoever started us has set to be ignored stays ignored, as for `nohup`.
        let heard = ends.into_iter().filter(|(kind, _)| !muster_sys::signals::is_ignored(kind.as_raw_value()));
        let passed = [SignalKind::user_defined1(), SignalKind::user_defined2()];
        Ok(Self {
            ends: heard.map(|(kind, why)| Ok((signal(kind)?, why))).collect::<io::Result<_>>()?,
            passed: passed
                .into_iter()
                .map(|kind| Ok((signal(kind)?, kind.as_raw_value())))
                .collect::<io::Result<_>>()?,
        })
    }

    /// The next one; cancelling the wait loses nothing.
    pub(crate) async fn next(&mut self) -> Asked {
        std::future::poll_fn(|cx| {
            for (signal, why) in &mut self.ends {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(Asked::End(why));
                }
            }
            for (signal, number) in &mut self.passed {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(Asked::Pass(*number));
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
