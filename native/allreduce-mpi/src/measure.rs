//! Filling, reducing, timing and checking.

use std::time::Instant;

use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

use crate::options::Options;

/// Contributions repeat after this many elements; small whole numbers keep every sum exact in single precision.
const PERIOD: usize = 8;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Size of the message in bytes.
    pub bytes: usize,
    /// Number of elements.
    pub count: usize,
    /// Mean time of one operation, over operations and ranks.
    pub seconds: f64,
    /// Elements that were wrong, over all ranks; `None` when they were not checked.
    pub wrong: Option<u64>,
}

/// What is sent and received, allocated once.
pub struct Buffers {
    send: Vec<f32>,
    receive: Vec<f32>,
    expected: [f32; PERIOD],
}

impl Buffers {
    /// Buffers for messages up to that size, filled with this rank's contribution.
    pub fn new(world: &SimpleCommunicator, max_bytes: usize) -> Self {
        let count = max_bytes / size_of::<f32>();
        let rank = usize::try_from(world.rank()).unwrap_or(0);
        let ranks = usize::try_from(world.size()).unwrap_or(1);
        let send = (0..count).map(|i| contribution(i, rank)).collect();
        let expected = std::array::from_fn(|i| (0..ranks).map(|r| contribution(i, r)).sum());
        Self { send, receive: vec![0.0; count], expected }
    }
}

/// What `rank` contributes to element `index`: another number for each of its neighbours in either direction.
fn contribution(index: usize, rank: usize) -> f32 {
    const VALUES: [f32; PERIOD] = [1.0, 5.0, 2.0, 7.0, 3.0, 0.0, 6.0, 4.0];
    VALUES[(index + 3 * rank) % PERIOD]
}

/// Measures one size on all ranks.
pub fn size(world: &SimpleCommunicator, buffers: &mut Buffers, bytes: usize, options: &Options) -> Row {
    let count = bytes / size_of::<f32>();
    let send = &buffers.send[..count];
    let receive = &mut buffers.receive[..count];
    for _ in 0..options.warmup {
        world.all_reduce_into(send, receive, SystemOperation::sum());
    }
    // What the warm-up left must not pass for a result.
    receive.fill(f32::NAN);
    world.barrier();
    let begun = Instant::now();
    for _ in 0..options.iterations {
        world.all_reduce_into(send, receive, SystemOperation::sum());
    }
    let mine = begun.elapsed().as_secs_f64() / f64::from(options.iterations);
    let mut sum = 0.0;
    world.all_reduce_into(&mine, &mut sum, SystemOperation::sum());
    let wrong = options.check.then(|| {
        let here = count_wrong(receive, &buffers.expected);
        let mut everywhere = 0;
        world.all_reduce_into(&here, &mut everywhere, SystemOperation::sum());
        everywhere
    });
    Row { bytes, count, seconds: sum / f64::from(world.size()), wrong }
}

fn count_wrong(received: &[f32], expected: &[f32; PERIOD]) -> u64 {
    let wrong = |(i, value): (usize, &f32)| u64::from(*value != expected[i % PERIOD]);
    received.iter().enumerate().map(wrong).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_element_is_counted() {
        let expected: [f32; PERIOD] = std::array::from_fn(|i| (0..3).map(|r| contribution(i, r)).sum());
        let mut received: Vec<f32> = (0..20).map(|i| expected[i % PERIOD]).collect();
        assert_eq!(count_wrong(&received, &expected), 0);
        received[3] += 1.0;
        received[19] = f32::NAN;
        assert_eq!(count_wrong(&received, &expected), 2);
    }

    #[test]
    fn a_missing_or_doubled_rank_changes_the_sum() {
        let sums = |ranks: &[usize]| {
            let sum = |i| ranks.iter().map(|r| contribution(i, *r)).sum::<f32>();
            (0..PERIOD).map(sum).collect::<Vec<_>>()
        };
        let right = sums(&[0, 1, 2, 3]);
        for wrong in [&[0, 1, 2][..], &[0, 1, 2, 2], &[1, 2, 3, 4]] {
            assert_ne!(sums(wrong), right, "{wrong:?}");
        }
    }
}
