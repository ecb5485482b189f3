//! What a job's PMIx server needs of its host: the program, a library, folders, and somebody who hears its complaints.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_core::params::Params;
use muster_core::plan::circumstances::FABRICS;
use muster_core::pmix::Machine;
use muster_protocol::HostIndex;
use muster_protocol::message::Stamp;
use muster_sys::proc;

use super::ranks::PmixSite;
use crate::file::{PARAMS_BYTES_MAX, beginning};

/// The program beside the agent.
const PROGRAM: &str = "muster-pmix";
/// Our library, from the folder of the program.
const OWN_LIBRARY: &str = "../lib/libpmix.so.2";
/// Where the loader looks by itself.
const ANY_LIBRARY: &str = "libpmix.so.2";
/// Shared memory of a Linux host.
const SHARED_MEMORY: &str = "/dev/shm";
/// Where Linux lists devices by their kind.
const DEVICES: &str = "/sys/class";
/// Open MPI's parameters, in a home and in an installation.
const PARAMS_OF_USER: &str = ".openmpi/mca-params.conf";
const PARAMS: &str = "openmpi-mca-params.conf";
/// Folders of parameters that do not follow from where an installation lies.
const PARAMS_FOLDERS: [&str; 3] = ["/etc/openmpi", "/etc/openmpi-x86_64", "/usr/local/etc"];
/// Time to read them in.
const PARAMS_LIMIT: Duration = Duration::from_millis(500);
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
        machine: machine(),
        fabric: has_fabric(Path::new(DEVICES)),
        params: Params::default(),
    }
}

fn machine() -> Machine {
    let digits: String = proc::boot_id().unwrap_or_default().chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let id = u64::from_str_radix(&digits, 16).unwrap_or(0);
    let usable = proc::cpu_count() as u32;
    // Of a machine whose cores are not known nobody can say that they are too few.
    let (id, cores) = proc::machine_cores().map_or((0, usable), |cores| (id, cores as u32));
    Machine { id, cores, share: id ^ proc::cores_share(), usable }
}

/// Whether one of the machine's devices belongs to a fabric, as far as can be seen: in a pod those of its node can be.
fn has_fabric(devices: &Path) -> bool {
    let has = |kind: &&str| fs::read_dir(devices.join(kind)).is_ok_and(|mut found| found.next().is_some());
    FABRICS.iter().any(has)
}

/// What Open MPI's files say to ranks with these variables: the user's, then those of one installation. Where that lies follows from
/// the variables too.
fn params(variables: &[(OsString, OsString)]) -> Params {
    let var = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    let of_user = var("HOME").and_then(|home| text(&Path::new(home).join(PARAMS_OF_USER)));
    let prefixes = var("OPAL_PREFIX").map(PathBuf::from).into_iter().chain(
        [("PATH", "bin"), ("LD_LIBRARY_PATH", "lib")].into_iter().flat_map(|(list, folder)| {
            let folders = var(list).into_iter().flat_map(std::env::split_paths);
            folders.filter(move |f| f.ends_with(folder)).filter_map(|f| Some(f.parent()?.to_path_buf()))
        }),
    );
    let folders = prefixes.map(|prefix| prefix.join("etc")).chain(PARAMS_FOLDERS.map(PathBuf::from));
    let mut params = Params::default();
    let of_installation = folders.map(|folder| folder.join(PARAMS)).find_map(|file| text(&file));
    for text in of_user.into_iter().chain(of_installation) {
        params.add(&text);
    }
    params
}

fn text(path: &Path) -> Option<String> {
    beginning(path, PARAMS_BYTES_MAX)
}

/// The same, but not for longer than a moment: homes may be on file systems that do not answer, and the agent has to.
fn params_in_time(variables: &[(OsString, OsString)]) -> Params {
    let (found, wait) = std::sync::mpsc::channel();
    let variables = variables.to_vec();
    let look = move || drop(found.send(params(&variables)));
    let started = std::thread::Builder::new().name("params".to_owned()).spawn(look);
    let found = started.ok().and_then(|_| wait.recv_timeout(PARAMS_LIMIT).ok());
    if found.is_none() {
        tracing::warn!("Open MPI's files of parameters cannot be read in time; what they say is not respected");
    }
    found.unwrap_or_default()
}

/// Makes what a job needs on this host, for ranks with these variables: its folders, for its owner only. What an agent that was
/// killed has left there is removed.
pub(super) fn prepare(site: &mut PmixSite, variables: &[(OsString, OsString)]) -> io::Result<()> {
    site.params = params_in_time(variables);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_a_fabric_is_seen() {
        let devices = tempfile::tempdir().expect("a folder");
        assert!(!has_fabric(devices.path()));
        for kind in ["net/eth0", "infiniband"] {
            fs::create_dir_all(devices.path().join(kind)).expect("a folder");
            assert!(!has_fabric(devices.path()), "{kind}");
        }
        fs::create_dir(devices.path().join("infiniband/mlx5_0")).expect("a folder");
        assert!(has_fabric(devices.path()));
    }

    #[test]
    fn files_of_open_mpi_are_found_by_the_variables_of_ranks() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        let var = |name: &str, value: String| (OsString::from(name), OsString::from(value));
        let at = |path: &str| root.path().join(path).to_string_lossy().into_owned();
        write("home/.openmpi/mca-params.conf", "a_parameter = of the user");
        write("mpi/etc/openmpi-mca-params.conf", "a_parameter = of the installation\nb_parameter = 2");
        let home = var("HOME", at("home"));
        let with = |variables: &[(OsString, OsString)]| {
            let found = params(variables);
            assert_eq!(found.get("a_parameter"), Some("of the user"), "{variables:?}");
            assert_eq!(found.get("b_parameter"), Some("2"), "{variables:?}");
        };
        with(&[home.clone(), var("OPAL_PREFIX", at("mpi"))]);
        with(&[home.clone(), var("PATH", format!("/nowhere/bin:{}", at("mpi/bin")))]);
        with(&[home.clone(), var("LD_LIBRARY_PATH", at("mpi/lib"))]);
        // Of several installations only the first one's.
        write("other/etc/openmpi-mca-params.conf", "c_parameter = of another");
        let both = [home, var("OPAL_PREFIX", at("mpi")), var("PATH", at("other/bin"))];
        assert_eq!((params(&both).get("b_parameter"), params(&both).get("c_parameter")), (Some("2"), None));
    }
}
