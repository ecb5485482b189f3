//! Ends a launcher that would wait for ever for a host that is lost: under `muster exec` that does so, elsewhere there is nobody
//! but its remote shell.
//!
//! The remote shell itself ends at once, since launchers take that for news. A process of its own looks whether that was
//! enough, one for each launcher: where many hosts are lost, the launcher is asked to end once.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use muster_core::exec::{DAEMON_MS, LOST_HARD_MS, LOST_POLITE_MS};
use muster_core::shell::would_wait;
use muster_sys::identity::Identity;
use muster_sys::signals;

/// First argument of such a process.
pub const END_CALLER: &str = "end-caller";
/// Time between two looks, in milliseconds.
const LOOK_MS: u64 = 20;
/// What is done, and for how long the launcher may end by itself before each; as under `muster exec`. The last one is for the first
/// process of a container, which nothing in it can kill.
const STEPS: [(u64, &str); 3] = [
    (LOST_POLITE_MS, "SIGTERM"),
    (LOST_HARD_MS - LOST_POLITE_MS, "SIGKILL"),
    (LOST_HARD_MS - LOST_POLITE_MS, "SIGTERM"),
];

/// What has become of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its host is lost.
    Lost,
    /// It has not come up, or its agent is gone: most launchers end by themselves, some only if it had called back before.
    Other,
}

/// After the command of this process's caller has come to nothing: sees to it that whoever waits for it ends.
pub fn end_if_it_would_wait(caller: &Identity, command: &[u8], gone: Gone) {
    // Another parent is not who has started this shell.
    let same = Identity::of_parent().as_ref() == Some(caller);
    if !same || !would_wait(command, &caller.name) {
        return;
    }
    let patience_ms = if gone == Gone::Lost { 0 } else { DAEMON_MS };
    if let Err(error) = look_after(caller, patience_ms) {
        tracing::debug!(%error, "the launcher is not ended");
    }
}

fn look_after(caller: &Identity, patience_ms: u64) -> io::Result<()> {
    let null = Stdio::null;
    let mut command = Command::new("/proc/self/exe");
    command.arg(END_CALLER).args([caller.pid.to_string(), caller.start.to_string(), patience_ms.to_string()]);
    // In a group of its own: it outlives what its launcher ends with its own group.
    command.current_dir("/").stdin(null()).stdout(null()).stderr(null()).process_group(0).spawn().map(drop)
}

/// What that process does.
pub fn run(arguments: &[OsString]) -> ExitCode {
    muster_sys::pipe::close_inherited();
    let number = |at: usize| arguments.get(at)?.to_str()?.parse::<u64>().ok();
    let pid = number(0).and_then(|pid| i32::try_from(pid).ok());
    let (Some(pid), Some(start), Some(patience_ms)) = (pid, number(1), number(2)) else { return ExitCode::FAILURE };
    end(&Identity { pid, start, name: String::new() }, patience_ms);
    ExitCode::SUCCESS
}

fn end(caller: &Identity, patience_ms: u64) {
    if !ends_within(caller, patience_ms) {
        // Held until this process ends. Somebody else who has it does what is to be done.
        let _held = match only_one(caller) {
            Ok(held) => held,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return,
            Err(error) => return tracing::debug!(%error, "the launcher is not ended"),
        };
        for (time_ms, signal) in STEPS {
            if ends_within(caller, time_ms) {
                return;
            }
            // Somebody else's process cannot be ended, and need not be: it is not the launcher then.
            let _ = signals::number(signal).map(|signal| caller.signal(signal));
        }
    }
}

/// A name that only one process has at a time.
fn only_one(caller: &Identity) -> io::Result<UnixListener> {
    let name = format!("muster-{END_CALLER}-{}-{}", caller.pid, caller.start);
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

fn ends_within(caller: &Identity, time_ms: u64) -> bool {
    for _ in 0..time_ms / LOOK_MS {
        if !caller.lives() {
            return true;
        }
        sleep(Duration::from_millis(LOOK_MS));
    }
    !caller.lives()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Child;

    use super::*;

    fn start(script: &str) -> (Child, Identity) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let seen = Identity::of(child.id().cast_signed()).unwrap();
        (child, seen)
    }

    #[test]
    fn who_does_not_end_by_himself_is_asked_first() {
        let (mut child, seen) = start("exec sleep 1000");
        end(&seen, 0);
        assert_eq!(child.wait().unwrap().signal(), signals::number("SIGTERM"));
    }

    #[test]
    fn one_helper_is_enough() {
        let (mut child, seen) = start("exec sleep 1000");
        let held = only_one(&seen).unwrap();
        end(&seen, 0);
        assert!(seen.lives(), "another one looks after it");
        drop(held);
        end(&seen, 0);
        assert!(child.wait().unwrap().signal().is_some());
    }
}
