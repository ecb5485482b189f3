use super::*;

fn state(current: Option<u32>, previous: Option<u32>) -> JobSetState {
    JobSetState { bypass: false, current, previous }
}

const BYPASS: JobSetState = JobSetState { bypass: true, current: None, previous: None };

/// What happens to an agent.
enum Step {
    Looked(JobSetState),
    Registered,
    Failed,
}

use Step::{Failed, Looked, Registered};

/// Does this to a new barrier, and says what it wants next, whether it is down, and whether the agent has to end.
fn after(steps: &[Step]) -> (Option<Act>, bool, bool) {
    let mut barrier = Barrier::new("w-0", 0);
    for (now, step) in steps.iter().enumerate() {
        match step {
            Looked(state) => barrier.looked(state, now as u64),
            Registered => barrier.registered(now as u64),
            Failed => barrier.failed(now as u64),
        }
    }
    (barrier.next().map(|(act, _)| act), barrier.is_down(), barrier.is_over())
}

#[test]
fn c8_the_barrier_is_down_only_while_all_pods_are_in_this_attempt() {
    let (look, first, third) = (Some(Act::Look), Some(Act::Register(0)), Some(Act::Register(2)));
    let nothing = || Looked(state(None, None));
    for (what, steps, want) in [
        ("a new agent knows nothing", vec![], (look, false, false)),
        ("a new JobSet begins with 0", vec![nothing()], (first, false, false)),
        ("a restarted pod is one further", vec![Looked(state(Some(1), None))], (third, false, false)),
        ("also when others are being restarted", vec![Looked(state(Some(1), Some(1)))], (third, false, false)),
        (
            "its attempt stays as it was chosen",
            vec![nothing(), Failed, Looked(state(Some(0), None))],
            (first, false, false),
        ),
        ("others are waited for", vec![nothing(), Registered, nothing()], (look, false, false)),
        ("all are there", vec![nothing(), Registered, Looked(state(Some(0), None))], (look, true, false)),
        (
            "all are there after a restart",
            vec![Looked(state(Some(1), Some(0))), Registered, Looked(state(Some(2), Some(1)))],
            (look, true, false),
        ),
        (
            "without its mark on the pod it is not among them",
            vec![nothing(), Looked(state(Some(0), None))],
            (first, false, false),
        ),
        (
            "another pod has started again while this one serves",
            vec![nothing(), Registered, Looked(state(Some(0), None)), Looked(state(Some(0), Some(0)))],
            (None, false, true),
        ),
        ("or while it waits", vec![nothing(), Registered, Looked(state(None, Some(0)))], (None, false, true)),
        ("or while it cannot even say so", vec![nothing(), Failed, Looked(state(None, Some(0)))], (None, false, true)),
        (
            "an attempt below the last one that is over",
            vec![Looked(state(Some(0), None)), Registered, Looked(state(Some(3), Some(2)))],
            (None, false, true),
        ),
        (
            "an attempt above it goes on",
            vec![Looked(state(Some(2), Some(2))), Registered, Looked(state(Some(2), Some(2)))],
            (look, false, false),
        ),
        (
            "a server that fails does not raise it again",
            vec![nothing(), Registered, Looked(state(Some(0), None)), Failed, Failed],
            (look, true, false),
        ),
        ("another strategy has no barrier", vec![Looked(BYPASS)], (None, true, false)),
        (
            "nor has one that is switched off meanwhile",
            vec![nothing(), Registered, Looked(BYPASS)],
            (None, true, false),
        ),
        ("what is over stays over", vec![nothing(), Looked(state(None, Some(0))), Looked(BYPASS)], (None, false, true)),
    ] {
        assert_eq!(after(&steps), want, "{what}");
    }
}

/// Pauses of this pod, as parts of what they would be without a pace of its own.
fn is_about(due_ms: u64, now_ms: u64, pause_ms: u64) -> bool {
    (now_ms + pause_ms * 3 / 4..=now_ms + pause_ms * 5 / 4).contains(&due_ms)
}

