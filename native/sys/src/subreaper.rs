//! Being the parent of every orphan below, finding them, and ending them.
//!
//! A process that forks twice and starts a session of its own leaves its process group and its parent, but not the reach
//! of the nearest subreaper: when its parents are dead it is our direct child. So nothing is left exactly when we have
//! no children left, and killing whatever descends from us, again and again, gets there.
//!
//! Two kinds of children are not ours to end: those that another part of this process claims, and [`Strangers`].

use std::collections::BTreeMap;
use std::io;

use crate::children::{self, Owner};
use crate::kin::{self, Kin, Spare, Walk, own_pid, stat};
use crate::pipe::check;
use crate::{pidfd, reap, signals};

/// A process that did not die though it was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its process id; 0 when somebody may be left who cannot be seen.
    pub pid: i32,
    /// Its name, as the kernel has it; why it cannot be seen when it cannot.
    pub name: String,
    /// The kernel's letter for its state: `D` waits for a device, `Z` is over but for its threads, `?` is unknown.
    pub state: char,
}

impl Survivor {
    fn unseen(why: &io::Error) -> Self {
        Self { pid: 0, name: format!("unknown, nobody can be seen: {why}"), state: '?' }
    }
}

/// Processes that descended from this one before it started any: what a container's entrypoint put into the background
/// before it became the agent. Sweeps spare them, what descends from them, and orphans of their sessions.
#[derive(Debug, Clone, Default)]
pub struct Strangers(
    /// When each of them started: another process with its id is not it.
    BTreeMap<i32, u64>,
);

impl Strangers {
    /// Those that are here now, but for the children that somebody in this process claims, and what descends from them.
    pub fn here() -> io::Result<Self> {
        let nobody = Owner::new();
        let hold = children::hold_knowing_others(nobody);
        let spare = Spare { pids: hold.others(nobody), ..Spare::default() };
        let walk = kin::descendants(own_pid(), &spare);
        if let Some(e) = walk.blind {
            // Without children there are no descendants, and the kernel tells that without /proc.
            return if reap::has_children()? { Err(e) } else { Ok(Self::default()) };
        }
        let mut all = BTreeMap::new();
        for kin in walk.found {
            all.extend(stat(kin.pid)?.map(|s| (kin.pid, s.start)));
        }
        Ok(Self(all))
    }

    /// Adds those that live. Our own session counts as one of theirs, because ranks never belong to it; the session of one
    /// that is dead does not, because its number may have passed to a rank.
    fn add_to(&self, spare: &mut Spare) -> io::Result<()> {
        for (pid, start) in &self.0 {
            if let Some(stat) = stat(*pid)?.filter(|s| s.start == *start) {
                spare.pids.insert(*pid);
                // The dead that nobody has waited for show none.
                spare.sessions.extend(Some(stat.session).filter(|s| *s > 0));
            }
        }
        if !self.0.is_empty() {
            // SAFETY: getsid takes an integer and touches no memory of ours; 0 is this process.
            spare.sessions.insert(check(unsafe { libc::getsid(0) })?);
        }
        Ok(())
    }
}

/// Makes orphans of all processes below fall to this process.
pub fn become_subreaper() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: this prctl takes an integer and touches no memory of ours.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on) }).map(drop)
}

/// Ids of everything that descends from a process, itself not included.
pub fn descendants_of(pid: i32) -> io::Result<Vec<i32>> {
    let walk = kin::descendants(pid, &Spare::default());
    match walk.blind {
        Some(e) => Err(e),
        None => Ok(walk.found.into_iter().map(|k| k.pid).collect()),
    }
}

/// Kills a process unless its id has passed to a stranger since it was found.
fn kill_kin(kin: Kin) -> io::Result<()> {
    let Some(process) = pidfd::open(kin.pid)? else { return Ok(()) };
    // The descriptor holds the identity; the parent, read after it was opened, proves that it is the one we found.
    if stat(kin.pid)?.is_none_or(|s| s.parent != kin.parent && s.parent != own_pid()) {
        return Ok(());
    }
    pidfd::send(&process, signals::KILL)
}

