//! A small deterministic source of choices.

/// SplitMix64 (Steele, Lea, Flood 2014): one state word, good enough to mix operations,
/// and the same on every machine for ever.
pub(crate) struct Rng(u64);

impl Rng {
    /// A stream of its own for each thread of each worker.
    pub(crate) fn new(seed: u64, worker: usize, thread: usize) -> Self {
        let mut rng = Self(seed ^ ((worker as u64) << 48) ^ ((thread as u64) << 32));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).expect("the product shifted is below the bound, a usize")
    }

    /// True as often as false.
    pub(crate) fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
