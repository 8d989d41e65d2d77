//! The wall clock, and how people write times.

use ethogram_model::Timestamp;

/// The time now.
pub(crate) fn now() -> Timestamp {
    let nanoseconds = jiff::Timestamp::now().as_nanosecond();
    Timestamp(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
}

/// A time as RFC 3339 has it, in UTC, to the nanosecond.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    to_jiff(time).to_string()
}

/// The same time for `jiff`.
pub(crate) fn to_jiff(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(time.0.into())
        .expect("64 bits of nanoseconds end in 2262, jiff's range in 9999")
}

/// A time ago (`30m`, `2h`, `7d`), or a moment as RFC 3339 has it.
pub(crate) fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = crate::args::parse_duration(text) {
        let ago_ns = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
        return Ok(Timestamp(now.0.saturating_sub(ago_ns)));
    }
    let moment: Option<jiff::Timestamp> = text.parse().ok();
    moment
        .and_then(|moment| i64::try_from(moment.as_nanosecond()).ok())
        .map(Timestamp)
        .ok_or_else(|| {
            format!(
                "{text:?} is no time: write how long ago (30m, 2h, 7d) or a moment (2026-01-31T12:00:00Z)"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now = Timestamp(1_672_833_600_000_000_000);
        for (text, seconds_ago) in [
            ("30m", 1_800),
            ("2h", 7_200),
            ("7d", 604_800),
            ("2023-01-04T12:00:00Z", 0),
            ("2023-01-04T13:00:00+02:00", 3_600),
        ] {
            let expected = Timestamp(now.0 - seconds_ago * 1_000_000_000);
            assert_eq!(parse_moment(text, now), Ok(expected), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "12:00",
            "2023-01-04",
            "9999-01-01T00:00:00Z",
        ] {
            let error = parse_moment(text, now).unwrap_err();
            assert!(error.contains("30m"), "{error}");
        }
        let far = parse_moment("300000d", now).unwrap();
        assert!(far < Timestamp(0), "before 1970 is before everything");
    }

    #[test]
    fn rfc3339_keeps_nanoseconds() {
        let time = Timestamp(1_672_833_600_123_456_789);
        assert_eq!(rfc3339(time), "2023-01-04T12:00:00.123456789Z");
        assert_eq!(parse_moment(&rfc3339(time), Timestamp(0)), Ok(time));
    }
}
