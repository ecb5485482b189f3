use muster_protocol::event::Event;
use muster_protocol::limits::{
    STATUS_BODY_BYTES_MAX, STATUS_METRIC_CHARS_MAX, STATUS_METRICS_ENTRIES_MAX, STATUS_PERIOD_MS,
};
use muster_protocol::message::{Obstacle, ProcEnd};
use muster_protocol::{Generation, Group, HostIndex, ProcId, Rank};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const TIME: &str = "2026-11-30T12:00:00Z";

fn starting(hosts: usize, ranks: u32) -> Event {
    Event::JobStarting { job: "train".to_owned(), hosts, ranks, worlds: 1 }
}

fn missing(host: &str, text: &str) -> Event {
    Event::HostMissing { host: host.to_owned(), obstacle: Obstacle::Waiting, text: text.to_owned() }
}

fn joined(index: u32, host: &str) -> Event {
    Event::HostJoined { index: HostIndex(index), host: host.to_owned() }
}

fn rank_started(rank: u32) -> Event {
    rank_started_on("w-0", rank)
}

fn rank_started_on(host: &str, rank: u32) -> Event {
    let generation = Generation(0);
    Event::RankStarted { group: Group(0), rank: Rank(rank), host: host.to_owned(), pid: 7, generation }
}

fn lost(host: &str) -> Event {
    Event::HostLost { host: host.to_owned(), why: "gone".to_owned() }
}

fn rank_ended(rank: u32, end: ProcEnd) -> Event {
    Event::RankEnded {
        group: Group(0),
        rank: Rank(rank),
        proc: ProcId(rank),
        host: "w-0".to_owned(),
        end,
        killed: false,
        generation: Generation(0),
    }
}

fn ended(status: u8, cause: Option<&str>) -> Event {
    Event::JobEnded { status, cause: cause.map(str::to_owned) }
}

/// What the server would see after these events.
fn told(events: &[(Event, u64)]) -> Value {
    let mut progress = Progress::default();
    for (event, at_ms) in events {
        progress.note(event, *at_ms);
    }
    serde_json::from_str(&progress.body(TIME)).unwrap()
}

fn metrics(body: &Value) -> Vec<(&str, &str)> {
    let list = body["trainerStatus"]["metrics"].as_array().unwrap();
    list.iter().map(|m| (m["name"].as_str().unwrap(), m["value"].as_str().unwrap())).collect()
}

fn metric<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    metrics(body).into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[test]
fn c7_start_up_is_told_host_by_host_and_rank_by_rank() {
    let mut events = vec![(starting(2, 3), 0), (missing("w-1", "w-1: no address yet"), 100), (joined(0, "w-0"), 200)];
    let body = told(&events);
    assert_eq!(body["trainerStatus"]["lastUpdatedTime"], TIME);
    assert_eq!(
        metrics(&body),
        [
            ("phase", "connecting"),
            ("job", "train"),
            ("hosts", "2"),
            ("hosts_ready", "1"),
            ("hosts_lost", "0"),
            ("ranks", "3"),
            ("ranks_up", "0"),
            ("ranks_ended", "0"),
            ("restarts", "0"),
            ("missing_host_1", "w-1: no address yet"),
        ]
    );
    events.extend([(joined(1, "w-1"), 900), (rank_started(0), 950)]);
    let body = told(&events);
    assert_eq!((metric(&body, "phase"), metric(&body, "ranks_up")), (Some("starting"), Some("1")));
    assert_eq!(metric(&body, "missing_host_1"), None);
    let running = (Event::GroupRunning { group: Group(0), size: 3 }, 1_207);
    events.extend([
        (rank_started(1), 960),
        (rank_started(2), 970),
        running,
        (rank_ended(1, ProcEnd::Exited(0)), 5_000),
    ]);
    let body = told(&events);
    let names = ["phase", "hosts_ready", "ranks_up", "ranks_ended", "startup_seconds"];
    assert_eq!(names.map(|name| metric(&body, name).unwrap()), ["running", "2", "2", "1", "1.207"]);
}

#[test]
fn a_job_of_several_worlds_runs_when_all_of_them_do() {
    let mut events = vec![(Event::JobStarting { job: "train".to_owned(), hosts: 1, ranks: 3, worlds: 2 }, 0)];
    let running = |group: u32, size: u32| Event::GroupRunning { group: Group(group), size };
    // A spawned group that is faster than the second world says nothing about it.
    events.extend([(joined(0, "w-0"), 1), (running(0, 2), 700), (running(2, 1), 800)]);
    assert_eq!(metric(&told(&events), "phase"), Some("starting"));
    events.push((running(1, 1), 900));
    let body = told(&events);
    assert_eq!((metric(&body, "phase"), metric(&body, "startup_seconds")), (Some("running"), Some("0.900")));
}

