//! What is run: a cluster, a program, faults.

use muster_protocol::{HostIndex, ProcId};

use crate::faults::{Fault, Moment, Planned, Victim};
use crate::ranks::{Odd, Program};
use crate::rng::Rng;

/// A run, before it is run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides everything else that is random.
    pub seed: u64,
    /// Hosts.
    pub hosts: u32,
    /// Children of one node at most.
    pub radix: u32,
    /// Ranks on every host that has any.
    pub ranks_per_host: u32,
    /// One of so many hosts has no ranks.
    pub idle_every: u32,
    /// Time to connect, in milliseconds.
    pub connect_ms: u64,
    /// Time between the polite and the hard kill, in milliseconds.
    pub grace_ms: u64,
    /// Latency of connections, in microseconds.
    pub latency_us: (u64, u64),
    /// Hosts whose agents answer dials late, and how late, in microseconds.
    pub slow: Vec<(HostIndex, u64)>,
    /// Hosts whose output never arrives: the launcher waits for it until they are lost.
    pub mute: Vec<HostIndex>,
    /// What ranks do.
    pub program: Program,
    /// What goes wrong.
    pub faults: Vec<Planned>,
}

impl Scenario {
    /// A small cluster in which all goes well.
    pub fn calm(hosts: u32, radix: u32) -> Self {
        Self {
            seed: 1,
            hosts,
            radix,
            ranks_per_host: 2,
            idle_every: u32::MAX,
            connect_ms: 60_000,
            grace_ms: 1_000,
            latency_us: (100, 2_000),
            slow: Vec::new(),
            mute: Vec::new(),
            program: Program {
                fences: 3,
                step_us: 20_000,
                blob_bytes: 64,
                odd: None,
                publishes: false,
                stubborn_percent: 0,
            },
            faults: Vec::new(),
        }
    }

    /// The same with a fault.
    #[must_use]
    pub fn with(mut self, moment: Moment, fault: Fault) -> Self {
        self.faults.push(Planned { moment, delay_us: 0, fault });
        self
    }

    /// The scenario of a seed.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = match rng.range(0, 19) {
            0 => rng.range(100, 300),
            1..=4 => rng.range(30, 100),
            5 => 1,
            _ => rng.range(2, 30),
        } as u32;
        let large = hosts > 30;
        let step_us = rng.pick(&[100, 5_000, 50_000]);
        let slowest_us = rng.pick(&[300, 2_000, 15_000]);
        let mut scenario = Self {
            seed: rng.bits(),
            hosts,
            radix: rng.pick(&[2, 2, 3, 4, 8, 32]),
            ranks_per_host: if large { 1 } else { rng.range(1, 3) as u32 },
            idle_every: rng.pick(&[2, 3, u32::MAX, u32::MAX]),
            connect_ms: 30_000,
            grace_ms: rng.pick(&[200, 1_000, 5_000]),
            latency_us: (100, slowest_us),
            slow: Vec::new(),
            mute: Vec::new(),
            program: Program {
                fences: rng.range(0, 5),
                step_us,
                blob_bytes: if !large && rng.chance(10) { 700_000 } else { rng.range(12, 500) as usize },
                odd: None,
                publishes: false,
                stubborn_percent: rng.pick(&[0, 0, 30]),
            },
            faults: Vec::new(),
        };
        for _ in 0..rng.pick(&[0, 0, 1, 4]) {
            let host = HostIndex(rng.range(0, u64::from(hosts) - 1) as u32);
            scenario.slow.push((host, rng.range(100_000, 3_000_000)));
        }
        if rng.chance(25) {
            let odd = rng.pick(&[Odd::Exit(3), Odd::Exit(0), Odd::Crash(11), Odd::Abort(7)]);
            scenario.program.odd = Some((ProcId(0), rng.range(0, scenario.program.fences), odd));
        }
        for _ in 0..rng.pick(&[0, 1, 1, 1, 2, 3]) {
            let planned = random_fault(&mut rng, hosts, scenario.program.fences);
            scenario.faults.push(planned);
        }
        scenario.program.publishes = rng.chance(30);
        scenario
    }

    /// How long an agent takes to answer a dial.
    pub fn accept_us(&self, host: u32) -> u64 {
        self.slow.iter().find(|(slow, _)| slow.0 == host).map_or(0, |(_, us)| *us)
    }
}

fn random_fault(rng: &mut Rng, hosts: u32, fences: u64) -> Planned {
    let host = HostIndex(rng.range(0, u64::from(hosts) - 1) as u32);
    let victim = rng.pick(&[Victim::Host(host), Victim::Inner, Victim::Inner, Victim::InnerChild]);
    let moment = match rng.range(0, 6) {
        0 => Moment::At(rng.range(0, 200_000)),
        1 => Moment::Joined(rng.range(1, u64::from(hosts)) as u32),
        2 => Moment::Running,
        3 if fences > 0 => Moment::Fence(rng.range(0, fences - 1)),
        4 => Moment::FirstReturn,
        5 => Moment::At(rng.range(200_000, 2_000_000)),
        _ => Moment::Ending,
    };
    let freeze_ms = rng.pick(&[500, 3_000, 6_000, 9_000, 25_000]);
    let fault = rng.pick(&[
        Fault::Crash(victim),
        Fault::Crash(victim),
        Fault::Off(victim),
        Fault::Isolate(victim),
        Fault::CutParent(victim),
        Fault::Freeze(victim, freeze_ms),
        Fault::Interrupt(2),
        Fault::Start(host),
    ]);
    let delay_us = rng.pick(&[0, 500, 5_000, 100_000]);
    match fault {
        Fault::Start(_) => Planned { moment: Moment::At(rng.range(100_000, 10_000_000)), delay_us: 0, fault },
        _ => Planned { moment, delay_us, fault },
    }
}
