//! Who reports, and how it goes. The wire forms of `GET /v1/agents` and `/v1/status`.

use std::collections::BTreeMap;

use ethogram_cluster::AgentState;
use ethogram_model::Timestamp;
use ethogram_store::Overview;
use serde::Serialize;

use super::{Shared, sources};
use crate::{clock::rfc3339, names::NamesState, neighbours::OtlpStatus};

/// The name and version of the wire form. Fields may be added within a version.
const AGENTS_SCHEMA: &str = "ethogram.agents/v1";
const STATUS_SCHEMA: &str = "ethogram.collector/v1";

/// All agents that reported since the collector started.
#[derive(Debug, Serialize)]
pub(super) struct AgentsDocument {
    schema: &'static str,
    generated: String,
    agents: Vec<Agent>,
    /// Streams that were not let in or broke off, by reason.
    refused_streams: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct Agent {
    node: String,
    version: String,
    protocol: u32,
    address: String,
    connected: bool,
    connected_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_batch: Option<String>,
    /// How long ago it had told all it knew, in seconds; none while it never had.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_s: Option<f64>,
    /// How far its clock is behind the collector's, in seconds; negative if ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_behind_s: Option<f64>,
    batches: u64,
    rows: u64,
    refused_rows: BTreeMap<&'static str, u64>,
    removed_unsent_rows: u64,
    throttled_s: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_end: String,
}

/// Nanoseconds as seconds.
pub(super) fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

/// How long ago an agent had told all it knew.
pub(super) fn lag_s(state: &AgentState, now: Timestamp) -> Option<f64> {
    state
        .caught_up
        .map(|time| seconds(now.0.saturating_sub(time.0)))
}

impl AgentsDocument {
    pub(super) fn new(shared: &Shared, now: Timestamp) -> Self {
        let states = shared.agents.states().into_iter();
        Self {
            schema: AGENTS_SCHEMA,
            generated: rfc3339(now),
            agents: states.map(|state| Agent::new(state, now)).collect(),
            refused_streams: shared.agents.refused_streams(),
        }
    }
}

impl Agent {
    fn new(state: AgentState, now: Timestamp) -> Self {
        Self {
            lag_s: lag_s(&state, now),
            node: state.node,
            version: state.agent_version,
            protocol: state.protocol,
            address: state.address,
            connected: state.streams > 0,
            connected_at: rfc3339(state.connected_at),
            last_batch: state.last_batch.map(rfc3339),
            clock_behind_s: state.clock_behind_ns.map(seconds),
            batches: state.batches,
            rows: state.rows,
            refused_rows: state.refused,
            removed_unsent_rows: state.removed_unsent,
            throttled_s: state.throttled_ms as f64 / 1e3,
            last_end: state.last_end,
        }
    }
}

/// How the collector itself is doing.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    schema: &'static str,
    version: &'static str,
    cluster: String,
    agents_connected: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubearmor: Vec<sources::State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otlp: Option<OtlpStatus>,
    store: Store,
    /// Whether and how well the API server gives names; left out where none is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<NamesState>,
}

#[derive(Debug, Serialize)]
struct Store {
    identity: String,
    bytes: u64,
    containers: u64,
    /// Containers that ended before this time may be forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    history_since: Option<String>,
}

impl Status {
    pub(super) fn new(shared: &Shared, overview: Overview) -> Self {
        let states = shared.agents.states();
        Self {
            schema: STATUS_SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            cluster: shared.args.cluster.clone(),
            agents_connected: states.iter().filter(|state| state.streams > 0).count(),
            kubernetes: shared.names.as_ref().map(|names| names.state()),
            kubearmor: shared.sources.states(),
            otlp: shared
                .otlp
                .as_ref()
                .map(|receiver| OtlpStatus::new(receiver, &shared.exported.borrow())),
            store: Store {
                identity: shared.identity.clone(),
                bytes: overview.bytes,
                containers: overview.containers,
                history_since: overview.history_since.map(rfc3339),
            },
        }
    }
}
