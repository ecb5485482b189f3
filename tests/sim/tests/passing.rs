//! What passes through an inner agent when it dies: reports, calls, aborts, results of fences. All of it arrives all the same.

use std::collections::BTreeMap;

use muster_core::exit::Outcome;
use muster_protocol::event::Event;
use muster_protocol::frame::Kind;
use muster_protocol::{HostIndex, ProcId, Rank};
use muster_sim::agent::Power;
use muster_sim::check::{complaints, lost};
use muster_sim::faults::{Fault, Moment, Planned, Victim};
use muster_sim::ranks::{Odd, Ranks};
use muster_sim::scenario::Scenario;
use muster_sim::world::World;

/// Simulated time after which every run is over.
const LIMIT_US: u64 = 150_000_000;
/// Time in which a host below a dead agent finds another parent and says everything again, with ranks that ignore the polite kill.
const ADOPTION_US: u64 = 3_000_000;

/// A cluster in which an inner agent dies some microseconds after a moment, and ranks live until the hard kill.
fn dying(seed: u64, victim: Victim, moment: Moment, delay_us: u64) -> Scenario {
    let mut scenario = Scenario::calm(40, 3);
    scenario.seed = seed;
    scenario.grace_ms = 5_000;
    scenario.program.stubborn_percent = 100;
    scenario.faults = vec![Planned { moment, delay_us, fault: Fault::Crash(victim) }];
    scenario
}

/// The ranks on hosts that live, some time after the agent died; then the run goes on to its end.
fn after_adoption(scenario: Scenario, look: impl Fn(&World, HostIndex, &Ranks)) -> World {
    let mut world = World::new(scenario);
    let mut until_us = 0;
    while world.struck.is_empty() {
        until_us += 1_000;
        world.run_until(until_us);
    }
    world.run_until(until_us + ADOPTION_US);
    for (i, agent) in world.agents.iter().enumerate().filter(|(_, a)| a.power == Power::On) {
        let Some(job) = &agent.job else {
            // The hard kill comes sooner after an abort.
            assert!(world.scenario.program.odd.is_some(), "host {i} was told to end before the hard kill");
            continue;
        };
        look(&world, HostIndex(i as u32), &job.ranks);
    }
    world.run(LIMIT_US);
    let wrong = complaints(&world);
    assert!(wrong.is_empty(), "{wrong:#?}\nstruck: {:?}", world.struck);
    world
}

/// How often something is told of each rank.
fn told(world: &World, of: impl Fn(&Event) -> Option<Rank>) -> BTreeMap<Rank, usize> {
    let mut times = BTreeMap::new();
    for rank in world.root.events.iter().filter_map(|(_, event)| of(event)) {
        *times.entry(rank).or_default() += 1;
    }
    times
}

#[test]
fn reports_are_neither_lost_nor_doubled() {
    let moments = [Moment::At(0), Moment::Running, Moment::Fence(2), Moment::FirstReturn, Moment::Ending];
    for seed in 0..60 {
        let moment = moments[seed as usize % moments.len()];
        // While ranks start and end, and while hosts confirm.
        let delay_us = if moment == Moment::At(0) { 12_000 + seed * 150 } else { seed * 170 };
        let victim = if seed % 2 == 0 { Victim::Inner } else { Victim::InnerChild };
        let mut scenario = dying(seed, victim, moment, delay_us);
        (scenario.program.stubborn_percent, scenario.ranks_per_host) = (0, 2);
        if moment == Moment::Ending {
            scenario.program.odd = Some((ProcId(5), 1, Odd::Crash(11)));
        }
        let mut world = World::new(scenario);
        world.run(LIMIT_US);
        let wrong = complaints(&world);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}\nstruck: {:?}", world.struck);
        let gone = lost(&world);
        let started = told(&world, |e| if let Event::RankStarted { rank, .. } = e { Some(*rank) } else { None });
        let ended = told(&world, |e| if let Event::RankEnded { rank, .. } = e { Some(*rank) } else { None });
        assert!(started.values().chain(ended.values()).all(|times| *times == 1), "seed {seed}: {started:?} {ended:?}");
        for rank in started.keys().filter(|r| !gone.contains(&HostIndex(r.0 / 2))) {
            assert!(ended.contains_key(rank), "seed {seed}: the end of rank {rank} is lost");
        }
    }
}

#[test]
fn reports_of_many_hosts_reach_the_root_merged() {
    let mut scenario = Scenario::calm(300, 32);
    scenario.latency_us = (100, 300);
    let mut world = World::new(scenario);
    world.run(LIMIT_US);
    assert_eq!((complaints(&world), world.root.over[0].1), (vec![], Outcome::Success));
    let count = |kind| world.root.heard.iter().filter(|(k, _)| *k == kind).count();
    assert!(count(Kind::Started) <= 2 * 32, "{}", count(Kind::Started));
    assert_eq!(count(Kind::Initialised), 32);
    // 600 ends of ranks and 300 of hosts, spread over 20 and 30 ms.
    assert!(count(Kind::Exits) <= 32 * 7, "{}", count(Kind::Exits));
    assert!(count(Kind::Ended) <= 32 * 7, "{}", count(Kind::Ended));
}

#[test]
fn calls_are_answered_once_for_each_rank() {
    for seed in 0..40 {
        let mut scenario = dying(seed, Victim::Inner, Moment::Running, 500 + seed * 1_000);
        scenario.program.publishes = true;
        scenario.latency_us = (1_000, 4_000);
        // A second answer to a publication would be a refusal, of which the ranks complain.
        after_adoption(scenario, |_, host, ranks| {
            assert_eq!(ranks.unanswered(), [], "seed {seed}: host {host}");
        });
    }
}

#[test]
fn an_abort_is_heard() {
    let mut aborts = 0;
    for seed in 0..60 {
        let mut scenario = dying(seed, Victim::Inner, Moment::Running, 500 + seed * 700);
        scenario.latency_us = (2_000, 6_000);
        scenario.program.step_us = 40_000;
        // A host far down.
        let host = HostIndex(12);
        scenario.program.odd = Some((ProcId(2 * host.0), 0, Odd::Abort(7)));
        let world = after_adoption(scenario, |world, at, ranks| {
            if at == host && ranks.aborted() {
                assert!(world.root.heard.contains(&(Kind::Abort, host)), "seed {seed}");
            }
        });
        aborts += usize::from(world.root.heard.contains(&(Kind::Abort, host)));
    }
    assert!(aborts > 20, "{aborts}");
}

#[test]
fn a_result_of_many_pieces_that_is_cut_in_two_arrives_whole() {
    for seed in 0..24 {
        let mut scenario = dying(seed, Victim::Inner, Moment::Fence(1), 100 + seed * 125);
        (scenario.hosts, scenario.radix, scenario.ranks_per_host) = (8, 1 + seed as u32 % 2, 1);
        scenario.program.blob_bytes = 300_000;
        // Ranks check what a fence brings.
        after_adoption(scenario, |world, host, ranks| {
            let parents = (0..8).map(|h| world.parent_of(h + 1)).collect::<Vec<_>>();
            assert!(ranks.fences_done() >= Some(2), "seed {seed}: host {host} waits in fence 1; parents {parents:?}");
        });
    }
}
