//! An agent's store, a collector, and what they should agree on.

use ethogram_cluster::{
    Agents, Limits, Receiver, Reporting, Sender, SenderOptions, SenderStatus, Trust,
    access::Access,
    listen::{ServerTls, incoming},
    proto::{
        self, FromAgent, FromCollector, from_agent, from_collector, reports_client::ReportsClient,
    },
    serve,
};
use ethogram_model::{
    Behaviour, BootId, Container, ContainerKey, Endpoint, Kind, Loss, LossReason, Name,
    Observation, Run, Selection, Status, Tally, Timestamp,
};
use ethogram_store::{Report, Spool, SqliteStore, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

pub(crate) const NODE: &str = "node-1";
pub(crate) const BOOT: &str = "8b0d7c1e-63a0-4b0e-8d0a-0a52ad0f9f43";
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// An agent without a sensor: a store, and what it does to it.
pub(crate) struct Agent {
    pub(crate) node: String,
    pub(crate) run: u32,
    pub(crate) store: Arc<SqliteStore>,
    counts: BTreeMap<(u64, u64), u64>,
}

impl Agent {
    pub(crate) fn new(directory: &Path, node: &str) -> Self {
        Self {
            node: node.into(),
            run: 1,
            store: Arc::new(SqliteStore::open(&directory.join("agent.db")).unwrap()),
            counts: BTreeMap::new(),
        }
    }

    fn run(&self, time: i64) -> Run {
        Run {
            id: format!("run-{}-of-{}", self.run, self.node),
            boot: BootId::new(BOOT),
            node: self.node.clone(),
            hooks: "tracepoint".into(),
            started: Timestamp(1_000),
            last_alive: Timestamp(time),
            ended_cleanly: false,
        }
    }

    /// Begins a new run, whose counts begin at nothing.
    pub(crate) fn restart(&mut self) {
        self.run += 1;
        self.counts.clear();
    }

    /// Some containers do some things: a step of a walk that is the same every time.
    pub(crate) fn work(&mut self, step: u64) {
        let time = 1_764_000_000_000_000_000 + step as i64;
        let mut report = Report::empty(self.run(time));
        for n in 0..20 {
            let random = (step * 31 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let (cgroup, path) = (random % 5 + 1, random / 5 % 60);
            if n == 0 {
                report.containers.push(self.container(cgroup, time));
                report.losses.push((
                    key(cgroup),
                    Loss {
                        reason: LossReason::RingFull,
                        count: step + 1,
                    },
                ));
                report.endpoints.push(endpoint(cgroup as u8, step));
            }
            let count = self.counts.entry((cgroup, path)).or_default();
            *count += random % 9 + 1;
            report
                .observations
                .push(observation(cgroup, &format!("/file/{path}"), *count, time));
        }
        self.store.apply(&report).unwrap();
    }

    pub(crate) fn apply(&self, observations: Vec<Observation>) {
        let cgroups: BTreeSet<u64> = observations.iter().map(|o| o.container.cgroup).collect();
        let report = Report {
            containers: cgroups
                .into_iter()
                .map(|cgroup| self.container(cgroup, 5))
                .collect(),
            observations,
            ..Report::empty(self.run(1_764_000_000_000_000_000))
        };
        self.store.apply(&report).unwrap();
    }

    fn container(&self, cgroup: u64, time: i64) -> Container {
        let mut container =
            Container::unknown(key(cgroup), "/kubepods/pod".into(), Timestamp(time));
        container.node.clone_from(&self.node);
        container.namespace = "shop".into();
        container.pod = format!("pod-{cgroup}");
        container.image = "shop:1".into();
        container.labels = [("app".to_owned(), format!("app-{cgroup}"))].into();
        container
    }

    pub(crate) fn options(&self, collector: SocketAddr) -> SenderOptions {
        SenderOptions {
            collector: format!("http://{collector}"),
            trust: Trust::default(),
            node: self.node.clone(),
            boot: BOOT.into(),
            run: format!("run-{}", self.run),
            report_every: Duration::from_millis(20),
        }
    }

    pub(crate) fn send_to(&self, collector: SocketAddr) -> Sending {
        Sending::start(self.store.clone(), self.options(collector))
    }
}

pub(crate) fn key(cgroup: u64) -> ContainerKey {
    ContainerKey {
        boot: BootId::new(BOOT),
        cgroup,
        incarnation: 0,
    }
}

pub(crate) fn observation(cgroup: u64, path: &str, count: u64, time: i64) -> Observation {
    Observation {
        container: key(cgroup),
        behaviour: Behaviour::new(Kind::File, "/usr/bin/php".into(), path.into()),
        tally: Tally {
            count,
            first: Timestamp(time),
            last: Timestamp(time),
        },
        example: Name::default(),
    }
}

fn endpoint(number: u8, step: u64) -> Endpoint {
    Endpoint {
        ip: [10, 0, 0, number].into(),
        name: format!("pod/{number}"),
        namespace: "shop".into(),
        labels: [("app".to_owned(), "shop".to_owned())].into(),
        from: Timestamp(step as i64 / 20),
        until: None,
    }
}

/// A sender at work.
pub(crate) struct Sending {
    pub(crate) status: watch::Receiver<SenderStatus>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sending {
    pub(crate) fn start(spool: Arc<dyn Spool>, options: SenderOptions) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (sender, status) = Sender::new(spool, options, stopped);
        Self {
            status,
            stop,
            task: tokio::spawn(sender.run()),
        }
    }

    /// Ends it as a signal would.
    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }

    /// Ends it as if it had been killed: nothing more is said or written.
    pub(crate) async fn abort(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// A collector at work.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) agents: Arc<Agents>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// How a collector is set up.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) limits: Limits,
    pub(crate) access: Option<Access>,
    pub(crate) tls: Option<ServerTls>,
    /// Where it is written down who reports.
    pub(crate) reporting: Arc<Mutex<Vec<Reporting>>>,
}

impl Collector {
    pub(crate) async fn start(directory: &Path) -> Self {
        Self::with(directory, Setup::default()).await
    }

    pub(crate) async fn with(directory: &Path, setup: Setup) -> Self {
        let store = Arc::new(SqliteStore::open(&directory.join("collector.db")).unwrap());
        let address = setup.address.unwrap_or(([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let access = setup
            .access
            .unwrap_or_else(|| Access::new(None, false).unwrap());
        let receiver = Receiver::new(
            store.clone(),
            store.identity().unwrap(),
            setup.limits,
            Arc::new(access),
            stopped,
        );
        let receiver = receiver.audited(move |one| setup.reporting.lock().unwrap().push(one));
        let agents = receiver.agents();
        let connections = incoming(listener, setup.tls.map(Arc::new));
        let task = tokio::spawn(async move { serve(receiver, connections).await.unwrap() });
        Self {
            address,
            store,
            agents,
            stop,
            task,
        }
    }

    /// Ends it as a signal would, and frees its store.
    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
        let store = Arc::downgrade(&self.store);
        drop(self.store);
        until("the collector lets go of its store", || {
            store.strong_count() == 0
        })
        .await;
    }

    /// Rows it took from all agents.
    pub(crate) fn rows_taken(&self) -> u64 {
        self.agents.states().iter().map(|state| state.rows).sum()
    }

    pub(crate) fn batches_taken(&self) -> u64 {
        self.agents.states().iter().map(|state| state.batches).sum()
    }
}

/// All that a reader can see of a store: what two stores must agree on.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Content {
    pub(crate) rows: BTreeMap<(ContainerKey, Behaviour), (Tally, Name)>,
    pub(crate) losses: BTreeMap<(ContainerKey, LossReason), u64>,
    pub(crate) containers: BTreeMap<ContainerKey, Container>,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    pub(crate) runs: BTreeMap<String, Run>,
}

/// Since when a container is watched that nobody described is each store's own guess.
fn told(mut container: Container) -> Container {
    if container.pod.is_empty() {
        container.watched_since = Timestamp(0);
    }
    container
}

impl Content {
    pub(crate) fn of(store: &dyn Store) -> Self {
        let everything = Selection {
            statuses: Status::ALL.to_vec(),
            ..Selection::default()
        };
        let rows = store.all_observations(&everything).unwrap().into_iter();
        let losses = store.losses(&everything).unwrap().into_iter();
        let containers = store
            .containers(&everything)
            .unwrap()
            .into_iter()
            .map(|k| k.container);
        let endpoints = store.endpoints(None).unwrap().into_iter();
        // Without the sources of totals, which are no watches.
        let runs = store
            .runs()
            .unwrap()
            .into_iter()
            .filter(|run| !run.boot.as_str().is_empty());
        Self {
            rows: rows
                .map(|o| ((o.container, o.behaviour), (o.tally, o.example)))
                .collect(),
            losses: losses
                .map(|(key, loss)| ((key, loss.reason), loss.count))
                .collect(),
            containers: containers.map(|c| (c.key.clone(), told(c))).collect(),
            endpoints: endpoints
                .map(|e| (format!("{} {} {:?}", e.ip, e.name, e.from), e))
                .collect(),
            runs: runs.map(|run| (run.id.clone(), run)).collect(),
        }
    }

    /// The content of an agent's store as a collector should have it.
    pub(crate) fn expected(agent: &Agent) -> Self {
        let content = Self::of(&*agent.store);
        let node = &agent.node;
        let boot = |boot: &BootId| BootId::new(&format!("{node}/{}", boot.as_str()));
        let key = |key: ContainerKey| ContainerKey {
            boot: boot(&key.boot),
            ..key
        };
        Self {
            rows: content
                .rows
                .into_iter()
                .map(|((k, b), t)| ((key(k), b), t))
                .collect(),
            losses: content
                .losses
                .into_iter()
                .map(|((k, r), n)| ((key(k), r), n))
                .collect(),
            containers: content
                .containers
                .into_iter()
                .map(|(k, c)| (key(k.clone()), Container { key: key(k), ..c }))
                .collect(),
            endpoints: content.endpoints,
            runs: content
                .runs
                .into_values()
                .map(|run| Run {
                    id: format!("{node}/{}", run.id),
                    boot: boot(&run.boot),
                    ..run
                })
                .map(|run| (run.id.clone(), run))
                .collect(),
        }
    }
}

/// What is in one map and not in the other, in few words.
fn differences<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<&K> = keys
        .into_iter()
        .filter(|key| found.get(key) != expected.get(key))
        .collect();
    let Some(first) = differing.first() else {
        return Vec::new();
    };
    let (is, should) = (found.get(first), expected.get(first));
    vec![format!(
        "{} {what} differ, {first:?} is {is:?} and should be {should:?}",
        differing.len()
    )]
}

impl Content {
    /// Where this is not as expected.
    pub(crate) fn differences(&self, expected: &Self) -> Vec<String> {
        [
            differences("rows", &self.rows, &expected.rows),
            differences("losses", &self.losses, &expected.losses),
            differences("containers", &self.containers, &expected.containers),
            differences("endpoints", &self.endpoints, &expected.endpoints),
            differences("runs", &self.runs, &expected.runs),
        ]
        .concat()
    }
}

/// The collector's store must say what the agent's says.
pub(crate) fn assert_told(agent: &Agent, collector: &dyn Store) {
    let differences = Content::of(collector).differences(&Content::expected(agent));
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Waits until the collector's store says what the agent's says.
pub(crate) async fn until_told(agent: &Agent, collector: &dyn Store) {
    let begun = Instant::now();
    let expected = Content::expected(agent);
    while Content::of(collector) != expected {
        if begun.elapsed() > PATIENCE {
            assert_told(agent, collector);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn two_directories() -> (TempDir, TempDir) {
    (TempDir::new().unwrap(), TempDir::new().unwrap())
}

/// A client that says what it likes.
pub(crate) struct Raw {
    messages: mpsc::Sender<FromAgent>,
    answers: Streaming<FromCollector>,
}

impl Raw {
    /// Opens a stream, with a token if one is given.
    pub(crate) async fn open(
        collector: SocketAddr,
        token: Option<&str>,
    ) -> Result<Self, tonic::Status> {
        let mut client = ReportsClient::connect(format!("http://{collector}"))
            .await
            .unwrap();
        let (messages, outbound) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(outbound));
        if let Some(token) = token {
            let header = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", header);
        }
        let answers = client.report(request).await?.into_inner();
        Ok(Self { messages, answers })
    }

    /// Opens a stream and says hello for a node.
    pub(crate) async fn greet(
        collector: SocketAddr,
        token: Option<&str>,
        node: &str,
    ) -> Result<(Self, proto::Welcome), tonic::Status> {
        let mut raw = Self::open(collector, token).await?;
        raw.say(from_agent::Message::Hello(hello(node))).await;
        match raw.hear().await? {
            from_collector::Message::Welcome(welcome) => Ok((raw, welcome)),
            other => panic!("no Welcome but {other:?}"),
        }
    }

    pub(crate) async fn say(&self, message: from_agent::Message) {
        self.messages
            .send(FromAgent {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Result<from_collector::Message, tonic::Status> {
        let answer = self.answers.message().await?.expect("the stream goes on");
        Ok(answer.message.expect("nothing that we do not know"))
    }

    pub(crate) async fn send(&mut self, batch: proto::Batch) -> Result<proto::Ack, tonic::Status> {
        self.say(from_agent::Message::Batch(batch)).await;
        match self.hear().await? {
            from_collector::Message::Ack(ack) => Ok(ack),
            other => panic!("no Ack but {other:?}"),
        }
    }
}

pub(crate) fn hello(node: &str) -> proto::Hello {
    proto::Hello {
        versions: vec![1],
        node: node.into(),
        agent_version: "0".into(),
        store: "store-1".into(),
        boot: BOOT.into(),
        run: "run".into(),
        clock_ns: now_ns(),
    }
}

pub(crate) fn now_ns() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// A batch of file rows, each of a container of its own.
pub(crate) fn batch(sequence: u64, cgroups: std::ops::Range<u64>) -> proto::Batch {
    proto::Batch {
        sequence,
        stamp: now_ns(),
        clock_ns: now_ns(),
        forget_strings: true,
        strings: vec![BOOT.into(), "/usr/bin/php".into(), "/etc/passwd".into()],
        containers: cgroups
            .map(|cgroup| proto::Container {
                boot_string: 1,
                cgroup,
                observations: vec![proto::Observation {
                    kind: 2,
                    source_string: 2,
                    target_string: 3,
                    count: 1,
                    ..proto::Observation::default()
                }],
                ..proto::Container::default()
            })
            .collect(),
        ..proto::Batch::default()
    }
}
