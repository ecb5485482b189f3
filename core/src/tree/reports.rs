//! What ranks and hosts report, on its way up.
//!
//! What many hosts have to say alike travels as one frame for all of them: ranks that run, ranks that ended as they should,
//! hosts that are done. Such news waits a moment for its neighbours'. A failure waits for nothing, and takes along what waits,
//! so nothing is overtaken: the end of a rank stays behind its start, and the end of a host behind the ends of its ranks.
//!
//! Nothing is kept for the case that a parent dies: each host tells its reports again to a new one, and the root hears things
//! twice without harm. What ranks ask for or complain of is not such a report, see [`Pleas`].

use std::collections::BTreeMap;

use muster_protocol::frame::{Frame, Kind};
use muster_protocol::limits::HELD_REPORTS_BYTES_MAX;
use muster_protocol::message::{
    BadPayload, Ended, Exits, Initialised, Message, Phase, ProcEnd, ProcExit, ProcStarted, Stamp, Started, StreamEnd,
};
use muster_protocol::{Group, HostIndex, HostSet, Rank};

use super::node::{Act, TreeNode};
use super::pleas::Pleas;
use crate::forgotten::Forgotten;

/// Longest time that news which nobody is in a hurry for waits for its neighbours', in milliseconds.
const HOLD_MS: u64 = 5;

/// Reports on their way through one node.
#[derive(Debug, Default)]
pub(super) struct Reports {
    started: Vec<ProcStarted>,
    exits: Vec<ProcExit>,
    done: HostSet,
    streams: Vec<StreamEnd>,
    bytes: usize,
    since_ms: Option<u64>,
    /// Something that waits shall go with the acts of this turn.
    urgent: bool,
    /// Groups of which a rank here or below has initialised. The first one is news, and the others are not.
    spoken: BTreeMap<Group, Rank>,
    /// Hosts that have told their end.
    ended: HostSet,
    /// The order to end ranks has passed here, so it is no failure when they are killed.
    ending: bool,
    pub(super) pleas: Pleas,
}

impl Reports {
    /// When the next of them has waited for long enough.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.since_ms.map(|since| since + HOLD_MS)
    }

    /// An order is passing down.
    pub(super) fn ordered(&mut self, kind: Kind) {
        self.ending |= matches!(kind, Kind::Kill | Kind::End);
    }

    /// These groups are over: nobody is to hear of them again.
    pub(super) fn forget(&mut self, forgotten: &Forgotten) {
        self.spoken.retain(|group, _| !forgotten.contains(*group));
        self.pleas.forget(forgotten);
    }

    fn hold(&mut self, bytes: usize, now_ms: u64) {
        self.bytes += bytes;
        self.since_ms.get_or_insert(now_ms);
    }

    /// Whether the root has to act on the end of a rank: the others may be waiting for that rank.
    fn is_failure(&self, exit: &ProcExit, spawned: bool) -> bool {
        match (&exit.end, exit.phase) {
            _ if exit.killed => !self.ending,
            (ProcEnd::Exited(0), Phase::Finalised) => false,
            (ProcEnd::Exited(0), Phase::Untouched) => spawned || !self.spoken.is_empty(),
            _ => true,
        }
    }

    /// What has been waiting, in an order that is true of every host.
    fn take(&mut self, stamp: Stamp, from: HostIndex) -> Vec<Frame> {
        (self.bytes, self.since_ms, self.urgent) = (0, None, false);
        let mut frames = Vec::new();
        let procs = std::mem::take(&mut self.started);
        if !procs.is_empty() {
            frames.push(stamp.frame(from, &Started { procs }));
        }
        let procs = std::mem::take(&mut self.exits);
        if !procs.is_empty() {
            frames.push(stamp.frame(from, &Exits { procs }));
        }
        let (hosts, streams) = (std::mem::take(&mut self.done), std::mem::take(&mut self.streams));
        if !hosts.is_empty() {
            frames.push(stamp.frame(from, &Ended { hosts, streams, survivors: Vec::new() }));
        }
        frames
    }
}

