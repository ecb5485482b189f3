use super::*;
use ControlPlane::{IndexedJob, JobSet, MpiJobV1, MpiJobV2, Rendezvous, Trainer, Volcano};

const URL: &str =
    "https://trainer.kubeflow.svc:8082/apis/trainer.kubeflow.org/v1alpha1/namespaces/team-a/trainjobs/fine-tune/status";
const IN_JOBSET: &str =
    "app=\"x\"\njobset.sigs.k8s.io/jobset-name=\"big-run\"\njobset.sigs.k8s.io/replicatedjob-name=\"gpu-workers\"\n";

/// A pod: `VARIABLE=value`, `/file` that is there, `/file:text`.
fn pod(hostname: &str, traces: &[&str]) -> Traces {
    let mut pod = Traces { hostname: hostname.to_owned(), ..Traces::default() };
    for trace in traces {
        if trace.starts_with('/') {
            let (path, text) = trace.split_once(':').unwrap_or((trace, ""));
            match path.strip_prefix("/etc/volcano/") {
                Some(list) => pod.volcano.insert(list.trim_end_matches(".host").to_owned(), text.to_owned()),
                None => pod.files.insert(path.to_owned(), text.to_owned()),
            };
        } else {
            let (name, value) = trace.split_once('=').unwrap();
            pod.variables.insert(name.to_owned(), value.to_owned());
        }
    }
    pod
}

fn labels(text: &str) -> String {
    format!("{LABELS}:{text}")
}

#[test]
fn c5_each_control_plane_is_known_by_its_own_sign() {
    let (url, in_jobset) = (format!("KUBEFLOW_TRAINER_SERVER_URL={URL}"), labels(IN_JOBSET));
    let step = labels("trainer.kubeflow.org/trainjob-ancestor-step=\"trainer\"\n");
    let annotated = format!("{ANNOTATIONS}:jobset.sigs.k8s.io/jobset-name=\"big-run\"");
    for (hostname, trace, want, reason) in [
        ("x", url.as_str(), Trainer, "KUBEFLOW_TRAINER_SERVER_URL is set"),
        ("x", &step, Trainer, "the pod has the label trainer.kubeflow.org/trainjob-ancestor-step=trainer"),
        ("x", "K_MPI_JOB_ROLE=launcher", MpiJobV2, "K_MPI_JOB_ROLE is set"),
        ("x", "K_MPI_JOB_ROLE=worker", MpiJobV2, "K_MPI_JOB_ROLE is set"),
        ("x", KUBEXEC, MpiJobV1, "/etc/mpi/kubexec.sh is there"),
        ("x", "VC_TASK_INDEX=0", Volcano, "VC_TASK_INDEX is set"),
        ("x", "VK_TASK_INDEX=0", Volcano, "VK_TASK_INDEX is set"),
        ("x", "/etc/volcano/worker.host", Volcano, "/etc/volcano/worker.host is there"),
        ("x", "MPI_HOST=j-worker-0.j", Volcano, "MPI_HOST is set"),
        ("pi-launcher", "A=b", MpiJobV2, "the host name pi-launcher ends with -launcher, and nothing says otherwise"),
        ("pi-worker-12", "A=b", MpiJobV2, "the host name pi-worker-12 ends with -worker-N, and nothing says otherwise"),
        ("x", &in_jobset, JobSet, "the pod has the label jobset.sigs.k8s.io/jobset-name=big-run"),
        ("x", &annotated, JobSet, "the pod has the label jobset.sigs.k8s.io/jobset-name=big-run"),
        ("x", "JOBSET_NAME=big-run", JobSet, "JOBSET_NAME is set"),
        ("x", "JOB_COMPLETION_INDEX=3", IndexedJob, "JOB_COMPLETION_INDEX is set"),
        ("x", "PET_NNODES=2", Rendezvous, "PET_NNODES is set"),
        ("x", "MASTER_ADDR=a", Rendezvous, "MASTER_ADDR is set"),
        ("x", "TF_CONFIG={}", Rendezvous, "TF_CONFIG is set"),
        ("x", "JAX_COORDINATOR_ADDRESS=a:1", Rendezvous, "JAX_COORDINATOR_ADDRESS is set"),
        ("x", "DMLC_TRACKER_URI=a", Rendezvous, "DMLC_TRACKER_URI is set"),
        ("x", "PADDLE_MASTER=a:1", Rendezvous, "PADDLE_MASTER is set"),
        ("x", "A=b", ControlPlane::None, "no variable, file or host name of a known one is here"),
    ] {
        let finding = pod(hostname, &[trace]).control_plane();
        assert_eq!((finding.control_plane, finding.reason.as_str()), (want, reason), "{hostname} with {trace}");
    }
}

