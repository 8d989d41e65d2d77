//! How the agent itself is doing. The wire form of `GET /v1/status`.

use ethogram_identity::RuntimeState;
use ethogram_store::Overview;
use serde::Serialize;

use super::{Shared, Snapshot, keeper::Health};
use crate::{clock::rfc3339, neighbours::OtlpStatus};

/// The name and version of the wire form. Fields may be added within a version.
const SCHEMA: &str = "ethogram.status/v1";

/// How the agent is doing.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    schema: &'static str,
    version: &'static str,
    node: String,
    cluster: String,
    run: Run,
    rights: Rights,
    hooks: Vec<Hook>,
    cgroups: &'static str,
    runtimes: Vec<Runtime>,
    kernel: Kernel,
    losses_unattributed: u64,
    /// How often a bound on what is known of containers was hit.
    bounds: Bounds,
    store: Store,
    /// How reporting to the collector goes, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    collector: Option<Collector>,
    /// How telling an OTLP receiver goes, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp: Option<OtlpStatus>,
}

#[derive(Debug, Serialize)]
struct Collector {
    url: String,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    caught_up: Option<String>,
    batches: u64,
    rows: u64,
    refused_rows: std::collections::BTreeMap<String, u64>,
    /// Rows that retention removed before the collector had them.
    removed_unsent_rows: u64,
    /// How far the collector's clock is ahead, in seconds; too large by the time on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_behind_s: Option<f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_error: String,
}

#[derive(Debug, Serialize)]
struct Run {
    id: String,
    started: String,
}

/// What the agent kept of its rights.
#[derive(Debug, Serialize)]
struct Rights {
    capabilities: Vec<&'static str>,
    /// Whether the kernel refuses system calls that are not needed.
    calls_filtered: bool,
}

#[derive(Debug, Serialize)]
struct Hook {
    hook: String,
    attached: bool,
    /// What is missed without it.
    note: String,
}

#[derive(Debug, Serialize)]
struct Runtime {
    endpoint: String,
    /// `answers`, `absent` or `fails`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    announces: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Kernel {
    rows: usize,
    behaviours_max: u32,
    ring_bytes: u32,
    rows_per_container_max: u32,
}

#[derive(Debug, Serialize)]
struct Bounds {
    dead_forgotten_early: u64,
    cgroups_ignored: u64,
    facts_ignored: u64,
}

#[derive(Debug, Serialize)]
struct Store {
    path: String,
    bytes: u64,
    containers: u64,
    pending_rows: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    retention: Retention,
}

#[derive(Debug, Serialize)]
struct Retention {
    age_s_max: Option<u64>,
    bytes_max: Option<u64>,
    /// Containers that ended before this time may be forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    history_since: Option<String>,
}

impl Status {
    pub(super) fn new(
        shared: &Shared,
        snapshot: Snapshot,
        health: Health,
        overview: Overview,
    ) -> Self {
        let settings = &shared.settings;
        Self {
            collector: Collector::of(shared),
            otlp: settings
                .otlp
                .as_ref()
                .map(|receiver| OtlpStatus::new(receiver, &shared.exported.borrow())),
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            node: shared.run.node.clone(),
            cluster: settings.cluster.clone(),
            run: Run {
                id: shared.run.id.clone(),
                started: rfc3339(shared.run.started),
            },
            rights: Rights {
                capabilities: shared.rights.names().collect(),
                calls_filtered: shared.rights.is_filtered,
            },
            hooks: snapshot.hooks.into_iter().map(Hook::from).collect(),
            cgroups: snapshot.cgroups,
            runtimes: snapshot.runtimes.into_iter().map(Runtime::from).collect(),
            kernel: Kernel {
                rows: snapshot.rows,
                behaviours_max: settings.limits.behaviours_max,
                ring_bytes: settings.limits.ring_bytes,
                rows_per_container_max: settings.limits.budget.rows_max(),
            },
            losses_unattributed: snapshot.losses_unattributed,
            bounds: Bounds {
                dead_forgotten_early: snapshot.bounds.dead_forgotten_early,
                cgroups_ignored: snapshot.bounds.cgroups_ignored,
                facts_ignored: snapshot.bounds.facts_ignored,
            },
            store: Store {
                path: settings.store_file().display().to_string(),
                bytes: overview.bytes,
                containers: overview.containers,
                pending_rows: health.pending_rows,
                failure: health.failure,
                retention: Retention {
                    age_s_max: settings.retention.age_max.map(|age| age.as_secs()),
                    bytes_max: settings.retention.bytes_max,
                    history_since: overview.history_since.map(rfc3339),
                },
            },
        }
    }
}

impl Collector {
    fn of(shared: &Shared) -> Option<Self> {
        let url = shared.settings.collector.as_ref()?.url.clone();
        let status = shared.reporting.as_ref()?.borrow().clone();
        Some(Self {
            url,
            connected: status.connected,
            caught_up: status.caught_up.map(rfc3339),
            batches: status.batches,
            rows: status.rows,
            refused_rows: status.refused,
            removed_unsent_rows: status.removed_unsent,
            clock_behind_s: status.clock_behind_ns.map(|ns| ns as f64 / 1e9),
            last_error: status.last_error,
        })
    }
}

impl From<ethogram_sensor::HookStatus> for Hook {
    fn from(hook: ethogram_sensor::HookStatus) -> Self {
        let ethogram_sensor::HookStatus {
            hook,
            attached,
            note,
        } = hook;
        Self {
            hook,
            attached,
            note,
        }
    }
}

impl From<ethogram_identity::RuntimeStatus> for Runtime {
    fn from(status: ethogram_identity::RuntimeStatus) -> Self {
        let endpoint = status.endpoint.to_string();
        let bare = Self {
            endpoint,
            state: state_word(&status.state),
            version: None,
            containers: None,
            announces: None,
            error: None,
        };
        match status.state {
            RuntimeState::Absent => bare,
            RuntimeState::Answers {
                version,
                containers,
                announces,
            } => Self {
                version: Some(version),
                containers: Some(containers),
                announces: Some(announces),
                ..bare
            },
            RuntimeState::Fails { why } => Self {
                error: Some(why),
                ..bare
            },
        }
    }
}

/// The word for a runtime's state.
pub(super) fn state_word(state: &RuntimeState) -> &'static str {
    match state {
        RuntimeState::Absent => "absent",
        RuntimeState::Answers { .. } => "answers",
        RuntimeState::Fails { .. } => "fails",
    }
}
