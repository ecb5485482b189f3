//! The status of a TrainJob, kept up to date by a real launcher at a server of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use muster_cluster::{Cmd, Here, HttpsRequest, HttpsServer, PATIENCE, eventually};
use serde_json::Value;

const PATH: &str = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team-a/trainjobs/fine-tune/status";
const TOKEN: &str = "a-token-that-nobody-may-see";

/// A folder, a server with this status for every report, and a token.
struct Trainer {
    here: Here,
    server: HttpsServer,
}

impl Trainer {
    fn new(status: u16) -> Self {
        let here = Here::new().expect("a folder");
        let server = HttpsServer::start(here.dir(), move |_| (status, "{}".to_owned())).expect("a server");
        here.write("token", format!("{TOKEN}-1\n")).expect("write");
        Self { here, server }
    }

    fn in_trainjob(&self, cmd: Cmd) -> Cmd {
        let url = format!("https://localhost:{}{PATH}", self.server.port());
        cmd.env("KUBEFLOW_TRAINER_SERVER_URL", url)
            .env("KUBEFLOW_TRAINER_SERVER_CA_CERT", self.server.authority())
            .env("KUBEFLOW_TRAINER_SERVER_TOKEN", self.token())
    }

    fn token(&self) -> PathBuf {
        self.here.dir().join("token")
    }

    /// `muster run` on two agents of this machine, with everything logged that can be.
    fn run(&self, args: &[&str]) -> Cmd {
        let all = ["run", "--local", "2", "-n", "2", "--log", "trace", "--events", "events"];
        self.in_trainjob(self.here.muster(&[&all[..], args].concat()).expect("built"))
    }
}

fn metric(request: &HttpsRequest, name: &str) -> Option<String> {
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    let metrics = body["trainerStatus"]["metrics"].as_array().expect("metrics").clone();
    let found = metrics.into_iter().find(|metric| metric["name"] == name)?;
    Some(found["value"].as_str().expect("text").to_owned())
}

fn status_of(request: &HttpsRequest, name: &str) -> Value {
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    body["trainerStatus"][name].clone()
}

#[test]
fn c7_a_short_job_reports_its_end_once_and_nobody_sees_the_token() {
    let trainer = Trainer::new(200);
    let output = trainer.here.run(trainer.run(&["sh", "-c", "exit $((MUSTER_RANK * 3))"])).expect("it ends");
    assert_eq!(output.status.code(), Some(3), "{}", output.stderr_text());
    let requests = trainer.server.requests();
    let [report] = &requests[..] else { panic!("one report: {requests:#?}") };
    assert_eq!((report.method.as_str(), report.path.as_str()), ("POST", PATH));
    assert_eq!(report.headers["authorization"], format!("Bearer {TOKEN}-1"));
    assert_eq!(report.headers["content-type"], "application/json");
    assert_eq!(report.headers["host"], format!("localhost:{}", trainer.server.port()));
    let told = ["phase", "exit_status", "first_failure", "hosts_ready", "ranks"].map(|name| metric(report, name));
    let want = ["failed", "3", "rank 1 on local-1 exited with status 3", "2", "2"];
    assert_eq!(told, want.map(|text| Some(text.to_owned())));
    assert_eq!(status_of(report, "progressPercentage"), Value::Null);
    let time = status_of(report, "lastUpdatedTime").as_str().expect("a time").to_owned();
    assert!(time.len() == 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{time}");
    let events = std::fs::read_to_string(trainer.here.dir().join("events")).expect("events");
    assert!(!output.stderr_text().contains(TOKEN) && !events.contains(TOKEN), "{}", output.stderr_text());
}

#[test]
fn c7_a_longer_job_reports_on_its_way_and_reads_the_token_anew_each_time() {
    let trainer = Trainer::new(200);
    let job = trainer.here.spawn(trainer.run(&["sh", "-c", "until [ -e go ]; do sleep 0.05; done"])).expect("spawn");
    let first = eventually(|| trainer.server.requests(), |requests| !requests.is_empty()).expect("a report");
    assert_eq!(metric(&first[0], "phase").as_deref(), Some("running"));
    assert_eq!(metric(&first[0], "ranks_up").as_deref(), Some("2"));
    assert_eq!(first[0].headers["authorization"], format!("Bearer {TOKEN}-1"));
    // As a mounted token is replaced: another file under the same name.
    trainer.here.write("next", format!("{TOKEN}-2")).expect("write");
    std::fs::rename(trainer.here.dir().join("next"), trainer.token()).expect("rename");
    trainer.here.write("go", "").expect("write");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr_text());
    let requests = trainer.server.requests();
    let last = requests.last().expect("a report");
    assert_eq!(last.headers["authorization"], format!("Bearer {TOKEN}-2"));
    let told = ["phase", "ranks_up", "ranks_ended"].map(|name| metric(last, name).unwrap_or_default());
    assert_eq!(told, ["succeeded", "0", "2"]);
    assert_eq!(status_of(last, "progressPercentage"), 100);
    assert!(!output.stderr_text().contains(TOKEN), "{}", output.stderr_text());
}

