//! The machine itself as the only host: for tests that need neither root nor a network of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

use crate::agents::{wait_for_agent, write_key};
use crate::cmd::{Cmd, Output};
use crate::muster::PATIENCE;
use crate::proc::Proc;
use crate::workspace::{self, RunDir};

/// A folder, a job key, and loopback addresses and a port for agents that no other test uses at the same time.
#[derive(Debug)]
pub struct Here {
    dir: RunDir,
    key: PathBuf,
    port: u16,
}

impl Here {
    /// Makes it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new() -> Result<Self> {
        static PORT: AtomicU16 = AtomicU16::new(crate::AGENT_PORT);
        let dir = RunDir::create()?;
        let key = write_key(&dir)?;
        for folder in ["runtime", "home"] {
            std::fs::create_dir(dir.path().join(folder)).context("cannot create a folder")?;
        }
        Ok(Self { dir, key, port: PORT.fetch_add(1, Ordering::Relaxed) })
    }

    /// The working folder of its commands; removed with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file with the job key.
    pub fn key_file(&self) -> &Path {
        &self.key
    }

    /// The agents' port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One of four addresses. A process has its own ones, since they follow from its number.
    pub fn address(&self, index: usize) -> Ipv4Addr {
        let [_, a, b, c] = (std::process::id() << 2).to_be_bytes();
        Ipv4Addr::new(127, a, b, c | u8::try_from(index & 3).unwrap_or(0))
    }

    /// Writes a file into the folder and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        self.dir.write(name, content.as_ref())
    }

    /// A command in the folder, with a home and a runtime folder of its own.
    pub fn cmd(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
        let home = self.dir().join("home");
        Cmd::new(program).dir(self.dir()).env("XDG_RUNTIME_DIR", self.runtime_dir()).env("HOME", home).timeout(PATIENCE)
    }

    /// `muster` with these arguments.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn muster(&self, args: &[&str]) -> Result<Cmd> {
        Ok(self.cmd(workspace::program("muster")?).args(args))
    }

    /// `muster run` with the key on an agent of each of the first `agents` addresses, with that many slots each.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn run_on(&self, agents: usize, slots: usize) -> Result<Cmd> {
        let port = self.port;
        let hosts: Vec<_> = (0..agents).map(|i| format!("{}:{slots}@{port}", self.address(i))).collect();
        Ok(self.muster(&["run", "-H", &hosts.join(","), "--key-file"])?.arg(self.key_file()))
    }

    /// Where launchers put what belongs to agents of their own; empty when nothing was left behind.
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir().join("runtime")
    }

    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, cmd: Cmd) -> Result<Proc> {
        let what = cmd.to_string();
        let child = cmd
            .to_command()
            .and_then(|mut command| command.spawn())
            .with_context(|| format!("{what}: cannot start"))?;
        Ok(Proc::adopt(child, &cmd, what).0)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started or is not over within its timeout.
    pub fn run(&self, cmd: Cmd) -> Result<Output> {
        let timeout = cmd.timeout_value();
        self.spawn(cmd)?.finish(timeout)
    }

    /// `muster-agent` at an address, with this key; arguments are to be added.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn agent(&self, index: usize, key: &Path) -> Result<Cmd> {
        let (address, port) = (self.address(index).to_string(), self.port.to_string());
        let agent = self.cmd(workspace::program("muster-agent")?).args(["--listen", &address, "--port", &port]);
        Ok(agent.arg("--key-file").arg(key))
    }

    /// Starts an agent and waits until it answers.
    ///
    /// # Errors
    /// When it does not listen within ten seconds; with what it wrote.
    pub fn start(&self, agent: Cmd, index: usize) -> Result<Proc> {
        let address = SocketAddr::from((self.address(index), self.port));
        wait_for_agent("here", self.spawn(agent)?, address, |connect| Ok(connect()))
    }

    /// Starts agents with the key at the first addresses.
    ///
    /// # Errors
    /// As [`Here::start`].
    pub fn start_agents(&self, count: usize, args: &[&str]) -> Result<Vec<Proc>> {
        (0..count).map(|i| self.start(self.agent(i, self.key_file())?.args(args), i)).collect()
    }

    /// What a command wrote, with this test's folder, addresses and port replaced by `DIR`, `A0`, `A1`, … and `PORT`.
    pub fn plain(&self, text: &str) -> String {
        let mut text = text.replace(&self.dir().display().to_string(), "DIR");
        for i in 0..4 {
            text = text.replace(&self.address(i).to_string(), &format!("A{i}"));
        }
        text.replace(&format!(":{}", self.port), ":PORT")
    }
}

/// State letter of a process of this machine (`S`, `T`, `Z`…); none when it is gone.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold brackets of its own.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}
