//! The wall clock.

use ethogram_model::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time now; 1970 on a machine whose clock is before that.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = since_1970.map_or(0, |time| time.as_nanos());
    Timestamp(i64::try_from(ns).unwrap_or(i64::MAX))
}