#[test]
fn c5_the_surer_sign_counts_where_there_are_several() {
    let (url, in_jobset) = (format!("KUBEFLOW_TRAINER_SERVER_URL={URL}"), labels(IN_JOBSET));
    let all = [
        url.as_str(),
        "K_MPI_JOB_ROLE=worker",
        KUBEXEC,
        "VC_TASK_INDEX=0",
        in_jobset.as_str(),
        "JOB_COMPLETION_INDEX=0",
        "MASTER_ADDR=a",
    ];
    // Each sign goes before all that follow it.
    for (at, want) in [Trainer, MpiJobV2, MpiJobV1, Volcano, JobSet, IndexedJob, Rendezvous].into_iter().enumerate() {
        assert_eq!(pod("x", &all[at..]).control_plane().control_plane, want);
        assert_eq!(pod("x-worker-0", &all[at..]).control_plane().control_plane, want, "a name contradicts no sign");
    }
    for (hostname, traces, want) in [
        // A user's own torchrun within an MPIJob; a queue that puts Volcano below the operator.
        ("pi-launcher", &["K_MPI_JOB_ROLE=launcher", "MASTER_ADDR=x", "PET_NNODES=2"][..], MpiJobV2),
        ("pi-worker-0", &["K_MPI_JOB_ROLE=worker", "VC_TASK_INDEX=0"], MpiJobV2),
        ("pi-launcher", &["MASTER_ADDR=x"], MpiJobV2),
        // Called like workers of an MPIJob, and none.
        ("etl-worker-3", &["JOB_COMPLETION_INDEX=3"], IndexedJob),
        ("mnist-worker-0", &["MASTER_ADDR=mnist-master-0", "RANK=1"], Rendezvous),
        ("j-worker-0", &["MPI_HOST=j-worker-0.j", "JOB_COMPLETION_INDEX=0"], Volcano),
        // What is set to nothing is not set, and users have settings of JAX's and of MPI's own.
        ("x", &["K_MPI_JOB_ROLE=", "MPI_HOST=", "JAX_PLATFORMS=cpu", "JOB_COMPLETION_INDEX=1"], IndexedJob),
        ("x", &["JAX_ENABLE_X64=1", "MASTER_PORT=1", "KUBEFLOW_TRAINER_SERVER_URL="], ControlPlane::None),
    ] {
        assert_eq!(pod(hostname, traces).control_plane().control_plane, want, "{hostname} with {traces:?}");
    }
}

const KUBELET: &str = "nameserver 10.96.0.10\nsearch tenant-a.svc.cluster.local svc.cluster.local cluster.local pi.tenant-a.svc.cluster.local\noptions ndots:5\n";

/// job, index, launcher, namespace.
type Told<'a> = (Option<&'a str>, Option<u32>, Option<&'a str>, Option<&'a str>);

fn told(place: &Place) -> Told<'_> {
    (place.job.as_deref(), place.index, place.launcher.as_deref(), place.namespace.as_deref())
}

fn resolv(text: &str) -> String {
    format!("{RESOLV_CONF}:{text}")
}

