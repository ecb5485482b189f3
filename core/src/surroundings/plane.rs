//! Which control plane: explicit signs first, in the order in which they are sure, then what is only likely.
//!
//! Reasons are logged, so they name variables and never say what those are set to.

use super::name::{self, Ending};
use super::{ControlPlane, Finding, KUBEXEC, Traces, VOLCANO_ENDING, VOLCANO_FOLDER};

/// Variables of frameworks' rendezvous. JAX has others that users set for themselves, so its are named.
const RENDEZVOUS: &[&str] =
    &["MASTER_ADDR", "TF_CONFIG", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"];
/// Beginnings of more of them.
const RENDEZVOUS_FAMILIES: &[&str] = &["PET_", "DMLC_", "PADDLE_"];

impl Traces {
    /// Which control plane has started this process, and how that is known.
    pub fn control_plane(&self) -> Finding {
        let rules = [
            Self::trainer,
            Self::mpi_job_v2,
            Self::mpi_job_v1,
            Self::volcano,
            Self::named_like_mpi_job,
            Self::job_set,
            Self::indexed_job,
            Self::rendezvous,
        ];
        rules.iter().find_map(|rule| rule(self)).unwrap_or(Finding {
            control_plane: ControlPlane::None,
            reason: "no variable, file or host name of a known one is here".to_owned(),
        })
    }

    fn trainer(&self) -> Option<Finding> {
        let step = "trainer.kubeflow.org/trainjob-ancestor-step";
        let reason = match self.variable("KUBEFLOW_TRAINER_SERVER_URL") {
            Some(_) => "KUBEFLOW_TRAINER_SERVER_URL is set".to_owned(),
            None => format!("the pod has the label {step}={}", self.metadata(step)?),
        };
        Some(Finding { control_plane: ControlPlane::Trainer, reason })
    }

    fn mpi_job_v2(&self) -> Option<Finding> {
        self.variable("K_MPI_JOB_ROLE")?;
        Some(Finding { control_plane: ControlPlane::MpiJobV2, reason: "K_MPI_JOB_ROLE is set".to_owned() })
    }

    fn mpi_job_v1(&self) -> Option<Finding> {
        self.file(KUBEXEC)?;
        Some(Finding { control_plane: ControlPlane::MpiJobV1, reason: format!("{KUBEXEC} is there") })
    }

    fn volcano(&self) -> Option<Finding> {
        let set = ["VC_TASK_INDEX", "VK_TASK_INDEX", "MPI_HOST"].into_iter().find(|name| self.variable(name).is_some());
        let reason = match set {
            Some(name) => format!("{name} is set"),
            None => format!("{VOLCANO_FOLDER}/{}{VOLCANO_ENDING} is there", self.volcano.keys().next()?),
        };
        Some(Finding { control_plane: ControlPlane::Volcano, reason })
    }

    /// A name alone is weak: workers of Indexed Jobs and of the training operator may be called the same, and say who they are.
    fn named_like_mpi_job(&self) -> Option<Finding> {
        let host = name::first(&self.hostname)?;
        let ending = match name::mpi_job(host)?.1 {
            Ending::Launcher => "-launcher",
            Ending::Worker(_) => "-worker-N",
        };
        if ending != "-launcher"
            && [Self::job_set, Self::indexed_job, Self::rendezvous].iter().any(|r| r(self).is_some())
        {
            return None;
        }
        let reason = format!("the host name {host} ends with {ending}, and nothing says otherwise");
        Some(Finding { control_plane: ControlPlane::MpiJobV2, reason })
    }

    fn job_set(&self) -> Option<Finding> {
        let key = "jobset.sigs.k8s.io/jobset-name";
        let reason = match self.metadata(key) {
            Some(name) => format!("the pod has the label {key}={name}"),
            None => self.variable("JOBSET_NAME").map(|_| "JOBSET_NAME is set".to_owned())?,
        };
        Some(Finding { control_plane: ControlPlane::JobSet, reason })
    }

    fn indexed_job(&self) -> Option<Finding> {
        self.variable("JOB_COMPLETION_INDEX")?;
        let reason = "JOB_COMPLETION_INDEX is set".to_owned();
        Some(Finding { control_plane: ControlPlane::IndexedJob, reason })
    }

    fn rendezvous(&self) -> Option<Finding> {
        let of_family = |name: &&str| RENDEZVOUS_FAMILIES.iter().any(|family| name.starts_with(family));
        let known = |name: &&str| RENDEZVOUS.contains(name) || of_family(name);
        let name =
            self.variables.keys().map(String::as_str).filter(known).find(|name| self.variable(name).is_some())?;
        Some(Finding { control_plane: ControlPlane::Rendezvous, reason: format!("{name} is set") })
    }
}
