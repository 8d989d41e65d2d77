//! Reports as rows, in the order of the tables' columns.

use clickhouse::Row;
use ethogram_model::{Container, ContainerKey, Endpoint, Loss, Observation, Resolution, Run};
use ethogram_store::Report;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// The largest count kept of one run, and half of the largest total: a sum of sums stays
/// within 64 bits. 10^9 events a second take 146 years.
pub(crate) const COUNT_MAX: u64 = (1 << 62) - 1;

/// Stands for "did not end yet" in a key, where no null may be.
pub(crate) const NOT_YET_NS: i64 = i64::MAX;

/// A number to be joined, as `RowBinary` writes an `AggregateFunction`'s state: whether
/// there is one, and which.
type State<T> = (u8, T);

fn state<T>(value: T) -> State<T> {
    (1, value)
}

/// Gives every report a time of arrival of its own: this machine's clock, made to grow.
#[derive(Default)]
pub(crate) struct Arrivals(AtomicI64);

impl Arrivals {
    /// Nanoseconds since 1970, later than any before.
    pub(crate) fn next(&self) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            });
        let next = |last: i64| now.max(last.saturating_add(1));
        let last = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            })
            .expect("the function always gives a value");
        next(last)
    }
}

#[derive(Row, Serialize)]
pub(crate) struct ObservationRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    kind: u8,
    source: String,
    target: String,
    protocol: u8,
    port: u16,
    access: u16,
    status: u8,
    run: String,
    example: String,
    count: State<u64>,
    first_ns: State<i64>,
    last_ns: State<i64>,
}

#[derive(Row, Serialize)]
pub(crate) struct LossRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    reason: u8,
    run: String,
    count: State<u64>,
}

#[derive(Row, Serialize)]
pub(crate) struct ContainerRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    run: String,
    described: u8,
    node: String,
    runtime: &'static str,
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
    arrived_first_ns: State<i64>,
    arrived_last_ns: State<i64>,
}

#[derive(Row, Serialize)]
pub(crate) struct RunRow {
    id: String,
    boot: String,
    node: String,
    hooks: String,
    started_ns: State<i64>,
    last_alive_ns: State<i64>,
    ended_cleanly: State<u8>,
    arrived_first_ns: State<i64>,
    arrived_last_ns: State<i64>,
}

#[derive(Row, Serialize)]
pub(crate) struct EndpointRow {
    ip: String,
    from_ns: i64,
    namespace: String,
    name: String,
    labels: String,
    until_ns: i64,
    arrived_first_ns: State<i64>,
    arrived_last_ns: State<i64>,
}

#[derive(Row, Serialize)]
pub(crate) struct ResolutionRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    ip: String,
    name: String,
    first_ns: State<i64>,
    last_ns: State<i64>,
}

#[derive(Row, Serialize)]
pub(crate) struct HistoryRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    since_ns: State<i64>,
}

impl HistoryRow {
    /// Of a container, or of the store as a whole.
    pub(crate) fn new(container: Option<&ContainerKey>, since_ns: i64) -> Self {
        Self {
            boot: container.map_or(String::new(), |key| key.boot.as_str().into()),
            cgroup: container.map_or(0, |key| key.cgroup),
            incarnation: container.map_or(0, |key| key.incarnation),
            since_ns: state(since_ns),
        }
    }
}

/// The rows of one or more reports.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) observations: Vec<ObservationRow>,
    pub(crate) losses: Vec<LossRow>,
    pub(crate) containers: Vec<ContainerRow>,
    pub(crate) runs: Vec<RunRow>,
    pub(crate) endpoints: Vec<EndpointRow>,
    pub(crate) resolutions: Vec<ResolutionRow>,
}

impl Rows {
    pub(crate) fn of(report: &Report, arrived_ns: i64) -> Self {
        let run = &report.run;
        let described = report.containers.iter();
        let mut containers: Vec<ContainerRow> = described
            .map(|container| container_row(&run.id, container, arrived_ns))
            .collect();
        containers.extend(only_counted(report).map(|key| counted_row(run, key, arrived_ns)));
        Self {
            observations: report
                .observations
                .iter()
                .map(|o| observation_row(run, o))
                .collect(),
            losses: report
                .losses
                .iter()
                .map(|(key, loss)| loss_row(run, key, *loss))
                .collect(),
            containers,
            runs: vec![run_row(run, arrived_ns)],
            endpoints: report
                .endpoints
                .iter()
                .map(|e| endpoint_row(e, arrived_ns))
                .collect(),
            resolutions: report.resolutions.iter().map(resolution_row).collect(),
        }
    }

    /// What somebody says who counts nothing: no run's, and the container table's rows name
    /// none.
    pub(crate) fn described<'a>(
        containers: impl IntoIterator<Item = &'a Container>,
        endpoints: &[Endpoint],
        arrived_ns: i64,
    ) -> Self {
        Self {
            containers: containers
                .into_iter()
                .map(|container| container_row("", container, arrived_ns))
                .collect(),
            endpoints: endpoints
                .iter()
                .map(|e| endpoint_row(e, arrived_ns))
                .collect(),
            ..Self::default()
        }
    }

    /// Rows in all.
    pub(crate) fn len(&self) -> usize {
        self.observations.len()
            + self.losses.len()
            + self.containers.len()
            + self.runs.len()
            + self.endpoints.len()
            + self.resolutions.len()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.observations.append(&mut other.observations);
        self.losses.append(&mut other.losses);
        self.containers.append(&mut other.containers);
        self.runs.append(&mut other.runs);
        self.endpoints.append(&mut other.endpoints);
        self.resolutions.append(&mut other.resolutions);
    }
}

