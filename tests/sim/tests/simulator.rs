//! Many random clusters, and a few that are built for one question each.

use std::env;

use muster_core::exit::Outcome;
use muster_protocol::event::Event;
use muster_protocol::{HostIndex, ProcId};
use muster_sim::check::{complaints, lost};
use muster_sim::faults::{Fault, Moment, Victim};
use muster_sim::ranks::Odd;
use muster_sim::scenario::Scenario;
use muster_sim::world::{ROOT, World, host_of, node_of};

/// Runs unless told otherwise; `MUSTER_SIM_SEEDS` says otherwise.
const SEEDS_DEFAULT: u64 = 200;
/// Simulated time after which every run is over.
const LIMIT_US: u64 = 150_000_000;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is not a whole number")))
}

fn run(scenario: Scenario) -> World {
    let mut world = World::new(scenario);
    world.run(LIMIT_US);
    world
}

/// Runs a scenario in which nothing may be wrong.
fn good(scenario: Scenario) -> World {
    let world = run(scenario);
    let wrong = complaints(&world);
    assert!(wrong.is_empty(), "{wrong:#?}\nstruck: {:?}\nevents: {:#?}", world.struck, world.root.events);
    world
}

fn outcome(world: &World) -> Outcome {
    world.root.over[0].1
}

fn when(world: &World, wanted: impl Fn(&Event) -> bool) -> Option<u64> {
    world.root.events.iter().find(|(_, e)| wanted(e)).map(|(at_us, _)| *at_us)
}

fn joined_at(world: &World, host: u32) -> u64 {
    when(world, |e| matches!(e, Event::HostJoined { index, .. } if index.0 == host)).expect("every host joins")
}

/// A host's ancestors, from its parent up.
fn ancestors(world: &World, host: u32) -> Vec<u32> {
    let mut node = node_of(HostIndex(host));
    let mut up = Vec::new();
    while let Some(parent) = world.parent_of(node).filter(|p| *p != ROOT) {
        assert!(up.len() < 300, "the tree has a circle");
        up.push(host_of(parent).0);
        node = parent;
    }
    up
}

/// A world whose ranks wait in their first fence for one that never comes, some seconds after the start.
fn standing(mut scenario: Scenario) -> World {
    scenario.program.odd = Some((ProcId(0), 0, Odd::Hang));
    let mut world = World::new(scenario);
    world.run_until(5_000_000);
    world
}

#[test]
fn radix_2_over_9_hosts() {
    let world = standing(Scenario::calm(9, 2));
    let tree: Vec<Vec<u32>> = (0..9).map(|host| ancestors(&world, host)).collect();
    let want: [&[u32]; 9] = [&[], &[0], &[1, 0], &[0], &[3, 0], &[], &[5], &[6, 5], &[5]];
    assert_eq!(tree, want, "ancestors of each host");
    let world = good(Scenario::calm(9, 2));
    assert_eq!(outcome(&world), Outcome::Success);
}

#[test]
fn no_node_has_more_children_than_the_radix_and_the_tree_is_shallow() {
    for (hosts, radix, levels) in [(33, 32, 2), (100, 4, 4), (300, 2, 9), (300, 32, 2)] {
        let world = standing(Scenario::calm(hosts, radix));
        let deepest = (0..hosts).map(|host| ancestors(&world, host).len() + 1).max();
        assert!(deepest <= Some(levels), "{hosts} hosts at radix {radix}: {deepest:?} levels");
        for node in 0..=hosts as usize {
            assert!(world.children_of(node).len() <= radix as usize);
        }
    }
}

#[test]
fn a_slow_parent_does_not_delay_its_branch() {
    let mut scenario = Scenario::calm(9, 2);
    // The first candidate of the first branch answers only after three seconds.
    scenario.slow = vec![(HostIndex(0), 3_000_000)];
    let world = good(scenario);
    for host in 1..9 {
        assert!(joined_at(&world, host) < 500_000, "host {host} joined only after {} us", joined_at(&world, host));
    }
    assert!(joined_at(&world, 0) > 3_000_000);
    assert_eq!(outcome(&world), Outcome::Success);
}

