//! Ends a launcher that would wait for ever for a host that is lost: under `muster exec` that does so, elsewhere there is nobody
//! but its remote shell.
//!
//! The remote shell itself ends at once, since launchers take that for news. A process of its own looks whether that was
//! enough.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use muster_core::shell::would_wait;
use muster_sys::signals;

/// First argument of such a process.
pub const END_CALLER: &str = "end-caller";
/// Time that the launcher has after each step, in milliseconds; as under `muster exec`.
const STEP_MS: u64 = 400;
/// Time between two looks, in milliseconds.
const LOOK_MS: u64 = 20;
/// The polite end, once more for the first process of a container, which cannot be killed from within, and the hard end.
const STEPS: [&str; 3] = ["SIGTERM", "SIGTERM", "SIGKILL"];

/// A process that lives, and when it was born.
struct Caller {
    name: String,
    born: u64,
}

impl Caller {
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in brackets and may hold some of its own; the state follows.
        let (head, tail) = stat.rsplit_once(')')?;
        let mut fields = tail.split_whitespace();
        let lives = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
        let born = fields.nth(18)?.parse().ok()?;
        let name = head.split_once('(')?.1.to_owned();
        lives.then_some(Self { name, born })
    }
}

/// After the host on which this command ran was lost: sees to it that whoever waits for it ends.
pub fn end_if_it_would_wait(command: &[u8]) {
    let pid = parent_id();
    let Some(caller) = Caller::of(pid).filter(|caller| would_wait(command, &caller.name)) else { return };
    if let Err(error) = look_after(pid, caller.born) {
        tracing::debug!(%error, "the launcher is not ended");
    }
}

fn look_after(pid: u32, born: u64) -> io::Result<()> {
    let null = Stdio::null;
    let mut command = Command::new("/proc/self/exe");
    command.arg(END_CALLER).arg(pid.to_string()).arg(born.to_string()).current_dir("/");
    // In a group of its own: it outlives what its launcher ends with its own group.
    command.stdin(null()).stdout(null()).stderr(null()).process_group(0).spawn().map(drop)
}

/// What that process does.
pub fn run(arguments: &[OsString]) -> ExitCode {
    muster_sys::pipe::close_inherited();
    let number = |at: usize| arguments.get(at)?.to_str()?.parse::<u64>().ok();
    let (Some(pid), Some(born)) = (number(0).and_then(|pid| i32::try_from(pid).ok()), number(1)) else {
        return ExitCode::FAILURE;
    };
    for signal in STEPS.into_iter().filter_map(signals::number) {
        for _ in 0..STEP_MS / LOOK_MS {
            if Caller::of(pid.cast_unsigned()).is_none_or(|caller| caller.born != born) {
                return ExitCode::SUCCESS;
            }
            sleep(Duration::from_millis(LOOK_MS));
        }
        // Somebody else's process cannot be ended, and need not be: it is not the launcher then.
        let _ = signals::send(pid, signal);
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_one_that_has_its_number_later() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let seen = Caller::of(child.id()).unwrap();
        assert_eq!(Caller::of(child.id()).map(|again| again.born), Some(seen.born));
        let words = |born: u64| [child.id().to_string().into(), born.to_string().into()];
        run(&words(seen.born + 1));
        assert!(Caller::of(child.id()).is_some(), "another one is left alone");
        run(&words(seen.born));
        child.wait().unwrap();
        assert!(Caller::of(child.id()).is_none());
    }
}
