//! In-place restarts of a JobSet: a pod that starts again waits until all others have done so, and one whose turn is over ends.
//!
//! Each agent writes the attempt it is in to its pod. When all pods are in the same one the controller makes it the current one,
//! and agents begin to serve. When they are not, some have started again: the controller names the attempts that are over, and
//! agents that are in one of them end, so that their containers start again without a new pod.

mod barrier;
mod jobset;
mod refused;

pub use barrier::{Act, Barrier};
pub use jobset::JobSetState;
pub use refused::Question;

/// Annotation of a pod with the attempt it is in.
pub const ATTEMPT_ANNOTATION: &str = "jobset.sigs.k8s.io/in-place-restart-attempt";
/// Under this name the annotation is owned; the controller's own agent has the same.
pub const FIELD_MANAGER: &str = "in-place-restart-agent";
/// Variable with the exit status by which the kubelet knows that containers shall start again.
pub const EXIT_CODE_VARIABLE: &str = "IN_PLACE_RESTART_EXIT_CODE";
/// That status unless told otherwise.
pub const EXIT_CODE_DEFAULT: u8 = 1;

/// The pod's part that the agent owns, to be applied by the server.
pub fn pod_patch(namespace: &str, pod: &str, attempt: u32) -> String {
    let annotations = serde_json::json!({ ATTEMPT_ANNOTATION: attempt.to_string() });
    let metadata = serde_json::json!({ "name": pod, "namespace": namespace, "annotations": annotations });
    serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata }).to_string()
}

#[cfg(test)]
mod tests;
