//! `--local K`: agents of this machine as processes of their own, reached over Unix sockets without a key.
//!
//! They are this program once more, so nothing has to be installed, and they outlive a launcher that is killed for just as
//! long as their lease: ranks never stay behind.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use muster_worker_agent::session::tree::unix_address;

/// First word of the hidden command that turns this program into an agent.
pub const AGENT_WORD: &str = "agent-of-this-launcher";
/// Time that agents have to end after the job.
const END_LIMIT: Duration = Duration::from_secs(3);

/// The agents of this machine.
#[derive(Debug)]
pub struct LocalAgents {
    dir: PathBuf,
    children: Vec<Child>,
    /// Their addresses, by host index.
    pub addresses: Vec<String>,
}

impl LocalAgents {
    /// Starts them. Each has a folder of its own, which it removes when it ends.
    pub fn start(count: usize, log: tracing::Level) -> anyhow::Result<Self> {
        // Process ids come again, in a container even the same ones after every restart; nanoseconds do not.
        let unique = format!("muster-{}-{:x}", std::process::id(), muster_sys::clock::monotonic_ns());
        let dir = runtime_dir().join(unique);
        make_dir(&dir)?;
        let mut agents = Self { dir, children: Vec::new(), addresses: Vec::new() };
        for i in 0..count {
            agents.start_one(i, log)?;
        }
        Ok(agents)
    }

    fn start_one(&mut self, i: usize, log: tracing::Level) -> anyhow::Result<()> {
        let dir = self.dir.join(i.to_string());
        make_dir(&dir)?;
        let path = dir.join("agent");
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let program = std::env::current_exe().context("where is this program?")?;
        let child = Command::new(&program)
            .arg(AGENT_WORD)
            .args(["--log", log.as_str(), "--unix"])
            .arg(&path)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            // Of the terminal's signals only those arrive that this launcher passes on.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {} as an agent", program.display()))?;
        self.children.push(child);
        self.addresses.push(unix_address(&path));
        Ok(())
    }

    /// Waits for their end, and ends those that do not end by themselves.
    pub fn end(&mut self) {
        let deadline = Instant::now() + END_LIMIT;
        for child in &mut self.children {
            while let Ok(None) = child.try_wait() {
                if Instant::now() >= deadline {
                    // Ranks have the parent-death signal of the agent's thread; nothing is left after this.
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.children.clear();
    }
}

impl Drop for LocalAgents {
    fn drop(&mut self) {
        self.end();
        // The agents have removed their folders; what a killed one left goes with this.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the folder {}", dir.display()))
}

fn runtime_dir() -> PathBuf {
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    named.filter(|dir| dir.is_absolute() && dir.is_dir()).unwrap_or_else(std::env::temp_dir)
}
