//! How often, first and last when.

use crate::Timestamp;

/// The cumulative count of one behaviour, with the first and the last time it was seen.
///
/// A tally is a state, not an increment: taking the same one twice, or an older one after
/// a newer one, changes nothing ([`Tally::join`]). Over several containers, or several
/// runs of an agent, tallies add up ([`Tally::plus`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many times since `first`. Never shrinks.
    pub count: u64,
    /// When it was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
}

impl Tally {
    /// `count` times at one moment.
    #[must_use]
    pub fn at(time: Timestamp, count: u64) -> Self {
        Self {
            count,
            first: time,
            last: time,
        }
    }

    /// Two states of the same counter: the newer wins in every field. Commutative,
    /// associative and idempotent, so re-sending and reordering are harmless.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            count: self.count.max(other.count),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// Two different counters: counts add up. Commutative and associative, not idempotent.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            ..self.join(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn tally()(count in 0..1_000_000u64, a in any::<i64>(), b in any::<i64>()) -> Tally {
            Tally { count, first: Timestamp(a.min(b)), last: Timestamp(a.max(b)) }
        }
    }

    proptest! {
        #[test]
        fn join_is_a_semilattice(a in tally(), b in tally(), c in tally()) {
            prop_assert_eq!(a.join(b), b.join(a));
            prop_assert_eq!(a.join(b).join(c), a.join(b.join(c)));
            prop_assert_eq!(a.join(a), a);
            prop_assert_eq!(a.join(b).join(b), a.join(b));
        }

        #[test]
        fn plus_is_a_sum(a in tally(), b in tally(), c in tally()) {
            prop_assert_eq!(a.plus(b), b.plus(a));
            prop_assert_eq!(a.plus(b).plus(c), a.plus(b.plus(c)));
            prop_assert_eq!(a.plus(b).count, a.count + b.count);
        }
    }
}
