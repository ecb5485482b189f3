//! Why a job ended, and the exit status that follows.

use std::fmt;

use muster_protocol::Group;
use muster_protocol::message::{Bootstrap, ProcEnd, StartStage};

use crate::exit::Outcome;
use crate::memory;

/// A rank and where it ran, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankPlace {
    /// "rank 3", "rank 3 of world 1" or "rank 3 of spawned group 2".
    pub rank: String,
    /// Its host's name.
    pub host: String,
}

impl fmt::Display for RankPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.rank, self.host)
    }
}

/// What ended a job first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A rank ended badly by itself.
    RankEnded {
        /// Which.
        place: RankPlace,
        /// How.
        end: ProcEnd,
    },
    /// A rank ended between initialising and finalising its bootstrap; the others would wait for it for ever.
    LeftEarly {
        /// Which.
        place: RankPlace,
        /// Its exit status.
        code: u8,
    },
    /// A rank ended, or is not the kind of program, before initialising, while others of its group wait for it.
    NeverCame {
        /// Which.
        place: RankPlace,
        /// Its exit status.
        code: u8,
    },
    /// A rank asked for the end of the job.
    Aborted {
        /// Which.
        place: RankPlace,
        /// Status it asked for.
        code: i32,
        /// Its words; may be empty.
        message: String,
    },
    /// A rank broke the rules of its bootstrap protocol.
    Protocol {
        /// Which.
        place: RankPlace,
        /// What was wrong.
        message: String,
    },
    /// What serves ranks on a host has failed.
    Unserved {
        /// The host.
        host: String,
        /// What has happened.
        message: String,
    },
    /// Ranks were to use PMI or PMIx and none of them did.
    Singletons {
        /// How many ranks.
        ranks: u32,
        /// Their world, unless it is the first one.
        world: Option<Group>,
        /// Which of the two.
        bootstrap: Bootstrap,
    },
    /// Hosts could not be connected within the time allowed.
    Unreachable {
        /// Name and reason of each.
        hosts: Vec<(String, String)>,
        /// One of them holds another key or serves another job: the command is not authorised there.
        not_authorised: bool,
    },
    /// A connected host was lost.
    HostLost {
        /// Its name.
        host: String,
        /// What was seen.
        why: String,
    },
    /// The user's time limit.
    Timeout {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The user's time limit, over before all hosts were connected.
    TimeoutConnecting {
        /// The limit, in milliseconds.
        limit_ms: u64,
        /// Name and reason of each host that is missing.
        hosts: Vec<(String, String)>,
    },
    /// The user, or whoever controls this command, ended it.
    Signal {
        /// The signal.
        signal: i32,
    },
    /// A fault of our own.
    Internal {
        /// What.
        why: String,
    },
}

impl Cause {
    /// What the exit status of the command says.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::RankEnded { end, .. } => end_outcome(end),
            Self::LeftEarly { code, .. } | Self::NeverCame { code, .. } => Outcome::deserted(*code),
            Self::Aborted { code, .. } => Outcome::aborted(*code),
            Self::Protocol { .. } | Self::Unserved { .. } | Self::Singletons { .. } => Outcome::Rank(1),
            Self::Unreachable { not_authorised: true, .. } => Outcome::NotAuthorised,
            Self::Unreachable { .. } => Outcome::HostUnreachable,
            Self::HostLost { .. } => Outcome::HostLost,
            Self::Timeout { .. } | Self::TimeoutConnecting { .. } => Outcome::Timeout,
            Self::Signal { signal } => Outcome::signaled(*signal),
            Self::Internal { .. } => Outcome::Internal,
        }
    }
}

/// What the end of one rank says.
pub fn end_outcome(end: &ProcEnd) -> Outcome {
    const ENOENT: i32 = 2;
    match end {
        ProcEnd::Exited(code) => Outcome::exited(*code),
        ProcEnd::Signaled { signal, .. } => Outcome::signaled(*signal),
        ProcEnd::NotStarted { stage: StartStage::Exec, errno: ENOENT, .. } => Outcome::NotFound,
        ProcEnd::NotStarted { stage: StartStage::Exec | StartStage::Wdir, .. } => Outcome::NotExecutable,
        ProcEnd::NotStarted { .. } => Outcome::Internal,
    }
}

/// Names of the signals that end programs.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    format!("{name} (signal {signal})")
}

