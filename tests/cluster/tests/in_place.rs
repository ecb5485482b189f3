//! In-place restarts of a JobSet: a real agent's part, with an API server of the test's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use muster_cluster::{Cmd, Here, HttpsRequest, HttpsServer, PATIENCE, Proc, eventually};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-a-service-account";
const JOBSET: &str = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/team-a/jobsets/big-run";
const POD: &str = "/api/v1/namespaces/team-a/pods/big-run-w-0-0-x7k2p";

/// What the API server holds.
struct Objects {
    jobset: Value,
    /// Annotations that were applied to the pod, in order.
    applied: Vec<Value>,
    /// For every request, in place of an answer.
    refuses: Option<u16>,
}

struct Api {
    here: Here,
    server: HttpsServer,
    objects: Arc<Mutex<Objects>>,
}

impl Api {
    fn new(strategy: &str) -> Self {
        let here = Here::new().expect("a folder");
        let account = here.dir().join("account");
        std::fs::create_dir(&account).expect("folder");
        let jobset = json!({
            "kind": "JobSet",
            "metadata": { "name": "big-run" },
            "spec": { "failurePolicy": { "restartStrategy": strategy } },
            "status": {},
        });
        let objects = Arc::new(Mutex::new(Objects { jobset, applied: Vec::new(), refuses: None }));
        let kept = objects.clone();
        let server = HttpsServer::start(&account, move |request| answer(&mut kept.lock().expect("lock"), request));
        std::fs::write(account.join("token"), format!("{TOKEN}\n")).expect("write");
        std::fs::write(account.join("namespace"), "team-a").expect("write");
        Self { here, server: server.expect("a server"), objects }
    }

    fn set(&self, change: impl FnOnce(&mut Objects)) {
        change(&mut self.objects.lock().expect("lock"));
    }

    fn status(&self, current: u32, previous: Option<u32>) {
        let status = json!({ "currentInPlaceRestartAttempt": current, "previousInPlaceRestartAttempt": previous });
        self.set(|objects| objects.jobset["status"] = status);
    }

    /// The attempts that the pod was told.
    fn attempts(&self) -> Vec<Value> {
        self.objects.lock().expect("lock").applied.clone()
    }

    fn account(&self) -> PathBuf {
        self.here.dir().join("account")
    }

    fn in_pod(&self, agent: Cmd) -> Cmd {
        agent
            .env("MUSTER_OPT_SERVICE_ACCOUNT", self.account())
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", self.server.port().to_string())
            .env("JOBSET_NAME", "big-run")
            .env("POD_NAME", "big-run-w-0-0-x7k2p")
    }

    fn agent(&self) -> Cmd {
        self.in_pod(self.here.agent(0, self.here.key_file()).expect("built").arg("--in-place-restart"))
    }

    fn spawn(&self, agent: Cmd) -> Proc {
        let agent = self.here.spawn(agent).expect("spawn");
        agent.wait_for("agent is ready", PATIENCE).expect("it listens although it waits");
        agent
    }

    /// Whether the agent takes jobs.
    fn is_ready(&self) -> bool {
        let check = self.here.agent(0, self.here.key_file()).expect("built").arg("--check");
        self.here.run(check).expect("it ends").status.success()
    }

    fn job(&self, script: &str) -> Cmd {
        self.here.run_on(1, 1).expect("built").args(["sh", "-c", script])
    }
}

