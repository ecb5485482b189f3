//! What ranks say over their PMI sockets, and what becomes of it.

use std::error::Error as _;

use muster_core::pmi::{Action, FenceDoneError, Server};
use muster_protocol::message::{
    Abort, AbortCause, Bootstrap, Call, CallAnswer, FenceState, Initialised, Phase, Report as QueryReport,
};
use muster_protocol::{Frame, Group, ProcId, Rank};

use super::super::convert::{self, Asked};
use super::{LocalGroup, PMIX_PROC, RankAct, Ranks};

impl Ranks {
    /// Bytes from a rank's PMI socket.
    pub(in crate::session) fn pmi_input(&mut self, proc: ProcId, bytes: &[u8]) {
        if proc == PMIX_PROC {
            return self.pmix_input(bytes);
        }
        self.with_server(proc, |server, local, out| server.input(local, bytes, out));
    }

    /// A rank's PMI socket has ended.
    pub(in crate::session) fn pmi_closed(&mut self, proc: ProcId, now_ms: u64) {
        if proc == PMIX_PROC {
            return self.pmix_closed();
        }
        self.with_server(proc, |server, local, out| server.closed(local, out));
        let phase = self.phase(proc);
        let Some(state) = self.procs.get_mut(&proc) else { return };
        state.pmi = false;
        if let Some((end, maxrss_kib)) = state.exit.clone() {
            self.finish(proc, end, maxrss_kib);
        } else if phase == Phase::Initialised {
            state.departed_ms = Some(now_ms);
        }
    }

    pub(super) fn phase(&self, proc: ProcId) -> Phase {
        let state = self.procs.get(&proc);
        let server = state.and_then(|s| Some((self.groups.get(&s.group)?.server.as_ref()?, s.local)));
        match (server, state, &self.pmix) {
            (Some((server, local)), ..) => convert::phase(server.phase(local)),
            (None, Some(state), Some(pmix)) => convert::phase(pmix.phase(state.group, state.local)),
            _ => Phase::Untouched,
        }
    }

    pub(super) fn with_server(&mut self, proc: ProcId, call: impl FnOnce(&mut Server, usize, &mut Vec<Action>)) {
        let Some(state) = self.procs.get(&proc) else { return };
        let (group, local) = (state.group, state.local);
        let Some(server) = self.groups.get_mut(&group).and_then(|g| g.server.as_mut()) else { return };
        let mut actions = Vec::new();
        call(server, local, &mut actions);
        self.carry_out(group, actions);
    }

    pub(super) fn carry_out(&mut self, group: Group, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { local, bytes } => {
                    if let Some(proc) = self.proc_at(group, local) {
                        self.acts.push(RankAct::PmiSend(proc, bytes));
                    }
                }
                Action::Close { local } => {
                    if let Some(proc) = self.proc_at(group, local) {
                        self.acts.push(RankAct::PmiClose(proc));
                    }
                }
                Action::FirstInit { rank } => self.up(&Initialised { group, rank }),
                Action::Fence { seq, blob } => self.acts.push(RankAct::Fence(group, seq, blob)),
                Action::Upcall { token, rank, call } => {
                    let Some(state) = self.groups.get_mut(&group) else { continue };
                    state.asked.insert(token, Asked::of(&call));
                    let proc = ProcId(state.spec.first_proc.0 + rank.0);
                    self.up(&Call { proc, token, ask: convert::ask(call) });
                }
                Action::Abort { rank, exitcode, message } => {
                    self.abort(group, rank, AbortCause::Asked { code: exitcode, message });
                }
                Action::Broken { rank, error } => {
                    self.abort(group, rank, AbortCause::Protocol { message: error.to_string() });
                }
                // The root judges by the exit, which carries the phase.
                Action::Left { .. } => {}
            }
        }
    }

    pub(super) fn abort(&mut self, group: Group, rank: Rank, cause: AbortCause) {
        let Some(state) = self.groups.get(&group) else { return };
        let proc = ProcId(state.spec.first_proc.0 + rank.0);
        self.up(&Abort { proc, cause });
    }

    pub(super) fn proc_at(&self, group: Group, local: usize) -> Option<ProcId> {
        self.groups.get(&group)?.procs.get(local).copied()
    }

    pub(super) fn call_answer(&mut self, message: CallAnswer) {
        if self.groups.get(&message.group).is_some_and(|g| g.spec.bootstrap == Bootstrap::Pmix) {
            return self.with_pmix(|server, out| server.answer(message.token, message.answer, out));
        }
        let Some(group) = self.groups.get_mut(&message.group) else { return };
        let (Some(asked), Some(server)) = (group.asked.remove(&message.token), group.server.as_mut()) else { return };
        let mut actions = Vec::new();
        server.answer(message.token, convert::answer(asked, message.answer), &mut actions);
        self.carry_out(message.group, actions);
    }

    pub(super) fn fence_down(&mut self, frame: &Frame) {
        let group = frame.header.group();
        let blob = match self.chunks.push(frame) {
            Ok(Some(blob)) => blob,
            Ok(None) => return,
            Err(error) => return self.fence_failed(group, &error.to_string()),
        };
        if self.groups.get(&group).is_some_and(|g| g.spec.bootstrap == Bootstrap::Pmix) {
            return self.with_pmix(|server, out| server.fence_done(group, frame.header.seq, blob, out));
        }
        let Some(server) = self.groups.get_mut(&group).and_then(|g| g.server.as_mut()) else { return };
        let mut actions = Vec::new();
        match server.fence_done(frame.header.seq, &[blob], &mut actions) {
            Ok(()) => self.carry_out(group, actions),
            // It does no harm: nobody here waits for it.
            Err(error @ FenceDoneError::NotEntered { .. }) => tracing::warn!(%error, "a fence's result is dropped"),
            Err(error @ FenceDoneError::Kvs { .. }) => {
                let limit = error.source().map_or_else(String::new, |source| format!(": {source}"));
                self.fence_failed(group, &format!("{error}{limit}"));
            }
        }
    }

    /// Ranks of this host wait for a fence that they will not leave, so the job ends.
    pub(in crate::session) fn fence_failed(&mut self, group: Group, why: &str) {
        tracing::error!(group = group.0, why, "a fence cannot be completed");
        let first = self.proc_at(group, 0).and_then(|proc| Some(self.procs.get(&proc)?.rank));
        if let Some(rank) = first {
            self.abort(group, rank, AbortCause::Protocol { message: why.to_owned() });
        }
    }

    pub(super) fn query(&mut self) {
        let report = |(group, state): (&Group, &LocalGroup)| {
            if let Some(pmix) = self.pmix.as_ref().filter(|_| state.server.is_none()) {
                return pmix.fence_state(*group);
            }
            let fence = state.server.as_ref()?.waiting()?;
            Some(FenceState { group: *group, seq: fence.seq, arrived: fence.arrived, absent: fence.missing })
        };
        let fences = self.groups.iter().filter_map(report).collect();
        self.up(&QueryReport { fences });
    }
}
