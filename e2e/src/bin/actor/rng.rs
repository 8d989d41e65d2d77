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

#[cfg(test)]
mod tests {
    use super::Rng;
    use std::collections::HashSet;

    #[test]
    fn a_seed_always_says_the_same_and_every_thread_something_else() {
        let stream = |seed, worker, thread| {
            let mut rng = Rng::new(seed, worker, thread);
            (0..32).map(|_| rng.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(stream(1, 2, 3), stream(1, 2, 3));
        let streams = (0..4).flat_map(|w| (0..4).map(move |t| stream(1, w, t)));
        assert_eq!(streams.collect::<HashSet<_>>().len(), 16);
        assert!(stream(1, 0, 0).into_iter().all(|number| number < 1000));
    }
}