fn answer(objects: &mut Objects, request: &HttpsRequest) -> (u16, String) {
    if let Some(status) = objects.refuses {
        return (status, r#"{"kind":"Status","message":"not today"}"#.to_owned());
    }
    if request.headers.get("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return (401, String::new());
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", JOBSET) => (200, objects.jobset.to_string()),
        ("PATCH", path) if path.split('?').next() == Some(POD) => {
            let query: BTreeMap<&str, &str> =
                path.split('?').nth(1).unwrap_or_default().split('&').filter_map(|part| part.split_once('=')).collect();
            let applied =
                request.headers.get("content-type").is_some_and(|form| form == "application/apply-patch+yaml");
            let patch: Value = serde_json::from_str(&request.body).unwrap_or_default();
            let names_it = patch["kind"] == "Pod" && patch["metadata"]["name"] == "big-run-w-0-0-x7k2p";
            if !applied || !names_it || query.get("fieldManager") != Some(&"in-place-restart-agent") {
                return (400, String::new());
            }
            let attempt = patch["metadata"]["annotations"]["jobset.sigs.k8s.io/in-place-restart-attempt"].clone();
            objects.applied.push(attempt);
            (200, request.body.clone())
        }
        _ => (404, String::new()),
    }
}

#[test]
fn c8_an_agent_waits_for_all_pods_serves_and_ends_when_its_attempt_is_over() {
    let api = Api::new("InPlaceRestart");
    let agent = api.spawn(api.agent());
    eventually(|| api.attempts(), |attempts| *attempts == ["0"]).expect("the pod is told attempt 0");
    agent
        .wait_for("waits until all pods of the JobSet are in in-place restart attempt 0", PATIENCE)
        .expect("it says so");
    assert!(!api.is_ready(), "it takes no job yet");
    // A probe of the port is answered, a job waits and is told for what.
    let job =
        api.here.spawn(api.job("echo ran; until [ -e go ]; do sleep 0.05; done; exec sleep 1000")).expect("spawn");
    job.wait_for("its agent waits until all pods of the JobSet are in in-place restart attempt 0", PATIENCE)
        .expect("the launcher hears why");
    assert_eq!(job.stdout_so_far(), "");
    api.status(0, None);
    eventually(|| job.stdout_so_far(), |text| text == "ran\n").expect("the barrier is down");
    // Another pod has started again: the controller ends this attempt, and so does the agent, with everything that it runs.
    api.status(0, Some(0));
    let ended = agent.finish(PATIENCE).expect("it ends");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr_text());
    assert!(ended.stderr_text().contains("in-place restart attempt 0 is over"), "{}", ended.stderr_text());
    assert_eq!(job.finish(PATIENCE).expect("it ends").status.code(), Some(241), "the job's host is lost");
    // The container starts again, and is one further.
    let agent = api.spawn(api.agent());
    eventually(|| api.attempts(), |attempts| *attempts == ["0", "1"]).expect("the pod is told attempt 1");
    api.status(1, Some(0));
    let output = api.here.run(api.job("echo again")).expect("it ends");
    assert_eq!((output.status.code(), output.stdout_text().as_str()), (Some(0), "again\n"), "{}", output.stderr_text());
    assert_eq!(api.attempts(), ["0", "1"], "once for each start");
    assert!(api.is_ready());
    let log = agent.stderr_so_far();
    assert!(log.contains("serves in in-place restart attempt 1") && !log.contains(TOKEN), "{log}");
}

#[test]
fn c8_the_exit_status_is_the_one_that_the_pod_names() {
    let api = Api::new("InPlaceRestart");
    api.status(6, Some(5));
    let agent = api.spawn(api.agent().env("IN_PLACE_RESTART_EXIT_CODE", "42"));
    eventually(|| api.attempts(), |attempts| *attempts == ["7"]).expect("the pod is told attempt 7");
    api.status(6, Some(7));
    assert_eq!(agent.finish(PATIENCE).expect("it ends").status.code(), Some(42));
}

#[test]
fn c8_without_in_place_restarts_there_is_no_barrier() {
    for (strategy, annotations) in
        [("Recreate", json!({})), ("InPlaceRestart", json!({ "jobset.sigs.k8s.io/disable-in-place-restart": "" }))]
    {
        let api = Api::new(strategy);
        api.set(|objects| objects.jobset["metadata"]["annotations"] = annotations);
        let _agent = api.spawn(api.agent());
        let output = api.here.run(api.job("echo ran")).expect("it ends");
        assert_eq!(
            (output.status.code(), output.stdout_text().as_str()),
            (Some(0), "ran\n"),
            "{}",
            output.stderr_text()
        );
        assert_eq!(api.attempts(), [] as [Value; 0], "the pod is left alone");
    }
}

#[test]
fn c8_a_server_that_refuses_holds_the_agent_and_is_named_with_the_right_that_is_missing() {
    let api = Api::new("InPlaceRestart");
    api.set(|objects| objects.refuses = Some(403));
    let agent = api.spawn(api.agent());
    let right = "status 403; the pod's service account needs the right to get on jobsets";
    agent.wait_for(right, PATIENCE).expect("it says what is missing");
    assert!(!api.is_ready());
    api.set(|objects| objects.refuses = None);
    eventually(|| api.attempts(), |attempts| *attempts == ["0"]).expect("it is tried again");
    assert!(!agent.stderr_so_far().contains(TOKEN), "{}", agent.stderr_so_far());
}