#[test]
fn c8_looks_are_frequent_at_first_while_all_wait_and_rare_while_ranks_run() {
    let due = |barrier: &Barrier| barrier.next().unwrap().1;
    for pod in ["w-0", "w-1", "big-run-w-0-17-x7k2p"] {
        let mut barrier = Barrier::new(pod, 100);
        assert_eq!(barrier.next(), Some((Act::Look, 100)));
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            barrier.failed(100);
            assert!(is_about(due(&barrier), 100, pause_ms), "{pod}: {} for {pause_ms}", due(&barrier));
        }
        barrier.looked(&state(None, None), 200);
        assert_eq!(barrier.next(), Some((Act::Register(0), 200)), "at once");
        barrier.failed(200);
        assert!(is_about(due(&barrier), 200, 1_000), "success in between counts");
        barrier.registered(300);
        assert_eq!(barrier.next(), Some((Act::Look, 300)));
        for pause_ms in [1_000, 2_000, 4_000, 5_000, 5_000, 5_000] {
            barrier.looked(&state(None, None), 400);
            assert!(is_about(due(&barrier), 400, pause_ms), "{pod}: {} for {pause_ms}", due(&barrier));
        }
        for _ in 0..3 {
            barrier.looked(&state(Some(0), None), 1_300);
            assert!(is_about(due(&barrier), 1_300, 10_000), "{pod}");
        }
    }
}

#[test]
fn c8_a_thousand_pods_that_start_together_do_not_ask_together() {
    let mut dues: Vec<u64> = Vec::new();
    for i in 0..1_000 {
        let mut barrier = Barrier::new(&format!("big-run-w-0-{i}-x7k2p"), 0);
        let mut now = 0;
        barrier.looked(&state(None, None), now);
        barrier.registered(now);
        for _ in 0..5 {
            barrier.looked(&state(None, None), now);
            now = barrier.next().unwrap().1;
        }
        dues.push(now);
    }
    dues.sort_unstable();
    let at_once = dues.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
    assert!(at_once < 60, "{at_once} of a thousand ask in the same millisecond");
    assert!(dues[999] - dues[0] > 5_000, "the others ask over seconds: {} to {}", dues[0], dues[999]);
}

#[test]
fn c8_a_jobset_is_read_as_the_server_gives_it() {
    let spec = r#""kind":"JobSet","spec":{"replicatedJobs":[{"name":"w"}],"failurePolicy":{"maxRestarts":3,"restartStrategy":"InPlaceRestart"}}"#;
    let of = |rest: &str| JobSetState::parse(format!("{{{spec},{rest}}}").as_bytes());
    assert_eq!(of(r#""status":{"restarts":0}"#), Ok(state(None, None)));
    assert_eq!(of(r#""metadata":{"name":"a"}"#), Ok(state(None, None)), "nothing has happened yet");
    let both = r#""status":{"currentInPlaceRestartAttempt":4,"previousInPlaceRestartAttempt":3,"conditions":[]}"#;
    assert_eq!(of(both), Ok(state(Some(4), Some(3))));
    let off = r#""metadata":{"annotations":{"jobset.sigs.k8s.io/disable-in-place-restart":""}}"#;
    assert_eq!(of(off).map(|state| state.bypass), Ok(true));
    for other in
        [r#""spec":{"failurePolicy":{"restartStrategy":"Recreate"}}"#, r#""spec":{"failurePolicy":{}}"#, r#""spec":{}"#]
    {
        assert_eq!(JobSetState::parse(format!(r#"{{"kind":"JobSet",{other}}}"#).as_bytes()), Ok(BYPASS), "{other}");
    }
    let negative = format!(r#"{{{spec},"status":{{"currentInPlaceRestartAttempt":-1}}}}"#);
    for broken in ["", "[]", "{}", "not found", r#"{"kind":"Status","status":"Failure"}"#, &negative] {
        assert!(JobSetState::parse(broken.as_bytes()).unwrap_err().starts_with("what came is no JobSet: "), "{broken}");
    }
}

#[test]
fn c8_the_pod_is_told_its_attempt_as_text() {
    let patch: serde_json::Value = serde_json::from_str(&pod_patch("team-a", "big-run-w-0-1-x7k2p", 3)).unwrap();
    assert_eq!((&patch["apiVersion"], &patch["kind"]), (&"v1".into(), &"Pod".into()));
    assert_eq!(patch["metadata"]["name"], "big-run-w-0-1-x7k2p");
    assert_eq!(patch["metadata"]["annotations"][ATTEMPT_ANNOTATION], "3", "annotations are text");
}
