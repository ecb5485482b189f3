//! Which of the failures that arrive together came first.
//!
//! A rank that dies takes its sockets with it, and the MPI library of a peer may die of that: by a fault, by an abort of its own.
//! The two ends are told by different hosts, so the second one may arrive first. The clocks of hosts do not agree well enough to
//! order them, but two things are sound: an end that its agent had not been ordered to bring about came before the order to end
//! had reached that host, and a host, a `kill -9` or a rank that simply returns is never a reaction to a closed socket. So for a
//! short while after the first failure that may be a reaction, one that explains it takes its place. Ranks are ordered to end at
//! once all the same, and nobody waits for the end of this while: it is cut short by the end of the last rank.

use std::collections::BTreeSet;

use muster_protocol::ProcId;
use muster_protocol::message::{Bootstrap, Phase, ProcEnd, ProcExit};

use super::cause::Cause;
use super::machine::{Job, Stage};

/// Time after the first failure in which another may explain it, in milliseconds.
pub(super) const COLLECT_MS: u64 = 200;

/// Faults that a program takes when it did not expect a peer to be gone: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGSEGV, SIGPIPE.
/// Others come from outside, as SIGKILL does, or from its own arithmetic.
const FAULTS: [i32; 6] = [4, 5, 6, 7, 11, 13];

/// How likely a failure is the reaction to another one; only a lower one explains a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// It follows from nothing.
    None,
    /// A status of its own, or an abort: said by the program, or by a library that missed a peer.
    Spoken,
    /// A fault.
    Fault,
    /// The status with which Open MPI 5 aborts when a peer's socket closes: that is all it ever says.
    Echo,
}

/// That status.
const SOCKET_CLOSED: i32 = 14;

/// The while after a first failure that may be a reaction.
#[derive(Debug)]
pub(super) struct Collecting {
    doubt: Doubt,
    /// The rank whose failure is the cause so far.
    by: ProcId,
    /// Ranks that asked for an abort meanwhile; their exits say the same once more.
    aborted: BTreeSet<ProcId>,
    /// Counted by the first tick, since a failure arrives without a look at the clock.
    until_ms: Option<u64>,
}

impl Collecting {
    pub(super) fn due_ms(&self) -> u64 {
        self.until_ms.unwrap_or(0)
    }
}

/// What there is to doubt about the end of a rank.
fn doubt(exit: &ProcExit) -> Doubt {
    match exit.end {
        // Who never initialised has no connection to a peer, and who finalised has closed them in order.
        _ if exit.phase != Phase::Initialised => Doubt::None,
        ProcEnd::Exited(0) | ProcEnd::NotStarted { .. } => Doubt::None,
        ProcEnd::Exited(_) => Doubt::Spoken,
        ProcEnd::Signaled { signal, .. } if FAULTS.contains(&signal) => Doubt::Fault,
        ProcEnd::Signaled { .. } => Doubt::None,
    }
}

impl Job {
    /// A rank ended, and that ends the job.
    pub(super) fn fail_by_end(&mut self, cause: Cause, exit: &ProcExit) {
        let doubt = match exit.end {
            ProcEnd::Exited(code) if self.is_echo(exit.proc, code.into()) => Doubt::Echo,
            _ => doubt(exit),
        };
        self.fail_in_doubt(cause, exit.proc, doubt);
    }

    fn is_echo(&self, proc: ProcId, code: i32) -> bool {
        let group = self.table.proc(proc).and_then(|p| self.table.groups.get(&p.group));
        code == SOCKET_CLOSED && group.is_some_and(|g| g.spec.bootstrap == Bootstrap::Pmix)
    }

    /// A rank asked for the end of the job, or broke the rules of its bootstrap.
    pub(super) fn fail_by_words(&mut self, cause: Cause, proc: ProcId) {
        let doubt = match cause {
            Cause::Aborted { code, .. } if self.is_echo(proc, code) => Doubt::Echo,
            _ => Doubt::Spoken,
        };
        self.fail_in_doubt(cause, proc, doubt);
    }

    fn fail_in_doubt(&mut self, cause: Cause, by: ProcId, doubt: Doubt) {
        // The status that a finished rank left behind came first, and stays.
        if doubt > Doubt::None && self.stage == Stage::Running && self.cause.is_none() {
            self.collecting = Some(Collecting { doubt, by, aborted: BTreeSet::new(), until_ms: None });
        }
        self.fail(cause);
    }

    /// A rank asks for an abort while the job is being ended.
    pub(super) fn aborts_too(&mut self, proc: ProcId) {
        if let Some(collecting) = &mut self.collecting {
            collecting.aborted.insert(proc);
        }
    }

    /// A rank ended while the job is being ended: it may be what the first failure was a reaction to.
    pub(super) fn reconsider(&mut self, cause: Option<Cause>, exit: &ProcExit) {
        let (Some(collecting), Some(cause)) = (&mut self.collecting, cause) else { return };
        // Only a rank with connections can be missed, and what its agent was ordered to do followed from the first failure.
        let missed = exit.phase == Phase::Initialised && !exit.killed;
        let doubt = doubt(exit);
        if missed && doubt < collecting.doubt && collecting.by != exit.proc && !collecting.aborted.contains(&exit.proc)
        {
            (collecting.doubt, collecting.by) = (doubt, exit.proc);
            self.cause = Some(cause);
        }
    }

    /// A host is lost while the job is being ended: that explains what peers of its ranks may have done.
    pub(super) fn reconsider_host(&mut self, cause: &Cause) {
        if self.collecting.take_if(|c| c.doubt > Doubt::None).is_some() {
            self.cause = Some(cause.clone());
        }
    }

    /// Ends the while when its time is over.
    pub(super) fn collect(&mut self, now_ms: u64) {
        let Some(collecting) = &mut self.collecting else { return };
        if *collecting.until_ms.get_or_insert(now_ms.saturating_add(COLLECT_MS)) <= now_ms {
            self.collecting = None;
        }
    }
}
