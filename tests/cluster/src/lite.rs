//! Many agents on one host: for counts at which a network namespace for each would be the test's main cost.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Result, ensure};

use crate::agents::{start_agent, write_key};
use crate::cluster::{StartError, furniture, require_root};
use crate::host::Host;
use crate::parallel::in_parallel;
use crate::proc::Proc;
use crate::workspace::RunDir;

/// Addresses of the lite cluster's loopback network that are handed out.
const MAX_AGENTS: usize = 60_000;

/// Describes a lite cluster.
#[derive(Debug, Clone)]
#[must_use]
pub struct LiteBuilder {
    agents: usize,
}

impl LiteBuilder {
    /// Makes it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<LiteCluster, StartError> {
        require_root()?;
        Ok(LiteCluster::start(self.agents)?)
    }
}

/// One host, called `lite`, whose loopback network has an address and a name (`n0`, `n1`, …) for each agent. Agents
/// share everything else, so ranks of different agents see each other's files and processes.
#[derive(Debug)]
pub struct LiteCluster {
    host: Host,
    agents: usize,
    key: std::path::PathBuf,
    dir: RunDir,
}

impl LiteCluster {
    /// Begins the description of a lite cluster of that many agents.
    pub fn builder(agents: usize) -> LiteBuilder {
        LiteBuilder { agents }
    }

    fn start(agents: usize) -> Result<Self> {
        ensure!(agents <= MAX_AGENTS, "a lite cluster has at most {MAX_AGENTS} agents, not {agents}");
        let dir = RunDir::create()?;
        let mut table = "127.0.0.1 localhost lite\n".to_owned();
        for index in 0..agents {
            // Writing to a string does not fail.
            let _ = writeln!(table, "{} n{index}", address_of(index));
        }
        let hosts_file = dir.write("hosts", table.as_bytes())?;
        let resolv_file = dir.write("resolv.conf", b"")?;
        let key = write_key(&dir)?;
        let host = Host::start(Ipv4Addr::LOCALHOST, furniture(&dir, "lite", &hosts_file, &resolv_file)?)?;
        // Every address of 127.0.0.0/8 is local as soon as the loopback device is up.
        host.configure_network("link set lo up\n".to_owned())?;
        Ok(Self { host, agents, key, dir })
    }

    /// The one host on which everything runs, launcher included.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Number of agents it was made for.
    pub fn len(&self) -> usize {
        self.agents
    }

    /// Whether it was made for no agent.
    pub fn is_empty(&self) -> bool {
        self.agents == 0
    }

    /// Name of an agent's address.
    pub fn name(&self, index: usize) -> String {
        format!("n{index}")
    }

    /// Address of an agent.
    pub fn address(&self, index: usize) -> Ipv4Addr {
        address_of(index)
    }

    /// A file with the job key.
    pub fn key_file(&self) -> &Path {
        &self.key
    }

    /// A folder that the host and the test see under the same path; removed with the cluster.
    pub fn shared_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts `muster-agent --key-file … --listen ADDRESS` with more arguments, and waits until it answers.
    ///
    /// # Errors
    /// When it has not been built, ends at once or does not listen within ten seconds; with what it wrote.
    pub fn start_agent(&self, index: usize, args: &[&str]) -> Result<Proc> {
        let address = address_of(index).to_string();
        let args: Vec<&str> = ["--listen", &address].into_iter().chain(args.iter().copied()).collect();
        start_agent(&self.host, SocketAddr::from((address_of(index), crate::AGENT_PORT)), &self.key, &args)
    }

    /// Starts all agents, several at once.
    ///
    /// # Errors
    /// As [`LiteCluster::start_agent`].
    pub fn start_agents(&self, args: &[&str]) -> Result<Vec<Proc>> {
        in_parallel(self.agents, |index| self.start_agent(index, args))
    }
}

/// 127.77.0.1, 127.77.0.2, …
fn address_of(index: usize) -> Ipv4Addr {
    let byte = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 77, byte(index / 250), byte(index % 250 + 1))
}
