//! Agents and the key they share with their launcher.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cmd::Cmd;
use crate::host::Host;
use crate::proc::Proc;
use crate::workspace::{self, RunDir};

/// Starts an agent and waits until it answers at `address`, as the host sees it.
pub(crate) fn start_agent(host: &Host, address: SocketAddr, key: &Path, args: &[&str]) -> Result<Proc> {
    let cmd = Cmd::new(workspace::program("muster-agent")?).arg("--key-file").arg(key).args(args);
    let agent = host.spawn(cmd.own_session())?;
    wait_for_agent(host.name(), agent, address, |connect| host.call(connect))
}

/// Waits until an agent answers; `on_host` runs the attempt to connect on its host.
pub(crate) fn wait_for_agent(
    name: &str,
    agent: Proc,
    address: SocketAddr,
    on_host: impl Fn(Box<dyn FnOnce() -> std::io::Result<TcpStream> + Send>) -> Result<std::io::Result<TcpStream>>,
) -> Result<Proc> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = on_host(Box::new(move || TcpStream::connect_timeout(&address, Duration::from_secs(1))))?;
        let Err(error) = answer else { return Ok(agent) };
        if let Some(status) = agent.try_wait()? {
            bail!("{name}: the agent ended at once ({status}): {}", agent.stderr_so_far());
        }
        if Instant::now() > deadline {
            bail!("{name}: the agent does not listen on {address} ({error}): {}", agent.stderr_so_far());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Writes a key of 32 random bytes.
pub(crate) fn write_key(dir: &RunDir) -> Result<PathBuf> {
    let mut key = [0u8; 32];
    let mut source = std::fs::File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut key).context("cannot read /dev/urandom")?;
    let path = dir.write("job.key", &key)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).context("cannot protect the job key")?;
    Ok(path)
}