#[test]
fn c7_a_percentage_is_given_only_when_it_is_known() {
    let running =
        [(starting(1, 2), 0), (joined(0, "w-0"), 1), (rank_started(0), 2), (rank_ended(0, ProcEnd::Exited(0)), 9)];
    let percentage = |last: &[(Event, u64)]| {
        let status = told(&[&running[..], last].concat())["trainerStatus"].take();
        (status["progressPercentage"].clone(), status["estimatedRemainingSeconds"].clone())
    };
    assert_eq!(percentage(&[]), (Value::Null, Value::Null), "half of the ranks is not half of the work");
    assert_eq!(percentage(&[(ended(0, None), 10)]), (100.into(), 0.into()));
    assert_eq!(percentage(&[(ended(3, Some("rank 1 on w-0 exited with status 3")), 10)]), (Value::Null, Value::Null));
}

#[test]
fn c7_the_first_failure_is_told_whole_and_stays_the_first() {
    let cause = "rank 17 on fine-tune-node-0-11.fine-tune.tenant-a.svc.cluster.local was killed by signal 9 (SIGKILL), \
                 perhaps for want of memory";
    let lost = Event::HostLost { host: "w-1".to_owned(), why: "its agent has ended".to_owned() };
    let events = [
        (starting(2, 2), 0),
        (lost, 4),
        (Event::Ending { cause: cause.to_owned() }, 5),
        (Event::HostLost { host: "w-0".to_owned(), why: "no sign of life for 5 s".to_owned() }, 6),
    ];
    let body = told(&events[..2]);
    assert_eq!(metric(&body, "first_failure"), Some("host w-1 is lost: its agent has ended"));
    let body = told(&events);
    assert_eq!((metric(&body, "phase"), metric(&body, "hosts_lost")), (Some("ending"), Some("2")));
    let pieces: Vec<&str> =
        metrics(&body).into_iter().filter(|(name, _)| name.starts_with("first_failure")).map(|(_, v)| v).collect();
    assert_eq!(pieces.join(" "), cause);
    assert_eq!(pieces.len(), 3, "{pieces:?}");
    let body = told(&[&events[..], &[(ended(137, Some(cause)), 9)]].concat());
    assert_eq!((metric(&body, "phase"), metric(&body, "exit_status")), (Some("failed"), Some("137")));
}

#[test]
fn c7_restarts_of_a_command_are_counted_and_a_command_has_no_ranks_that_are_known() {
    let begun = |restarts| Event::CommandStarted { restarts };
    let lost = Event::HostLost { host: "w-1".to_owned(), why: "gone".to_owned() };
    let mut events =
        vec![(starting(2, 0), 0), (joined(0, "w-0"), 1), (joined(1, "w-1"), 2), (begun(0), 1_500), (lost, 9)];
    events.push((begun(1), 20_000));
    let body = told(&events);
    let told = ["phase", "restarts", "startup_seconds", "hosts_lost", "ranks", "first_failure"];
    let told = told.map(|name| metric(&body, name));
    assert_eq!(told, [Some("running"), Some("1"), Some("1.500"), Some("1"), None, None]);
}

#[test]
fn c7_a_host_is_lost_once_whoever_tells_of_it_and_takes_its_ranks_along() {
    let mut events = vec![(starting(2, 3), 0), (joined(0, "w-0"), 1), (joined(1, "w-1"), 1), (rank_started(0), 2)];
    events.extend([(rank_started_on("w-1", 1), 2), (rank_started_on("w-1", 2), 2)]);
    let seen = |events: &[(Event, u64)]| {
        let body = told(events);
        let names = ["hosts_ready", "hosts_lost", "ranks_up", "ranks_ended"];
        names.map(|name| metric(&body, name).unwrap().to_owned())
    };
    assert_eq!(seen(&events), ["2", "0", "3", "0"]);
    // Each remote shell on it, and the line that was kept ready.
    events.extend([(lost("w-1"), 3), (lost("w-1"), 3), (lost("w-1"), 4)]);
    assert_eq!(seen(&events), ["1", "1", "1", "0"]);
    events.push((rank_ended(0, ProcEnd::Exited(0)), 5));
    assert_eq!(seen(&events), ["1", "1", "0", "1"]);
    events.push((joined(1, "w-1"), 6));
    assert_eq!(seen(&events), ["2", "0", "0", "1"], "it is back, its ranks are not");
}