/// Containers that a report counts for but does not describe.
fn only_counted(report: &Report) -> impl Iterator<Item = &ContainerKey> {
    let described: BTreeSet<&ContainerKey> = report.containers.iter().map(|c| &c.key).collect();
    let observed = report.observations.iter().map(|o| &o.container);
    let counted: BTreeSet<&ContainerKey> = observed
        .chain(report.losses.iter().map(|(key, _)| key))
        .chain(report.resolutions.iter().map(|r| &r.container))
        .collect();
    counted
        .into_iter()
        .filter(move |key| !described.contains(key))
}

fn observation_row(run: &Run, observation: &Observation) -> ObservationRow {
    let Observation {
        container,
        behaviour,
        tally,
        example,
    } = observation;
    ObservationRow {
        boot: container.boot.as_str().into(),
        cgroup: container.cgroup,
        incarnation: container.incarnation,
        kind: behaviour.kind.number(),
        source: behaviour.source.as_str().into(),
        target: behaviour.target.as_str().into(),
        protocol: behaviour.protocol.number(),
        port: behaviour.port,
        access: behaviour.access.bits(),
        status: behaviour.status.number(),
        run: run.id.clone(),
        example: example.as_str().into(),
        count: state(tally.count.min(COUNT_MAX)),
        first_ns: state(tally.first.0),
        last_ns: state(tally.last.0),
    }
}

fn loss_row(run: &Run, container: &ContainerKey, loss: Loss) -> LossRow {
    LossRow {
        boot: container.boot.as_str().into(),
        cgroup: container.cgroup,
        incarnation: container.incarnation,
        reason: loss.reason.number(),
        run: run.id.clone(),
        count: state(loss.count.min(COUNT_MAX)),
    }
}

fn container_row(run: &str, container: &Container, arrived_ns: i64) -> ContainerRow {
    ContainerRow {
        boot: container.key.boot.as_str().into(),
        cgroup: container.key.cgroup,
        incarnation: container.key.incarnation,
        run: run.into(),
        described: 1,
        node: container.node.clone(),
        runtime: container.runtime.as_str(),
        runtime_id: container.id.clone(),
        name: container.name.clone(),
        image: container.image.clone(),
        namespace: container.namespace.clone(),
        pod: container.pod.clone(),
        pod_uid: container.pod_uid.clone(),
        workload_kind: container.workload.kind.clone(),
        workload_name: container.workload.name.clone(),
        labels: json(&container.labels),
        cgroup_path: container.cgroup_path.as_str().into(),
        watched_since_ns: container.watched_since.0,
        present_at_start: container.present_at_start.into(),
        ended_ns: container.ended.map_or(NOT_YET_NS, |time| time.0),
        arrived_first_ns: state(arrived_ns),
        arrived_last_ns: state(arrived_ns),
    }
}

/// A container of which no more is known than that a run counts it.
fn counted_row(run: &Run, key: &ContainerKey, arrived_ns: i64) -> ContainerRow {
    let mut container =
        Container::unknown(key.clone(), ethogram_model::Name::default(), run.started);
    container.node.clone_from(&run.node);
    ContainerRow {
        described: 0,
        ..container_row(&run.id, &container, arrived_ns)
    }
}

fn run_row(run: &Run, arrived_ns: i64) -> RunRow {
    RunRow {
        id: run.id.clone(),
        boot: run.boot.as_str().into(),
        node: run.node.clone(),
        hooks: run.hooks.clone(),
        started_ns: state(run.started.0),
        last_alive_ns: state(run.last_alive.0),
        ended_cleanly: state(run.ended_cleanly.into()),
        arrived_first_ns: state(arrived_ns),
        arrived_last_ns: state(arrived_ns),
    }
}

fn endpoint_row(endpoint: &Endpoint, arrived_ns: i64) -> EndpointRow {
    EndpointRow {
        ip: endpoint.ip.to_string(),
        from_ns: endpoint.from.0,
        namespace: endpoint.namespace.clone(),
        name: endpoint.name.clone(),
        labels: json(&endpoint.labels),
        until_ns: endpoint.until.map_or(NOT_YET_NS, |time| time.0),
        arrived_first_ns: state(arrived_ns),
        arrived_last_ns: state(arrived_ns),
    }
}

fn resolution_row(resolution: &Resolution) -> ResolutionRow {
    let container = &resolution.container;
    ResolutionRow {
        boot: container.boot.as_str().into(),
        cgroup: container.cgroup,
        incarnation: container.incarnation,
        ip: resolution.ip.to_string(),
        name: resolution.name.as_str().into(),
        first_ns: state(resolution.first.0),
        last_ns: state(resolution.last.0),
    }
}

fn json(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).expect("a map of texts is always valid JSON")
}
