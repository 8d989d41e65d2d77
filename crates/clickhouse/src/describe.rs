//! Making one container, run or endpoint of all that was said of it.
//!
//! "The last known text wins", "an end, once known, stays" and their like, decided by
//! times of arrival, which rows carry along. Pure, so that tests need no server.

use crate::{problem::Problem, rows::NOT_YET_NS};
use clickhouse::Row;
use ethogram_model::{
    BootId, Container, ContainerKey, Endpoint, Labels, Name, Run, Runtime, Timestamp, Workload,
};
use serde::Deserialize;

/// Something that was said of a container, with when it first and last arrived.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct SaidOfContainer {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    described: u8,
    node: String,
    runtime: String,
    runtime_id: String,
    name: String,
    image: String,
    namespace: String,
    pod: String,
    pod_uid: String,
    workload_kind: String,
    workload_name: String,
    labels: String,
    cgroup_path: String,
    watched_since_ns: i64,
    present_at_start: u8,
    ended_ns: i64,
    first: i64,
    last: i64,
}

impl SaidOfContainer {
    pub(crate) fn key(&self) -> ContainerKey {
        ContainerKey {
            boot: BootId::new(&self.boot),
            cgroup: self.cgroup,
            incarnation: self.incarnation,
        }
    }

    fn is_description(&self) -> bool {
        self.described != 0
    }
}

/// The last of the texts that says something; `said` is in the order of last arrival.
fn last_known<'a, T>(said: &[&'a T], text: impl Fn(&'a T) -> &'a str, empty: &str) -> &'a str {
    let mut texts = said.iter().rev().map(|one| text(one));
    texts.find(|text| *text != empty).unwrap_or("")
}

/// The end that was known first.
fn first_end<T>(
    said: &[&T],
    end_ns: impl Fn(&T) -> i64,
    first: impl Fn(&T) -> i64,
) -> Option<Timestamp> {
    said.iter()
        .filter(|one| end_ns(one) != NOT_YET_NS)
        .min_by_key(|one| first(one))
        .map(|one| Timestamp(end_ns(one)))
}

/// A container, and when it was first heard of. There is at least one saying.
pub(crate) fn container(said: &[SaidOfContainer]) -> Result<(i64, Container), Problem> {
    let (mut descriptions, mut counted): (Vec<_>, Vec<_>) =
        said.iter().partition(|one| one.is_description());
    descriptions.sort_by_key(|one| one.last);
    counted.sort_by_key(|one| one.last);
    let text = |of: fn(&SaidOfContainer) -> &str| last_known(&descriptions, of, "").to_owned();
    let node = match text(|one| &one.node) {
        // A description need not repeat what the run that counts has said.
        node if node.is_empty() => last_known(&counted, |one| &one.node, "").to_owned(),
        node => node,
    };
    let workload = descriptions
        .iter()
        .rev()
        .find(|one| !one.workload_name.is_empty());
    // Whether it was present when the watch began is said of the earliest watch.
    let watch = descriptions
        .iter()
        .min_by_key(|one| (one.watched_since_ns, one.present_at_start == 0));
    let counted_since = counted.last().map_or(0, |one| one.watched_since_ns);
    let arrived = said.iter().map(|one| one.first).min().unwrap_or(0);
    let container = Container {
        key: said[0].key(),
        node,
        runtime: Runtime::from_word(&text(|one| &one.runtime)),
        id: text(|one| &one.runtime_id),
        name: text(|one| &one.name),
        image: text(|one| &one.image),
        namespace: text(|one| &one.namespace),
        pod: text(|one| &one.pod),
        pod_uid: text(|one| &one.pod_uid),
        workload: workload.map_or_else(Workload::default, |one| Workload {
            kind: one.workload_kind.clone(),
            name: one.workload_name.clone(),
        }),
        labels: labels(last_known(&descriptions, |one| &one.labels, NO_LABELS))?,
        cgroup_path: Name::from_escaped(&text(|one| &one.cgroup_path)),
        watched_since: Timestamp(watch.map_or(counted_since, |one| one.watched_since_ns)),
        present_at_start: watch.is_some_and(|one| one.present_at_start != 0),
        ended: first_end(&descriptions, |one| one.ended_ns, |one| one.first),
    };
    Ok((arrived, container))
}

/// How labels are written where there are none.
const NO_LABELS: &str = "{}";

fn labels(text: &str) -> Result<Labels, Problem> {
    if text.is_empty() {
        return Ok(Labels::new());
    }
    serde_json::from_str(text).map_err(|error| {
        Problem::Damaged(format!("labels are not a JSON object of texts: {error}"))
    })
}

/// Something that was said of a run.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct SaidOfRun {
    pub(crate) id: String,
    boot: String,
    node: String,
    hooks: String,
    started: i64,
    alive: i64,
    clean: u8,
    first: i64,
    last: i64,
}

