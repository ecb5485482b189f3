use super::*;

/// Hosts a, b and c, connected, with a command that has begun something on a and b.
fn running() -> Watch {
    let mut watch = Watch::new(["a", "b", "c"].map(str::to_owned).to_vec(), true, 5_000);
    assert_eq!(watch.ready(0), []);
    assert_eq!(watch.ready(1), []);
    assert_eq!(watch.ready(2), [Act::Start]);
    watch.shell_begun(0);
    watch.shell_begun(1);
    watch
}

fn said(watch: &Watch) -> (String, u8) {
    watch.failure().map(|f| (f.to_string(), f.outcome().code())).unwrap_or_default()
}

#[test]
fn it_starts_when_all_hosts_are_ready_and_gives_the_commands_status() {
    for (end, want) in [
        (End::Exited(0), (String::new(), 0)),
        (End::Exited(7), ("the command exited with status 7".to_owned(), 7)),
        (End::Signaled(11), ("the command was killed by SIGSEGV (signal 11)".to_owned(), 139)),
    ] {
        let mut watch = running();
        assert_eq!(watch.command_ended(end), [Act::Over]);
        assert_eq!(said(&watch), want);
        assert_eq!(watch.command_ended(end), [], "once");
    }
}

#[test]
fn who_is_missing_is_told_when_the_time_is_over() {
    let mut watch = Watch::new(["a", "b"].map(str::to_owned).to_vec(), true, 0);
    watch.ready(0);
    watch.unreached(1, "connection refused".to_owned(), false);
    assert_eq!(watch.missing(), [("b", Some("connection refused"))]);
    // One that was there may go again before anything has started.
    assert!(!watch.lost(0, "gone".to_owned(), 5));
    assert_eq!(watch.missing().len(), 2);
    watch.ready(0);
    assert_eq!(watch.connect_deadline(), [Act::Over]);
    assert_eq!(said(&watch), ("1 host could not be connected: b: connection refused".to_owned(), 240));
    let mut refused = Watch::new(vec!["a".to_owned()], true, 0);
    refused.unreached(0, "another key".to_owned(), true);
    refused.connect_deadline();
    assert_eq!(said(&refused).1, 77);
    assert_eq!(running().connect_deadline(), [], "the deadline is for connecting");
}

#[test]
fn a_lost_host_ends_the_command_within_a_second_and_is_the_cause() {
    let mut watch = running();
    assert!(!watch.lost(1, "no sign of life".to_owned(), 1_000));
    assert_eq!(watch.next_due_ms(), Some(1_000 + LOST_POLITE_MS));
    assert_eq!(watch.tick(1_000), []);
    assert_eq!(watch.tick(1_000 + LOST_POLITE_MS), [Act::Signal(SIGTERM)]);
    assert_eq!(watch.tick(1_000 + LOST_HARD_MS), [Act::Kill]);
    assert_eq!(watch.next_due_ms(), None);
    watch.command_ended(End::Signaled(9));
    assert_eq!(said(&watch), ("host b was lost: no sign of life".to_owned(), 241));
    assert!(watch.failure().is_some_and(Failure::may_be_tried_again));
    assert_eq!(watch.alive(), [true, false, true]);
}

#[test]
fn a_lost_host_on_which_nothing_runs_is_worth_a_word_and_no_end() {
    let mut watch = running();
    assert!(watch.lost(2, "gone".to_owned(), 1_000));
    assert!(!watch.lost(2, "gone".to_owned(), 1_001), "a word once");
    assert_eq!((watch.tick(9_999), watch.next_due_ms()), (vec![], None));
    watch.command_ended(End::Exited(0));
    assert_eq!(watch.failure(), None);
}

#[test]
fn a_daemon_that_ends_badly_makes_a_lie_of_the_commands_success() {
    let mut watch = running();
    watch.shell_ended(0, 0, 0);
    watch.shell_ended(1, 137, 0);
    watch.command_ended(End::Exited(0));
    let told = "the command ended with status 0, but what it had started on b ended with status 137";
    assert_eq!(said(&watch), (told.to_owned(), 1));
    // Of commands whose daemons are not known nothing is expected, and what the end itself kills is no failure.
    let mut other = Watch::new(vec!["a".to_owned()], false, 0);
    other.ready(0);
    other.shell_ended(0, 1, 0);
    assert_eq!(other.next_due_ms(), None);
    other.command_ended(End::Exited(0));
    assert_eq!(other.failure(), None);
}

#[test]
fn a_command_that_waits_for_a_daemon_that_is_gone_is_ended() {
    let mut watch = running();
    watch.shell_ended(1, 127, 1_000);
    assert_eq!(watch.next_due_ms(), Some(1_000 + DAEMON_MS));
    assert_eq!(watch.tick(1_000 + DAEMON_MS), [Act::Signal(SIGTERM)]);
    watch.command_ended(End::Signaled(15));
    let told = "the command ended with status 0, but what it had started on b ended with status 127";
    assert_ne!(said(&watch).0, told, "it has not said that all is well");
    assert_eq!(
        said(&watch),
        ("what the command had started on b ended with status 127, and it waited on".to_owned(), 1)
    );
    // One that ends by itself in time says itself what was wrong.
    let mut watch = running();
    watch.shell_ended(1, 255, 1_000);
    watch.command_ended(End::Exited(9));
    assert_eq!(said(&watch).1, 9);
}

#[test]
fn a_command_that_asks_for_a_lost_host_is_ended() {
    let mut watch = running();
    assert!(watch.lost(2, "gone".to_owned(), 1_000), "nothing runs there yet");
    watch.refused(2, "its agent is not reached".to_owned(), 2_000);
    assert_eq!(watch.tick(2_000 + LOST_HARD_MS), [Act::Signal(SIGTERM), Act::Kill]);
    watch.command_ended(End::Signaled(9));
    assert_eq!(said(&watch), ("host c was lost: its agent is not reached".to_owned(), 241));
}

#[test]
fn the_first_signal_is_polite_and_the_second_is_not() {
    let mut watch = running();
    assert_eq!(watch.end_signal(2, 100), [Act::Signal(2)]);
    assert_eq!(watch.next_due_ms(), Some(5_100));
    assert_eq!(watch.tick(5_100), [Act::Kill]);
    let mut watch = running();
    watch.end_signal(15, 100);
    assert_eq!(watch.end_signal(15, 101), [Act::Kill]);
    watch.command_ended(End::Exited(1));
    assert_eq!(said(&watch), ("ended by SIGTERM (signal 15)".to_owned(), 143));
    assert!(!watch.failure().is_some_and(Failure::may_be_tried_again));
    let mut early = Watch::new(vec!["a".to_owned()], true, 0);
    assert_eq!(early.end_signal(2, 0), [Act::Over]);
}

#[test]
fn a_time_limit_counts_from_the_beginning() {
    let mut early = Watch::new(vec!["a".to_owned()], true, 0);
    early.limit(0, 1_500);
    assert_eq!(early.next_due_ms(), Some(1_500));
    assert_eq!(early.tick(1_500), [Act::Over]);
    assert_eq!(said(&early).1, 243);
    let mut watch = running();
    watch.limit(0, 1_500);
    assert_eq!(watch.tick(1_500), [Act::Signal(SIGTERM)]);
    assert_eq!(watch.tick(6_500), [Act::Kill]);
    watch.command_ended(End::Signaled(9));
    assert_eq!(said(&watch), ("the job did not end within its time limit of 1.500 s".to_owned(), 243));
}
