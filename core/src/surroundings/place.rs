//! What a pod is called in its job.

use serde::Serialize;

use super::name::{self, Ending};
use super::{ControlPlane, HOSTS, NAMESPACE, RESOLV_CONF, Traces, resolv};

/// How the kubelet begins the hosts file of a pod on its node's network.
const ON_NODE_NETWORK: &str = "# Kubernetes-managed hosts file (host network)";

/// What a pod is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs the job's launcher.
    Launcher,
    /// Ranks run on it.
    Worker,
}

/// A pod's place in its job, as far as that is certain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// What it is there for.
    pub role: Option<Role>,
    /// The job's name.
    pub job: Option<String>,
    /// Its index among its like.
    pub index: Option<u32>,
    /// Host name of the pod with the job's launcher.
    pub launcher: Option<String>,
    /// The namespace of all of them.
    pub namespace: Option<String>,
    /// The name under which host files of the control plane list this pod.
    pub listed_as: Option<String>,
}

impl Traces {
    /// Where in its job this pod stands.
    pub fn place(&self) -> Place {
        let mut place = name::first(&self.hostname).map(|host| self.of_host(host)).unwrap_or_default();
        place.namespace = self.namespace(place.job.as_deref());
        place.listed_as = self.listed_as(&place);
        place
    }

    fn of_host(&self, host: &str) -> Place {
        match self.control_plane().control_plane {
            ControlPlane::Trainer => self.of_trainer(host),
            ControlPlane::MpiJobV2 | ControlPlane::MpiJobV1 => self.of_mpi_job(host),
            ControlPlane::Volcano => self.of_volcano(host),
            ControlPlane::JobSet => self.of_job_set(host),
            ControlPlane::IndexedJob => self.of_indexed_job(host),
            // Frameworks' variables name addresses and numbers, no job.
            ControlPlane::Rendezvous | ControlPlane::None => None,
        }
        .unwrap_or_default()
    }

    fn of_mpi_job(&self, host: &str) -> Option<Place> {
        let (job, ending) = name::mpi_job(host)?;
        let (role, index) = match ending {
            Ending::Launcher => (Role::Launcher, None),
            Ending::Worker(index) => (Role::Worker, Some(index)),
        };
        // A pod on its node's network has the node's name, which may look like a pod's of something else.
        let told = match self.variable("K_MPI_JOB_ROLE") {
            Some("launcher") => role == Role::Launcher,
            Some("worker") => role == Role::Worker,
            Some(_) => false,
            None => true,
        };
        let launcher = Some(format!("{job}-launcher"));
        let place = Place { role: Some(role), job: Some(job.to_owned()), index, launcher, ..Place::default() };
        (told && self.is_name_of_pod(job)).then_some(place)
    }

    /// Whether the host name can be that of a pod of this MPIJob, and is not its node's.
    fn is_name_of_pod(&self, job: &str) -> bool {
        if self.file(HOSTS).is_some_and(|text| text.starts_with(ON_NODE_NETWORK)) {
            return false;
        }
        match name::second(&self.hostname) {
            // The domain of such a pod, where it has one, is the job's.
            Some(domain) => domain == job,
            None => self.file(RESOLV_CONF).is_some_and(|text| resolv::may_be_of(text, job)),
        }
    }

    /// A TrainJob is a JobSet of the same name; only launchers and trainers know the name of theirs.
    fn of_trainer(&self, host: &str) -> Option<Place> {
        let told = self.variable("KUBEFLOW_TRAINER_SERVER_URL").and_then(|url| segment_after(url, "trainjobs"));
        let job = told.or_else(|| self.jobset())?;
        let mut place = self.of_replicated_job(host, job)?;
        let launcher = format!("{job}-launcher-0-0");
        if host == launcher {
            place.role = Some(Role::Launcher);
            place.launcher = Some(launcher);
        }
        Some(place)
    }

    fn of_job_set(&self, host: &str) -> Option<Place> {
        self.of_replicated_job(host, self.jobset()?)
    }