#[test]
fn c7_a_body_stays_within_what_the_server_takes() {
    // Longer names than may be told, more hosts than there is room for, characters that take most bytes and most escapes.
    for name in ["h", "ü", "\u{1F680}", "\"\\\u{1}\n"] {
        let hosts = 5_000;
        let mut progress = Progress::default();
        let long = name.repeat(200);
        progress.note(&Event::JobStarting { job: long.clone(), hosts, ranks: u32::MAX, worlds: 1 }, 0);
        for i in 0..hosts {
            progress.note(&missing(&format!("{i}{long}"), &long), u64::MAX);
        }
        progress.note(&ended(255, Some(&format!("{long} {long}"))), u64::MAX);
        within_limits(&progress.body(TIME));
    }
}

fn within_limits(text: &str) {
    assert!(text.len() <= STATUS_BODY_BYTES_MAX, "{} bytes", text.len());
    let body: Value = serde_json::from_str(text).unwrap();
    let metrics = metrics(&body);
    assert!((3..=STATUS_METRICS_ENTRIES_MAX).contains(&metrics.len()), "{}", metrics.len());
    assert_eq!(metrics[0].0, "phase", "what is most important comes first");
    for (name, value) in &metrics {
        for text in [name, value] {
            assert!(text.chars().count() <= STATUS_METRIC_CHARS_MAX && !text.contains(char::is_control), "{text:?}");
        }
    }
    let names: std::collections::BTreeSet<_> = metrics.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), metrics.len(), "each name is there once");
}

proptest! {
    #[test]
    fn c7_whatever_is_said_is_cut_to_whole_characters(job in "\\PC{0,200}", host in "\\PC{0,80}", cause in "(\\PC| ){0,600}") {
        let mut progress = Progress::default();
        progress.note(&Event::JobStarting { job, hosts: 1, ranks: 1, worlds: 1 }, 0);
        progress.note(&missing(&host, "no answer"), 1);
        progress.note(&ended(1, Some(&cause)), 2);
        within_limits(&progress.body(TIME));
    }

    /// Whatever happens when, reports keep their distance, and the last state is sent once and soon: at once where nobody has heard
    /// the one before.
    #[test]
    fn c7_reports_keep_their_distance_and_the_last_state_is_always_sent(
        steps in prop::collection::vec((0u64..4_000, any::<bool>(), 0u64..2_000, any::<bool>()), 0..60),
    ) {
        let mut throttle = Throttle::new(1_000);
        let (mut now, mut posts, mut unsent, mut heard) = (1_000, Vec::new(), false, false);
        let post = |throttle: &mut Throttle, now: &mut u64, takes: u64, arrives: bool, posts: &mut Vec<(u64, u64)>| {
            throttle.leaves();
            let begun = *now;
            *now += takes;
            throttle.ended(arrives, *now);
            posts.push((begun, *now));
            arrives
        };
        for (wait, change, takes, arrives) in steps {
            now += wait;
            if change {
                throttle.changed();
                unsent = true;
            }
            prop_assert_eq!(throttle.due_ms().is_some(), unsent, "what is known is sent");
            if throttle.due_ms().is_some_and(|due| due <= now) {
                heard = post(&mut throttle, &mut now, takes, arrives, &mut posts);
                unsent = !arrives;
            }
        }
        let end = now;
        throttle.last(now);
        now = throttle.due_ms().unwrap();
        prop_assert!(now >= end && now <= end + STATUS_PERIOD_MS);
        prop_assert!(heard || now == end, "who was not heard does not wait");
        let before = posts.len();
        post(&mut throttle, &mut now, 0, false, &mut posts);
        prop_assert!(throttle.is_over() && throttle.due_ms().is_none(), "once");
        let kept = if heard { posts.len() } else { before };
        prop_assert!(posts[..kept].windows(2).all(|pair| pair[1].0 >= pair[0].1 + STATUS_PERIOD_MS), "{:?}", posts);
    }
}

#[test]
fn c7_a_burst_of_changes_is_one_report_each_period() {
    let mut throttle = Throttle::new(0);
    let mut posts = 0;
    // A change each 10 ms for a minute.
    for now in (0..60_000).step_by(10) {
        throttle.changed();
        if throttle.due_ms().is_some_and(|due| due <= now) {
            throttle.leaves();
            throttle.ended(true, now);
            posts += 1;
        }
    }
    assert_eq!(posts, 11);
    assert!(!throttle.is_over());
}
