//! Ranks that initialise, end or abort, and hosts that are lost or done.

use muster_protocol::event::Event;
use muster_protocol::message::{
    Abort, AbortCause, Ended, Initialised, Lost, Phase, ProcEnd, ProcExit, StartStage, StreamEnd,
};
use muster_protocol::{Group, HostIndex, HostSet, ProcId};

use super::cause::Cause;
use super::machine::{Job, JobAct, Stage};

impl Job {
    pub(super) fn on_initialised(&mut self, message: &Initialised) {
        let Some(group) = self.table.groups.get_mut(&message.group) else { return };
        group.initialised = true;
        if let Some((proc, code)) = group.untouched_end {
            let cause = Cause::NeverCame { place: self.table.place(proc), code };
            if self.goes_on() {
                return self.go_on_without_silent(message.group, cause);
            }
            self.fail(cause);
        }
    }

    pub(super) fn on_exit(&mut self, exit: ProcExit) {
        let id = exit.proc;
        let Some(proc) = self.table.end(&exit) else { return };
        let (group, rank, host) = (proc.group, proc.rank, proc.host);
        self.unheard.remove(&(host, group));
        self.answers.forget(id);
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
        match self.stage {
            Stage::Running => self.judge(group, &exit),
            Stage::Ending => {
                let cause = self.failure(group, &exit);
                self.reconsider(cause, &exit);
            }
            _ => {}
        }
        self.exchange_ended(&exit);
        self.forget_if_over(group);
        self.settle();
    }

    /// What the end of one rank means for the others.
    fn judge(&mut self, group: Group, exit: &ProcExit) {
        if exit.killed || is_cancelled(&exit.end) {
            // No order went out, so the agent acts on its own: its lease is over, and it serves this job no longer.
            let host = self.table.place(exit.proc).host;
            let why = "its agent has ended its ranks: it had not heard from the launcher for as long as they may live";
            let cause = Cause::HostLost { host, why: why.to_owned() };
            if self.goes_on() {
                return self.go_on_without(cause, &[exit.proc]);
            }
            self.fail(cause);
            return;
        }
        if let Some(cause) = self.failure(group, exit) {
            if self.goes_on() && !(exit.phase == Phase::Untouched && self.has_neighbours(exit.proc)) {
                return self.go_on_without(cause, &[exit.proc]);
            }
            self.fail_by_end(cause, exit);
            return;
        }
        self.survival.survived |= exit.phase == Phase::Finalised || exit.end == ProcEnd::Exited(0);
        match (exit.phase, &exit.end) {
            (Phase::Untouched, ProcEnd::Exited(code)) => {
                if let Some(state) = self.table.groups.get_mut(&group) {
                    state.untouched_end.get_or_insert((exit.proc, *code));
                }
            }
            // Nobody waits for a rank that has finalised; the others end by themselves, and the first status counts.
            (Phase::Finalised, ProcEnd::Exited(code)) if *code != 0 => {
                let place = self.table.place(exit.proc);
                self.cause.get_or_insert(Cause::RankEnded { place, end: exit.end.clone() });
            }
            _ => {}
        }
    }

    /// Why the end of one rank is the end of the job, if it is.
    fn failure(&self, group: Group, exit: &ProcExit) -> Option<Cause> {
        let place = self.table.place(exit.proc);
        let ended = |place| Some(Cause::RankEnded { place, end: exit.end.clone() });
        let ProcEnd::Exited(code) = exit.end else { return ended(place) };
        match exit.phase {
            Phase::Initialised => Some(Cause::LeftEarly { place, code }),
            Phase::Untouched if self.table.pmi_in_use(group) => Some(Cause::NeverCame { place, code }),
            Phase::Untouched if code != 0 => ended(place),
            Phase::Untouched | Phase::Finalised => None,
        }
    }

