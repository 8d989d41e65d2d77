//! Short words for what the tests talk about.

use ethogram_model::{
    Behaviour, BootId, Container, ContainerKey, Kind, Loss, LossReason, Name, Observation, Run,
    Selection, Status, Tally, Timestamp,
};
use ethogram_store::{Report, Store};
use std::{any::Any, collections::BTreeMap};

/// A new, empty store, and the place that goes away with it.
pub(crate) struct Fresh {
    pub(crate) store: Box<dyn Store>,
    pub(crate) _place: Box<dyn Any>,
}

pub(crate) fn run(id: &str) -> Run {
    Run {
        id: id.into(),
        boot: BootId::new("boot-1"),
        node: "node-1".into(),
        hooks: "tracepoint".into(),
        started: Timestamp(1_000),
        last_alive: Timestamp(2_000),
        ended_cleanly: false,
    }
}

pub(crate) fn key(cgroup: u64) -> ContainerKey {
    ContainerKey {
        boot: BootId::new("boot-1"),
        cgroup,
        incarnation: 0,
    }
}

pub(crate) fn container(cgroup: u64, namespace: &str, pod: &str) -> Container {
    let mut container =
        Container::unknown(key(cgroup), Name::from("/kubepods/x"), Timestamp(1_000));
    container.node = "node-1".into();
    container.namespace = namespace.into();
    container.pod = pod.into();
    container
}

pub(crate) fn opens(path: &str) -> Behaviour {
    Behaviour::new(Kind::File, "/usr/bin/php".into(), path.into())
}

pub(crate) fn with_status(mut behaviour: Behaviour, status: Status) -> Behaviour {
    behaviour.status = status;
    behaviour
}

pub(crate) fn observed(
    container: &ContainerKey,
    behaviour: Behaviour,
    tally: Tally,
) -> Observation {
    Observation {
        container: container.clone(),
        behaviour,
        tally,
        example: Name::default(),
    }
}

pub(crate) fn tally(count: u64, first: i64, last: i64) -> Tally {
    Tally {
        count,
        first: Timestamp(first),
        last: Timestamp(last),
    }
}

pub(crate) fn report(run: &Run, observations: Vec<Observation>) -> Report {
    Report {
        observations,
        ..Report::empty(run.clone())
    }
}

/// A selection that leaves nothing out.
pub(crate) fn everything() -> Selection {
    Selection {
        statuses: Status::ALL.to_vec(),
        ..Selection::default()
    }
}

pub(crate) type Rows = BTreeMap<(ContainerKey, Behaviour), (u64, i64, i64)>;

/// All observations of a store, in an order of their own.
pub(crate) fn rows(store: &dyn Store) -> Rows {
    let all = store.all_observations(&everything()).unwrap();
    let count = all.len();
    let rows: Rows = all
        .into_iter()
        .map(|o| {
            let tally = (o.tally.count, o.tally.first.0, o.tally.last.0);
            ((o.container, o.behaviour), tally)
        })
        .collect();
    assert_eq!(rows.len(), count, "a behaviour was returned twice");
    rows
}

pub(crate) fn losses(store: &dyn Store) -> BTreeMap<(ContainerKey, LossReason), u64> {
    let losses = store.losses(&everything()).unwrap();
    losses
        .into_iter()
        .map(|(key, Loss { reason, count })| ((key, reason), count))
        .collect()
}
