//! The cluster: its hosts, its launcher host, its key and its agents.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::agents::{start_agent, write_key};
use crate::host::Host;
use crate::link::Relays;
use crate::namespaces::Furniture;
use crate::parallel::in_parallel;
use crate::proc::Proc;
use crate::switch::Switch;
use crate::workspace::{self, RunDir};

/// Hosts of a cluster at most: each takes two processes' worth of threads and a network namespace.
const MAX_HOSTS: usize = 1000;
/// The kernel holds this many neighbours for all network namespaces together before it refuses more.
const NEIGHBOURS_ENOUGH: usize = 65536;

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Namespaces need rights that this process lacks.
    #[error("a cluster of namespaces needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), and this runs as user {uid}")]
    NeedsRoot {
        /// Whose process this is.
        uid: u32,
    },
    /// Anything else.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Describes a cluster.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    hosts: usize,
}

impl Builder {
    /// Sets the number of hosts beside the launcher's (1 otherwise).
    pub fn hosts(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// Makes the cluster.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<Cluster, StartError> {
        require_root()?;
        Ok(Cluster::start(self.hosts)?)
    }
}

/// Fails unless this process runs as root.
pub(crate) fn require_root() -> Result<(), StartError> {
    let user = nix::unistd::Uid::effective();
    if user.is_root() { Ok(()) } else { Err(StartError::NeedsRoot { uid: user.as_raw() }) }
}

/// Hosts on one machine. Dropping it ends all of them.
#[derive(Debug)]
pub struct Cluster {
    // In order of dropping: relays hold devices of the switch, hosts their cables, and the folder goes last.
    relays: Relays,
    hosts: Vec<Mutex<Arc<Host>>>,
    launcher: Arc<Host>,
    switch: Switch,
    key: PathBuf,
    hosts_file: PathBuf,
    resolv_file: PathBuf,
    dir: RunDir,
}

impl Cluster {
    /// Begins the description of a cluster.
    pub fn builder() -> Builder {
        Builder { hosts: 1 }
    }

    fn start(count: usize) -> Result<Self> {
        ensure!(count <= MAX_HOSTS, "a cluster has at most {MAX_HOSTS} hosts, not {count}");
        let dir = RunDir::create()?;
        raise_neighbour_limit(count);
        let hosts_file = dir.write("hosts", hosts_table(count).as_bytes())?;
        let resolv_file = dir.write("resolv.conf", b"")?;
        let key = write_key(&dir)?;
        let switch = Switch::start()?;
        let names: Vec<_> = (0..count).map(host_name).chain(["launcher".to_owned()]).collect();
        let furnish = |index: usize| furniture(&dir, &names[index], &hosts_file, &resolv_file);
        let all = in_parallel(count + 1, |i| Host::start(host_address(i, count), furnish(i)?).map(Arc::new))?;
        switch.plug(&all.iter().enumerate().map(|(i, host)| (i, &**host)).collect::<Vec<_>>())?;
        in_parallel(count + 1, |i| all[i].configure_network(network_of(&all[i])))?;
        let mut hosts = all;
        let launcher = hosts.pop().context("a cluster has a launcher")?;
        Ok(Self {
            relays: Mutex::new((0..count).map(|_| None).collect()),
            hosts: hosts.into_iter().map(Mutex::new).collect(),
            launcher,
            switch,
            key,
            hosts_file,
            resolv_file,
            dir,
        })
    }

