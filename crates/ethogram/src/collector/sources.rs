//! KubeArmor's agents and relays that a collector listens to.

use std::sync::Arc;

use anyhow::{Result, bail};
use ethogram_neighbours::{Listening, Source, consume};
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet};

use super::Shared;
use crate::args::CollectorArgs;

/// Those that are to be listened to, and how that goes.
pub(super) struct Sources(Vec<(Source, watch::Sender<Listening>)>);

impl Sources {
    /// Those that the options name.
    pub(super) fn new(args: &CollectorArgs) -> Result<Self> {
        let ca = args.from_kubearmor_ca.clone();
        let mut sources = Vec::new();
        for target in &args.from_kubearmor {
            let is_secret = target.starts_with("https://");
            if is_secret && ca.is_none() {
                bail!("{target} needs --from-kubearmor-ca, the file of its certificate authority");
            }
            let source = Source {
                target: target.clone(),
                ca: ca.clone().filter(|_| is_secret),
            };
            sources.push((source, watch::Sender::default()));
        }
        Ok(Self(sources))
    }

    /// How listening goes.
    pub(super) fn states(&self) -> Vec<State> {
        let states = self.0.iter();
        states
            .map(|(source, status)| State::new(source, &status.borrow()))
            .collect()
    }
}

/// Starts to listen.
pub(super) fn listen(tasks: &mut JoinSet<()>, shared: &Shared, stop: &watch::Receiver<bool>) {
    for (source, status) in &shared.sources.0 {
        let store = Arc::clone(&shared.store);
        tasks.spawn(consume(store, source.clone(), status.clone(), stop.clone()));
    }
}

/// How listening to one of them goes.
#[derive(Debug, Serialize)]
pub(super) struct State {
    target: String,
    connected: bool,
    connections: u64,
    /// Events that were counted,
    counted: u64,
    /// that came twice and were counted once,
    repeated: u64,
    /// that nothing has a row for,
    other: u64,
    /// and notices that alerts were left out.
    left_out: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_error: String,
}

impl State {
    fn new(source: &Source, status: &Listening) -> Self {
        Self {
            target: source.target.clone(),
            connected: status.connected,
            connections: status.connections,
            counted: status.taken.counted,
            repeated: status.taken.repeated,
            other: status.taken.other,
            left_out: status.taken.left_out,
            last_error: status.last_error.clone(),
        }
    }
}
