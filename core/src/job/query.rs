//! Asking which ranks have not arrived at the fence that the others wait in.

use std::collections::BTreeSet;

use muster_protocol::event::Event;
use muster_protocol::message::{Query, Report};
use muster_protocol::{Group, HostIndex, HostSet, Rank};

use super::cause::Cause;
use super::machine::{Job, Stage};

/// Time that hosts have to answer, in milliseconds.
const QUERY_MS: u64 = 1_000;

/// A question that hosts have not all answered.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) until_ms: u64,
    waiting: HostSet,
    reports: Vec<(HostIndex, Report)>,
    then: Option<Cause>,
}

impl Job {
    /// Asks every host which ranks have not arrived at their fence; `then` ends the job after the answers.
    pub fn query(&mut self, then: Option<Cause>, now_ms: u64) {
        if self.stage != Stage::Running {
            if let Some(cause) = then {
                let cause = self.with_missing(cause);
                self.fail(cause);
            }
            return;
        }
        let hosts = self.table.hosts.iter().enumerate().filter(|(_, h)| h.joined && !h.lost);
        let waiting = hosts.map(|(i, _)| HostIndex(i as u32)).collect();
        let then = self.query.take().and_then(|q| q.then).or(then);
        self.query = Some(Question { until_ms: now_ms + QUERY_MS, waiting, reports: Vec::new(), then });
        self.broadcast(&Query {});
    }

    /// A time limit that is over while hosts are being connected is over because of those that are missing.
    fn with_missing(&self, cause: Cause) -> Cause {
        match cause {
            Cause::Timeout { limit_ms } if self.stage == Stage::Connecting => {
                Cause::TimeoutConnecting { limit_ms, hosts: self.obstacles() }
            }
            cause => cause,
        }
    }

    pub(super) fn on_report(&mut self, host: HostIndex, report: Report) {
        let Some(question) = &mut self.query else { return };
        if question.waiting.remove(host) {
            question.reports.push((host, report));
        }
        if question.waiting.is_empty() {
            self.finish_query();
        }
    }

    pub(super) fn finish_query(&mut self) {
        let Some(question) = self.query.take() else { return };
        let groups = self.table.groups.keys();
        let waiting: Vec<Event> = groups.filter_map(|group| self.fence_waiting(*group, &question)).collect();
        // Who has asked gets an answer; a time limit that is over needs none.
        if waiting.is_empty() && question.then.is_none() {
            let silent_hosts = question.waiting.iter().map(|h| self.table.host_name(h)).collect();
            self.emit(Event::NoFenceWaiting { silent_hosts });
        }
        for event in waiting {
            self.emit(event);
        }
        if let Some(cause) = question.then {
            self.fail(cause);
        }
    }

    /// Who waits for whom. A host reports a fence only when one of its ranks is in it, so the ranks that are not follow from
    /// the table.
    fn fence_waiting(&self, group: Group, question: &Question) -> Option<Event> {
        let fences = || {
            question.reports.iter().flat_map(|(_, r)| &r.fences).filter(|f| f.group == group && !f.arrived.is_empty())
        };
        let seq = fences().map(|f| f.seq).max()?;
        let arrived: BTreeSet<Rank> =
            fences().filter(|f| f.seq == seq).flat_map(|f| f.arrived.iter().copied()).collect();
        let silent = |host: HostIndex| question.waiting.contains(host);
        let absent = self.table.procs().filter(|p| {
            p.group == group && p.ended.is_none() && !p.lost && !silent(p.host) && !arrived.contains(&p.rank)
        });
        Some(Event::FenceWaiting {
            group,
            seq,
            arrived: arrived.len(),
            absent: absent.map(|p| (p.rank, self.table.host_name(p.host))).collect(),
            silent_hosts: question.waiting.iter().map(|h| self.table.host_name(h)).collect(),
        })
    }
}