impl TreeNode {
    /// This host's ranks report something, or ask for it.
    pub fn from_here(&mut self, frame: Frame, now_ms: u64) {
        self.reports.pleas.keep(&frame, |proc| self.fences.group_of(proc));
        if self.report(&frame, now_ms).is_err() {
            // The root finds out as well, and it can tell somebody.
            self.acts.push(Act::Up(frame));
        }
    }

    /// A report from here or below.
    pub(super) fn report(&mut self, frame: &Frame, now_ms: u64) -> Result<(), BadPayload> {
        if self.me.is_none() {
            self.acts.push(Act::Up(frame.clone()));
            return Ok(());
        }
        // Whoever is kept busy may be late with its ticks.
        self.send_due_reports(now_ms);
        let bytes = frame.payload.len();
        if self.reports.bytes + bytes > HELD_REPORTS_BYTES_MAX {
            self.send_reports();
        }
        match frame.header.kind {
            Kind::Started => {
                self.reports.started.extend(Started::read(frame)?.procs);
                self.reports.hold(bytes, now_ms);
            }
            Kind::Exits => self.hold_exits(Exits::read(frame)?, bytes, now_ms),
            Kind::Ended => self.hold_ended(frame, bytes, now_ms)?,
            Kind::Initialised => {
                let message = Initialised::read(frame)?;
                let is_over = self.fences.forgotten().contains(message.group);
                if !is_over && self.reports.spoken.insert(message.group, message.rank).is_none() {
                    self.at_once(frame);
                }
            }
            _ => self.at_once(frame),
        }
        Ok(())
    }

    fn hold_exits(&mut self, exits: Exits, bytes: usize, now_ms: u64) {
        let spawned = self.fences.knows_spawned();
        let failure = exits.procs.iter().any(|exit| self.reports.is_failure(exit, spawned));
        self.reports.urgent |= failure;
        self.reports.exits.extend(exits.procs);
        self.reports.hold(bytes, now_ms);
    }

    fn hold_ended(&mut self, frame: &Frame, bytes: usize, now_ms: u64) -> Result<(), BadPayload> {
        let ended = Ended::read(frame)?;
        self.reports.ended.union_with(&ended.hosts);
        if !ended.survivors.is_empty() {
            // They belong to the one host that is named with them.
            self.at_once(frame);
            return Ok(());
        }
        self.reports.done.union_with(&ended.hosts);
        self.reports.streams.extend(ended.streams);
        self.reports.hold(bytes, now_ms);
        // Nobody is left to wait for.
        self.reports.urgent |= self.fences.below().is_subset(&self.reports.ended);
        Ok(())
    }

    fn at_once(&mut self, frame: &Frame) {
        self.send_reports();
        self.acts.push(Act::Up(frame.clone()));
    }

    /// Sends what has been waiting.
    pub(super) fn send_reports(&mut self) {
        let Some(me) = self.me else { return };
        self.acts.extend(self.reports.take(self.stamp, me).into_iter().map(Act::Up));
    }

    /// Sends what cannot wait any longer at the end of a turn. A node without children has no neighbours to wait for.
    pub(super) fn send_urgent_reports(&mut self) {
        if self.reports.urgent || self.children.is_empty() {
            self.send_reports();
        }
    }

    /// Sends what has waited for long enough.
    pub(super) fn send_due_reports(&mut self, now_ms: u64) {
        if self.reports.due_ms().is_some_and(|at| at <= now_ms) {
            self.send_reports();
        }
    }

    /// Tells a new parent what only this node knows, before any report that its hosts tell again: what a rank complained of
    /// comes before its end.
    pub(super) fn tell_pleas(&mut self) {
        let Some(me) = self.me else { return };
        let spoken = self.reports.spoken.iter().map(|(group, rank)| Initialised { group: *group, rank: *rank });
        let spoken = spoken.map(|message| self.stamp.frame(me, &message));
        let frames: Vec<Frame> = self.reports.pleas.frames().cloned().chain(spoken).collect();
        self.acts.extend(frames.into_iter().map(Act::Up));
    }
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
