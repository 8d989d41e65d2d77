//! What is watched: containers with how much is kept of them. The wire form of
//! `GET /v1/containers`, and how it comes from a store.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use ethogram_model::{BootId, Container, ContainerKey, Loss, Run, Selection, Timestamp};
use ethogram_store::{KeptContainer, Stats, Store};
use ethogram_view::Printable;
use serde::{Deserialize, Serialize};

use crate::clock::to_jiff;

/// The name and version of the wire form. Fields may be added within a version.
const SCHEMA: &str = "ethogram.containers/v1";

/// How long a run may be silent before it counts as ended. Runs report much more often.
const RUN_SILENCE_MAX_NS: i64 = 30_000_000_000;

/// What is watched, sorted by namespace, pod and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inventory {
    pub(crate) schema: Printable,
    pub(crate) generated: jiff::Timestamp,
    pub(crate) containers: Vec<Entry>,
}

/// One container. Texts are empty where nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) namespace: Printable,
    pub(crate) pod: Printable,
    pub(crate) name: Printable,
    /// `kind/name`.
    pub(crate) workload: Printable,
    pub(crate) runtime: Printable,
    pub(crate) id: Printable,
    pub(crate) image: Printable,
    pub(crate) node: Printable,
    pub(crate) cgroup: Printable,
    /// Whether it only holds a pod's namespaces.
    pub(crate) sandbox: bool,
    pub(crate) state: State,
    pub(crate) watched_since: jiff::Timestamp,
    /// Whether it ran already when the watch began.
    pub(crate) already_running: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen: Option<jiff::Timestamp>,
    /// Distinct behaviours that are kept.
    pub(crate) rows: u64,
    /// The sum of their counts.
    pub(crate) events: u64,
    /// Events known not to be counted, by reason.
    pub(crate) losses: Vec<LossEntry>,
}

/// Events known not to be counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LossEntry {
    pub(crate) reason: Printable,
    pub(crate) count: u64,
}

/// Whether somebody watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Yes.
    Watched,
    /// No, though it may still run.
    Unwatched,
    /// It ended, or its machine was booted again.
    Ended,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Watched => "watched",
            Self::Unwatched => "unwatched",
            Self::Ended => "ended",
        }
    }
}

impl Inventory {
    /// What a store knows of the selected containers.
    pub(crate) fn of(store: &dyn Store, selection: &Selection, now: Timestamp) -> Result<Self> {
        let stats: HashMap<ContainerKey, Stats> = store.stats(selection)?.into_iter().collect();
        let mut losses = HashMap::<ContainerKey, Vec<Loss>>::new();
        for (key, loss) in store.losses(selection)? {
            losses.entry(key).or_default().push(loss);
        }
        let runs = store.runs()?;
        let machines = Machines::new(&runs);
        let mut containers: Vec<_> = store
            .containers(selection)?
            .into_iter()
            .map(|KeptContainer { container, .. }| {
                let stats = stats.get(&container.key).copied().unwrap_or_default();
                let losses = losses.remove(&container.key).unwrap_or_default();
                let state = state(&container, machines.runs(&container.key.boot), now);
                entry(&container, stats, &losses, state)
            })
            .collect();
        containers.sort_by(|a, b| order(a).cmp(&order(b)));
        Ok(Self {
            schema: SCHEMA.into(),
            generated: to_jiff(now),
            containers,
        })
    }

    /// Reads one from JSON.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self> {
        let inventory: Self = serde_json::from_slice(json)
            .with_context(|| format!("this is no {SCHEMA} document"))?;
        if inventory.schema.as_str() != SCHEMA {
            bail!(
                "this list is {:?} and this version reads {SCHEMA:?}: use the version of the agent",
                inventory.schema
            );
        }
        Ok(inventory)
    }
}

fn order(entry: &Entry) -> impl Ord + '_ {
    (
        &entry.namespace,
        &entry.pod,
        &entry.name,
        entry.watched_since,
        &entry.id,
    )
}

fn entry(container: &Container, stats: Stats, losses: &[Loss], state: State) -> Entry {
    let workload = if container.workload.name.is_empty() {
        String::new()
    } else {
        container.workload.to_string()
    };
    let loss = |loss: &Loss| LossEntry {
        reason: loss.reason.as_str().into(),
        count: loss.count,
    };
    Entry {
        namespace: (&container.namespace).into(),
        pod: (&container.pod).into(),
        name: (&container.name).into(),
        workload: (&workload).into(),
        runtime: container.runtime.as_str().into(),
        id: (&container.id).into(),
        image: (&container.image).into(),
        node: (&container.node).into(),
        cgroup: (&container.cgroup_path).into(),
        sandbox: container.is_sandbox(),
        state,
        watched_since: to_jiff(container.watched_since),
        already_running: container.present_at_start,
        ended: container.ended.map(to_jiff),
        last_seen: stats.last_seen.map(to_jiff),
        rows: stats.rows,
        events: stats.events,
        losses: losses
            .iter()
            .filter(|loss| loss.count > 0)
            .map(loss)
            .collect(),
    }
}

