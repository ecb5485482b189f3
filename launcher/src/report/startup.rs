//! Where the start-up time went, from the events.

use muster_protocol::Group;
use muster_protocol::event::Event;

/// Moments of a run, in milliseconds since the command began.
#[derive(Debug, Default)]
pub(super) struct Startup {
    hosts: usize,
    ranks: u32,
    worlds: u32,
    joined: usize,
    first_host: Option<u64>,
    last_host: Option<u64>,
    running: Option<u64>,
    fences: Vec<(u64, usize)>,
    first_end: Option<u64>,
    ended: Option<u64>,
}

impl Startup {
    pub(super) fn note(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::JobStarting { hosts, ranks, worlds, .. } => {
                (self.hosts, self.ranks, self.worlds) = (*hosts, *ranks, *worlds);
            }
            Event::HostJoined { .. } => {
                self.joined += 1;
                self.first_host.get_or_insert(at_ms);
                self.last_host = Some(at_ms);
            }
            // When the last one does.
            Event::GroupRunning { group, .. } if group.0 < self.worlds => self.running = Some(at_ms),
            Event::FenceDone { group: Group(0), bytes, .. } => self.fences.push((at_ms, *bytes)),
            Event::RankEnded { .. } => {
                self.first_end.get_or_insert(at_ms);
            }
            Event::JobEnded { .. } => self.ended = Some(at_ms),
            _ => {}
        }
    }

    /// One line for each phase, in the order of their times: the first fence of a PMIx job is over before its ranks are started.
    pub(super) fn summary(&self) -> String {
        let mut phases = Vec::new();
        let mut phase = |name: &str, at: Option<u64>| phases.extend(at.map(|at| (at, name.to_owned())));
        phase("first host connected", self.first_host);
        phase(&format!("all {} hosts connected", self.joined), self.last_host);
        phase("all ranks started", self.running);
        for (i, (at, bytes)) in self.fences.iter().enumerate().take(8) {
            phase(&format!("fence {i}: {bytes} bytes exchanged"), Some(*at));
        }
        phase("first rank ended", self.first_end);
        phase("job over", self.ended);
        phases.sort_by_key(|(at, _)| *at);
        let lines = phases.iter().map(|(at, name)| format!("\nmuster: {at:>8} ms  {name}"));
        format!("muster: {} ranks on {} hosts{}", self.ranks, self.hosts, lines.collect::<String>())
    }
}
