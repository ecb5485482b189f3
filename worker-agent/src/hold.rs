//! `--in-place-restart`: this agent's part in the in-place restarts of a JobSet. Until they let it, it listens and takes no job.
//!
//! [`muster_core::in_place`] decides; here the API server is asked, with the rights of the pod's service account.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use muster_core::in_place::{
    Act, Barrier, EXIT_CODE_DEFAULT, EXIT_CODE_VARIABLE, FIELD_MANAGER, JobSetState, Question, pod_patch,
};
use muster_core::surroundings::Traces;
use muster_https::{Ask, Client, Method};
use muster_protocol::hello::Refusal;
use muster_protocol::limits::HANDSHAKE_TIMEOUT_MS;
use muster_sys::clock::boottime_ms;
use tokio::sync::watch;

/// Where Kubernetes mounts what a pod needs to speak to the API server.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Time for one question to the API server.
const ASK_LIMIT: Duration = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);

/// Whose part is taken, and at which API server.
pub struct Part {
    client: Client,
    /// File with the pod's token, for people.
    token: String,
    server: String,
    namespace: String,
    jobset: String,
    pod: String,
    exit_code: u8,
}

impl Part {
    /// Finds everything that it takes.
    pub fn find(service_account: &Path, traces: &Traces) -> anyhow::Result<Self> {
        let set = |name: &str| traces.variables.get(name).filter(|value| !value.is_empty()).cloned();
        let needed = |name: &str, how: &str| set(name).with_context(|| format!("{name} is not set: {how}"));
        let host = needed("KUBERNETES_SERVICE_HOST", "this is no pod, or one without links to services")?;
        let port = set("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let jobset = traces.jobset().context("JOBSET_NAME is not set: give it the name of the JobSet")?.to_owned();
        let pod = needed("POD_NAME", "give it metadata.name by the downward API")?;
        let namespace =
            std::fs::read_to_string(service_account.join("namespace")).ok().map(|text| text.trim().to_owned());
        let namespace = namespace.or_else(|| traces.place().namespace).context("the pod's namespace is not known")?;
        let exit_code = match set(EXIT_CODE_VARIABLE) {
            Some(text) => match text.parse() {
                Ok(0) | Err(_) => bail!("{EXIT_CODE_VARIABLE} is {text:?}; it has to be a number from 1 to 255"),
                Ok(code) => code,
            },
            None => EXIT_CODE_DEFAULT,
        };
        let token = service_account.join("token");
        let client = Client::new(service_account.join("ca.crt"), token.clone());
        Ok(Self {
            client,
            token: token.display().to_string(),
            server: format!("https://{host}:{port}"),
            namespace,
            jobset,
            pod,
            exit_code,
        })
    }

    async fn look(&self) -> Result<JobSetState, String> {
        let Self { server, namespace, jobset, .. } = self;
        let url = format!("{server}/apis/jobset.x-k8s.io/v1alpha2/namespaces/{namespace}/jobsets/{jobset}");
        let ask = Ask { method: Method::GET, url: &url, content_type: "application/json", body: Vec::new() };
        let object = format!("JobSet {jobset} in namespace {namespace}");
        JobSetState::parse(&self.ask(ask, &object, "get on jobsets").await?)
    }

    async fn register(&self, attempt: u32) -> Result<(), String> {
        let Self { server, namespace, pod, .. } = self;
        let url = format!("{server}/api/v1/namespaces/{namespace}/pods/{pod}?fieldManager={FIELD_MANAGER}&force=true");
        let body = pod_patch(namespace, pod, attempt).into_bytes();
        let ask = Ask { method: Method::PATCH, url: &url, content_type: "application/apply-patch+yaml", body };
        let object = format!("pod {pod} in namespace {namespace}");
        self.ask(ask, &object, "patch on pods").await.map(drop)
    }

    async fn ask(&self, ask: Ask<'_>, object: &str, right: &str) -> Result<Vec<u8>, String> {
        let what = format!("{} {}", ask.method, ask.url);
        let reply = self.client.ask(ask, ASK_LIMIT).await.map_err(|e| format!("{what}: {e}"))?;
        if reply.is_success() {
            return Ok(reply.body);
        }
        let question = Question { object, right, token: &self.token };
        Err(format!("{what}: {}", question.refused(reply.status, &reply.body)))
    }

    /// Looks and acts until there is nothing left to do, or nobody wants to know.
    async fn take(self, states: watch::Sender<State>) {
        let mut barrier = Barrier::new(&self.pod, boottime_ms());
        let mut told = String::new();
        while let Some((act, due_ms)) = barrier.next() {
            tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(boottime_ms()))).await;
            let done = match act {
                Act::Look => self.look().await.map(|state| barrier.looked(&state, boottime_ms())),
                Act::Register(attempt) => self.register(attempt).await.map(|()| barrier.registered(boottime_ms())),
            };
            if let Err(why) = done {
                barrier.failed(boottime_ms());
                if why != told {
                    tracing::warn!(why, "the API server does not do its part in in-place restarts; it is asked again");
                    told = why;
                }
            }
            let state = State { is_down: barrier.is_down(), is_over: barrier.is_over(), text: barrier.describe() };
            states.send_if_modified(|known| {
                let changed = *known != state;
                *known = state;
                changed
            });
            if states.is_closed() {
                return;
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    is_down: bool,
    is_over: bool,
    text: String,
}

/// Whether jobs are taken yet.
pub struct Hold {
    states: Option<watch::Receiver<State>>,
    exit_code: u8,
}

impl Hold {
    /// Nothing is in the way.
    pub fn none() -> Self {
        Self { states: None, exit_code: 0 }
    }

    /// Takes part from now on, within the runtime that this is called in.
    pub fn start(part: Part) -> Self {
        let exit_code = part.exit_code;
        let text = format!("waits for what JobSet {} says about in-place restarts", part.jobset);
        let (sender, states) = watch::channel(State { is_down: false, is_over: false, text });
        tokio::spawn(part.take(sender));
        Self { states: Some(states), exit_code }
    }

    /// Waits for the next change. Says with which status the agent has to end, if it has to.
    pub(crate) async fn changed(&mut self) -> Option<u8> {
        let Some(states) = &mut self.states else { return std::future::pending().await };
        if states.changed().await.is_err() {
            // It is decided for good.
            return std::future::pending().await;
        }
        let state = states.borrow_and_update();
        tracing::info!("this agent {}", state.text);
        state.is_over.then_some(self.exit_code)
    }

    /// Why nobody is served, if that is so.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let state = self.states.as_ref()?.borrow();
        (!state.is_down).then(|| Refusal::Held { why: state.text.clone() })
    }
}
