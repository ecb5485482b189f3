//! Which ranks live here, and what is to happen to them when. Decides; touches nothing.
//!
//! Time is milliseconds of one clock, given by the caller.

use std::collections::BTreeMap;

use muster_protocol::ProcId;
use muster_protocol::limits::{LEASE_KILL_RESERVE_MS, RANKS_PER_HOST_MAX};
use muster_sys::signals;

use super::border::Which;

/// A sweep that takes longer names who is left: the part of the fence lease that is kept for killing.
const SWEEP_LIMIT_MS: u64 = LEASE_KILL_RESERVE_MS;
/// Ranks that were killed have this long to end before the sweep looks below them.
const SWEEP_FIRST_LOOK_MS: u64 = 100;
/// Time between two looks of a sweep when nothing tells of an end.
const SWEEP_LOOK_MS: u64 = 20;

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Signal the process group that this process leads.
    SignalGroup { pid: i32, signal: i32 },
    /// Kill this process and everything descended from it, in whatever group.
    KillTree { pid: i32 },
}

/// Why a rank may not start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A process with this name still lives here.
    Lives,
    /// There are as many as a host can have.
    Full,
    /// A sweep would take it along.
    Sweeping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Asked to end; killed at this time.
    Ending {
        deadline_ms: u64,
    },
    Killed,
}

#[derive(Debug)]
struct Entry {
    proc: ProcId,
    phase: Phase,
    stopped: bool,
}

#[derive(Debug)]
struct Sweep {
    give_up_ms: u64,
    look_ms: u64,
    /// Whether somebody has ended since the last look.
    fresh: bool,
    /// Orders that this sweep answers.
    askers: usize,
}

/// How a look of a sweep ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Something is left, and there is time.
    Again,
    /// Over: this many `Swept` are due.
    Over { askers: usize },
}

/// The ranks that live here.
#[derive(Debug, Default)]
pub(super) struct RankTable {
    by_pid: BTreeMap<i32, Entry>,
    by_proc: BTreeMap<ProcId, i32>,
    sweep: Option<Sweep>,
}

impl RankTable {
    /// Whether a rank of this name may start.
    pub(super) fn admits(&self, proc: ProcId) -> Result<(), Refusal> {
        if self.by_proc.contains_key(&proc) {
            Err(Refusal::Lives)
        } else if self.by_pid.len() >= RANKS_PER_HOST_MAX as usize {
            Err(Refusal::Full)
        } else if self.sweep.is_some() {
            Err(Refusal::Sweeping)
        } else {
            Ok(())
        }
    }

    /// A rank has started.
    pub(super) fn started(&mut self, proc: ProcId, pid: i32) {
        self.by_pid.insert(pid, Entry { proc, phase: Phase::Running, stopped: false });
        self.by_proc.insert(proc, pid);
    }

    /// Whether this process is a rank that nobody here wants to end.
    pub(super) fn is_wanted(&self, pid: i32) -> bool {
        self.sweep.is_none() && self.by_pid.get(&pid).is_some_and(|entry| entry.phase == Phase::Running)
    }

    /// A process has ended; says which rank it was.
    pub(super) fn exited(&mut self, pid: i32) -> Option<ProcId> {
        self.child_ended();
        let entry = self.by_pid.remove(&pid)?;
        self.by_proc.remove(&entry.proc);
        Some(entry.proc)
    }

    /// Some child has ended, perhaps not a rank.
    pub(super) fn child_ended(&mut self) {
        if let Some(sweep) = &mut self.sweep {
            sweep.fresh = true;
        }
    }

    /// Number of ranks that live.
    pub(super) fn len(&self) -> usize {
        self.by_pid.len()
    }

    fn pids(&self, which: &Which) -> Vec<i32> {
        match which {
            Which::All => self.by_pid.keys().copied().collect(),
            Which::Some(procs) => procs.iter().filter_map(|p| self.by_proc.get(p).copied()).collect(),
        }
    }

    /// Forwards a signal.
    pub(super) fn signal(&mut self, which: &Which, signal: i32) -> Vec<Act> {
        // A rank's group has no terminal and no parent in its session ("orphaned"), and there the kernel ignores the
        // stop that a terminal would send. Only the one that cannot be caught works.
        let signal = if signal == signals::TERMINAL_STOP { signals::STOP } else { signal };
        let pids = self.pids(which);
        for pid in &pids {
            if let Some(entry) = self.by_pid.get_mut(pid) {
                match signal {
                    signals::STOP => entry.stopped = true,
                    signals::CONTINUE => entry.stopped = false,
                    signals::KILL => entry.phase = Phase::Killed,
                    _ => {}
                }
            }
        }
        pids.into_iter().map(|pid| Act::SignalGroup { pid, signal }).collect()
    }