/// A run, and when it was first heard of. There is at least one saying.
pub(crate) fn run(said: &[SaidOfRun]) -> (i64, Run) {
    let mut said: Vec<&SaidOfRun> = said.iter().collect();
    said.sort_by_key(|one| one.last);
    let arrived = said.iter().map(|one| one.first).min();
    let run = Run {
        id: said[0].id.clone(),
        boot: BootId::new(&said[0].boot),
        node: said[0].node.clone(),
        hooks: last_known(&said, |one| &one.hooks, "").to_owned(),
        started: Timestamp(said.iter().map(|one| one.started).min().unwrap_or(0)),
        last_alive: Timestamp(said.iter().map(|one| one.alive).max().unwrap_or(0)),
        ended_cleanly: said.iter().any(|one| one.clean != 0),
    };
    (arrived.unwrap_or(0), run)
}

/// Something that was said of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub(crate) struct SaidOfEndpoint {
    pub(crate) ip: String,
    pub(crate) from_ns: i64,
    pub(crate) namespace: String,
    pub(crate) name: String,
    labels: String,
    until_ns: i64,
    first: i64,
    last: i64,
}

impl SaidOfEndpoint {
    /// Whether both speak of the same endpoint.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (&self.ip, self.from_ns, &self.namespace, &self.name)
            == (&other.ip, other.from_ns, &other.namespace, &other.name)
    }
}

/// An endpoint. There is at least one saying.
pub(crate) fn endpoint(said: &[SaidOfEndpoint]) -> Result<Endpoint, Problem> {
    let mut said: Vec<&SaidOfEndpoint> = said.iter().collect();
    said.sort_by_key(|one| one.last);
    let ip = said[0].ip.parse();
    Ok(Endpoint {
        ip: ip.map_err(|_| Problem::Damaged(format!("{:?} is no address", said[0].ip)))?,
        name: said[0].name.clone(),
        namespace: said[0].namespace.clone(),
        labels: labels(last_known(&said, |one| &one.labels, NO_LABELS))?,
        from: Timestamp(said[0].from_ns),
        until: first_end(&said, |one| one.until_ns, |one| one.first),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(arrived: i64) -> SaidOfContainer {
        SaidOfContainer {
            boot: "b".into(),
            cgroup: 1,
            incarnation: 0,
            described: 1,
            node: String::new(),
            runtime: String::new(),
            runtime_id: String::new(),
            name: String::new(),
            image: String::new(),
            namespace: String::new(),
            pod: String::new(),
            pod_uid: String::new(),
            workload_kind: String::new(),
            workload_name: String::new(),
            labels: "{}".into(),
            cgroup_path: String::new(),
            watched_since_ns: 5,
            present_at_start: 0,
            ended_ns: NOT_YET_NS,
            first: arrived,
            last: arrived,
        }
    }

    #[test]
    fn a_run_that_only_counts_names_the_node_and_nothing_else() {
        let counted = SaidOfContainer {
            described: 0,
            node: "counting".into(),
            watched_since_ns: 1,
            ..said(9)
        };
        let (arrived, alone) = container(std::slice::from_ref(&counted)).unwrap();
        assert_eq!(
            (arrived, &*alone.node, alone.watched_since),
            (9, "counting", Timestamp(1))
        );

        let described = SaidOfContainer {
            node: "described".into(),
            ..said(3)
        };
        let (arrived, both) = container(&[counted, described]).unwrap();
        assert_eq!(
            (arrived, &*both.node, both.watched_since),
            (3, "described", Timestamp(5))
        );
    }

    #[test]
    fn labels_that_are_none_are_damage() {
        let damaged = SaidOfContainer {
            labels: "{\"a\":1}".into(),
            ..said(1)
        };
        assert!(matches!(container(&[damaged]), Err(Problem::Damaged(_))));
    }

    proptest! {
        #[test]
        fn the_order_of_rows_does_not_matter(
            sayings in prop::collection::vec((0..3_usize, 0..3_i64, any::<bool>(), 0..4_i64), 1..6),
            turn in any::<prop::sample::Index>(),
        ) {
            let mut rows: Vec<_> = sayings
                .iter()
                .zip(1..)
                .map(|(&(name, since, present, end), arrived)| SaidOfContainer {
                    name: ["", "web", "db"][name].into(),
                    labels: ["{}", "{\"a\":\"b\"}", "{\"c\":\"d\"}"][name].into(),
                    watched_since_ns: since,
                    present_at_start: present.into(),
                    ended_ns: if end == 0 { NOT_YET_NS } else { end },
                    ..said(arrived)
                })
                .collect();
            let wanted = container(&rows).unwrap();
            let at = turn.index(rows.len());
            rows.rotate_left(at);
            prop_assert_eq!(container(&rows).unwrap(), wanted.clone());
            rows.reverse();
            prop_assert_eq!(container(&rows).unwrap(), wanted.clone());

            let last_name = sayings.iter().rev().find(|one| one.0 != 0).map_or("", |one| ["", "web", "db"][one.0]);
            prop_assert_eq!(&wanted.1.name, last_name);
            let first_end = sayings.iter().find(|one| one.3 != 0).map(|one| Timestamp(one.3));
            prop_assert_eq!(wanted.1.ended, first_end);
        }
    }
}
