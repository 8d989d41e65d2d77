//! `GET /metrics` of a collector, in the OpenMetrics text format.

use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result};
use ethogram_model::Timestamp;
use ethogram_store::Overview;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use super::{
    Shared,
    state::{lag_s, seconds},
};
use crate::names::NamesState;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByNode {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByNodeAndReason {
    node: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

type Seconds = Family<ByNode, Gauge<f64, AtomicU64>>;

/// All metrics as they stand.
pub(super) fn text(shared: &Shared, overview: Overview, now: Timestamp) -> Result<String> {
    let mut registry = Registry::with_prefix("ethogram_collector");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The running version", build);
    let bytes = Gauge::<u64, AtomicU64>::default();
    bytes.set(overview.bytes);
    registry.register("store_bytes", "Size of the store", bytes);
    let containers = Gauge::<u64, AtomicU64>::default();
    containers.set(overview.containers);
    registry.register("store_containers", "Containers in the store", containers);
    add_agents(&mut registry, shared, now);
    if let Some(names) = &shared.names {
        add_names(&mut registry, &names.state());
    }
    let mut text = String::new();
    encode(&mut text, &registry).context("cannot write the metrics")?;
    Ok(text)
}

fn add_names(registry: &mut Registry, state: &NamesState) {
    let (current, objects) = (
        Family::<ByKind, Gauge>::default(),
        Family::<ByKind, Gauge>::default(),
    );
    let malformed = Family::<ByKind, Counter>::default();
    for (&kind, of_kind) in &state.kinds {
        let by = ByKind { kind };
        let is_current = i64::from(of_kind.state == "current");
        current.get_or_create(&by).set(is_current);
        let listed = i64::try_from(of_kind.listed).unwrap_or(i64::MAX);
        objects.get_or_create(&by).set(listed);
        malformed.get_or_create(&by).inc_by(of_kind.malformed);
    }
    let help = "Whether changes of a kind of object arrive as they happen";
    registry.register("kubernetes_current", help, current);
    let help = "Objects when all of a kind were listed last";
    registry.register("kubernetes_listed", help, objects);
    let help = "Objects that were not understood";
    registry.register("kubernetes_malformed", help, malformed);
    let (silences, bounds) = (Counter::<u64>::default(), Counter::<u64>::default());
    silences.inc_by(state.silences_total);
    bounds.inc_by(state.bounds_hit);
    let help = "Times in which nothing was heard of a kind of object";
    registry.register("kubernetes_silences", help, silences);
    let help = "Ended pods and names forgotten before their time";
    registry.register("kubernetes_forgotten_early", help, bounds);
}

fn add_agents(registry: &mut Registry, shared: &Shared, now: Timestamp) {
    let connected = Family::<ByNode, Gauge>::default();
    let (lag, clock) = (Seconds::default(), Seconds::default());
    let counters: [Family<ByNode, Counter>; 4] = Default::default();
    let [batches, rows, removed, throttled] = &counters;
    let refused = Family::<ByNodeAndReason, Counter>::default();
    for state in shared.agents.states() {
        let node = ByNode {
            node: state.node.clone(),
        };
        connected
            .get_or_create(&node)
            .set(i64::from(state.streams > 0));
        if let Some(seconds) = lag_s(&state, now) {
            lag.get_or_create(&node).set(seconds);
        }
        if let Some(ns) = state.clock_behind_ns {
            clock.get_or_create(&node).set(seconds(ns));
        }
        batches.get_or_create(&node).inc_by(state.batches);
        rows.get_or_create(&node).inc_by(state.rows);
        removed.get_or_create(&node).inc_by(state.removed_unsent);
        throttled.get_or_create(&node).inc_by(state.throttled_ms);
        for (reason, count) in state.refused {
            let label = ByNodeAndReason {
                node: node.node.clone(),
                reason,
            };
            refused.get_or_create(&label).inc_by(count);
        }
    }
    let streams = Family::<ByReason, Counter>::default();
    for (reason, count) in shared.agents.refused_streams() {
        streams.get_or_create(&ByReason { reason }).inc_by(count);
    }
    registry.register(
        "agent_connected",
        "Whether an agent's stream is open",
        connected,
    );
    registry.register(
        "agent_lag_seconds",
        "Since an agent had told all it knew",
        lag,
    );
    let help = "How far an agent's clock is behind the collector's";
    registry.register("agent_clock_behind_seconds", help, clock);
    let [batches, rows, removed, throttled] = counters;
    registry.register("agent_batches", "Batches kept", batches);
    registry.register("agent_rows", "Rows kept", rows);
    let help = "Rows that an agent's retention removed before they were told";
    registry.register("agent_rows_removed_unsent", help, removed);
    let help = "Milliseconds that batches waited because an agent sent too many rows";
    registry.register("agent_throttled_milliseconds", help, throttled);
    registry.register("agent_rows_refused", "Rows refused", refused);
    registry.register("streams_refused", "Streams refused or broken off", streams);
}
