//! An agent that does what is known.

use super::Totals;
use crate::fleet::scattered;
use anyhow::{Context, Result};
use ethogram_cluster::{Sender, SenderOptions, Trust};
use ethogram_model::{
    Behaviour, BootId, Container, ContainerKey, Kind, Name, Observation, Run, Tally, Timestamp,
};
use ethogram_store::{Report, Spool, SqliteStore, Store};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// What an agent of a walk does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Walk {
    /// The node's name, and the namespace of its pods
    #[arg(long)]
    pub(crate) node: String,
    /// Where its store is
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// The collector
    #[arg(long)]
    pub(crate) collector: String,
    /// Steps in all
    #[arg(long)]
    pub(crate) steps: u64,
    /// Rows that a step touches
    #[arg(long)]
    pub(crate) rows: u64,
    /// Pause after a step, in milliseconds
    #[arg(long)]
    pub(crate) pause_ms: u64,
}

/// Containers of a node.
const CONTAINERS: u64 = 5;
/// Files that each uses, but for an agent that floods.
const FILES: u64 = 400;
/// A run says how far it is by when it was last alive: this, and a second for each step.
const BEGINNING_NS: i64 = 1_764_000_000_000_000_000;
const STEP_NS: i64 = 1_000_000_000;

impl Walk {
    /// What a step does: which container, which file, how often.
    fn step(&self, step: u64) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        // An agent that floods uses new files all the time.
        let files = if self.rows > FILES { u64::MAX } else { FILES };
        (0..self.rows).map(move |n| {
            let random = scattered(step * self.rows + n);
            (
                random % CONTAINERS,
                random / CONTAINERS % files,
                random % 9 + 1,
            )
        })
    }

    /// What all steps together do.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::new();
        for step in 1..=self.steps {
            for (container, file, count) in self.step(step) {
                *totals.entry((pod(container), path(file))).or_default() += count;
            }
        }
        totals
    }

    /// A command that walks, in a process of its own.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["walk", "--node", &self.node, "--collector", &self.collector]);
        command.arg("--directory").arg(&self.directory);
        for (option, number) in [
            ("--steps", self.steps),
            ("--rows", self.rows),
            ("--pause-ms", self.pause_ms),
        ] {
            command.args([option, &number.to_string()]);
        }
        command
    }

    fn boot(&self) -> BootId {
        BootId::new(&format!("boot-of-{}", self.node))
    }

    fn container(&self, number: u64) -> Container {
        let key = ContainerKey {
            boot: self.boot(),
            cgroup: number + 1,
            incarnation: 0,
        };
        let mut container =
            Container::unknown(key, Name::from("/kubepods/pod"), Timestamp(BEGINNING_NS));
        container.node.clone_from(&self.node);
        container.namespace.clone_from(&self.node);
        container.name = "main".into();
        container.pod = pod(number);
        container.pod_uid = format!("{}-{number}", self.node);
        container
    }
}

fn pod(container: u64) -> String {
    format!("pod-{container}")
}

fn path(file: u64) -> String {
    format!("/data/{file:016x}")
}

/// Walks from where the last process was killed, reports, and stays.
pub(crate) async fn walk(walk: Walk) -> Result<()> {
    let store = Arc::new(SqliteStore::open(&walk.directory.join("agent.db"))?);
    let runs = store.runs()?;
    let mut run = Run {
        id: format!("run-{}-of-{}", runs.len() + 1, walk.node),
        boot: walk.boot(),
        node: walk.node.clone(),
        hooks: "walk".into(),
        started: Timestamp(BEGINNING_NS),
        last_alive: Timestamp(BEGINNING_NS),
        ended_cleanly: false,
    };
    // A step and how far the run is are one transaction: it is done, or it is not.
    let done = runs
        .iter()
        .map(|run| (run.last_alive.0 - BEGINNING_NS) / STEP_NS)
        .max()
        .unwrap_or(0);
    let options = SenderOptions {
        collector: walk.collector.clone(),
        trust: Trust::default(),
        node: walk.node.clone(),
        boot: walk.boot().as_str().to_owned(),
        run: run.id.clone(),
        report_every: Duration::from_millis(100),
    };
    let (_stop, stopped) = watch::channel(false);
    let (sender, _status) = Sender::new(Arc::clone(&store) as Arc<dyn Spool>, options, stopped);
    let sending = tokio::spawn(sender.run());
    let mut counts = BTreeMap::<(u64, u64), u64>::new();
    for step in u64::try_from(done)? + 1..=walk.steps {
        run.last_alive = Timestamp(BEGINNING_NS + step as i64 * STEP_NS);
        let mut touched = BTreeMap::new();
        for (container, file, count) in walk.step(step) {
            let total = counts.entry((container, file)).or_default();
            *total += count;
            touched.insert((container, file), *total);
        }
        let report = Report {
            containers: (0..CONTAINERS)
                .map(|number| walk.container(number))
                .collect(),
            observations: touched
                .into_iter()
                .map(|((container, file), count)| Observation {
                    container: walk.container(container).key,
                    behaviour: Behaviour::new(
                        Kind::File,
                        "/usr/bin/walker".into(),
                        path(file).as_str().into(),
                    ),
                    tally: Tally {
                        count,
                        first: run.last_alive,
                        last: run.last_alive,
                    },
                    example: Name::default(),
                })
                .collect(),
            ..Report::empty(run.clone())
        };
        let store = Arc::clone(&store);
        tokio::task::spawn_blocking(move || store.apply(&report)).await??;
        tokio::time::sleep(Duration::from_millis(walk.pause_ms)).await;
    }
    sending.await.context("the sender ended")
}