/// Kills everything that descends from this child of ours, and the child. Call it while the child lives: what outlives
/// its parent is ours then, and no longer to be told from other orphans. One that cannot be killed saves no other; the
/// last failure is returned.
pub fn kill_tree(child: i32) -> io::Result<()> {
    // Held so that the child is not reaped, and its id not given away, meanwhile.
    let hold = children::hold();
    let below = kin::descendants(child, &Spare::default());
    let mut failed = below.blind;
    if hold.is_claimed(child)
        && let Err(e) = signals::send(child, signals::KILL)
    {
        failed = Some(e);
    }
    drop(hold);
    for kin in below.found {
        if let Err(e) = kill_kin(kin) {
            failed = Some(e);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What a sweep of `owner` has to end. Finding nobody without being blind means that nobody is there.
fn look(owner: Owner, strangers: &Strangers) -> Walk {
    // Held during the walk, so that what others start meanwhile is not in it.
    let hold = children::hold_knowing_others(owner);
    let mut spare = Spare { pids: hold.others(owner), ..Spare::default() };
    let mut walk = match strangers.add_to(&mut spare) {
        Ok(()) => kin::descendants(own_pid(), &spare),
        Err(e) => Walk { blind: Some(e), ..Walk::default() },
    };
    // Who has no children has no descendants; the kernel tells that without /proc.
    if walk.found.is_empty() && walk.spared == 0 {
        match reap::has_children() {
            Ok(false) => walk.blind = None,
            Ok(true) => {
                walk.blind.get_or_insert_with(|| io::Error::other("/proc does not show all children"));
            }
            Err(e) => walk.blind = Some(e),
        }
    }
    walk
}

/// Kills everything that descends from this process but the children that others than `owner` claim, the strangers, and
/// what descends from those. Returns how many processes were found; 0 means that nothing is left. It fails when nobody
/// was found and somebody may be there.
pub fn kill_round(owner: Owner, strangers: &Strangers) -> io::Result<usize> {
    let walk = look(owner, strangers);
    for kin in &walk.found {
        // One that may not be killed (set-user-id) must not save those after it, and is found again.
        let _ = kill_kin(*kin);
    }
    match walk.blind {
        Some(e) if walk.found.is_empty() => Err(e),
        _ => Ok(walk.found.len()),
    }
}

/// What [`kill_round`] would kill, as far as it can be seen.
pub fn relatives(owner: Owner, strangers: &Strangers) -> Vec<i32> {
    look(owner, strangers).found.into_iter().map(|kin| kin.pid).collect()
}

/// Who is left of what [`kill_round`] would kill.
pub fn survivors(owner: Owner, strangers: &Strangers) -> Vec<Survivor> {
    let walk = look(owner, strangers);
    let mut left = Vec::new();
    for kin in walk.found {
        match stat(kin.pid) {
            Ok(stat) => left.extend(stat.map(|s| Survivor { pid: kin.pid, name: s.name, state: s.state })),
            Err(e) => left.push(Survivor { pid: kin.pid, ..Survivor::unseen(&e) }),
        }
    }
    left.extend(walk.blind.iter().map(Survivor::unseen));
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_known_by_its_id_and_its_start() {
        let own = stat(own_pid()).unwrap().unwrap();
        let spared = |start| {
            let mut spare = Spare::default();
            Strangers(BTreeMap::from([(own_pid(), start)])).add_to(&mut spare).unwrap();
            (spare.pids.contains(&own_pid()), spare.sessions.contains(&own.session))
        };
        assert_eq!(spared(own.start), (true, true));
        assert_eq!(spared(own.start + 1), (false, true));
        let mut spare = Spare::default();
        Strangers::default().add_to(&mut spare).unwrap();
        assert!(spare.pids.is_empty() && spare.sessions.is_empty());
    }
}
