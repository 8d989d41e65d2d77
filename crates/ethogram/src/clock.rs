//! The wall clock.

use ethogram_model::Timestamp;

/// The time now.
pub(crate) fn now() -> Timestamp {
    let nanoseconds = jiff::Timestamp::now().as_nanosecond();
    Timestamp(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
}
