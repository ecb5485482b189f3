//! What a job's PMIx server needs of its host: the program, a library, folders, and somebody who hears its complaints.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use muster_protocol::HostIndex;
use muster_protocol::message::Stamp;

use super::ranks::PmixSite;

/// The program beside the agent.
const PROGRAM: &str = "muster-pmix";
/// Our library, from the folder of the program.
const OWN_LIBRARY: &str = "../lib/libpmix.so.2";
/// Where the loader looks by itself.
const ANY_LIBRARY: &str = "libpmix.so.2";
/// Shared memory of a Linux host.
const SHARED_MEMORY: &str = "/dev/shm";
/// The longest line of the server that is logged whole.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Where things are for a job on this host.
pub(super) fn site(me: HostIndex, stamp: Stamp, environment: &[(OsString, OsString)]) -> PmixSite {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    let program = beside.as_ref().map(|dir| dir.join(PROGRAM)).filter(|path| path.is_file());
    let own = beside.map(|dir| dir.join(OWN_LIBRARY)).filter(|path| path.is_file());
    let temporary =
        environment.iter().find(|(name, _)| name == "TMPDIR").map_or_else(|| PathBuf::from("/tmp"), |(_, v)| v.into());
    let name = format!("muster-pmix-{:x}-{}-{me}", stamp.epoch.0, stamp.generation);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    PmixSite {
        program: program.map_or_else(|| PROGRAM.into(), Into::into),
        libraries: own.map(text).into_iter().chain([ANY_LIBRARY.to_owned()]).collect(),
        folder: text(temporary.join(&name)),
        shared_memory: Path::new(SHARED_MEMORY).is_dir().then(|| format!("{SHARED_MEMORY}/{name}")),
        // Files of ours belong to whom ranks run as.
        owner: fs::metadata("/proc/self").map_or((0, 0), |me| (me.uid(), me.gid())),
    }
}

/// Makes the folders of a job, for its owner only. What an agent that was killed has left there is removed.
pub(super) fn make_folders(site: &mut PmixSite) -> io::Result<()> {
    if site.shared_memory.as_deref().is_some_and(|folder| fresh(folder).is_err()) {
        site.shared_memory = None;
    }
    fresh(&site.folder)
}

fn fresh(folder: &str) -> io::Result<()> {
    remove(folder);
    fs::DirBuilder::new().mode(0o700).create(folder)
}

/// Removes the folders of a job.
pub(super) fn remove_folders(site: &PmixSite) {
    remove(&site.folder);
    if let Some(folder) = &site.shared_memory {
        remove(folder);
    }
}

fn remove(folder: &str) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder, %error, "a folder of the job stays");
    }
}

/// Logs what the server writes: complaints of the C library.
pub(super) fn hear(pipe: OwnedFd) {
    let listen = move || {
        if muster_sys::pipe::set_nonblocking(std::os::fd::AsFd::as_fd(&pipe), false).is_err() {
            return;
        }
        for line in BufReader::new(fs::File::from(pipe)).split(b'\n') {
            let Ok(mut line) = line else { return };
            line.truncate(LINE_BYTES_MAX);
            tracing::warn!(line = %String::from_utf8_lossy(&line), "the PMIx server says");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("pmix-log".to_owned()).spawn(listen) {
        tracing::warn!(%error, "what the PMIx server says is lost");
    }
}
