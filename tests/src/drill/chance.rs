//! Chance that follows from a seed, so that a drill can be run again.

use std::time::Duration;

/// A sequence of choices; each part of a drill has its own.
#[derive(Debug)]
pub(crate) struct Chance(fastrand::Rng);

impl Chance {
    /// The choices of one part of the drill with that seed.
    pub(crate) fn new(seed: u64, part: u64) -> Chance {
        Chance(fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(part)))
    }

    /// One of the items.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.0.usize(..items.len())]
    }

    /// An index by weight.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut left = self.0.u32(..weights.iter().sum::<u32>());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        0
    }

    /// A pause between the two, in milliseconds.
    pub(crate) fn pause(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.u64(from..=to))
    }

    /// Whether something with that chance in a hundred happens.
    pub(crate) fn percent(&mut self, chance: u32) -> bool {
        self.0.u32(..100) < chance
    }
}