#[test]
fn c7_a_server_that_refuses_is_told_of_once_and_the_job_is_not_concerned() {
    let trainer = Trainer::new(403);
    let job = trainer.here.spawn(trainer.run(&["sh", "-c", "until [ -e go ]; do sleep 0.05; done"])).expect("spawn");
    eventually(|| trainer.server.requests().len(), |count| *count > 0).expect("a report");
    trainer.here.write("go", "").expect("write");
    let output = job.finish(PATIENCE).expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr_text());
    assert!(trainer.server.requests().len() > 1, "it was tried again");
    let said = output.stderr_text();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("cannot be kept up to date")).collect();
    let [warning] = &warnings[..] else { panic!("one warning: {said}") };
    assert!(warning.contains("WARN") && warning.contains("answers with status 403"), "{warning}");
    assert!(!said.contains(TOKEN), "{said}");
}

#[test]
fn c7_a_server_that_is_not_trusted_hears_nothing() {
    let trainer = Trainer::new(200);
    // Another authority than the server's.
    let other = trainer.here.dir().join("other");
    std::fs::create_dir(&other).expect("folder");
    let other = HttpsServer::start(&other, |_| (200, String::new())).expect("a server");
    let run = trainer.run(&["true"]).env("KUBEFLOW_TRAINER_SERVER_CA_CERT", other.authority());
    let output = trainer.here.run(run).expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr_text());
    assert_eq!((trainer.server.requests(), other.requests()), (vec![], vec![]));
    let said = output.stderr_text();
    assert!(said.contains("is not trusted, or speaks no TLS 1.3") && !said.contains(TOKEN), "{said}");
}

#[test]
fn c7_reports_can_be_switched_off() {
    let trainer = Trainer::new(200);
    for run in [
        trainer.run(&["--trainer-status=false", "true"]),
        trainer.run(&["true"]).env("MUSTER_OPT_TRAINER_STATUS", "false"),
        trainer.run(&["true"]).env("KUBEFLOW_TRAINER_SERVER_URL", ""),
    ] {
        let output = trainer.here.run(run).expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr_text());
    }
    assert_eq!(trainer.server.requests(), []);
}

#[test]
fn c7_somebody_elses_launcher_is_reported_on_with_its_restarts() {
    let trainer = Trainer::new(200);
    let here = &trainer.here;
    let _agents = here.start_agents(1, &[]).expect("an agent");
    let host = format!("{}:2@{}", here.address(0), here.port());
    let exec = here.muster(&["exec", "--max-restarts", "1", "-H", &host, "--key-file"]).expect("built");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && exit 0\n[ -e again ] && exit 4\ntouch again\nexit 3\n";
    let mpirun = here.write("mpirun", script).expect("write");
    std::fs::set_permissions(&mpirun, PermissionsExt::from_mode(0o755)).expect("mode");
    // What it is asked for is known, and not whether they run.
    let exec = exec.arg(here.key_file()).arg("--").arg(mpirun).args(["-n", "2", "program"]);
    let output = here.run(trainer.in_trainjob(exec)).expect("it ends");
    assert_eq!(output.status.code(), Some(4), "{}", output.stderr_text());
    let requests = trainer.server.requests();
    let last = requests.last().expect("a report");
    let told = ["phase", "exit_status", "hosts_ready", "restarts"].map(|name| metric(last, name).unwrap_or_default());
    assert_eq!(told, ["failed", "4", "1", "1"]);
    assert!(metric(last, "first_failure").is_some_and(|text| text.contains("status 4")), "{}", last.body);
    for name in ["ranks", "ranks_up", "ranks_ended"] {
        assert!(metric(last, name).is_none(), "they are the command's own: {name}");
    }
}

#[test]
fn c7_hosts_that_a_command_should_have_used_are_the_first_failure() {
    let trainer = Trainer::new(200);
    let here = &trainer.here;
    let _agents = here.start_agents(2, &[]).expect("agents");
    let hosts = [0, 1].map(|i| format!("{}:1@{}", here.address(i), here.port())).join(",");
    let exec = here.muster(&["exec", "--placement", "strict", "-H", &hosts, "--key-file"]).expect("built");
    let exec = exec.arg(here.key_file()).args(["--", "true"]);
    let output = here.run(trainer.in_trainjob(exec)).expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr_text());
    let requests = trainer.server.requests();
    let last = requests.last().expect("a report");
    let told = ["phase", "exit_status"].map(|name| metric(last, name).unwrap_or_default());
    assert_eq!(told, ["failed", "1"]);
    let cause = metric(last, "first_failure").unwrap_or_default();
    assert!(cause.starts_with("the command has started nothing on any of its hosts"), "{}", last.body);
}

/// Jobs after which two that were to be interrupted must have been: the pause before the last report is over on a slow machine.
const INTERRUPTED_MAX: usize = 3;

#[test]
fn c7_a_signal_ends_the_waiting_for_the_last_report() {
    for _ in 0..INTERRUPTED_MAX {
        let trainer = Trainer::new(200);
        let script = "until [ -e go ]; do sleep 0.05; done";
        let job = trainer.here.spawn(trainer.run(&["sh", "-c", script])).expect("spawn");
        eventually(|| trainer.server.requests().len(), |count| *count > 0).expect("a report");
        trainer.here.write("go", "").expect("write");
        let events = || std::fs::read_to_string(trainer.here.dir().join("events")).unwrap_or_default();
        eventually(events, |text| text.contains("job_ended")).expect("the job is over");
        job.signal(nix::sys::signal::Signal::SIGTERM).expect("signal");
        let output = job.finish(PATIENCE).expect("it ends");
        assert_eq!(output.status.code(), Some(0), "the job's end stays as it was: {}", output.stderr_text());
        if trainer.server.requests().len() == 1 {
            return;
        }
    }
    panic!("the last report was waited for each time");
}