#[test]
fn c2_a_worker_knows_job_index_launcher_and_namespace() {
    let account = format!("{NAMESPACE}:tenant-b\n");
    let (role, other) = ("K_MPI_JOB_ROLE=worker", "search tenant-a.svc.cluster.local svc.cluster.local");
    let managed = "/etc/hosts:# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n";
    let whole = (Some("pi"), Some(7), Some("pi-launcher"), Some("tenant-a"));
    for (hostname, traces, want) in [
        ("pi-worker-7", &[role, &resolv(KUBELET)][..], whole),
        ("pi-worker-7", &[&resolv(KUBELET)], whole),
        ("pi-worker-7", &[role, &resolv(KUBELET), managed], whole),
        ("pi-worker-7.pi.tenant-a.svc.cluster.local", &[role, &resolv(KUBELET)], whole),
        // The mounted file is surer than the list.
        ("pi-worker-7", &[role, &resolv(KUBELET), &account], (whole.0, whole.1, whole.2, Some("tenant-b"))),
        ("pi-worker-7", &[role, &format!("{NAMESPACE}:not a name"), &resolv(KUBELET)], whole),
        // The whole name tells the job by itself.
        ("pi-worker-7.pi", &[role, &account], (whole.0, whole.1, whole.2, Some("tenant-b"))),
        ("pi-worker-7.pi", &[role], (whole.0, whole.1, whole.2, None)),
        ("pi-worker-7", &[KUBEXEC, &resolv(KUBELET)], whole),
        // No other operator adds an entry for the job.
        ("pi-worker-7", &[KUBEXEC, &resolv(other)], whole),
        // Another domain, and only the entry that the operator adds.
        ("pi-worker-7", &[role, &resolv("search tenant-a.svc.corp.example. svc.corp.example. corp.example.")], whole),
        ("pi-worker-7", &[role, &resolv("search other.example pi.tenant-a.svc.cluster.local")], whole),
        ("pi-worker-7", &[role, &resolv("search tenant-a.svc")], whole),
        // A template may search further jobs.
        ("pi-worker-7", &[role, &resolv("search tenant-a.svc.x svc.x db.tenant-a.svc.x pi.tenant-a.svc.x")], whole),
        // Dashes and digits, and a job that is called like a worker.
        (
            "a-1-b2-worker-0",
            &[role, &resolv(other)],
            (Some("a-1-b2"), Some(0), Some("a-1-b2-launcher"), Some("tenant-a")),
        ),
        (
            "x-worker-1-worker-20",
            &[role, &resolv(other)],
            (Some("x-worker-1"), Some(20), Some("x-worker-1-launcher"), Some("tenant-a")),
        ),
        (
            "x-launcher-worker-0",
            &[role, &resolv(other)],
            (Some("x-launcher"), Some(0), Some("x-launcher-launcher"), Some("tenant-a")),
        ),
        (
            "pi-launcher",
            &["K_MPI_JOB_ROLE=launcher", &resolv(other)],
            (Some("pi"), None, Some("pi-launcher"), Some("tenant-a")),
        ),
    ] {
        assert_eq!(told(&pod(hostname, traces).place()), want, "{hostname} with {traces:?}");
    }
}