fn describe(end: &ProcEnd, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match end {
        ProcEnd::Exited(code) => write!(f, "exited with status {code}"),
        ProcEnd::Signaled { signal, core, memory } => {
            write!(f, "was killed by {}{}", signal_name(*signal), if *core { ", core dumped" } else { "" })?;
            memory.map_or(Ok(()), |memory| write!(f, ": {}", memory::sentence(memory)))
        }
        ProcEnd::NotStarted { what, .. } => write!(f, "could not be started: {what}"),
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RankEnded { place, end } => {
                write!(f, "{place} ")?;
                describe(end, f)
            }
            Self::LeftEarly { place, code } => {
                write!(
                    f,
                    "{place} exited with status {code} without finalising MPI; the other ranks would have waited for it"
                )
            }
            Self::NeverCame { place, code } => {
                write!(f, "{place} exited with status {code} before initialising MPI, while other ranks wait for it")
            }
            Self::Aborted { place, code, message } if message.is_empty() => {
                write!(f, "{place} aborted the job with code {code}")
            }
            Self::Aborted { place, code, message } => write!(f, "{place} aborted the job with code {code}: {message}"),
            Self::Protocol { place, message } => write!(f, "{place} broke the PMI protocol: {message}"),
            Self::Unserved { host, message } => write!(f, "on {host}: {message}"),
            Self::Singletons { ranks, world, bootstrap: Bootstrap::Pmix } => write!(
                f,
                "none of the {ranks} ranks{} spoke PMIx, so each ran as a job of its own; is the program linked against Open MPI 4 or 5? \
                 Programs that use no MPI take --bootstrap none",
                of_world(*world)
            ),
            Self::Singletons { ranks, world, .. } => write!(
                f,
                "none of the {ranks} ranks{} spoke PMI, so each ran as a job of its own; is the program linked against an MPI of the MPICH family?",
                of_world(*world)
            ),
            Self::Unreachable { hosts, .. } => {
                let total = hosts.len();
                let plural = if total == 1 { "" } else { "s" };
                write!(f, "{total} host{plural} could not be connected")?;
                list(hosts, f)
            }
            Self::HostLost { host, why } => write!(f, "host {host} was lost: {why}"),
            Self::Timeout { limit_ms } => {
                write!(f, "the job did not end within its time limit of {}", seconds(*limit_ms))
            }
            Self::TimeoutConnecting { limit_ms, hosts } => {
                let (limit, total) = (seconds(*limit_ms), hosts.len());
                let were = if total == 1 { " was" } else { "s were" };
                write!(f, "the job did not begin within its time limit of {limit}: {total} host{were} not connected")?;
                list(hosts, f)
            }
            Self::Signal { signal } => write!(f, "ended by {}", signal_name(*signal)),
            Self::Internal { why } => write!(f, "internal fault: {why}"),
        }
    }
}

fn of_world(world: Option<Group>) -> String {
    world.map_or_else(String::new, |world| format!(" of world {world}"))
}

/// Hosts and what stands between them and the launcher, the first few of them.
fn list(hosts: &[(String, String)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const NAMED_MAX: usize = 8;
    for (i, (host, why)) in hosts.iter().take(NAMED_MAX).enumerate() {
        write!(f, "{}{host}: {why}", if i == 0 { ": " } else { "; " })?;
    }
    match hosts.len().saturating_sub(NAMED_MAX) {
        0 => Ok(()),
        more => write!(f, "; and {more} more"),
    }
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{:.3} s", ms as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> RankPlace {
        RankPlace { rank: "rank 3".into(), host: "h1".into() }
    }

    #[test]
    fn statuses_follow_shells_and_never_report_success() {
        let ended = |end| Cause::RankEnded { place: place(), end }.outcome().code();
        assert_eq!(ended(ProcEnd::Exited(3)), 3);
        assert_eq!(ended(ProcEnd::Signaled { signal: 11, core: false, memory: None }), 139);
        let missing = |stage, errno| ended(ProcEnd::NotStarted { stage, errno, what: String::new() });
        assert_eq!(missing(StartStage::Exec, 2), 127);
        assert_eq!(missing(StartStage::Exec, 13), 126);
        assert_eq!(missing(StartStage::Wdir, 2), 126);
        for code in [0, 256, -256] {
            assert_eq!(Cause::Aborted { place: place(), code, message: String::new() }.outcome().code(), 1);
        }
        assert_eq!(Cause::Aborted { place: place(), code: -1, message: String::new() }.outcome().code(), 255);
        assert_eq!(Cause::LeftEarly { place: place(), code: 0 }.outcome().code(), 1);
    }

    #[test]
    fn causes_name_rank_and_host() {
        let cause =
            Cause::RankEnded { place: place(), end: ProcEnd::Signaled { signal: 9, core: false, memory: None } };
        assert_eq!(cause.to_string(), "rank 3 on h1 was killed by SIGKILL (signal 9)");
    }
}
