//! An ssh server on every host, for the peers that Muster is compared with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::cmd::Cmd;
use crate::parallel::in_parallel;
use crate::proc::Proc;

/// Running servers, and the client that reaches them without a question.
#[derive(Debug)]
pub struct Ssh {
    /// A script that calls `ssh` with the right key and options: name it wherever a remote shell is asked for.
    pub client: PathBuf,
    servers: Vec<Proc>,
}

impl Ssh {
    /// Number of hosts it serves.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }
}

impl Cluster {
    /// Starts an ssh server on port 22 of every host; root may log in with a key made for this cluster.
    ///
    /// # Errors
    /// When OpenSSH is not installed or a server does not listen within ten seconds.
    pub fn start_sshd(&self) -> Result<Ssh> {
        let dir = self.shared_dir().join("ssh");
        std::fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let key = dir.join("key");
        let keygen = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        ensure!(keygen.context("cannot start ssh-keygen; scripts/setup.sh test installs it")?.success(), "ssh-keygen");
        let config = write_config(&dir, &key)?;
        let servers = in_parallel(self.len(), |index| {
            // Debian's server insists on this folder, and /run is not a host's own.
            let script = format!("mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f {}", config.display());
            let server = self.host(index).spawn(Cmd::sh(&script))?;
            server.wait_for("Server listening on 0.0.0.0", Duration::from_secs(10))?;
            Ok(server)
        })?;
        Ok(Ssh { client: write_client(&dir, &key)?, servers })
    }
}

/// The private key serves as the host key too: there is nothing here to be told apart by it.
fn write_config(dir: &Path, key: &Path) -> Result<PathBuf> {
    let path = dir.join("sshd_config");
    let text = format!(
        "Port 22\nListenAddress 0.0.0.0\nHostKey {key}\nAuthorizedKeysFile {key}.pub\nPidFile none\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication no\nStrictModes no\nUseDNS no\nMaxStartups 1000\n",
        key = key.display()
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn write_client(dir: &Path, key: &Path) -> Result<PathBuf> {
    let path = dir.join("ssh");
    let text = format!(
        "#!/bin/sh\nexec /usr/bin/ssh -F none -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -o BatchMode=yes \"$@\"\n",
        key.display()
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).context("cannot make the ssh client script executable")?;
    Ok(path)
}