#[test]
fn c2_what_is_not_certain_is_left_out() {
    // A list that contradicts no job.
    let list = &*resolv("search tenant-a.svc.cluster.local svc.cluster.local");
    let role = "K_MPI_JOB_ROLE=worker";
    for (hostname, traces) in [
        ("", &[role, list][..]),
        ("-worker-1", &[role, list]),
        ("worker-1", &[role, list]),
        ("pi-worker-", &[role, list]),
        ("pi-worker-x", &[role, list]),
        ("pi-worker-01", &[role, list]),
        ("pi-worker--1", &[role, list]),
        ("pi-worker-+1", &[role, list]),
        ("pi-worker-4294967296", &[role, list]),
        ("Pi-worker-1", &[role, list]),
        ("pi_worker-1", &[role, list]),
        ("pi-worker-1x", &[role, list]),
        ("ip-10-0-0-7", &[role, list]),
        ("localhost", &[list]),
        ("pi-launcher", &[role, list]),
        ("pi-worker-0", &["K_MPI_JOB_ROLE=launcher", list]),
        ("pi-worker-0", &["K_MPI_JOB_ROLE=scheduler", list]),
        ("mnist-worker-0", &["MASTER_ADDR=mnist-master-0", list]),
    ] {
        let namespace = Some("tenant-a".to_owned());
        assert_eq!(
            pod(hostname, traces).place(),
            Place { namespace, ..Place::default() },
            "{hostname} with {traces:?}"
        );
    }
    for (text, why) in [
        ("search svc.cluster.local a.svc.cluster.local b.svc.cluster.local", "two that do not agree"),
        (
            "search pi.tenant-a.svc.cluster.local pi.tenant-b.svc.cluster.local\nsearch a.svc b.svc",
            "the last list counts",
        ),
    ] {
        let place = pod("pi-worker-7", &[role, &resolv(text)]).place();
        assert_eq!((place.job.as_deref(), place.namespace), (Some("pi"), None), "{why}: {text}");
    }
}

#[test]
fn c2_a_node_that_is_called_like_a_worker_is_none() {
    let role = "K_MPI_JOB_ROLE=worker";
    let node = |hostname: &str, traces: &[&str], why: &str| {
        let place = pod(hostname, traces).place();
        assert_eq!((told(&place).0, told(&place).1, told(&place).2, place.role), (None, None, None, None), "{why}");
    };
    node("gpu-worker-3.rack-2.example", &[role, &resolv(KUBELET)], "the node's domain");
    node("gpu-worker-3", &[role, &resolv(KUBELET)], "the pod's job is another one");
    let of_launcher = "search tenant-a.svc.cluster.local svc.cluster.local cluster.local";
    let hosts = "/etc/hosts:# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n";
    node("gpu-launcher", &["K_MPI_JOB_ROLE=launcher", &resolv(of_launcher), hosts], "the kubelet says so");
    node("pi-worker-7", &[role, &resolv(KUBELET), hosts], "whatever else is there");
    for (text, why) in [
        ("", "nothing"),
        ("nameserver 1.2.3.4\n", "no list"),
        ("search svc.cluster.local cluster.local", "no namespace"),
        ("search corp.example", "the node's own"),
        ("search other.tenant-a.svc.cluster.local b.svc.cluster.local", "another job's"),
        ("search pi.a.svc.cluster.local\nsearch corp.example", "the last list counts"),
        ("search A_B.svc.cluster.local", "no name"),
    ] {
        node("pi-worker-7", &[role, &resolv(text)], why);
    }
    node("pi-worker-7", &[role], "no list can be read");
}