    /// `<jobset>-<replicated job>-<job index>-<pod index>`: each part may have dashes, so that only a known name tells them apart.
    fn of_replicated_job(&self, host: &str, job: &str) -> Option<Place> {
        let rest = host.strip_prefix(job)?.strip_prefix('-')?;
        let (rest, index) = name::indexed(rest)?;
        let (replicated, _) = name::indexed(rest)?;
        let told = self.metadata("jobset.sigs.k8s.io/replicatedjob-name");
        let fits =
            told.is_none_or(|told| told == replicated) && self.completion_index().is_none_or(|told| told == index);
        fits.then(|| Place { job: Some(job.to_owned()), index: Some(index), ..Place::default() })
    }

    fn of_indexed_job(&self, host: &str) -> Option<Place> {
        // On its node's network the pod has another name, but the same index.
        let told = self.completion_index()?;
        let job = name::indexed(host).filter(|(_, index)| *index == told).map(|(job, _)| job.to_owned());
        Some(Place { job, index: Some(told), ..Place::default() })
    }

    fn completion_index(&self) -> Option<u32> {
        name::index(self.variable("JOB_COMPLETION_INDEX")?)
    }

    /// `<job>-<task>-<i>` in the domain `<job>`, which the lists of hosts and the pod's own full name tell.
    fn of_volcano(&self, host: &str) -> Option<Place> {
        let lists = self.volcano.values().map(String::as_str);
        let set = self.variables.iter().filter(|(name, _)| {
            *name == "MPI_HOST" || name.strip_prefix("VC_").is_some_and(|rest| rest.ends_with("_HOSTS"))
        });
        let hosts = lists.chain(set.map(|(_, value)| value.as_str()));
        let of_list = hosts.flat_map(|list| list.split([',', '\n'])).find_map(|one| name::second(one.trim()));
        let job = name::second(&self.hostname).or(of_list)?;
        let (stem, index) = name::indexed(host)?;
        let task = stem.strip_prefix(job)?.strip_prefix('-').filter(|task| name::is_label(task))?;
        let told = ["VC_TASK_INDEX", "VK_TASK_INDEX"].iter().find_map(|name| self.variable(name));
        if told.is_some_and(|told| name::index(told) != Some(index)) {
            return None;
        }
        // The tasks of its MPI plugin: only they say what they are there for.
        let has_master = self.volcano.contains_key("master") || self.variable("VC_MASTER_HOSTS").is_some();
        let master = (task == "master" || has_master).then(|| format!("{job}-master-0"));
        let role = match task {
            "master" => Some(Role::Launcher),
            "worker" => master.as_ref().map(|_| Role::Worker),
            _ => None,
        };
        Some(Place { role, job: Some(job.to_owned()), index: Some(index), launcher: master, ..Place::default() })
    }

    fn namespace(&self, job: Option<&str>) -> Option<String> {
        let valid = |text: &&str| name::is_label(text);
        let mounted = self.file(NAMESPACE).map(str::trim).filter(valid);
        let told = || self.variable("KUBEFLOW_TRAINER_SERVER_URL").and_then(|url| segment_after(url, "namespaces"));
        let searched = || self.file(RESOLV_CONF).and_then(|text| resolv::namespace(text, job));
        mounted.or_else(|| told().filter(valid)).or_else(searched).map(str::to_owned)
    }

    fn listed_as(&self, place: &Place) -> Option<String> {
        let (host, job) = (name::first(&self.hostname)?, place.job.as_ref()?);
        match self.control_plane().control_plane {
            ControlPlane::MpiJobV2 => Some(format!("{host}.{job}.{}.svc", place.namespace.as_ref()?)),
            ControlPlane::MpiJobV1 => Some(host.to_owned()),
            ControlPlane::Trainer | ControlPlane::Volcano => Some(format!("{host}.{job}")),
            _ => None,
        }
    }
}

impl Place {
    /// What is known, in one line for people; nothing when nothing is.
    pub fn describe(&self) -> String {
        let role = self.role.map(|role| match role {
            Role::Launcher => "launcher".to_owned(),
            Role::Worker => "worker".to_owned(),
        });
        let part = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
        let parts = [
            part("role", role),
            part("job", self.job.clone()),
            part("index", self.index.map(|index| index.to_string())),
            part("launcher", self.launcher.clone()),
            part("namespace", self.namespace.clone()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// The part of a path that follows this one.
fn segment_after<'a>(url: &'a str, part: &str) -> Option<&'a str> {
    let mut parts = url.split('/').skip_while(|p| *p != part).skip(1);
    parts.next().filter(|name| name::is_label(name))
}
