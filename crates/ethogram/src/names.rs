//! The cluster's names in a store: what a watch of the API server knows of pods and
//! addresses, joined with what is reported.
//!
//! ```text
//! reports ─────────────▶ NamedStore::apply ─▶ store
//!                             ▲ workload, labels of each container's pod
//! API server ─▶ Watch ─▶ Names ─▶ NamedStore::keep ─▶ store.describe
//! ```
//!
//! Reports and the API server's word of a pod may come in either order: whichever is
//! second finds the first. So nothing is asked for a report, and none waits for a name.

mod reach;
mod state;

pub(crate) use reach::Reach;
pub(crate) use state::NamesState;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ethogram_kubernetes::{Client, Event, Names, Scope, Uid, Updates, Watch};
use ethogram_model::{
    BootId, Container, ContainerKey, Endpoint, Loss, Observation, Resolution, Run, Selection,
    Timestamp,
};
use ethogram_store::{KeptContainer, Limits, Overview, Removed, Report, Stats, Store, StoreError};
use tokio::time::sleep;

use crate::clock::now;

/// How often news are written at most.
const KEEP_EVERY: Duration = Duration::from_millis(500);
/// How soon a store that failed is tried again. The API server's news wait meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Containers and names written at a time, because reports wait meanwhile.
const DESCRIBED_MAX: usize = 4096;

/// A store that gives containers the names that the API server knows.
pub(crate) struct NamedStore {
    store: Arc<dyn Store>,
    names: Mutex<Names>,
}

impl NamedStore {
    /// Over a store, whose names of an earlier watch are ended where they hold no more.
    pub(crate) fn new(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let names = Names::new(Scope::Cluster.kinds(), store.endpoints(None)?);
        Ok(Self {
            store,
            names: Mutex::new(names),
        })
    }

    /// How well the names are known.
    pub(crate) fn state(&self) -> NamesState {
        NamesState::of(&self.names())
    }

    /// Hears what the API server says until it is dropped, and keeps it.
    pub(crate) async fn listen(self: Arc<Self>, client: Client) {
        let mut watch = Watch::start(&client, &Scope::Cluster);
        loop {
            self.hear(watch.next().await);
            while let Some(event) = watch.try_next() {
                self.hear(event);
            }
            let updates = self.names().changed(now());
            self.keep_by_all_means(updates).await;
            sleep(KEEP_EVERY).await;
        }
    }

    fn hear(&self, event: Event) {
        let mut names = self.names();
        let was_away = state::away(&names).is_some();
        names.apply(event, now());
        match state::away(&names) {
            Some(why) if !was_away => tracing::warn!("names may be late: {why}"),
            None if was_away => tracing::info!("the API server is heard again"),
            _ => {}
        }
    }

    async fn keep_by_all_means(self: &Arc<Self>, updates: Updates) {
        if updates.endpoints.is_empty() && updates.pods.is_empty() {
            return;
        }
        let updates = Arc::new(updates);
        loop {
            let (own, theirs) = (Arc::clone(self), Arc::clone(&updates));
            let kept = tokio::task::spawn_blocking(move || own.keep(&theirs)).await;
            match kept {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!("cannot keep names: {error}"),
                Err(error) => tracing::error!("keeping names failed: {error}"),
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Writes names of addresses, and to the pods' containers what is new of them.
    fn keep(&self, updates: &Updates) -> Result<(), StoreError> {
        for endpoints in updates.endpoints.chunks(DESCRIBED_MAX) {
            self.store.describe(&[], endpoints)?;
        }
        for (namespace, pod) in self.places(&updates.pods) {
            let selection = Selection {
                namespace: Some(namespace),
                pod,
                ..Selection::default()
            };
            let kept = self.store.containers(&selection)?;
            self.describe_anew(kept.into_iter().map(|kept| kept.container))?;
        }
        Ok(())
    }

    /// Where to look for the containers of pods: namespaces, with the pod where it is one.
    fn places(&self, pods: &[Uid]) -> BTreeMap<String, Option<String>> {
        let names = self.names();
        let mut places = BTreeMap::new();
        for pod in pods.iter().filter_map(|uid| names.pod(uid)) {
            places
                .entry(pod.namespace.to_owned())
                .and_modify(|one| *one = None)
                .or_insert_with(|| Some(pod.name.to_owned()));
        }
        places
    }

    /// Writes those of which the API server says something else.
    fn describe_anew(&self, known: impl Iterator<Item = Container>) -> Result<(), StoreError> {
        let mut changed = Vec::new();
        {
            let names = self.names();
            changed.extend(known.filter_map(|container| renamed(&names, &container)));
        }
        for changed in changed.chunks(DESCRIBED_MAX) {
            self.store.describe(changed, &[])?;
        }
        Ok(())
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // Events are applied whole, whoever panicked elsewhere.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container with its pod's names, if they are known and others than it has.
fn renamed(names: &Names, container: &Container) -> Option<Container> {
    let mut named = container.clone();
    (names.enrich(&mut named) && named != *container).then_some(named)
}

impl Store for NamedStore {
    fn apply(&self, report: &Report) -> Result<(), StoreError> {
        if report.containers.iter().all(|one| one.pod_uid.is_empty()) {
            return self.store.apply(report);
        }
        let mut named = report.clone();
        {
            let names = self.names();
            for container in &mut named.containers {
                names.enrich(container);
            }
        }
        self.store.apply(&named)?;
        // What was heard of its pod meanwhile did not find it in the store.
        self.describe_anew(named.containers.into_iter())
    }

    fn describe(&self, containers: &[Container], endpoints: &[Endpoint]) -> Result<(), StoreError> {
        self.store.describe(containers, endpoints)
    }

    fn containers(&self, selection: &Selection) -> Result<Vec<KeptContainer>, StoreError> {
        self.store.containers(selection)
    }

    fn observations(
        &self,
        selection: &Selection,
        visit: &mut dyn FnMut(Observation) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.store.observations(selection, visit)
    }

    fn losses(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Loss)>, StoreError> {
        self.store.losses(selection)
    }

    fn endpoints(&self, ips: Option<&[IpAddr]>) -> Result<Vec<Endpoint>, StoreError> {
        self.store.endpoints(ips)
    }

    fn resolutions(&self, selection: &Selection) -> Result<Vec<Resolution>, StoreError> {
        self.store.resolutions(selection)
    }

    fn runs(&self) -> Result<Vec<Run>, StoreError> {
        self.store.runs()
    }

    fn runs_around(&self, boots: &[&BootId]) -> Result<Vec<Run>, StoreError> {
        self.store.runs_around(boots)
    }

    fn last_alive(&self, id_prefix: &str) -> Result<Option<Timestamp>, StoreError> {
        self.store.last_alive(id_prefix)
    }

    fn stats(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Stats)>, StoreError> {
        self.store.stats(selection)
    }

    fn overview(&self) -> Result<Overview, StoreError> {
        self.store.overview()
    }

    fn retain(&self, limits: &Limits, now: Timestamp) -> Result<Removed, StoreError> {
        self.store.retain(limits, now)
    }
}

#[cfg(test)]
mod tests;
