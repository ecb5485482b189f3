//! Ranks that initialise, end or abort, and hosts that are lost or done.

use muster_protocol::event::Event;
use muster_protocol::message::{Abort, AbortCause, Ended, Initialised, Lost, Phase, ProcEnd, ProcExit};
use muster_protocol::{Group, HostIndex, ProcId};

use super::cause::Cause;
use super::machine::{Job, JobAct, Stage};

impl Job {
    pub(super) fn on_initialised(&mut self, message: &Initialised) {
        let Some(group) = self.table.groups.get_mut(message.group.0 as usize) else { return };
        group.initialised = true;
        if let Some((proc, code)) = group.untouched_end {
            let place = self.table.place(proc);
            self.fail(Cause::NeverCame { place, code });
        }
    }

    pub(super) fn on_exit(&mut self, exit: ProcExit) {
        let id = exit.proc;
        let Some(proc) = self.table.procs.get_mut(id.0 as usize) else { return };
        if proc.ended.is_some() || proc.lost {
            return;
        }
        let (group, rank, host) = (proc.group, proc.rank, proc.host);
        proc.ended = Some(exit.clone());
        self.table.alive -= 1;
        let event = Event::RankEnded {
            group,
            rank,
            proc: id,
            host: self.table.host_name(host),
            end: exit.end.clone(),
            killed: exit.killed,
            generation: self.setup.stamp.generation,
        };
        self.emit(event);
        if self.stage == Stage::Running {
            self.judge(id, group, &exit);
        }
        self.settle();
    }

    /// What the end of one rank means for the others.
    fn judge(&mut self, id: ProcId, group: Group, exit: &ProcExit) {
        let place = self.table.place(id);
        let ended = Cause::RankEnded { place: place.clone(), end: exit.end.clone() };
        let ProcEnd::Exited(code) = exit.end else {
            self.fail(ended);
            return;
        };
        match exit.phase {
            Phase::Initialised => self.fail(Cause::LeftEarly { place, code }),
            Phase::Untouched if self.table.pmi_in_use(group) => self.fail(Cause::NeverCame { place, code }),
            Phase::Untouched if code != 0 => self.fail(ended),
            Phase::Untouched => {
                if let Some(state) = self.table.groups.get_mut(group.0 as usize) {
                    state.untouched_end.get_or_insert((id, code));
                }
            }
            // Nobody waits for a rank that has finalised; the others end by themselves, and the first status counts.
            Phase::Finalised if code != 0 => {
                self.cause.get_or_insert(ended);
            }
            Phase::Finalised => {}
        }
    }

    pub(super) fn on_abort(&mut self, abort: Abort) {
        let place = self.table.place(abort.proc);
        let Some(proc) = self.table.proc(abort.proc) else { return };
        if self.stage != Stage::Running {
            return;
        }
        let event = Event::RankAborted {
            group: proc.group,
            rank: proc.rank,
            host: place.host.clone(),
            cause: abort.cause.clone(),
        };
        self.emit(event);
        let cause = match abort.cause {
            AbortCause::Asked { code, message } => Cause::Aborted { place, code, message },
            AbortCause::Protocol { message } => Cause::Protocol { place, message },
            AbortCause::Departed => {
                let message = "it closed its PMI connection without finalising".to_owned();
                Cause::Protocol { place, message }
            }
        };
        self.fail(cause);
    }

    pub(super) fn on_lost(&mut self, lost: &Lost) {
        let Some(host) = self.table.hosts.get_mut(lost.host.0 as usize) else { return };
        if host.lost {
            return;
        }
        host.lost = true;
        if host.ended {
            // Its ranks have ended and it has confirmed; what they wrote last may still have been on its way.
            let gone = self.bury(lost.host);
            self.acts.push(JobAct::OutputLost(gone));
            return;
        }
        let name = host.name.clone();
        self.emit(Event::HostLost { host: name.clone(), why: lost.why.clone() });
        let gone = self.bury(lost.host);
        if !gone.is_empty() {
            self.acts.push(JobAct::OutputLost(gone));
        }
        let cause = Cause::HostLost { host: name, why: lost.why.clone() };
        if self.stage == Stage::Closing {
            // It never confirmed: output of its ranks may be missing and processes may be left, so this is no success.
            self.cause.get_or_insert(cause);
            self.settle();
        } else {
            self.fail(cause);
        }
    }

    /// The ranks of a host count as gone: it has ended them, or their lease sees to it.
    fn bury(&mut self, host: HostIndex) -> Vec<ProcId> {
        let mut gone = Vec::new();
        for (i, proc) in self.table.procs.iter_mut().enumerate().filter(|(_, p)| p.host == host) {
            gone.push(ProcId(i as u32));
            if proc.ended.is_none() && !proc.lost {
                proc.lost = true;
                self.table.alive -= 1;
            }
        }
        gone
    }

    /// Nothing of the job is left on a host: whatever it has not told of its ranks, they are gone.
    pub(super) fn on_ended(&mut self, ended: Ended) {
        let Some(host) = self.table.hosts.get_mut(ended.host.0 as usize) else { return };
        if host.ended || host.lost || !matches!(self.stage, Stage::Ending | Stage::Closing) {
            return;
        }
        host.ended = true;
        let name = host.name.clone();
        self.bury(ended.host);
        if !ended.survivors.is_empty() {
            let survivors = ended.survivors.iter().map(|s| (s.pid, s.name.clone())).collect();
            self.emit(Event::HostStained { host: name, survivors });
        }
        self.acts.push(JobAct::StreamsEnd(ended.streams));
        self.settle();
    }
}