    /// Ends ranks, politely unless the grace is 0.
    pub(super) fn kill(&mut self, which: &Which, grace_ms: u64, now_ms: u64) -> Vec<Act> {
        let deadline_ms = now_ms.saturating_add(grace_ms);
        let mut acts = Vec::new();
        for pid in self.pids(which) {
            let Some(entry) = self.by_pid.get_mut(&pid) else { continue };
            if grace_ms == 0 {
                hard_kill(pid, entry, &mut acts);
                continue;
            }
            match entry.phase {
                Phase::Running => {
                    entry.phase = Phase::Ending { deadline_ms };
                    acts.push(Act::SignalGroup { pid, signal: signals::TERMINATE });
                    if std::mem::take(&mut entry.stopped) {
                        // A stopped process cannot act on it.
                        acts.push(Act::SignalGroup { pid, signal: signals::CONTINUE });
                    }
                }
                // Asked already: it is not asked again, and never gets more time than it was given first.
                Phase::Ending { deadline_ms: earlier } => {
                    entry.phase = Phase::Ending { deadline_ms: earlier.min(deadline_ms) };
                }
                Phase::Killed => {}
            }
        }
        acts
    }

    /// What the time demands.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        for (pid, entry) in &mut self.by_pid {
            if let Phase::Ending { deadline_ms } = entry.phase
                && deadline_ms <= now_ms
            {
                hard_kill(*pid, entry, &mut acts);
            }
        }
        acts
    }

    /// Begins a sweep, or joins the one under way.
    pub(super) fn sweep(&mut self, now_ms: u64) -> Vec<Act> {
        match &mut self.sweep {
            Some(sweep) => {
                sweep.askers += 1;
                // What was asked for later may take its own time.
                sweep.give_up_ms = now_ms.saturating_add(SWEEP_LIMIT_MS);
            }
            None => {
                self.sweep = Some(Sweep {
                    give_up_ms: now_ms.saturating_add(SWEEP_LIMIT_MS),
                    look_ms: now_ms.saturating_add(SWEEP_FIRST_LOOK_MS),
                    fresh: true,
                    askers: 1,
                });
            }
        }
        let mut acts = Vec::new();
        for (pid, entry) in &mut self.by_pid {
            entry.phase = Phase::Killed;
            acts.push(Act::SignalGroup { pid: *pid, signal: signals::KILL });
        }
        acts
    }

    /// Whether the sweep wants to look for what is left now: when the last rank and whoever else ended, so that what they
    /// left has fallen to us, or when waiting for that takes long.
    pub(super) fn wants_look(&self, now_ms: u64) -> bool {
        self.sweep.as_ref().is_some_and(|s| (self.by_pid.is_empty() && s.fresh) || s.look_ms <= now_ms)
    }

    /// A look has found (and killed) this many.
    pub(super) fn looked(&mut self, found: usize, now_ms: u64) -> Look {
        let empty = found == 0 && self.by_pid.is_empty();
        match &mut self.sweep {
            Some(sweep) if !empty && now_ms < sweep.give_up_ms => {
                sweep.fresh = false;
                sweep.look_ms = now_ms.saturating_add(SWEEP_LOOK_MS).min(sweep.give_up_ms);
                Look::Again
            }
            _ => Look::Over { askers: self.sweep.take().map_or(0, |s| s.askers) },
        }
    }

    /// When the next thing is due; none while nothing is, so that an idle executor never wakes.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        let ending = self.by_pid.values().filter_map(|e| match e.phase {
            Phase::Ending { deadline_ms } => Some(deadline_ms),
            Phase::Running | Phase::Killed => None,
        });
        ending.chain(self.sweep.as_ref().map(|s| s.look_ms)).min()
    }
}