    pub(super) fn on_abort(&mut self, abort: Abort) {
        let place = self.table.place(abort.proc);
        let Some(proc) = self.table.proc(abort.proc) else { return };
        if proc.lost || self.table.hosts.get(proc.host.0 as usize).is_some_and(|h| h.lost) {
            // Its host was given up before; what happens there concerns nobody.
            return;
        }
        if self.stage != Stage::Running {
            self.aborts_too(abort.proc);
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
            AbortCause::Unserved { message } => Cause::Unserved { host: place.host, message },
            AbortCause::Departed => {
                let message = "it closed its PMI connection without finalising".to_owned();
                Cause::Protocol { place, message }
            }
        };
        self.fail_by_words(cause, abort.proc);
    }

    pub(super) fn on_lost(&mut self, lost: &Lost) {
        let Some(host) = self.table.hosts.get_mut(lost.host.0 as usize) else { return };
        if host.lost {
            return;
        }
        if self.stage == Stage::Connecting {
            self.missing_again(lost);
            return;
        }
        host.lost = true;
        if host.ended || self.stage == Stage::Over {
            // Its ranks have ended and it has confirmed; what they wrote last may still have been on its way.
            let gone = self.bury(lost.host);
            if !gone.is_empty() {
                self.acts.push(JobAct::OutputLost(gone));
            }
            return;
        }
        let name = host.name.clone();
        self.emit(Event::HostLost { host: name.clone(), why: lost.why.clone() });
        let gone = self.bury(lost.host);
        let died = gone.iter().copied().filter(|id| self.table.proc(*id).is_some_and(|p| p.lost)).collect::<Vec<_>>();
        if !gone.is_empty() {
            self.acts.push(JobAct::OutputLost(gone));
        }
        let cause = Cause::HostLost { host: name, why: lost.why.clone() };
        if self.stage == Stage::Running && self.goes_on() {
            self.go_on_without(cause, &died);
            self.forget_what_is_over();
            self.settle();
        } else if self.stage == Stage::Closing {
            // It never confirmed: output of its ranks may be missing and processes may be left, so this is no success.
            self.cause.get_or_insert(cause);
            self.settle();
        } else {
            self.reconsider_host(&cause);
            self.fail(cause);
        }
    }

    /// The ranks of a host count as gone: it has ended them, or their lease sees to it.
    fn bury(&mut self, host: HostIndex) -> Vec<ProcId> {
        self.unheard.retain(|(to, _), _| *to != host);
        let gone = self.table.bury(host);
        self.exchange_lost(host, &gone);
        gone
    }

    /// Nothing of the job is left on these hosts: whatever they have not told of their ranks, they are gone. Who has said so
    /// before, or is lost, may be among them.
    pub(super) fn on_ended(&mut self, ended: Ended) {
        if !matches!(self.stage, Stage::Ending | Stage::Closing) {
            return;
        }
        let mut news = HostSet::new();
        for index in ended.hosts.iter() {
            let Some(host) = self.table.hosts.get_mut(index.0 as usize).filter(|h| !h.ended && !h.lost) else {
                continue;
            };
            host.ended = true;
            let host = host.name.clone();
            news.insert(index);
            self.bury(index);
            if !ended.survivors.is_empty() {
                let survivors = ended.survivors.iter().map(|s| (s.pid, s.name.clone())).collect();
                self.emit(Event::HostStained { host, survivors });
            }
        }
        if news.is_empty() {
            return;
        }
        let is_news = |end: &StreamEnd| self.table.proc(end.proc).is_none_or(|proc| news.contains(proc.host));
        let streams = ended.streams.into_iter().filter(is_news).collect();
        self.acts.push(JobAct::StreamsEnd(streams));
        self.settle();
    }
}

/// Whether a start was called off before its turn had come, because its host ends what it runs.
fn is_cancelled(end: &ProcEnd) -> bool {
    const ECANCELED: i32 = 125;
    matches!(end, ProcEnd::NotStarted { stage: StartStage::Setup, errno: ECANCELED, .. })
}
