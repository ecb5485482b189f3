//! This process itself: what it inherits and must not keep, and how it ends.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Names the descriptor of the socket to the agent.
pub const SOCKET_VARIABLE: &str = "PMI_FD";

/// Signals that are meant for ranks or for the agent: this process ends when the agent closes its socket, and not before, so that
/// ranks that end in order find it.
const IGNORED: &[i32] = &[
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGTSTP,
];

/// Why there is no socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSocket {
    /// Nobody named one.
    #[error(
        "muster-pmix is started by muster-agent, which names a socket in {SOCKET_VARIABLE}; it is not set (try --help)"
    )]
    NotNamed,
    /// That is no descriptor.
    #[error("{SOCKET_VARIABLE} is \"{0}\", which is no open descriptor")]
    NotOpen(String),
}

/// The executor has whatever it starts killed when it dies itself. This process has to tidy up then; the end of its socket tells it.
pub fn outlive_the_parent() {
    // SAFETY: takes integers and changes this process only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

/// Ignores what is not meant for this process.
pub fn ignore_signals() {
    for signal in IGNORED {
        // SAFETY: ignoring a signal runs no code. No library is loaded yet that could rely on one of them.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// A panic in any thread ends the process: without its writer or its reader it would only look alive.
pub fn die_of_panics() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        told(info);
        std::process::abort();
    }));
}

/// Whether a variable may stay while a library runs. Those of a PMIx client or of another server would change what the library
/// does; its parameters (`PMIX_MCA_…`) and its whereabouts are there to be set by people.
pub fn may_stay(name: &str) -> bool {
    let foreign = ["MUSTER_", "PMI_", "PMIX_"].iter().any(|prefix| name.starts_with(prefix));
    !foreign || name.starts_with("PMIX_MCA_") || is_place(name)
}

/// Whether a variable says where a library's files are: its plugins, its settings, its texts.
pub fn is_place(name: &str) -> bool {
    ["PMIX_PREFIX", "PMIX_SYSCONFDIR"].contains(&name) || name.starts_with("PMIX_PKG")
}

/// Removes the variables that may not stay.
///
/// # Safety
/// No other thread runs.
pub unsafe fn clean_environment() {
    let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names.iter().filter(|name| name.to_str().is_some_and(|name| !may_stay(name))) {
        // SAFETY: no other thread reads or writes the environment, by this function's contract.
        unsafe { std::env::remove_var(name) };
    }
}

/// Removes what says where another library's files are, and says where these are.
///
/// # Safety
/// No other thread reads or writes the environment while this runs.
pub unsafe fn replace_places(places: &[(&str, &std::path::Path)]) {
    let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names.iter().filter(|name| name.to_str().is_some_and(is_place)) {
        // SAFETY: this function's contract.
        unsafe { std::env::remove_var(name) };
    }
    for (name, place) in places {
        // SAFETY: this function's contract.
        unsafe { std::env::set_var(name, place) };
    }
}

/// Sets a variable unless it is set.
///
/// # Safety
/// No other thread runs.
pub unsafe fn set_default(name: &str, value: &std::ffi::OsStr) {
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread reads or writes the environment, by this function's contract.
        unsafe { std::env::set_var(name, value) };
    }
}

/// The socket that was inherited; programs that the library might start do not get it.
///
/// # Errors
/// When none was named or it is not open.
pub fn inherited_socket() -> Result<OwnedFd, NoSocket> {
    let named = std::env::var(SOCKET_VARIABLE).map_err(|_| NoSocket::NotNamed)?;
    let number: i32 = named.parse().map_err(|_| NoSocket::NotOpen(named.clone()))?;
    // SAFETY: takes integers; a number that is not open is an error.
    let rc = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if number <= 2 || rc < 0 {
        return Err(NoSocket::NotOpen(named));
    }
    // SAFETY: it is open, and whoever started this process made it for it alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether the other side of a socket has closed it, after so many milliseconds at most; -1 is any time.
pub fn is_closed(socket: BorrowedFd<'_>, milliseconds: i32) -> bool {
    let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one structure, which lives for the time of the call. An interrupted call has found nothing.
    unsafe { libc::poll(&raw mut polled, 1, milliseconds) > 0 }
}

/// Ends the process at once if it has not ended in time.
pub fn die_after(seconds: u32) {
    // SAFETY: the signal's default ends the process; no handler was ever set.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(seconds);
    }
}

/// Says why, and ends the process without cleaning up.
pub fn die(why: &str) -> ! {
    // A message that nobody can read changes nothing.
    let _ = writeln!(std::io::stderr(), "muster-pmix: {why}");
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_may_see() {
        let stay = ["PATH", "HOME", "PMIX_MCA_gds", "TMPDIR", "OMPI_MCA_btl", "PMIX_PREFIX", "PMIX_PKGLIBDIR"];
        let go = ["MUSTER_JOB", "PMI_FD", "PMI_RANK", "PMIX_RANK", "PMIX_SERVER_URI41", "PMIX_NAMESPACE"];
        assert!(stay.iter().all(|name| may_stay(name)));
        assert!(!go.iter().any(|name| may_stay(name)));
    }
}
