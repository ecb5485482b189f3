//! Which control plane has started this process, and what a pod is called in its job: from environment, host name and files.
//!
//! Names are only taken apart where the control plane is known to make them so. What cannot be told is left out: a wrong
//! launcher or a wrong job is worse than none.

mod name;
mod place;
mod plane;
mod resolv;

use std::collections::BTreeMap;

use serde::Serialize;

pub use place::{Place, Role};

/// Script by which launchers of the first operator reach workers.
const KUBEXEC: &str = "/etc/mpi/kubexec.sh";
/// Names of the pod, with a first line of the kubelet's own.
const HOSTS: &str = "/etc/hosts";
/// Search list of the pod.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Namespace of the pod's service account, where it is mounted.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Labels of the pod, where its template mounts them by the downward API.
const LABELS: &str = "/etc/podinfo/labels";
/// Annotations of the pod, likewise.
const ANNOTATIONS: &str = "/etc/podinfo/annotations";

/// Files that are read where they exist.
pub const TRACE_FILES: &[&str] = &[KUBEXEC, HOSTS, RESOLV_CONF, NAMESPACE, LABELS, ANNOTATIONS];
/// The folder in which Volcano lists the hosts of each task.
pub const VOLCANO_FOLDER: &str = "/etc/volcano";
/// How the names of those lists end.
pub const VOLCANO_ENDING: &str = ".host";

/// Who arranges pods into a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlPlane {
    /// Kubeflow Trainer: a TrainJob.
    Trainer,
    /// Kubeflow's mpi-operator: an MPIJob of version v2beta1.
    MpiJobV2,
    /// The first operators: an MPIJob of version v1, with commands by way of the API server.
    MpiJobV1,
    /// Volcano: a Job with tasks.
    Volcano,
    /// A JobSet.
    JobSet,
    /// A Job of Kubernetes itself with completion mode Indexed.
    IndexedJob,
    /// Variables of a framework's rendezvous, whoever has set them.
    Rendezvous,
    /// None that leaves a trace.
    None,
}

impl ControlPlane {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trainer => "Kubeflow Trainer",
            Self::MpiJobV2 => "mpi-operator v2",
            Self::MpiJobV1 => "mpi-operator v1",
            Self::Volcano => "Volcano",
            Self::JobSet => "JobSet",
            Self::IndexedJob => "Indexed Job",
            Self::Rendezvous => "a framework's rendezvous",
            Self::None => "none",
        }
    }
}

/// A control plane, and what told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which one.
    pub control_plane: ControlPlane,
    /// Why, as a sentence.
    pub reason: String,
}

/// What lies around a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// The host name as the kernel has it.
    pub hostname: String,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// Text of each of [`TRACE_FILES`] that exists.
    pub files: BTreeMap<String, String>,
    /// Text of each list in [`VOLCANO_FOLDER`], by the part of its name before [`VOLCANO_ENDING`].
    pub volcano: BTreeMap<String, String>,
}

impl Traces {
    /// A variable; an empty one counts as missing.
    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// A label or an annotation of the pod. In the mounted files each is a line `key="value"`, quoted as Go quotes strings; the
    /// values that are asked for here are names and numbers, in which nothing is escaped.
    fn metadata(&self, key: &str) -> Option<&str> {
        [LABELS, ANNOTATIONS].iter().filter_map(|path| self.file(path)).flat_map(str::lines).find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix('=')?.trim();
            let value = value.strip_prefix('"')?.strip_suffix('"')?;
            (!value.is_empty() && !value.contains(['"', '\\'])).then_some(value)
        })
    }

    /// Name of the JobSet that this pod belongs to.
    pub fn jobset(&self) -> Option<&str> {
        self.metadata("jobset.sigs.k8s.io/jobset-name").or_else(|| self.variable("JOBSET_NAME"))
    }
}

#[cfg(test)]
mod tests;