#[test]
fn c2_other_control_planes_name_pods_in_their_own_way() {
    let url = format!("KUBEFLOW_TRAINER_SERVER_URL={URL}");
    let in_jobset = labels(IN_JOBSET);
    let list = "/etc/volcano/worker.host:sim-a-worker-0.sim-a\nsim-a-worker-1.sim-a\n";
    for (hostname, traces, want) in [
        // Trainer: the address of its server tells the job's name and the namespace.
        (
            "fine-tune-launcher-0-0",
            &[url.as_str(), "JOB_COMPLETION_INDEX=0"][..],
            (Some("fine-tune"), Some(0), Some("fine-tune-launcher-0-0"), Some("team-a")),
        ),
        ("fine-tune-node-0-5", &[&url], (Some("fine-tune"), Some(5), None, Some("team-a"))),
        ("fine-tune-node-0-5", &[&url, "JOB_COMPLETION_INDEX=4"], (None, None, None, Some("team-a"))),
        ("node-7", &[&url], (None, None, None, Some("team-a"))),
        // JobSet: both names may have dashes.
        ("big-run-gpu-workers-2-11", &[&in_jobset], (Some("big-run"), Some(11), None, None)),
        ("big-run-cpu-workers-2-11", &[&in_jobset], (None, None, None, None)),
        ("big-run-a-b-2-11", &["JOBSET_NAME=big-run"], (Some("big-run"), Some(11), None, None)),
        ("big-run-11", &["JOBSET_NAME=big-run"], (None, None, None, None)),
        ("other-a-2-11", &["JOBSET_NAME=big-run"], (None, None, None, None)),
        // Indexed Job: without the index in both places the name is somebody else's.
        ("etl-2024-3", &["JOB_COMPLETION_INDEX=3"], (Some("etl-2024"), Some(3), None, None)),
        ("etl-worker-3", &["JOB_COMPLETION_INDEX=3"], (Some("etl-worker"), Some(3), None, None)),
        ("node-7", &["JOB_COMPLETION_INDEX=3"], (None, Some(3), None, None)),
        ("etl-3", &["JOB_COMPLETION_INDEX=x"], (None, None, None, None)),
        // Volcano: the lists tell where the job's name ends and the task's begins.
        ("sim-a-worker-1", &["VC_TASK_INDEX=1", list], (Some("sim-a"), Some(1), None, None)),
        (
            "sim-a-worker-1",
            &["VC_TASK_INDEX=1", list, "/etc/volcano/master.host:sim-a-master-0.sim-a"],
            (Some("sim-a"), Some(1), Some("sim-a-master-0"), None),
        ),
        (
            "sim-a-master-0",
            &["VC_TASK_INDEX=0", "MPI_HOST=sim-a-worker-0.sim-a,sim-a-worker-1.sim-a"],
            (Some("sim-a"), Some(0), Some("sim-a-master-0"), None),
        ),
        ("sim-a-x-y-0", &["VC_TASK_INDEX=0", "VC_X_Y_HOSTS=sim-a-x-y-0.sim-a"], (Some("sim-a"), Some(0), None, None)),
        ("sim-a-worker-1.sim-a", &["VC_TASK_INDEX=1"], (Some("sim-a"), Some(1), None, None)),
        ("sim-a-worker-1", &["VC_TASK_INDEX=1"], (None, None, None, None)),
        ("sim-a-worker-1", &["VC_TASK_INDEX=2", list], (None, None, None, None)),
        ("node-1", &["VC_TASK_INDEX=1", list], (None, None, None, None)),
    ] {
        assert_eq!(told(&pod(hostname, traces).place()), want, "{hostname} with {traces:?}");
    }
}

#[test]
fn a_pod_knows_under_which_name_it_is_listed() {
    let account = format!("{NAMESPACE}:tenant-a");
    let url = format!("KUBEFLOW_TRAINER_SERVER_URL={URL}");
    for (hostname, traces, want) in [
        ("pi-worker-0", &["K_MPI_JOB_ROLE=worker", &resolv(KUBELET)][..], Some("pi-worker-0.pi.tenant-a.svc")),
        ("pi-worker-0.pi", &["K_MPI_JOB_ROLE=worker"], None),
        ("pi-worker-0", &["K_MPI_JOB_ROLE=worker", &account], None),
        ("pi-worker-0", &[KUBEXEC, &resolv(KUBELET)], Some("pi-worker-0")),
        ("fine-tune-node-0-0", &[&url], Some("fine-tune-node-0-0.fine-tune")),
        ("etl-0", &["JOB_COMPLETION_INDEX=0"], None),
        ("x", &[], None),
    ] {
        assert_eq!(pod(hostname, traces).place().listed_as.as_deref(), want, "{hostname} with {traces:?}");
    }
    let place = pod("pi-worker-0.pi", &["K_MPI_JOB_ROLE=worker", &account]).place();
    assert_eq!(place.describe(), "role worker, job pi, index 0, launcher pi-launcher, namespace tenant-a");
    assert_eq!(Place::default().describe(), "");
}
