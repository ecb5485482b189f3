//! One host: a thread that lives in the host's namespaces and starts everything that runs there.

use std::net::Ipv4Addr;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cmd::{Cmd, Output};
use crate::namespaces::{self, Furniture};
use crate::proc::{Proc, SharedChild};
use crate::worker::Worker;

/// A host of the cluster. All methods may be called from any thread.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    init_pid: i32,
    init: Mutex<Child>,
    children: Mutex<Vec<SharedChild>>,
    worker: Worker,
}

impl Host {
    /// Makes the host, without a network so far. Several may be made at once on several threads.
    pub(crate) fn start(address: Ipv4Addr, furniture: Furniture) -> Result<Self> {
        let name = furniture.hostname.clone();
        let (worker, init) = Worker::start(&name, move || {
            namespaces::enter_new(&furniture)?;
            // Only devices to come lose IPv6: duplicate address detection on eth0 costs seconds, ::1 costs nothing.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            namespaces::start_init()
        })
        .with_context(|| format!("{name}: cannot make the host"))?;
        let init_pid = i32::try_from(init.id()).context("process id out of range")?;
        Ok(Self { name, address, init_pid, init: Mutex::new(init), children: Mutex::new(Vec::new()), worker })
    }

    /// Runs commands of `ip -batch` in the host's network namespace.
    pub(crate) fn configure_network(&self, lines: String) -> Result<()> {
        self.call(move || namespaces::batch("ip", &lines))?.with_context(|| format!("{}: no network", self.name))
    }

    /// The host's name, which every host of the cluster resolves.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address on the cluster's network.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Process id, as the machine counts, of the host's first process.
    pub fn init_pid(&self) -> i32 {
        self.init_pid
    }

    /// Runs a closure on the thread that lives in the host's network, mount, IPC and UTS namespaces: a socket it
    /// opens belongs to the host. One closure at a time runs, and spawning waits for it too.
    ///
    /// # Errors
    /// When the closure panicked.
    pub fn call<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.worker.call(f)
    }

    /// Starts a command on the host. It dies with the handle, with the host and with the test.
    ///
    /// # Errors
    /// When it cannot be started, for example because the program is missing or the host was killed.
    pub fn spawn(&self, cmd: Cmd) -> Result<Proc> {
        let what = format!("{}: {cmd}", self.name);
        let mut command = cmd.to_command().with_context(|| format!("{what}: cannot start"))?;
        let child = self.call(move || command.spawn())?.with_context(|| format!("{what}: cannot start"))?;
        let (proc, shared) = Proc::adopt(child, &cmd, what);
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|child| Arc::strong_count(child) > 1);
        children.push(shared);
        Ok(proc)
    }

    /// Runs a command on the host to its end.
    ///
    /// # Errors
    /// When it cannot be started or is not over within the command's own timeout; it is killed then.
    pub fn run(&self, cmd: Cmd) -> Result<Output> {
        let timeout = cmd.timeout_value();
        self.spawn(cmd)?.finish(timeout)
    }

    /// Kills every process of the host at once. Handles of its processes stay valid and report SIGKILL.
    pub(crate) fn kill(&self) {
        let mut init = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(init.try_wait(), Ok(None)) {
            // Cannot fail: it was not waited for, so its number is still its own.
            let _ = kill(Pid::from_raw(self.init_pid), Signal::SIGKILL);
        }
        // The kernel ends the first process only when all others were waited for, and our handles are their parents.
        let children = std::mem::take(&mut *self.children.lock().unwrap_or_else(PoisonError::into_inner));
        for child in children {
            let _ = child.lock().unwrap_or_else(PoisonError::into_inner).wait();
        }
        let _ = init.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}
