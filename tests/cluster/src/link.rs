//! Faults of the network: cuts, delay and loss.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::switch::PortState;

/// How a host's link treats frames, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// Added to every frame's way.
    pub delay: Duration,
    /// How many of 100 frames are lost.
    pub loss_percent: f64,
}

/// Relays between a host's cable and the bridge, by port; used where the kernel has no netem.
pub(crate) type Relays = Mutex<Vec<Option<Relay>>>;

/// A running relay and the device that stands for the host on the bridge.
#[derive(Debug)]
pub(crate) struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        // Its tap device goes with it. Both fail only when it is over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stands between cable and bridge in user space: frames wait there for their delay, or are lost.
const RELAY: &str = include_str!("relay.py");

impl Cluster {
    /// Cuts a host off: no frame passes in either direction, no interface goes down, nobody answers for it.
    ///
    /// # Errors
    /// When the bridge refuses.
    pub fn cut(&self, host: usize) -> Result<()> {
        self.set_port(host, PortState::Disabled)
    }

    /// Undoes [`Cluster::cut`].
    ///
    /// # Errors
    /// When the bridge refuses.
    pub fn heal(&self, host: usize) -> Result<()> {
        self.set_port(host, PortState::Forwarding)
    }

    /// Cuts two hosts off from each other only: each sends the other's frames to a hardware address nobody has.
    ///
    /// # Errors
    /// When a host was killed.
    pub fn cut_between(&self, a: usize, b: usize) -> Result<()> {
        for (from, to) in [(a, b), (b, a)] {
            let to = self.host(to).address();
            let line = format!("neigh replace {to} lladdr 02:00:00:00:00:01 nud permanent dev eth0\n");
            self.host(from).configure_network(line)?;
        }
        Ok(())
    }

    /// Undoes [`Cluster::cut_between`].
    ///
    /// # Errors
    /// When the two were not cut.
    pub fn heal_between(&self, a: usize, b: usize) -> Result<()> {
        for (from, to) in [(a, b), (b, a)] {
            let to = self.host(to).address();
            self.host(from).configure_network(format!("neigh del {to} dev eth0\n"))?;
        }
        Ok(())
    }

    /// Delays every frame to and from a host.
    ///
    /// # Errors
    /// As [`Cluster::shape`].
    pub fn delay(&self, host: usize, delay: Duration) -> Result<()> {
        self.shape(host, Shape { delay, ..Shape::default() })
    }

    /// Loses that many of 100 frames to and from a host.
    ///
    /// # Errors
    /// As [`Cluster::shape`].
    pub fn drop_rate(&self, host: usize, loss_percent: f64) -> Result<()> {
        self.shape(host, Shape { loss_percent, ..Shape::default() })
    }

    /// Gives a host's link another shape, instead of its present one: by netem where the kernel has it, else by a
    /// relay in user space (Python), which also limits the link to some 10,000 frames a second.
    ///
    /// # Errors
    /// When the shape makes no sense, or neither way works.
    pub fn shape(&self, host: usize, shape: Shape) -> Result<()> {
        ensure!((0.0..=100.0).contains(&shape.loss_percent), "loss is a percentage, not {}", shape.loss_percent);
        if self.netem(host, shape).is_ok() {
            return Ok(());
        }
        self.relay(host, shape).with_context(|| format!("{}: cannot shape its link", self.host(host).name()))
    }

    /// Gives a host its plain link back.
    ///
    /// # Errors
    /// When the bridge refuses.
    pub fn unshape(&self, host: usize) -> Result<()> {
        let relay = self.relays().get_mut(host).and_then(Option::take);
        if let Some(relay) = relay {
            drop(relay);
            return self.switch().batch(format!("link set v{host} master br0\n"));
        }
        self.switch().tool("tc", &["qdisc", "del", "dev", &format!("v{host}"), "root"])?;
        self.host(host).run(tc("del", &[]))?.ok().map(drop)
    }

    fn netem(&self, host: usize, shape: Shape) -> Result<()> {
        let delay = format!("{}us", shape.delay.as_micros());
        let loss = format!("{}%", shape.loss_percent);
        let netem = ["netem", "limit", "100000", "delay", &delay, "loss", &loss];
        let cable = format!("v{host}");
        self.switch().tool("tc", &[&["qdisc", "replace", "dev", &cable, "root"], &netem[..]].concat())?;
        self.host(host).run(tc("replace", &netem))?.ok().map(drop)
    }

    fn relay(&self, host: usize, shape: Shape) -> Result<()> {
        // Frames come to the relay as the sender's kernel leaves them: it must finish checksums and segments itself.
        self.host(host).run(crate::Cmd::new("python3").args(["-c", RELAY, "plain", "eth0"]))?.ok()?;
        self.relays()[host] = None;
        self.switch().batch(format!("link set v{host} nomaster\n"))?;
        let mut command = Command::new("python3");
        command.args(["-c", RELAY, "relay", &format!("v{host}"), &format!("t{host}"), "br0"]);
        command.arg(shape.delay.as_secs_f64().to_string()).arg((shape.loss_percent / 100.0).to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.switch().spawn(command)?;
        let mut ready = [0u8; 1];
        let stdout = child.stdout.take().context("the relay has no output")?;
        if std::io::Read::read_exact(&mut { stdout }, &mut ready).is_err() {
            let output = child.wait_with_output().context("cannot wait for the relay")?;
            bail!("this kernel has no netem, and the relay failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        self.relays()[host] = Some(Relay(child));
        Ok(())
    }

    fn set_port(&self, host: usize, state: PortState) -> Result<()> {
        let relayed = self.relays()[host].is_some();
        let device = format!("{}{host}", if relayed { 't' } else { 'v' });
        self.switch()
            .set_port(&device, state)
            .with_context(|| format!("{}: cannot set its link", self.host(host).name()))
    }

    pub(crate) fn relays(&self) -> std::sync::MutexGuard<'_, Vec<Option<Relay>>> {
        self.relay_table().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tc(verb: &str, qdisc: &[&str]) -> crate::Cmd {
    crate::Cmd::new("tc").args(["qdisc", verb, "dev", "eth0", "root"]).args(qdisc)
}
