//! The descriptors of a rank: its own ends and the agent's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use muster_protocol::limits::LARGE_PIPES_MAX;
use muster_sys::pipe::{grow, pipe, set_nonblocking, socketpair};

use super::border::StdinSource;

/// What a rank's standard output can hold before it waits for us, where the system allows it.
const OUTPUT_PIPE_BYTES: u32 = 1 << 20;

/// The ends that a rank inherits; dropped here once it runs.
pub(super) struct RankEnds {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) pmi: Option<OwnedFd>,
}

/// The ends that the agent keeps, non-blocking.
pub(super) struct AgentEnds {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) pmi: Option<OwnedFd>,
}

fn kept(fd: OwnedFd) -> io::Result<OwnedFd> {
    set_nonblocking(fd.as_fd(), true)?;
    Ok(fd)
}

/// A descriptor that is at its end at once, as `/dev/null` is; some images have no `/dev`.
fn empty_input() -> io::Result<OwnedFd> {
    match File::open("/dev/null") {
        Ok(null) => Ok(null.into()),
        Err(_) => Ok(pipe()?.read),
    }
}

/// Makes both sides of a rank's descriptors. `others` is the number of ranks that live already.
pub(super) fn open(stdin: StdinSource, pmi: bool, others: usize) -> io::Result<(RankEnds, AgentEnds)> {
    let (rank_stdin, agent_stdin) = match stdin {
        StdinSource::Null => (empty_input()?, None),
        StdinSource::Pipe => {
            let pipe = pipe()?;
            (pipe.read, Some(kept(pipe.write)?))
        }
    };
    let (out, err) = (pipe()?, pipe()?);
    enlarge(out.write.as_fd(), others);
    let (rank_pmi, agent_pmi) = if pmi {
        let (agent, rank) = socketpair()?;
        (Some(rank), Some(kept(agent)?))
    } else {
        (None, None)
    };
    let rank = RankEnds { stdin: rank_stdin, stdout: out.write, stderr: err.write, pmi: rank_pmi };
    let agent = AgentEnds { stdin: agent_stdin, stdout: kept(out.read)?, stderr: kept(err.read)?, pmi: agent_pmi };
    Ok((rank, agent))
}

fn enlarge(output: BorrowedFd<'_>, others: usize) {
    if others < LARGE_PIPES_MAX {
        grow(output, OUTPUT_PIPE_BYTES);
    }
}
