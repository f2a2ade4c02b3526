//! Decisions that a seed repeats, without a crate for them.

use std::time::Duration;

/// Marsaglia's xorshift64*.
pub struct Random(u64);

impl Random {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// By the seed that `BERTH_SEED` gives, or `usual`. It is printed, so that a test that fails has it in its output.
    ///
    /// # Panics
    /// When `BERTH_SEED` is no number.
    pub fn seeded(usual: u64) -> Self {
        let seed =
            std::env::var("BERTH_SEED").map_or(usual, |text| text.parse().expect("BERTH_SEED is a number"));
        println!("BERTH_SEED={seed}");
        Self::new(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which has at most 32 bits.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.number() >> 32) % bound
    }

    /// A time shorter than `longest`, to the microsecond.
    pub fn moment(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64))
    }
}
