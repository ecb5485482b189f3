//! Measures how long a start of `true` takes, from the order to the running program and to its reaped end, beside the
//! standard library's two ways. Usage: `spawn_rate [STARTS] [MIB_OF_OUR_OWN]`.
#![expect(clippy::print_stdout, reason = "a measurement prints its result")]

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use muster_sys::children::Owner;
use muster_sys::clock::monotonic_ns;
use muster_sys::reap::reap;
use muster_sys::spawn::{SpawnOrder, Spawner};

fn median_us(mut ns: Vec<u64>) -> u64 {
    ns.sort_unstable();
    ns[ns.len() / 2] / 1_000
}

fn ours(starts: usize) -> (u64, u64) {
    let mut spawner = Spawner::new(Owner::new()).expect("a stack can be mapped");
    let null = File::options().read(true).write(true).open("/dev/null").expect("/dev/null is there");
    let argv = [OsString::from("true")];
    let vars: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let env: Vec<_> = vars.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())).collect();
    let (mut start, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        let before = monotonic_ns();
        let spawned = spawner
            .spawn(&SpawnOrder {
                argv: &argv,
                env: &env,
                cwd: None,
                stdin: null.as_fd(),
                stdout: null.as_fd(),
                stderr: null.as_fd(),
                extra: Some((null.as_fd(), 17)),
                cpus: None,
                limits: &[],
                umask: Some(0o22),
                terminal: false,
            })
            .expect("true is installed");
        start.push(monotonic_ns() - before);
        reap(spawned.pid).expect("it is our child");
        whole.push(monotonic_ns() - before);
    }
    (median_us(start), median_us(whole))
}

fn standard(starts: usize, forked: bool) -> (u64, u64) {
    let (mut start, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        let mut command = Command::new("true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if forked {
            // SAFETY: the hook does nothing; its presence makes the library fork instead of using posix_spawn.
            unsafe { command.pre_exec(|| Ok(())) };
        }
        let before = monotonic_ns();
        let mut child = command.spawn().expect("true is installed");
        start.push(monotonic_ns() - before);
        child.wait().expect("it is our child");
        whole.push(monotonic_ns() - before);
    }
    (median_us(start), median_us(whole))
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("arguments are numbers"));
    let (starts, mib) = (args.next().unwrap_or(1_000), args.next().unwrap_or(0));
    // Memory of ours in use shows what a copy of the page tables costs.
    let ballast: Vec<u8> = vec![1; mib << 20];
    println!("{starts} starts, medians in µs (start, start to reaped), {} MiB held", ballast.len() >> 20);
    println!("shared memory until exec: {:?}", ours(starts));
    println!("std, posix_spawn:         {:?}", standard(starts, false));
    println!("std, fork and exec:       {:?}", standard(starts, true));
}
