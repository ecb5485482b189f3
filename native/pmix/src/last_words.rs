//! Whether the library has heard everything that a rank said before it ended.
//!
//! The kernel closes a rank's connection before the agent hears of its end, so whatever the rank has said lies in a socket of this
//! process by then, with the end behind it. But the library's thread may not have come to it. It closes a socket when it has read to
//! the end, and has handed on what came before; until then the kernel says of that socket that its other end is gone. That is so with
//! every release, while an event of a lost connection comes from some of them only, and for some clients.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _};
use std::thread::sleep;
use std::time::Duration;

/// Longest time that the library is given to read to the end, in milliseconds. It needs less than one, unless its thread is kept from
/// running; something else may hold the socket, which must not hold up the news of the rank's end.
const READING_MS_MAX: u32 = 500;
/// Where the kernel names what a process has open.
const OPEN_FILES: &str = "/proc/self/fd";

/// See the module above.
#[derive(Debug)]
pub struct LastWords {
    /// The socket to the agent, which is none of a rank's.
    own: Option<String>,
    /// Sockets that the library has left open for too long once; they are not waited for again.
    given_up: BTreeSet<String>,
}

impl LastWords {
    /// Of ranks, in a process with this socket to its agent.
    pub fn new(agent: &impl AsFd) -> Self {
        let own = name_of(&agent.as_fd().as_raw_fd().to_string());
        Self { own, given_up: BTreeSet::new() }
    }

    /// Waits until the library has heard everything that was said by ranks which have ended by now.
    pub fn wait(&mut self) {
        let mut unread = self.ended();
        self.given_up.retain(|name| unread.contains(name));
        unread.retain(|name| !self.given_up.contains(name));
        for _ in 0..READING_MS_MAX {
            if unread.is_empty() {
                return;
            }
            sleep(Duration::from_millis(1));
            let now = self.ended();
            unread.retain(|name| now.contains(name));
        }
        self.given_up.append(&mut unread);
    }

    /// Sockets whose other end is gone, by the kernel's names for them: numbers of descriptors are used again.
    fn ended(&self) -> BTreeSet<String> {
        let Ok(open) = fs::read_dir(OPEN_FILES) else { return BTreeSet::new() };
        let mut names = Vec::new();
        let mut polled = Vec::new();
        for number in open.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let Some(name) = name_of(&number).filter(|name| self.own.as_ref() != Some(name)) else { continue };
            let Ok(fd) = number.parse() else { continue };
            names.push(name);
            polled.push(libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 });
        }
        // SAFETY: the structures live for the time of the call. A descriptor that was closed meanwhile is reported as such.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 0) };
        let ended = |polled: &libc::pollfd| polled.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0;
        names.into_iter().zip(&polled).filter(|(_, polled)| ended(polled)).map(|(name, _)| name).collect()
    }
}

/// What a descriptor is, if it is a socket.
fn name_of(number: &str) -> Option<String> {
    let target = fs::read_link(format!("{OPEN_FILES}/{number}")).ok()?;
    target.to_str().filter(|name| name.starts_with("socket:")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().expect("a socket pair")
    }

    #[test]
    fn a_socket_is_unread_from_the_end_of_the_other_side_until_it_is_closed() {
        let (agent, _kept) = pair();
        let (ours, theirs) = pair();
        let words = LastWords::new(&agent);
        let name = name_of(&ours.as_raw_fd().to_string()).expect("a socket");
        assert!(!words.ended().contains(&name));
        drop(theirs);
        assert!(words.ended().contains(&name));
        drop(ours);
        assert!(!words.ended().contains(&name));
    }

    #[test]
    fn the_agents_own_end_is_none_of_a_ranks() {
        let (agent, other) = pair();
        let words = LastWords::new(&agent);
        drop(other);
        let name = name_of(&agent.as_raw_fd().to_string()).expect("a socket");
        assert!(!words.ended().contains(&name));
        let (foreign, _kept) = pair();
        assert!(LastWords::new(&foreign).ended().contains(&name));
    }

    #[test]
    fn a_socket_that_stays_open_is_waited_for_once() {
        let (agent, _kept) = pair();
        let (ours, theirs) = pair();
        let name = name_of(&ours.as_raw_fd().to_string()).expect("a socket");
        drop(theirs);
        let mut words = LastWords::new(&agent);
        words.wait();
        assert!(words.given_up.contains(&name));
        words.wait();
        assert!(words.given_up.contains(&name), "it is still there");
        drop(ours);
        words.wait();
        assert!(!words.given_up.contains(&name));
    }
}