    /// Number of hosts beside the launcher's.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether it consists of the launcher's host alone.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Host `h<index>`.
    ///
    /// # Panics
    /// When there is no such host.
    pub fn host(&self, index: usize) -> Arc<Host> {
        Arc::clone(&self.hosts[index].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The host named `launcher`.
    pub fn launcher(&self) -> Arc<Host> {
        Arc::clone(&self.launcher)
    }

    /// A file with the job key, readable on every host.
    pub fn key_file(&self) -> &Path {
        &self.key
    }

    /// A folder that every host and the test see under the same path; removed with the cluster.
    pub fn shared_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills every process of a host at once. The host's kernel lives on: it closes connections and refuses new ones.
    pub fn kill_host(&self, index: usize) {
        self.host(index).kill();
    }

    /// Switches a host off: nothing is heard of it any more, not even that connections are closed.
    ///
    /// # Errors
    /// When its link cannot be cut.
    pub fn power_off(&self, index: usize) -> Result<()> {
        self.cut(index)?;
        self.kill_host(index);
        Ok(())
    }

    /// Puts a fresh host of the same name and address in a host's place, after ending what is left of the old one.
    ///
    /// # Errors
    /// When somebody still holds the old host, or the new one cannot be made.
    pub fn restart_host(&self, index: usize) -> Result<()> {
        let mut slot = self.hosts[index].lock().unwrap_or_else(PoisonError::into_inner);
        slot.kill();
        ensure!(Arc::strong_count(&slot) == 1, "{}: cannot restart, the old host is still held", slot.name());
        self.relays()[index] = None;
        self.switch.unplug(index)?;
        let furniture = furniture(&self.dir, &host_name(index), &self.hosts_file, &self.resolv_file)?;
        let host = Host::start(host_address(index, self.len()), furniture)?;
        self.switch.plug(&[(index, &host)])?;
        host.configure_network(network_of(&host))?;
        *slot = Arc::new(host);
        Ok(())
    }

    /// Starts `muster-agent --key-file …` with more arguments on a host, and waits until its port answers.
    ///
    /// # Errors
    /// When it has not been built, ends at once or does not listen within ten seconds; with what it wrote.
    pub fn start_agent(&self, index: usize, args: &[&str]) -> Result<Proc> {
        let host = self.host(index);
        start_agent(&host, SocketAddr::from((Ipv4Addr::LOCALHOST, crate::AGENT_PORT)), &self.key, args)
    }

    /// Starts an agent on every host, several at once.
    ///
    /// # Errors
    /// As [`Cluster::start_agent`].
    pub fn start_agents(&self, args: &[&str]) -> Result<Vec<Proc>> {
        in_parallel(self.len(), |i| self.start_agent(i, args))
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    pub(crate) fn relay_table(&self) -> &Relays {
        &self.relays
    }
}

/// What a host of this name is furnished with.
pub(crate) fn furniture(dir: &RunDir, name: &str, hosts: &Path, resolv: &Path) -> Result<Furniture> {
    let hostname = dir.write(&format!("hostname.{name}"), format!("{name}\n").as_bytes())?;
    let files = vec![
        (hosts.to_path_buf(), PathBuf::from("/etc/hosts")),
        (hostname, PathBuf::from("/etc/hostname")),
        (resolv.to_path_buf(), PathBuf::from("/etc/resolv.conf")),
    ];
    Ok(Furniture { hostname: name.to_owned(), files, keep: workspace::root() })
}

fn host_name(index: usize) -> String {
    format!("h{index}")
}

/// 10.77.0.1, 10.77.0.2, …; the launcher, whose index is the number of hosts, is 10.77.255.1.
fn host_address(index: usize, count: usize) -> Ipv4Addr {
    if index == count {
        return Ipv4Addr::new(10, 77, 255, 1);
    }
    let byte = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, byte(index / 250), byte(index % 250 + 1))
}

fn hosts_table(count: usize) -> String {
    let mut table = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
    for index in 0..count {
        // Writing to a string does not fail.
        let _ = writeln!(table, "{} {}", host_address(index, count), host_name(index));
    }
    let _ = writeln!(table, "{} launcher", host_address(count, count));
    table
}

fn network_of(host: &Host) -> String {
    format!("link set lo up\naddr add {}/16 dev eth0\nlink set eth0 up\n", host.address())
}

/// Large clusters need more neighbour entries than the machine's default; the limit is only ever raised.
fn raise_neighbour_limit(hosts: usize) {
    if hosts < 24 {
        return;
    }
    let path = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";
    let now = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<usize>().ok());
    if now.is_some_and(|now| now < NEIGHBOURS_ENOUGH) {
        // Where it cannot be raised, jobs that talk all to all are slow, and the rest works.
        let _ = std::fs::write(path, NEIGHBOURS_ENOUGH.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_host_has_its_own_address() {
        let all: HashSet<_> = (0..=MAX_HOSTS).map(|i| host_address(i, MAX_HOSTS)).collect();
        assert_eq!(all.len(), MAX_HOSTS + 1);
    }
}
