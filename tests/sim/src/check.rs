//! What must be true of every run.

use std::collections::BTreeSet;

use muster_core::exit::Outcome;
use muster_protocol::HostIndex;
use muster_protocol::event::Event;
use muster_protocol::limits::{HEARTBEAT_PERIOD_MS, SILENCE_DEAD_MS};

use crate::agent::Power;
use crate::faults::Fault;
use crate::world::World;

/// Longest time between a fault and the news of a lost host beyond the promised silence: a probe, a heartbeat, some latency.
const NEWS_MS: u64 = 1_500 + HEARTBEAT_PERIOD_MS + 500;
/// A sleep shorter than this makes nobody believe in a death.
pub const HARMLESS_FREEZE_MS: u64 = 3_500;

/// Everything that is wrong with a run; empty when it went well.
pub fn complaints(world: &World) -> Vec<String> {
    let mut wrong = world.wrong.clone();
    wrong.extend(endings(world));
    wrong.extend(leftovers(world));
    wrong.extend(losses(world));
    wrong.extend(undisturbed(world));
    wrong
}

fn endings(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    if world.root.over.len() != 1 {
        wrong.push(format!("the job was over {} times", world.root.over.len()));
    }
    if !world.root.after_over.is_empty() {
        wrong.push(format!("after the end the job still did: {:?}", world.root.after_over));
    }
    wrong
}

/// Hosts that the job has given up.
pub fn lost(world: &World) -> BTreeSet<HostIndex> {
    let lost = world
        .root
        .events
        .iter()
        .filter_map(|(_, e)| if let Event::HostLost { host, .. } = e { Some(host) } else { None });
    lost.filter_map(|name| name.strip_prefix('h')?.parse().ok().map(HostIndex)).collect()
}

fn leftovers(world: &World) -> Vec<String> {
    let lost = lost(world);
    let mut wrong: Vec<String> = world
        .ranks_at_over
        .iter()
        .filter(|(host, _)| !lost.contains(host))
        .map(|(host, ranks)| format!("{ranks} ranks of host {host} lived when the job was said to be over"))
        .collect();
    for (i, agent) in world.agents.iter().enumerate() {
        if agent.power != Power::On {
            continue;
        }
        if let Some(job) = &agent.job {
            wrong.push(format!(
                "host {i} still has its job, with {} living ranks, parent {:?}",
                job.ranks.alive(),
                job.parent
            ));
        }
    }
    wrong
}

/// Hosts that a fault may have cost the job.
fn victims(world: &World) -> BTreeSet<HostIndex> {
    let costly = |fault: &Fault| match fault {
        Fault::Freeze(_, ms) => *ms > HARMLESS_FREEZE_MS,
        Fault::Interrupt(_) | Fault::Start(_) | Fault::Restart => false,
        _ => true,
    };
    world.struck.iter().filter(|(_, fault, _)| costly(fault)).map(|(_, _, host)| *host).collect()
}

fn losses(world: &World) -> Vec<String> {
    let victims = victims(world);
    let mut wrong: Vec<String> = lost(world)
        .difference(&victims)
        .map(|host| {
            let event = world
                .root
                .events
                .iter()
                .find(|(_, e)| matches!(e, Event::HostLost { host: h, .. } if *h == format!("h{host}")));
            format!("host {host} was given up though nothing happened to it: {event:?}")
        })
        .collect();
    let [(at_us, fault, host)] = world.struck.as_slice() else { return wrong };
    let limit_ms = match fault {
        Fault::Crash(_) => NEWS_MS,
        Fault::Off(_) | Fault::Isolate(_) | Fault::CutParent(_) => SILENCE_DEAD_MS + NEWS_MS,
        _ => return wrong,
    };
    let over_us = world.root.over.first().map_or(u64::MAX, |(at, ..)| *at);
    let joined = world
        .root
        .events
        .iter()
        .any(|(t, e)| t < at_us && matches!(e, Event::HostJoined { index, .. } if index == host));
    // Before the job begins a lost host is missing again.
    let name = format!("h{host}");
    let tells =
        |e: &Event| matches!(e, Event::HostLost { host, .. } | Event::HostMissing { host, .. } if *host == name);
    let news = world.root.events.iter().find(|(t, e)| t >= at_us && tells(e));
    match news {
        Some((told_us, _)) if told_us - at_us > limit_ms * 1_000 => {
            wrong.push(format!("the loss of host {host} was noticed only after {} ms", (told_us - at_us) / 1_000));
        }
        None if joined && over_us > at_us + limit_ms * 1_000 => {
            wrong.push(format!("the loss of host {host} went unnoticed"))
        }
        _ => {}
    }
    wrong
}

/// A run without a costly fault ends as its program says, through every fence.
fn undisturbed(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let interrupted = world.struck.iter().any(|(_, f, _)| matches!(f, Fault::Interrupt(_)));
    let outcome = world.root.over.first().map(|(_, outcome, _)| *outcome);
    let started = world.root.events.iter().any(|(_, e)| matches!(e, Event::GroupRunning { .. }));
    if !victims(world).is_empty() || interrupted || world.scenario.program.odd.is_some() {
        if outcome == Some(Outcome::Success) && world.scenario.program.odd.is_some() {
            wrong.push("a job with a rank that fails succeeded".to_owned());
        }
        return wrong;
    }
    if outcome != Some(Outcome::Success) || !started {
        wrong.push(format!("nothing happened to it and it ended with {:?}", world.root.over));
        return wrong;
    }
    let fences = world.scenario.program.fences;
    let late: Vec<_> = world.fences_seen.iter().filter(|(_, seen)| **seen != fences).collect();
    if !late.is_empty() {
        wrong.push(format!("of {fences} fences, hosts went through: {late:?}"));
    }
    let told: Vec<u64> = world
        .root
        .events
        .iter()
        .filter_map(|(_, e)| if let Event::FenceDone { seq, .. } = e { Some(*seq) } else { None })
        .collect();
    // Fences of a group on one host never leave it.
    let alone = world.fences_seen.len() == 1;
    if !alone && told != (0..fences).collect::<Vec<_>>() {
        wrong.push(format!("of {fences} fences, these were told: {told:?}"));
    }
    wrong
}