#[test]
fn a_host_that_comes_up_late_joins_late_and_delays_nobody() {
    let world = good(Scenario::calm(20, 3).with(Moment::At(8_000_000), Fault::Start(HostIndex(0))));
    let late = (0..20).filter(|h| joined_at(&world, *h) > 2_000_000).collect::<Vec<_>>();
    assert_eq!(late, [0]);
    assert!(joined_at(&world, 0) < 9_500_000, "it is dialled every second");
    assert_eq!(outcome(&world), Outcome::Success);
}

#[test]
fn an_inner_agents_death() {
    let moments = [Moment::Running, Moment::Fence(1), Moment::FirstReturn];
    for moment in moments {
        let world = good(Scenario::calm(60, 3).with(moment, Fault::Crash(Victim::Inner)));
        let [(struck_us, _, victim)] = world.struck[..] else { panic!("{:?}", world.struck) };
        assert_eq!((outcome(&world), lost(&world)), (Outcome::HostLost, [victim].into()), "{moment:?}");
        let (over_us, ..) = world.root.over[0];
        assert!(over_us - struck_us < 1_500_000, "{moment:?}: over only after {} us", over_us - struck_us);
        // Ranks of hosts that nothing happened to were told to die, those below the dead agent too.
        let ended = |e: &&(u64, Event)| matches!(e.1, Event::RankEnded { .. });
        let dead = 2 * (60 - 1);
        assert_eq!(world.root.events.iter().filter(ended).count(), dead, "{moment:?}");
    }
}

#[test]
fn an_inner_agents_death_while_the_job_connects_or_ends() {
    // When all 60 have joined, some hosts never hear what they should have run.
    let world = good(Scenario::calm(60, 3).with(Moment::Joined(60), Fault::Crash(Victim::Inner)));
    assert_eq!(outcome(&world), Outcome::HostLost);
    let mut scenario = Scenario::calm(60, 3).with(Moment::Ending, Fault::Crash(Victim::Inner));
    scenario.program.odd = Some((ProcId(7), 1, Odd::Exit(0)));
    let world = good(scenario.clone());
    assert_eq!((outcome(&world), lost(&world).len()), (Outcome::Rank(1), 1), "the first cause stays");
    // An abort may be a library's answer to the loss of the host, which only was told later.
    scenario.program.odd = Some((ProcId(7), 1, Odd::Abort(7)));
    assert_eq!(outcome(&good(scenario)), Outcome::HostLost);
}

#[test]
fn a_host_that_is_lost_while_others_are_awaited_is_missing_again_until_the_time_to_connect_is_over() {
    let missing = |world: &World, victim: HostIndex| {
        when(
            world,
            |e| matches!(e, Event::HostMissing { host, text, .. } if *host == format!("h{victim}") && text.starts_with("connected, then lost")),
        )
    };
    for moment in [Moment::Joined(20), Moment::Joined(45)] {
        for victim in [Victim::Inner, Victim::InnerChild] {
            let dies = Scenario::calm(60, 3).with(moment, Fault::Crash(victim));
            let world = good(dies.clone().with(Moment::At(4_000_000), Fault::Restart));
            let (struck_us, _, host) = world.struck[0];
            assert!(missing(&world, host).is_some_and(|at_us| at_us < struck_us + 1_000_000), "{moment:?} {victim:?}");
            assert_eq!((outcome(&world), lost(&world).len()), (Outcome::Success, 0), "{moment:?} {victim:?}");
            let world = good(dies);
            assert_eq!((outcome(&world), lost(&world).len()), (Outcome::HostUnreachable, 0), "{moment:?} {victim:?}");
            assert!(world.root.over[0].0 >= 60_000_000, "{moment:?} {victim:?}");
        }
    }
    // Its parent does not reach it any more, but the launcher does.
    let world = good(
        Scenario::calm(60, 3)
            .with(Moment::Joined(45), Fault::CutParent(Victim::InnerChild))
            .with(Moment::At(1_000), Fault::Start(HostIndex(59))),
    );
    assert_eq!((outcome(&world), lost(&world).len()), (Outcome::Success, 0));
}

