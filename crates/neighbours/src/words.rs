//! How the neighbours write times and labels.

use ethogram_model::{Labels, Timestamp};

/// Labels of replicas and revisions, which discovery-engine left out.
const LABELS_HIDDEN: &[&str] = &[
    "controller-revision-hash",
    "controller-uid",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// `Wed Jan  4 12:35:38 UTC 2023`, Go's UnixDate; empty for a time that is not known.
pub(crate) fn unix_date(time: Timestamp) -> String {
    match known(time) {
        Some(time) => {
            let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
            zoned.strftime("%a %b %e %H:%M:%S %Z %Y").to_string()
        }
        None => String::new(),
    }
}

/// `2023-01-04T12:35:38.999999Z`; empty for a time that is not known.
pub(crate) fn iso_date(time: Timestamp) -> String {
    known(time).map_or_else(String::new, |time| format!("{time:.6}"))
}

fn known(time: Timestamp) -> Option<jiff::Timestamp> {
    let time = Some(time).filter(|time| time.0 > 0)?;
    jiff::Timestamp::from_nanosecond(time.0.into()).ok()
}

/// `app=web,tier=frontend`.
pub(crate) fn labels(labels: &Labels) -> String {
    let shown: Vec<_> = labels
        .iter()
        .filter(|(key, _)| !LABELS_HIDDEN.contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    shown.join(",")
}

/// Labels from `app=web,tier=frontend`.
pub(crate) fn parse_labels(text: &str) -> Result<Labels, String> {
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("{part:?} is no label: write key=value")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_karmor_shows_them_and_never_of_1970() {
        let time = Timestamp(1_672_835_738_999_999_999);
        assert_eq!(unix_date(time), "Wed Jan  4 12:35:38 UTC 2023");
        assert_eq!(iso_date(time), "2023-01-04T12:35:38.999999Z");
        for unknown in [Timestamp(0), Timestamp(-1)] {
            assert_eq!((unix_date(unknown), iso_date(unknown)), Default::default());
        }
    }

    #[test]
    fn labels_lead_back() {
        let text = "app=web,tier=a=b";
        assert_eq!(labels(&parse_labels(text).unwrap()), text);
        assert_eq!(parse_labels("").unwrap(), Labels::new());
        assert!(parse_labels("app").unwrap_err().contains("key=value"));
        let hidden = parse_labels("app=web,pod-template-hash=1").unwrap();
        assert_eq!(labels(&hidden), "app=web");
    }
}
