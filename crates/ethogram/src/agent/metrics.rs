//! `GET /metrics`: numbers for Prometheus, in the OpenMetrics text format.

use anyhow::{Context, Result};
use ethogram_identity::RuntimeState;
use ethogram_model::LossReason;
use ethogram_store::Overview;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{Shared, Snapshot, keeper::Health};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpoint {
    endpoint: String,
}

/// All metrics as they stand.
pub(super) fn text(
    shared: &Shared,
    snapshot: &Snapshot,
    health: &Health,
    overview: Overview,
) -> Result<String> {
    let mut registry = Registry::with_prefix("ethogram");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The running version", build);
    add_watch(&mut registry, shared, snapshot);
    add_store(&mut registry, health, overview);
    let mut text = String::new();
    encode(&mut text, &registry).context("cannot write the metrics")?;
    Ok(text)
}

fn add_watch(registry: &mut Registry, shared: &Shared, snapshot: &Snapshot) {
    let events = Family::<ByKind, Counter>::default();
    for kind in ethogram_model::Kind::ALL {
        let count = snapshot.totals.events.get(kind).copied();
        let label = ByKind {
            kind: kind.as_str(),
        };
        events.get_or_create(&label).inc_by(count.unwrap_or(0));
    }
    registry.register("events", "Events counted since the agent started", events);

    let losses = Family::<ByReason, Counter>::default();
    for &reason in LossReason::ALL {
        // What may be anybody's is charged to every container and counts once here.
        let count = match reason {
            LossReason::Unattributed => snapshot.losses_unattributed,
            _ => snapshot.totals.losses.get(&reason).copied().unwrap_or(0),
        };
        let label = ByReason {
            reason: reason.as_str(),
        };
        losses.get_or_create(&label).inc_by(count);
    }
    let help = "Events known not to be counted since the agent started";
    registry.register("events_lost", help, losses);

    for (name, help, value) in [
        (
            "behaviours",
            "Behaviours being counted",
            snapshot.rows as u64,
        ),
        (
            "behaviours_limit",
            "Behaviours that the kernel can count at a time",
            shared.settings.limits.behaviours_max.into(),
        ),
        (
            "containers_watched",
            "Containers that run and are watched",
            snapshot.watched as u64,
        ),
        (
            "hooks_missing",
            "Hooks that could not be attached",
            snapshot.hooks.iter().filter(|hook| !hook.attached).count() as u64,
        ),
    ] {
        registry.register(name, help, gauge(value));
    }
    let ring = gauge(shared.settings.limits.ring_bytes.into());
    registry.register_with_unit("ring_size", "Size of the ring buffer", Unit::Bytes, ring);

    let runtimes = Family::<ByEndpoint, Gauge>::default();
    for status in &snapshot.runtimes {
        let label = ByEndpoint {
            endpoint: status.endpoint.to_string(),
        };
        let answers = matches!(status.state, RuntimeState::Answers { .. });
        runtimes.get_or_create(&label).set(answers.into());
    }
    let help = "Whether a container runtime answers";
    registry.register("runtime_up", help, runtimes);
}

fn add_store(registry: &mut Registry, health: &Health, overview: Overview) {
    let bytes = gauge(overview.bytes);
    registry.register_with_unit("store_size", "Size of the store", Unit::Bytes, bytes);
    for (name, help, value) in [
        (
            "store_containers",
            "Containers in the store",
            overview.containers,
        ),
        (
            "store_pending_rows",
            "Rows that wait to be written",
            health.pending_rows as u64,
        ),
    ] {
        registry.register(name, help, gauge(value));
    }
    for (name, help, value) in [
        (
            "store_flushes",
            "Times the store was written",
            health.flushes,
        ),
        (
            "store_failures",
            "Times the store could not be written",
            health.failures,
        ),
    ] {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    let time = Counter::<f64, std::sync::atomic::AtomicU64>::default();
    time.inc_by(health.flush_time.as_secs_f64());
    registry.register_with_unit(
        "store_flush",
        "Time spent writing the store",
        Unit::Seconds,
        time,
    );
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}
