//! Changes as OpenTelemetry's data.

use crate::wire::otlp::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum},
    resource::v1::Resource,
};
use ethogram_model::{Container, Observation, Status, Timestamp};
use ethogram_store::{Changes, ContainerChanges};

/// OpenTelemetry's number for sums since a start.
const CUMULATIVE: i32 = 2;
/// Its numbers for how grave something is.
const INFO: i32 = 9;
const WARN: i32 = 13;

/// A request, and how many data points are in it.
pub(super) struct Metrics {
    pub(super) request: ExportMetricsServiceRequest,
    pub(super) points: u64,
}

/// Totals of all rows and losses in a page.
pub(super) fn metrics(changes: &Changes, cluster: &str) -> Metrics {
    let mut points = 0;
    let told = changes.containers.iter().filter_map(|changes| {
        let counts: Vec<_> = changes.observations.iter().map(point).collect();
        let losses: Vec<_> = losses(changes);
        points += (counts.len() + losses.len()) as u64;
        let metrics = [
            sum(
                "ethogram.behaviour.count",
                "How often something was done",
                counts,
            ),
            sum("ethogram.lost", "Events known not to be counted", losses),
        ];
        let metrics: Vec<_> = metrics.into_iter().flatten().collect();
        (!metrics.is_empty()).then(|| ResourceMetrics {
            resource: Some(resource(&changes.container, cluster)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
            }],
        })
    });
    let request = ExportMetricsServiceRequest {
        resource_metrics: told.collect(),
    };
    Metrics { request, points }
}

/// The rows of a page that are new.
pub(super) fn logs(changes: &Changes, cluster: &str, now: Timestamp) -> ExportLogsServiceRequest {
    let told = changes.containers.iter().filter_map(|changes| {
        let new = changes.observations.iter().zip(&changes.is_new);
        let records: Vec<_> = new
            .filter(|(_, is_new)| **is_new)
            .map(|(observation, _)| record(observation, now))
            .collect();
        (!records.is_empty()).then(|| ResourceLogs {
            resource: Some(resource(&changes.container, cluster)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: records,
            }],
        })
    });
    ExportLogsServiceRequest {
        resource_logs: told.collect(),
    }
}

fn sum(name: &str, description: &str, data_points: Vec<NumberDataPoint>) -> Option<Metric> {
    (!data_points.is_empty()).then(|| Metric {
        name: name.into(),
        description: description.into(),
        unit: "{event}".into(),
        sum: Some(Sum {
            data_points,
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
    })
}

fn point(observation: &Observation) -> NumberDataPoint {
    let tally = observation.tally;
    NumberDataPoint {
        attributes: attributes(observation),
        start_time_unix_nano: unsigned(tally.first),
        time_unix_nano: unsigned(tally.last),
        as_int: i64::try_from(tally.count).unwrap_or(i64::MAX),
    }
}

fn losses(changes: &ContainerChanges) -> Vec<NumberDataPoint> {
    let since = unsigned(changes.container.watched_since);
    let losses = changes.losses.iter();
    losses
        .map(|loss| NumberDataPoint {
            attributes: vec![text("ethogram.reason", loss.reason.as_str())],
            start_time_unix_nano: since,
            time_unix_nano: unsigned(crate::log_service::now()),
            as_int: i64::try_from(loss.count).unwrap_or(i64::MAX),
        })
        .collect()
}

fn record(observation: &Observation, now: Timestamp) -> LogRecord {
    let behaviour = &observation.behaviour;
    let is_out_of_order = matches!(behaviour.status, Status::Deny | Status::Audit);
    let body = format!(
        "{}: {} > {} {}",
        behaviour.kind, behaviour.source, behaviour.target, behaviour.status
    );
    LogRecord {
        time_unix_nano: unsigned(observation.tally.first),
        observed_time_unix_nano: unsigned(now),
        severity_number: if is_out_of_order { WARN } else { INFO },
        severity_text: if is_out_of_order { "WARN" } else { "INFO" }.into(),
        body: Some(value(&body)),
        attributes: attributes(observation),
        event_name: "ethogram.behaviour".into(),
    }
}

fn attributes(observation: &Observation) -> Vec<KeyValue> {
    let behaviour = &observation.behaviour;
    let port = match behaviour.port {
        0 => String::new(),
        port => port.to_string(),
    };
    said([
        ("ethogram.kind", behaviour.kind.as_str()),
        ("process.executable.path", behaviour.source.as_str()),
        ("ethogram.target", behaviour.target.as_str()),
        ("ethogram.protocol", behaviour.protocol.as_str()),
        ("ethogram.port", &port),
        ("ethogram.access", &behaviour.access.to_string()),
        ("ethogram.status", behaviour.status.as_str()),
    ])
}

/// Who did it, in OpenTelemetry's words where it has some.
fn resource(container: &Container, cluster: &str) -> Resource {
    let in_pod = !container.pod.is_empty();
    let name = if in_pod {
        "k8s.container.name"
    } else {
        "container.name"
    };
    let workload = match container.workload.name.as_str() {
        "" => String::new(),
        _ => container.workload.to_string(),
    };
    Resource {
        attributes: said([
            ("service.name", "ethogram"),
            ("host.name", &container.node),
            ("k8s.cluster.name", cluster),
            ("k8s.namespace.name", &container.namespace),
            ("k8s.pod.name", &container.pod),
            ("k8s.pod.uid", &container.pod_uid),
            (name, &container.name),
            ("container.id", &container.id),
            ("container.image.name", &container.image),
            ("container.runtime", container.runtime.as_str()),
            ("ethogram.workload", &workload),
            ("ethogram.cgroup", container.cgroup_path.as_str()),
        ]),
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "ethogram".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Those that say something.
fn said<const N: usize>(pairs: [(&str, &str); N]) -> Vec<KeyValue> {
    let said = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| text(key, value)).collect()
}

fn text(key: &str, text: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(value(text)),
    }
}

fn value(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(text.into())),
    }
}

fn unsigned(time: Timestamp) -> u64 {
    u64::try_from(time.0).unwrap_or_default()
}
