//! What lies around this process, read for [`muster_core::surroundings`], which decides what it means.

use std::collections::BTreeMap;
use std::path::Path;

use muster_core::surroundings::{TRACE_FILES, Traces, VOLCANO_ENDING, VOLCANO_FOLDER};
use muster_protocol::limits::TRACE_FILE_BYTES_MAX;

use crate::file::beginning;

/// Looks around below a root; what cannot be read is not there.
pub fn look(root: &Path, hostname: &str, variables: impl IntoIterator<Item = (String, String)>) -> Traces {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let files = TRACE_FILES.iter().filter_map(|path| Some(((*path).to_owned(), read(&below(path))?))).collect();
    let lists = std::fs::read_dir(below(VOLCANO_FOLDER)).into_iter().flatten().flatten();
    let volcano = lists.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name.strip_suffix(VOLCANO_ENDING)?.to_owned(), read(&entry.path())?))
    });
    Traces {
        hostname: hostname.to_owned(),
        variables: variables.into_iter().collect::<BTreeMap<_, _>>(),
        files,
        volcano: volcano.collect(),
    }
}

/// What this process finds around itself. Variables that are no text are nobody's sign.
pub fn of_this_process() -> Traces {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    look(Path::new("/"), &muster_sys::proc::hostname(), std::env::vars_os().filter_map(text))
}

fn read(path: &Path) -> Option<String> {
    beginning(path, TRACE_FILE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use muster_core::surroundings::ControlPlane;

    use super::*;

    #[test]
    fn c2_a_worker_is_known_from_the_files_of_its_pod() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let role = [("K_MPI_JOB_ROLE".to_owned(), "worker".to_owned())];
        put("etc/resolv.conf", "search tenant-a.svc.cluster.local svc.cluster.local cluster.local\n");
        let described = || look(root.path(), "pi-worker-3", role.clone()).place().describe();
        assert_eq!(described(), "role worker, job pi, index 3, launcher pi-launcher, namespace tenant-a");
        put("var/run/secrets/kubernetes.io/serviceaccount/namespace", "tenant-b");
        assert_eq!(described(), "role worker, job pi, index 3, launcher pi-launcher, namespace tenant-b");
    }

    #[test]
    fn c5_files_tell_a_control_plane_and_what_is_no_file_does_not() {
        let root = tempfile::tempdir().unwrap();
        let found = || look(root.path(), "x", []).control_plane().control_plane;
        assert_eq!(found(), ControlPlane::None);
        let volcano = root.path().join("etc/volcano");
        std::fs::create_dir_all(volcano.join("worker.host")).unwrap();
        std::fs::write(volcano.join("hosts"), "j-worker-0.j\n").unwrap();
        assert_eq!(found(), ControlPlane::None);
        std::fs::write(volcano.join("gpu_worker.host"), "j-gpu-worker-0.j\n").unwrap();
        let traces = look(root.path(), "j-gpu-worker-0", []);
        assert_eq!(traces.control_plane().reason, "/etc/volcano/gpu_worker.host is there");
        assert_eq!(traces.place().describe(), "job j, index 0");
        std::fs::create_dir_all(root.path().join("etc/mpi")).unwrap();
        std::fs::write(root.path().join("etc/mpi/kubexec.sh"), "").unwrap();
        assert_eq!(found(), ControlPlane::MpiJobV1);
    }
}