/// The group first, in one call; then whatever has left the group.
fn hard_kill(pid: i32, entry: &mut Entry, acts: &mut Vec<Act>) {
    entry.phase = Phase::Killed;
    acts.push(Act::KillTree { pid });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pids: &[(u32, i32)]) -> RankTable {
        let mut table = RankTable::default();
        for (proc, pid) in pids {
            table.started(ProcId(*proc), *pid);
        }
        table
    }

    fn group(pid: i32, signal: i32) -> Act {
        Act::SignalGroup { pid, signal }
    }

    const TERM: i32 = signals::TERMINATE;
    const KILL: i32 = signals::KILL;

    #[test]
    fn politely_then_hard() {
        let mut t = table(&[(0, 100), (1, 101)]);
        assert_eq!(t.next_deadline_ms(), None);
        assert_eq!(t.kill(&Which::All, 50, 1_000), [group(100, TERM), group(101, TERM)]);
        assert_eq!(t.next_deadline_ms(), Some(1_050));
        assert_eq!(t.due(1_049), []);
        assert_eq!(t.exited(100), Some(ProcId(0)));
        assert_eq!(t.due(1_050), [Act::KillTree { pid: 101 }]);
        assert_eq!((t.due(2_000), t.next_deadline_ms()), (vec![], None));
    }

    #[test]
    fn a_second_kill_shortens_the_grace_and_never_lengthens_it() {
        let mut t = table(&[(0, 100)]);
        t.kill(&Which::All, 5_000, 0);
        assert_eq!(t.kill(&Which::All, 9_000, 10), []);
        assert_eq!(t.next_deadline_ms(), Some(5_000));
        assert_eq!(t.kill(&Which::All, 100, 20), []);
        assert_eq!(t.next_deadline_ms(), Some(120));
        assert_eq!(t.kill(&Which::All, 0, 30), [Act::KillTree { pid: 100 }]);
        assert_eq!(t.kill(&Which::All, 10, 40), []);
    }

    #[test]
    fn only_those_meant_are_touched_and_strangers_passed_over() {
        let mut t = table(&[(3, 100), (5, 101)]);
        let some = Which::Some(vec![ProcId(5), ProcId(9)]);
        assert_eq!(t.signal(&some, 10), [group(101, 10)]);
        assert_eq!(t.kill(&some, 0, 0), [Act::KillTree { pid: 101 }]);
        assert_eq!(t.exited(999), None);
        assert_eq!(t.len(), 2);
    }

    #[test]
    fn a_terminal_stop_becomes_a_stop_and_a_stopped_rank_is_woken_to_end() {
        let mut t = table(&[(0, 100)]);
        assert_eq!(t.signal(&Which::All, signals::TERMINAL_STOP), [group(100, signals::STOP)]);
        assert_eq!(t.kill(&Which::All, 10, 0), [group(100, TERM), group(100, signals::CONTINUE)]);
        let mut t = table(&[(0, 100)]);
        t.signal(&Which::All, signals::STOP);
        t.signal(&Which::All, signals::CONTINUE);
        assert_eq!(t.kill(&Which::All, 10, 0), [group(100, TERM)]);
    }

    #[test]
    fn a_sweep_looks_when_the_last_rank_is_gone() {
        let mut t = table(&[(0, 100), (1, 101)]);
        assert_eq!(t.sweep(0), [group(100, KILL), group(101, KILL)]);
        assert!(!t.wants_look(1));
        t.exited(100);
        assert!(!t.wants_look(2));
        t.exited(101);
        assert!(t.wants_look(3));
        assert_eq!(t.looked(1, 3), Look::Again);
        assert!(!t.wants_look(4), "nobody has ended since");
        t.child_ended();
        assert!(t.wants_look(5));
        assert_eq!(t.looked(0, 5), Look::Over { askers: 1 });
        assert_eq!((t.wants_look(9_999), t.next_deadline_ms()), (false, None));
    }

    #[test]
    fn a_sweep_over_nothing_looks_at_once() {
        let mut t = table(&[]);
        assert_eq!(t.sweep(7), []);
        assert!(t.wants_look(7));
    }

    #[test]
    fn a_sweep_gives_up_on_what_will_not_die_and_ends_for_all_who_asked() {
        let mut t = table(&[(0, 100)]);
        t.sweep(0);
        t.sweep(10);
        assert_eq!(t.next_deadline_ms(), Some(SWEEP_FIRST_LOOK_MS));
        let mut looks = 0;
        let over = loop {
            let now = t.next_deadline_ms().unwrap();
            assert!(t.wants_look(now));
            looks += 1;
            if let Look::Over { askers } = t.looked(1, now) {
                break (askers, now);
            }
        };
        assert_eq!(over, (2, 10 + SWEEP_LIMIT_MS));
        assert!(looks > 10);
        // It may start again, and the rank is still known.
        assert_eq!(t.admits(ProcId(0)), Err(Refusal::Lives));
        assert_eq!(t.exited(100), Some(ProcId(0)));
    }

    #[test]
    fn who_may_start() {
        let mut t = table(&[(0, 100)]);
        assert_eq!(t.admits(ProcId(0)), Err(Refusal::Lives));
        assert_eq!(t.admits(ProcId(1)), Ok(()));
        t.sweep(0);
        assert_eq!(t.admits(ProcId(1)), Err(Refusal::Sweeping));
        let all: Vec<_> = (0..RANKS_PER_HOST_MAX).map(|i| (i, i.cast_signed() + 100)).collect();
        assert_eq!(table(&all).admits(ProcId(RANKS_PER_HOST_MAX)), Err(Refusal::Full));
    }
}
