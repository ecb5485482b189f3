//! What a JobSet says about in-place restarts.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Annotation of a JobSet that switches all of this off.
const DISABLE_ANNOTATION: &str = "jobset.sigs.k8s.io/disable-in-place-restart";
/// The strategy with which agents take part.
const STRATEGY: &str = "InPlaceRestart";

/// The part of a JobSet that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobSetState {
    /// Agents have nothing to do: another strategy, or it is switched off.
    pub bypass: bool,
    /// The attempt that all pods are in.
    pub current: Option<u32>,
    /// The last attempt that is over.
    pub previous: Option<u32>,
}

#[derive(Deserialize)]
struct Object {
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Spec {
    failure_policy: Option<FailurePolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailurePolicy {
    restart_strategy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Status {
    current_in_place_restart_attempt: Option<u32>,
    previous_in_place_restart_attempt: Option<u32>,
}

impl JobSetState {
    /// Reads a JobSet as the API server gives it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let object: Object = serde_json::from_slice(json).map_err(|e| format!("what came is no JobSet: {e}"))?;
        if object.kind != "JobSet" {
            return Err(format!("what came is no JobSet: it is a {}", object.kind));
        }
        let strategy = object.spec.failure_policy.and_then(|policy| policy.restart_strategy);
        let disabled = object.metadata.annotations.contains_key(DISABLE_ANNOTATION);
        Ok(Self {
            bypass: disabled || strategy.as_deref() != Some(STRATEGY),
            current: object.status.current_in_place_restart_attempt,
            previous: object.status.previous_in_place_restart_attempt,
        })
    }
}
