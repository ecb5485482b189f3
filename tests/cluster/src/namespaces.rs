//! Making and furnishing the namespaces of one host, on the calling thread.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// What a host's namespaces are furnished with.
#[derive(Debug, Clone)]
pub(crate) struct Furniture {
    pub(crate) hostname: String,
    /// Files laid over those of the machine: (ours, theirs).
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// A folder that stays visible even when it lies below a folder that becomes the host's own.
    pub(crate) keep: PathBuf,
}

/// Folders of which every host has its own, empty one.
const PRIVATE_FOLDERS: [(&str, &str); 2] = [("/tmp", "mode=1777"), ("/dev/shm", "mode=1777")];

/// Moves the calling thread into new namespaces. Its next child is the first process of the new process namespace.
pub(crate) fn enter_new(furniture: &Furniture) -> Result<()> {
    let all = CloneFlags::CLONE_FS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID;
    unshare(all).context("cannot create namespaces")?;
    nix::unistd::sethostname(&furniture.hostname).context("cannot set the host name")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make mounts private")?;
    furnish(furniture)
}

/// Moves the calling thread into a new network namespace only.
pub(crate) fn enter_new_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")
}

fn furnish(furniture: &Furniture) -> Result<()> {
    for (ours, theirs) in &furniture.files {
        // A file that the machine lacks is not invented: that would change the machine itself.
        if theirs.exists() {
            bind(ours, theirs)?;
        }
    }
    // /sys shows the network devices of the namespace it was mounted in; libraries look for interfaces there.
    over_mount("/sys", "sysfs", "", Path::new("/sys/fs/cgroup"))?;
    for (folder, options) in PRIVATE_FOLDERS {
        over_mount(folder, "tmpfs", options, &furniture.keep)?;
    }
    Ok(())
}

/// Mounts a file system on `folder`, and brings `keep` back to its place when that lies below it.
fn over_mount(folder: &str, kind: &str, options: &str, keep: &Path) -> Result<()> {
    let hidden = if keep.starts_with(folder) { File::open(keep).ok() } else { None };
    mount(Some(kind), folder, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .with_context(|| format!("cannot mount {kind} on {folder}"))?;
    let Some(hidden) = hidden else { return Ok(()) };
    if kind == "tmpfs" {
        fs::create_dir_all(keep).with_context(|| format!("cannot create {} again", keep.display()))?;
    }
    // The open descriptor is the only way left to name what the new mount covers.
    bind(Path::new(&format!("/proc/self/fd/{}", hidden.as_raw_fd())), keep)
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot bind {} over {}", from.display(), to.display()))
}

/// Starts the first process of the thread's new process namespace. It mounts `/proc`, adopts orphans without leaving
/// zombies (`env` has SIGCHLD ignored for it; a trap of Debian's `sh` does not outlive its exec), and exits, which kills
/// all others, when its standard input closes.
pub(crate) fn start_init() -> Result<Child> {
    const SCRIPT: &str = "mount -t proc proc /proc && exec env --ignore-signal=CHLD cat";
    let mut init = Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the first process of the host")?;
    let mut stdout = init.stdout.take().context("the first process has no output")?;
    // What comes back has passed everything that the script does.
    let asked = init.stdin.as_mut().context("the first process has no input")?.write_all(b"!");
    if asked.is_err() || stdout.read_exact(&mut [0]).is_err() {
        let status = init.wait().context("cannot wait for the first process of the host")?;
        bail!("the first process of the host could not mount /proc ({status})");
    }
    Ok(init)
}

/// Runs `ip -batch` (or another tool with the same option) in the calling thread's network namespace.
pub(crate) fn batch(tool: &str, lines: &str) -> Result<()> {
    let mut child = Command::new(tool)
        .args(["-batch", "-"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {tool}; is iproute2 installed?"))?;
    let mut stdin = child.stdin.take().context("no pipe to the batch tool")?;
    stdin.write_all(lines.as_bytes()).with_context(|| format!("{tool} stopped reading its commands"))?;
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {tool}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool} -batch failed: {}", stderr.trim());
    Ok(())
}