/// Runs by the machine they were on: a cluster has too many to look through all of them
/// for every container.
struct Machines<'a> {
    node_of: HashMap<&'a BootId, &'a str>,
    runs: HashMap<&'a str, Vec<&'a Run>>,
}

impl<'a> Machines<'a> {
    fn new(runs: &'a [Run]) -> Self {
        let mut machines = Self {
            node_of: HashMap::new(),
            runs: HashMap::new(),
        };
        for run in runs {
            machines.node_of.insert(&run.boot, &run.node);
            machines.runs.entry(&run.node).or_default().push(run);
        }
        machines
    }

    /// All runs on the machine that had a boot.
    fn runs(&self, boot: &BootId) -> &[&'a Run] {
        let node = self.node_of.get(boot);
        node.and_then(|node| self.runs.get(node))
            .map_or(&[], Vec::as_slice)
    }
}

/// The runs are at least those on the container's machine.
fn state(container: &Container, runs: &[&Run], now: Timestamp) -> State {
    let boot = &container.key.boot;
    let newest = runs
        .iter()
        .filter(|run| run.boot == *boot)
        .max_by_key(|run| run.started);
    let booted_again = newest.is_some_and(|last| is_over(&last.node, boot, last.started, runs));
    if container.ended.is_some() || booted_again {
        return State::Ended;
    }
    let is_alive = |run: &&Run| {
        !run.ended_cleanly && now.0.saturating_sub(run.last_alive.0) <= RUN_SILENCE_MAX_NS
    };
    if newest.is_some_and(is_alive) {
        State::Watched
    } else {
        State::Unwatched
    }
}

/// Whether a machine has booted again since.
fn is_over(node: &str, boot: &BootId, since: Timestamp, runs: &[&Run]) -> bool {
    runs.iter()
        .any(|run| run.node == node && run.boot != *boot && run.started > since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::Name;

    const SECOND: i64 = 1_000_000_000;

    fn run(boot: &str, started: i64, last_alive: i64, ended_cleanly: bool) -> Run {
        Run {
            id: format!("{boot}-{started}"),
            boot: BootId::new(boot),
            node: "n1".into(),
            hooks: "tracepoint".into(),
            started: Timestamp(started * SECOND),
            last_alive: Timestamp(last_alive * SECOND),
            ended_cleanly,
        }
    }

    #[test]
    fn who_watches_now() {
        let key = ContainerKey {
            boot: BootId::new("b1"),
            cgroup: 7,
            incarnation: 0,
        };
        let running = Container::unknown(key, Name::default(), Timestamp(0));
        let over = Container {
            ended: Some(Timestamp(5)),
            ..running.clone()
        };
        for (why, container, runs, expected) in [
            (
                "it ended",
                &over,
                vec![run("b1", 1, 100, false)],
                State::Ended,
            ),
            (
                "watched",
                &running,
                vec![run("b1", 1, 95, false)],
                State::Watched,
            ),
            (
                "silent",
                &running,
                vec![run("b1", 1, 60, false)],
                State::Unwatched,
            ),
            (
                "stopped",
                &running,
                vec![run("b1", 1, 99, true)],
                State::Unwatched,
            ),
            (
                "stopped and started",
                &running,
                vec![run("b1", 60, 99, false), run("b1", 1, 50, true)],
                State::Watched,
            ),
            (
                "booted again",
                &running,
                vec![run("b1", 1, 50, false), run("b2", 60, 99, false)],
                State::Ended,
            ),
            ("no run", &running, vec![], State::Unwatched),
        ] {
            assert_eq!(
                state(
                    container,
                    Machines::new(&runs).runs(&container.key.boot),
                    Timestamp(100 * SECOND)
                ),
                expected,
                "{why}"
            );
        }
    }

    #[test]
    fn other_versions_are_named() {
        let error = Inventory::from_json(
            br#"{"schema":"ethogram.containers/v9","generated":"2023-01-04T12:00:00Z","containers":[]}"#,
        );
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("ethogram.containers/v9"), "{error}");
        assert!(Inventory::from_json(b"{}").is_err());
    }
}