#[test]
fn a_dead_machine_is_lost_after_five_seconds_and_its_silence_costs_nobody_else() {
    for fault in [Fault::Off, Fault::Isolate, Fault::CutParent] {
        let world = good(standing_still().with(Moment::At(2_000_000), fault(Victim::Inner)));
        let [(struck_us, _, victim)] = world.struck[..] else { panic!("{:?}", world.struck) };
        assert_eq!((outcome(&world), lost(&world)), (Outcome::HostLost, [victim].into()));
        let lost_us = when(&world, |e| matches!(e, Event::HostLost { .. })).expect("it is lost");
        let after_ms = (lost_us - struck_us) / 1_000;
        assert!((4_000..=6_500).contains(&after_ms), "lost after {after_ms} ms");
    }
}

/// A job that runs until something ends it.
fn standing_still() -> Scenario {
    let mut scenario = Scenario::calm(60, 3);
    scenario.program.odd = Some((ProcId(0), 0, Odd::Hang));
    scenario
}

#[test]
fn a_slow_agent_is_not_a_dead_one() {
    for victim in [Victim::Inner, Victim::InnerChild] {
        let mut scenario = Scenario::calm(30, 3).with(Moment::Running, Fault::Freeze(victim, 3_000));
        scenario.program.step_us = 2_000_000;
        let world = good(scenario);
        assert_eq!((outcome(&world), lost(&world).len()), (Outcome::Success, 0));
    }
}

#[test]
fn a_host_that_is_cut_off_ends_its_ranks_with_its_lease() {
    let mut scenario = standing_still().with(Moment::Running, Fault::Isolate(Victim::Host(HostIndex(4))));
    scenario.program.stubborn_percent = 100;
    let mut world = World::new(scenario);
    world.run_until(12_000_000);
    let ranks = |world: &World| world.agents[4].job.as_ref().map_or(0, |j| j.ranks.alive());
    assert_eq!(ranks(&world), 2);
    world.run_until(15_000_000);
    assert_eq!(ranks(&world), 0);
}

#[test]
fn a_host_that_is_lost_with_output_when_the_job_is_over_does_not_keep_the_launcher() {
    for fault in [Fault::Crash, Fault::Off, Fault::Isolate] {
        // One with many below it, and one with none.
        for host in [HostIndex(0), HostIndex(50)] {
            let mut scenario = Scenario::calm(60, 3).with(Moment::Over, fault(Victim::Host(host)));
            scenario.mute = vec![host];
            let world = good(scenario);
            assert!(world.root.gone && world.root.owed.is_empty());
            assert_eq!(
                outcome(&world),
                Outcome::Success,
                "what is missing is seen by whoever waits for it, not by the job"
            );
        }
    }
}

#[test]
fn random_clusters_keep_every_promise() {
    let seeds = match number("MUSTER_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MUSTER_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT),
    };
    let mut failed = Vec::new();
    for seed in seeds {
        let world = run(Scenario::random(seed));
        let wrong = complaints(&world);
        if !wrong.is_empty() {
            let wrong: Vec<&String> = wrong.iter().take(5).collect();
            failed
                .push(format!("MUSTER_SIM_SEED={seed}: {wrong:#?}\n{:?}\nstruck: {:?}", world.scenario, world.struck));
        }
    }
    let count = failed.len();
    failed.truncate(5);
    assert!(count == 0, "{count} runs went wrong, the first are\n{}", failed.join("\n\n"));
}
