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
use muster_protocol::message::HostEntry;
use muster_worker_agent::session::tree::unix_address;

/// First word of the hidden command that turns this program into an agent.
pub const AGENT_WORD: &str = "agent-of-this-launcher";
/// Start of the variables that hold options. They are this launcher's; its agents are told on their command line.
const OPTION_PREFIX: &str = "MUSTER_OPT_";
/// Time that agents have to end after the job.
const END_LIMIT: Duration = Duration::from_secs(3);

/// The agents of this machine.
#[derive(Debug)]
pub struct LocalAgents {
    dir: PathBuf,
    /// By the names of their hosts.
    children: Vec<(String, Child)>,
}

impl LocalAgents {
    /// Starts one for each host and writes down where it is reached. Each has a folder of its own, which it removes when it
    /// ends.
    pub fn start(hosts: &mut [HostEntry], log: tracing::Level) -> anyhow::Result<Self> {
        Self::start_program(&std::env::current_exe().context("where is this program?")?, hosts, log)
    }

    fn start_program(program: &Path, hosts: &mut [HostEntry], log: tracing::Level) -> anyhow::Result<Self> {
        let dir = make_own_dir(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))?;
        let mut agents = Self { dir, children: Vec::new() };
        for host in hosts {
            agents.start_one(program, host, log)?;
        }
        Ok(agents)
    }

    fn start_one(&mut self, program: &Path, host: &mut HostEntry, log: tracing::Level) -> anyhow::Result<()> {
        let dir = self.dir.join(self.children.len().to_string());
        make_dir(&dir)?;
        let path = dir.join("agent");
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(OPTION_PREFIX.as_bytes()) {
                command.env_remove(name);
            }
        }
        let child = command
            .arg(AGENT_WORD)
            .args(["--log", log.as_str(), "--unix"])
            .arg(&path)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            // Of the terminal's signals only those arrive that this launcher passes on.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {} as an agent", program.display()))?;
        self.children.push((host.name.clone(), child));
        host.address = Some(unix_address(&path));
        Ok(())
    }

    /// The hosts whose agents have ended, and how.
    pub fn ended(&mut self) -> Vec<(String, String)> {
        let said = |status| format!("its agent on this machine has ended ({status}); what it said stands above");
        let ended = |(host, child): &mut (String, Child)| Some((host.clone(), said(child.try_wait().ok()??)));
        self.children.iter_mut().filter_map(ended).collect()
    }

    /// Waits for their end, and ends those that do not end by themselves.
    pub fn end(&mut self) {
        let deadline = Instant::now() + END_LIMIT;
        for (_, child) in &mut self.children {
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

/// Makes a folder for this launcher's agents, below the user's runtime folder if there is one that takes it: the variable also
/// names another user's after `su`, or one that a container does not have.
pub(crate) fn make_own_dir(runtime: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    // Process ids come again, in a container even the same ones after every restart; nanoseconds do not.
    let unique = format!("muster-{}-{:x}", std::process::id(), muster_sys::clock::monotonic_ns());
    if let Some(dir) = runtime.filter(|dir| dir.is_absolute()).map(|dir| dir.join(&unique)) {
        match make_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) => tracing::info!("{error:#}; the temporary folder is used"),
        }
    }
    let dir = std::env::temp_dir().join(unique);
    make_dir(&dir)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use muster_protocol::HostIndex;

    use super::*;

    #[test]
    fn a_runtime_folder_that_takes_nothing_is_passed_over() {
        let good = tempfile::tempdir().unwrap();
        let used = [good.path(), Path::new("/proc"), Path::new("/no/such"), Path::new(".")].map(|named| {
            let dir = make_own_dir(Some(named.to_owned())).unwrap();
            std::fs::remove_dir(&dir).unwrap();
            dir.parent().unwrap().to_owned()
        });
        let temporary = std::env::temp_dir();
        assert_eq!(used, [good.path(), &temporary, &temporary, &temporary]);
    }

    #[test]
    fn agents_that_have_ended_are_told_with_their_status() {
        let host = |i: u32| HostEntry { index: HostIndex(i), name: format!("local-{i}"), address: None, port: 0 };
        let mut hosts = [host(0), host(1)];
        let mut agents = LocalAgents::start_program(Path::new("/bin/false"), &mut hosts, tracing::Level::WARN).unwrap();
        assert!(hosts.iter().all(|h| h.address.as_ref().is_some_and(|a| a.starts_with("unix:/"))));
        for (_, child) in &mut agents.children {
            child.wait().unwrap();
        }
        let said = "its agent on this machine has ended (exit status: 1); what it said stands above";
        assert_eq!(agents.ended(), [("local-0".to_owned(), said.to_owned()), ("local-1".to_owned(), said.to_owned())]);
    }
}
