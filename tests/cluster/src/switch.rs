//! The cluster's network: a bridge in a namespace of its own, one port for each host.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::host::Host;
use crate::namespaces;
use crate::worker::Worker;

/// Whether a port passes frames on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PortState {
    Disabled = 0,
    Forwarding = 3,
}

/// The bridge, by the thread that keeps its namespace.
#[derive(Debug)]
pub(crate) struct Switch {
    worker: Worker,
}

impl Switch {
    pub(crate) fn start() -> Result<Self> {
        let (worker, ()) = Worker::start("switch", || {
            namespaces::enter_new_network()?;
            // A bridge address or IPv6 on its ports would only add traffic.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            namespaces::batch("ip", "link add br0 type bridge stp_state 0 mcast_snooping 0\nlink set br0 up\n")
        })
        .context("cannot make the cluster's network")?;
        Ok(Self { worker })
    }

    /// Gives each host a cable: `eth0` inside, `v<port>` here. The host still has to give it an address.
    pub(crate) fn plug(&self, hosts: &[(usize, &Host)]) -> Result<()> {
        let mut lines = String::new();
        for (port, host) in hosts {
            let [_, _, c, d] = host.address().octets();
            // Writing to a string does not fail.
            let _ = writeln!(
                lines,
                "link add v{port} type veth peer name eth0 address 02:00:0a:4d:{c:02x}:{d:02x} netns {}\n\
                 link set v{port} master br0 up",
                host.init_pid()
            );
        }
        self.batch(lines).context("cannot connect the hosts")
    }

    /// Takes a host's cable away, if it has one.
    pub(crate) fn unplug(&self, port: usize) -> Result<()> {
        // The device goes by itself some time after the host's namespace: either order is right.
        let _ = self.batch(format!("link del v{port}\n"));
        Ok(())
    }

    /// Lets a port pass frames or not. No side sees its link go down, and nothing answers in the other's place.
    pub(crate) fn set_port(&self, device: &str, state: PortState) -> Result<()> {
        self.tool("bridge", &["link", "set", "dev", device, "state", &(state as u8).to_string()])
    }

    pub(crate) fn batch(&self, lines: String) -> Result<()> {
        self.worker.call(move || namespaces::batch("ip", &lines))?
    }

    /// Runs a network tool in the switch's namespace.
    pub(crate) fn tool(&self, program: &str, args: &[&str]) -> Result<()> {
        let line = format!("{program} {}", args.join(" "));
        let mut command = tool_command(program, args);
        let output = self.worker.call(move || command.output())?.with_context(|| format!("cannot start {program}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{line}` failed: {}", stderr.trim());
        Ok(())
    }

    /// Starts a process in the switch's network namespace (and no other of its own).
    pub(crate) fn spawn(&self, mut command: Command) -> Result<std::process::Child> {
        self.worker.call(move || command.spawn())?.context("cannot start a process in the cluster's network")
    }
}

pub(crate) fn tool_command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}
