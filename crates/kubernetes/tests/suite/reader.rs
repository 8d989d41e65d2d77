//! A collector in small: takes events, keeps endpoints as a store does, and asks them.

use crate::fake_api::FakeApi;
use ethogram_kubernetes::{
    BACKOFF_MAX_S, Client, Names, NodePort, Scope, Silence, State, Uid, Watch,
};
use ethogram_model::{BootId, Container, ContainerKey, Endpoint, Name, Timestamp};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, timeout};

/// When the tests' time begins: 2026-01-02T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp(1_767_312_000_000_000_000);

/// What a store has of endpoints: told apart by address, name, namespace and beginning.
pub(crate) type Kept = BTreeMap<(String, String, String, i64), Endpoint>;

pub(crate) struct Reader {
    pub(crate) names: Names,
    pub(crate) kept: Kept,
    pub(crate) node_ports: Vec<NodePort>,
    pub(crate) pods: Vec<Uid>,
    watch: Watch,
    began: Instant,
}

/// A client that talks to the fake without a network.
pub(crate) fn client(fake: &FakeApi) -> Client {
    let fake = fake.clone();
    let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
        let fake = fake.clone();
        async move { fake.answer(request.into_parts().0).await }
    });
    Client::new(service, "default")
}

impl Reader {
    /// Starts to watch the whole cluster, and takes all there is.
    pub(crate) async fn start(fake: &FakeApi) -> Self {
        Self::start_with(fake, &Scope::Cluster, Vec::new()).await
    }

    pub(crate) async fn start_with(fake: &FakeApi, scope: &Scope, left: Vec<Endpoint>) -> Self {
        let mut reader = Self {
            names: Names::new(scope.kinds(), left),
            kept: BTreeMap::new(),
            node_ports: Vec::new(),
            pods: Vec::new(),
            watch: Watch::start(&client(fake), scope),
            began: Instant::now(),
        };
        reader.settle().await;
        reader
    }

    /// The tests' time now.
    pub(crate) fn now(&self) -> Timestamp {
        let elapsed = self.began.elapsed().as_nanos();
        Timestamp(START.0 + i64::try_from(elapsed).unwrap())
    }

    /// Takes events until there are none for a tenth of a second.
    pub(crate) async fn settle(&mut self) {
        self.run(Duration::from_millis(100)).await;
    }

    /// Takes events until there are none for longer than a watch pauses. After some minutes
    /// without a word a watch is begun anew, so that what the fake tells may wait for it.
    pub(crate) async fn outwait_pause(&mut self) {
        self.run(Duration::from_secs(2 * BACKOFF_MAX_S)).await;
    }

    /// Takes events until there are none for that long.
    pub(crate) async fn run(&mut self, silence: Duration) {
        while let Ok(event) = timeout(silence, self.watch.next()).await {
            let now = self.now();
            self.names.apply(event, now);
        }
        self.take();
    }

    /// Takes events for that long.
    pub(crate) async fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(event) = tokio::time::timeout_at(end, self.watch.next()).await {
            let now = self.now();
            self.names.apply(event, now);
        }
        self.take();
    }

    fn take(&mut self) {
        let updates = self.names.changed(self.now());
        for endpoint in updates.endpoints {
            let key = (
                endpoint.ip.to_string(),
                endpoint.name.clone(),
                endpoint.namespace.clone(),
                endpoint.from.0,
            );
            self.kept.insert(key, endpoint);
        }
        self.node_ports.extend(updates.node_ports);
        self.pods.extend(updates.pods);
    }

    /// The name of an address now; empty for nobody's.
    pub(crate) fn name(&self, ip: &str) -> String {
        self.name_at(ip, self.now())
    }

    /// The name of an address at a time.
    pub(crate) fn name_at(&self, ip: &str, time: Timestamp) -> String {
        let of_ip = self.kept.values().filter(|e| e.ip.to_string() == ip);
        let valid = of_ip.filter(|e| e.from <= time && e.until.is_none_or(|until| time < until));
        let names: Vec<_> = valid.map(|e| e.name.clone()).collect();
        assert!(names.len() <= 1, "{ip} has several names: {names:?}");
        names.into_iter().next().unwrap_or_default()
    }

    /// The workload of a pod as its container's row would show it.
    pub(crate) fn workload(&self, pod_uid: &str) -> String {
        let key = ContainerKey {
            boot: BootId::new("b"),
            cgroup: 1,
            incarnation: 0,
        };
        let mut container = Container::unknown(key, Name::default(), START);
        pod_uid.clone_into(&mut container.pod_uid);
        if !self.names.enrich(&mut container) {
            return String::new();
        }
        format!(
            "{} {} {}",
            container.namespace, container.pod, container.workload
        )
    }

    pub(crate) fn silences(&self) -> Vec<Silence> {
        self.names.silences().cloned().collect()
    }

    pub(crate) fn is_current(&self) -> bool {
        self.names.coverage().all(|one| one.state == State::Current)
    }

    pub(crate) fn malformed(&self) -> u64 {
        self.names.coverage().map(|one| one.malformed).sum()
    }

    /// Panics if two intervals of one address overlap.
    pub(crate) fn check_no_overlap(&self) {
        // One that ends where it begins holds no time.
        let holds = |e: &&Endpoint| e.until.is_none_or(|until| until > e.from);
        let endpoints: Vec<_> = self.kept.values().filter(holds).collect();
        for (n, a) in endpoints.iter().enumerate() {
            for b in &endpoints[n + 1..] {
                let apart = |x: &Endpoint, y: &Endpoint| x.until.is_some_and(|u| u <= y.from);
                assert!(a.ip != b.ip || apart(a, b) || apart(b, a), "{a:?} {b:?}");
            }
        }
    }
}
