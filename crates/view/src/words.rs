//! What text and HTML say in the same words: times, labels, headers, completeness.

use crate::{
    Completeness, Printable, Subject,
    document::{Gap, Loss},
    row::Labels,
};
use ethogram_model::LossReason;
use jiff::tz::TimeZone;

/// The time zone that people's times are shown in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    /// UTC.
    #[default]
    Utc,
    /// The machine's.
    Local,
}

/// Writes times as `date` and karmor do: `Wed Jan  4 12:35:38 UTC 2023`.
pub(crate) struct Clock(TimeZone);

impl Clock {
    pub(crate) fn new(zone: Zone) -> Self {
        Self(match zone {
            Zone::Utc => TimeZone::UTC,
            Zone::Local => TimeZone::system(),
        })
    }

    pub(crate) fn show(&self, time: jiff::Timestamp) -> String {
        let zoned = time.to_zoned(self.0.clone());
        zoned.strftime("%a %b %e %H:%M:%S %Z %Y").to_string()
    }

    /// For where there is no room: `01-04 12:35`.
    pub(crate) fn show_briefly(&self, time: jiff::Timestamp) -> String {
        let zoned = time.to_zoned(self.0.clone());
        zoned.strftime("%m-%d %H:%M").to_string()
    }
}

/// What to tell a reader who has nothing to read.
pub(crate) const NOTHING: &str =
    "Nothing to show: no watched container matches, or none of them has done anything yet.
`ethogram containers` lists what is watched, `ethogram doctor` says what cannot be seen here,
and `ethogram record -- COMMAND` watches one command without an agent.";

/// The texts with a separator between them.
pub(crate) fn joined(texts: &[Printable], separator: &str) -> String {
    let texts: Vec<_> = texts.iter().map(Printable::as_str).collect();
    texts.join(separator)
}

/// Labels that Kubernetes adds for itself: they tell replicas and revisions apart, and a
/// reader nothing. JSON and YAML have them.
const LABELS_HIDDEN: &[&str] = &[
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// `app=web,tier=frontend`.
pub(crate) fn labels(labels: &Labels) -> String {
    let shown: Vec<_> = labels
        .iter()
        .filter(|(key, _)| !LABELS_HIDDEN.contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    shown.join(",")
}

/// How many values of one kind a header names before it counts the rest.
const HEADER_VALUES_MAX: usize = 3;

/// The newest values, and how many there are besides.
fn some(texts: &[Printable], shorten: impl Fn(&str) -> String) -> String {
    let newest = texts.iter().rev().take(HEADER_VALUES_MAX);
    let mut text = newest
        .map(|text| shorten(text.as_str()))
        .collect::<Vec<_>>()
        .join(", ");
    if texts.len() > HEADER_VALUES_MAX {
        text += &format!(" and {} more", texts.len() - HEADER_VALUES_MAX);
    }
    text
}

/// How many digits of a container id runtimes show.
const ID_DIGITS: usize = 12;

fn short_id(id: &str) -> String {
    let is_hash = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash { &id[..ID_DIGITS] } else { id }.to_owned()
}

/// The lines above a subject's tables; those without a value are left out. Karmor's come
/// first and in its order.
pub(crate) fn header(subject: &Subject, wide: bool) -> Vec<(&'static str, String)> {
    let all = |texts| some(texts, str::to_owned);
    let id = |id: &str| if wide { id.to_owned() } else { short_id(id) };
    let workload = &subject.workload;
    let mut lines = vec![
        ("Pod Name", all(&subject.pods)),
        ("Namespace Name", subject.namespace.to_string()),
        ("Cluster Name", subject.cluster.to_string()),
        ("Container Name", all(&subject.containers)),
        ("Labels", labels(&subject.labels)),
        ("Workload", String::new()),
        ("Image", all(&subject.images)),
        ("Node", all(&subject.nodes)),
        ("Runtime", all(&subject.runtimes)),
        ("Container ID", some(&subject.container_ids, id)),
        ("Control Group", subject.cgroup.to_string()),
    ];
    if !workload.name.is_empty() {
        lines[5].1 = format!("{}/{}", workload.kind, workload.name);
    }
    if subject.instances > 1 {
        lines.push(("Instances", subject.instances.to_string()));
    }
    lines.retain(|(_, value)| !value.is_empty());
    lines
}

/// How many gaps are named before the rest is counted.
const GAPS_NAMED_MAX: usize = 3;

/// One line: complete, or what is missing, and since when it was watched.
pub(crate) fn completeness(c: &Completeness, clock: &Clock) -> String {
    let mut missing = Vec::new();
    let is_of_events = |loss: &&Loss| loss.reason.as_str() != LossReason::Names.as_str();
    let names_lost = c.losses.iter().find(|loss| !is_of_events(loss));
    let names_lost = names_lost.map_or(String::new(), |loss| {
        format!(
            " Names may be missing beside addresses: {} DNS answers were not taken in.",
            loss.count
        )
    });
    let losses: Vec<_> = c.losses.iter().filter(is_of_events).collect();
    if !losses.is_empty() {
        let lost = losses
            .iter()
            .fold(0u64, |sum, l| sum.saturating_add(l.count));
        let reasons: Vec<_> = losses
            .iter()
            .map(|loss| format!("{} {}", loss.reason, loss.count))
            .collect();
        missing.push(format!(
            "{lost} events not counted ({})",
            reasons.join(", ")
        ));
    }
    missing.extend(
        c.gaps
            .iter()
            .take(GAPS_NAMED_MAX)
            .map(|gap| unwatched(gap, clock)),
    );
    if c.gaps.len() > GAPS_NAMED_MAX {
        let more = c.gaps.len() - GAPS_NAMED_MAX;
        missing.push(format!("and {more} more times not watched"));
    }
    if let Some(last) = c.broken_off.last() {
        let times = match c.broken_off.len() {
            1 => String::new(),
            n => format!(" {n} times, lastly"),
        };
        missing.push(format!(
            "the watch broke off{times} at {}, and what it saw last may be missing",
            clock.show(*last)
        ));
    }
    if let Some(kept) = c.kept_since {
        missing.push(format!(
            "rows last seen before {} may be deleted",
            clock.show(kept)
        ));
    }
    let since = clock.show(c.watched_since);
    let past = if c.already_running {
        ", when it was running already"
    } else {
        ""
    };
    if missing.is_empty() && c.complete {
        format!("Complete: nothing was lost since {since}{past}.{names_lost}")
    } else {
        let missing = missing.join("; ");
        format!("Incomplete: {missing}. Watched since {since}{past}.{names_lost}")
    }
}

fn unwatched(gap: &Gap, clock: &Clock) -> String {
    let from = clock.show(gap.from);
    match gap.until {
        Some(until) => format!("not watched from {from} to {}", clock.show(until)),
        None => format!("not watched since {from}"),
    }
}
