//! How long to wait before trying again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The shortest pause after a failure.
pub const BACKOFF_MIN_MS: u64 = 500;
/// The longest pause after many; an API server that is back is noticed within it.
pub const BACKOFF_MAX_S: u64 = 30;

/// Pauses that double, each shortened by chance to between half and all of it, so that
/// those who lost the API server together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    chance: RandomState,
    drawn: u64,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            failures: 0,
            chance: RandomState::new(),
            drawn: 0,
        }
    }

    /// Something worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits, at least as long as the API server asks for.
    pub(super) async fn pause(&mut self, asked: Option<Duration>) {
        let pause = self.next_pause().max(asked.unwrap_or_default());
        tokio::time::sleep(pause).await;
    }

    fn next_pause(&mut self) -> Duration {
        let doubled = BACKOFF_MIN_MS.saturating_mul(1 << self.failures.min(16));
        let whole_ms = doubled.min(BACKOFF_MAX_S * 1000);
        self.failures = self.failures.saturating_add(1);
        self.drawn = self.drawn.wrapping_add(1);
        let shortened_ms = self.chance.hash_one(self.drawn) % (whole_ms / 2 + 1);
        Duration::from_millis(whole_ms - shortened_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_start_over() {
        let mut backoff = Backoff::new();
        for whole_ms in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let pause_ms = backoff.next_pause().as_millis();
            assert!((whole_ms / 2..=whole_ms).contains(&pause_ms), "{pause_ms}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(BACKOFF_MIN_MS));
    }

    #[test]
    fn two_that_failed_together_do_not_return_together() {
        let pauses = || {
            let mut backoff = Backoff::new();
            [(); 8].map(|()| backoff.next_pause())
        };
        assert_ne!(pauses(), pauses());
    }
}