#[test]
fn c8_a_server_that_does_not_know_the_token_or_the_jobset_is_told_apart_with_its_own_words() {
    let api = Api::new("InPlaceRestart");
    let token = api.account().join("token").display().to_string();
    for (status, want) in [
        (401, format!("status 401; the token in {token} is not accepted")),
        (404, "status 404; there is no JobSet big-run in namespace team-a; the server says: not today".to_owned()),
    ] {
        api.set(|objects| objects.refuses = Some(status));
        let agent = api.spawn(api.agent());
        agent.wait_for(&want, PATIENCE).expect("it says what is wrong");
        assert!(!agent.stderr_so_far().contains(TOKEN), "{}", agent.stderr_so_far());
    }
}

#[test]
fn c8_an_agent_that_joins_does_so_when_the_barrier_is_down_and_does_not_bother_the_launcher_before() {
    let api = Api::new("InPlaceRestart");
    let (address, port) = (api.here.address(1), api.here.port());
    let listen = format!("{address}:{port}");
    let run = api.here.muster(&["run", "--listen", &listen, "-H", "w-0", "--key-file"]).expect("built");
    let job = api.here.spawn(run.arg(api.here.key_file()).args(["sh", "-c", "echo ran"])).expect("spawn");
    let agent = api.here.cmd(muster_cluster::workspace::program("muster-agent").expect("built"));
    let agent = agent.args(["--join", &listen, "--name", "w-0", "--in-place-restart", "--key-file"]);
    let agent = api.spawn(api.in_pod(agent.arg(api.here.key_file())));
    agent.wait_for("waits until all pods of the JobSet are in in-place restart attempt 0", PATIENCE).expect("it waits");
    job.wait_for("muster: waiting for 1 host: w-0", PATIENCE).expect("so does the launcher");
    api.status(0, None);
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!((output.status.code(), output.stdout_text().as_str()), (Some(0), "ran\n"), "{}", output.stderr_text());
    assert!(!output.stderr_text().contains("does not serve"), "{}", output.stderr_text());
    // The next launcher finds it as well.
    let run = api.here.muster(&["run", "--listen", &listen, "-H", "w-0", "--key-file"]).expect("built");
    let next = api.here.run(run.arg(api.here.key_file()).args(["echo", "again"])).expect("it ends");
    assert_eq!(next.stdout_text(), "again\n", "{}", next.stderr_text());
}

#[test]
fn c8_what_is_missing_is_told_before_a_port_is_opened_and_without_the_flag_nobody_asks() {
    let api = Api::new("InPlaceRestart");
    for (unset, want) in [
        ("POD_NAME", "--in-place-restart: POD_NAME is not set: give it metadata.name by the downward API"),
        ("JOBSET_NAME", "--in-place-restart: JOBSET_NAME is not set: give it the name of the JobSet"),
        (
            "KUBERNETES_SERVICE_HOST",
            "--in-place-restart: KUBERNETES_SERVICE_HOST is not set: this is no pod, or one without links to services",
        ),
    ] {
        let output = api.here.run(api.agent().env(unset, "")).expect("it ends");
        assert_eq!(output.status.code(), Some(64));
        assert!(output.stderr_text().contains(want), "{}", output.stderr_text());
    }
    let bad = api.here.run(api.agent().env("IN_PLACE_RESTART_EXIT_CODE", "0")).expect("it ends");
    let want = "IN_PLACE_RESTART_EXIT_CODE is \"0\"; it has to be a number from 1 to 255";
    assert!(bad.status.code() == Some(64) && bad.stderr_text().contains(want), "{}", bad.stderr_text());
    let _agent = api.spawn(api.in_pod(api.here.agent(0, api.here.key_file()).expect("built")));
    let output = api.here.run(api.job("echo ran")).expect("it ends");
    assert_eq!(output.stdout_text(), "ran\n", "{}", output.stderr_text());
    assert_eq!(api.server.requests(), []);
}
