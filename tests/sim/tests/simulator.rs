//! Many random clusters, and a few that are built for one question each.

use std::env;

use muster_core::exit::Outcome;
use muster_protocol::HostIndex;
use muster_protocol::event::Event;
use muster_sim::check::{complaints, lost};
use muster_sim::faults::{Fault, Moment, Victim};
use muster_sim::scenario::Scenario;
use muster_sim::world::{ROOT, World, node_of};

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
            failed.push(format!("MUSTER_SIM_SEED={seed}: {wrong:#?}\n{:?}\nstruck: {:?}", world.scenario, world.struck));
        }
    }
    let count = failed.len();
    failed.truncate(5);
    assert!(count == 0, "{count} runs went wrong, the first are\n{}", failed.join("\n\n"));
}
