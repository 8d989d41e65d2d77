//! A store with known content, and servers in front of it.

use ethogram_cluster::{access::Access, listen::incoming};
use ethogram_model::{
    Behaviour, BootId, Container, ContainerKey, Endpoint, Kind, Name, Observation, Protocol, Run,
    Runtime, Status, Tally, Timestamp, Workload,
};
use ethogram_neighbours::{
    Feed, Served,
    discovery::observability_client::ObservabilityClient,
    feeder::log_service_client::LogServiceClient,
    guard::{Guard, Question},
    publishing::publisher_client::PublisherClient,
    serve_log_service, serve_observability,
};
use ethogram_store::{Report, SqliteStore, Store};
use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep},
};
use tonic::{Request, transport::Channel};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// 2023-01-04T12:35:38Z
pub(crate) const TIME: i64 = 1_672_835_738_000_000_000;
pub(crate) const VIEWER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const AGENT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for something, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    let within = tokio::time::timeout(PATIENCE, what).await;
    within.expect("it comes in time")
}

pub(crate) fn key(cgroup: u64) -> ContainerKey {
    ContainerKey {
        boot: BootId::new("7f2c"),
        cgroup,
        incarnation: 0,
    }
}

pub(crate) fn run(id: &str, started: i64, last_alive: i64) -> Run {
    Run {
        id: id.into(),
        boot: BootId::new("7f2c"),
        node: "node-1".into(),
        hooks: "tracepoint".into(),
        started: Timestamp(started),
        last_alive: Timestamp(last_alive),
        ended_cleanly: false,
    }
}

pub(crate) fn pod(cgroup: u64, namespace: &str, pod: &str, name: &str) -> Container {
    Container {
        node: "node-1".into(),
        runtime: Runtime::Containerd,
        id: format!("{cgroup:064x}"),
        name: name.into(),
        image: format!("example.org/{name}:1"),
        namespace: namespace.into(),
        pod: pod.into(),
        pod_uid: format!("uid-{pod}"),
        workload: Workload {
            kind: "deployment".into(),
            name: "web".into(),
        },
        labels: [("app", "web"), ("pod-template-hash", "5d4f")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..Container::unknown(key(cgroup), Name::default(), Timestamp(TIME))
    }
}

pub(crate) fn seen(cgroup: u64, kind: Kind, source: &str, target: &str, count: u64) -> Observation {
    Observation {
        container: key(cgroup),
        behaviour: Behaviour::new(kind, source.into(), target.into()),
        tally: Tally {
            count,
            first: Timestamp(TIME - 1_000_000_000),
            last: Timestamp(TIME),
        },
        example: Name::default(),
    }
}

pub(crate) fn network(mut seen: Observation, protocol: Protocol, port: u16) -> Observation {
    seen.behaviour.protocol = protocol;
    seen.behaviour.port = port;
    seen
}

pub(crate) fn ended(mut seen: Observation, status: Status) -> Observation {
    seen.behaviour.status = status;
    seen
}

/// A pod of two containers (1, 2), one that only binds (3), one of another namespace (4), a
/// container without a pod (5) and the host (6).
pub(crate) fn world() -> Report {
    use Kind::{Bind, Capability, Egress, File, Ingress, Process};
    let docker = Container {
        pod: String::new(),
        runtime: Runtime::Docker,
        name: "cache".into(),
        ..pod(5, "", "", "")
    };
    let host = Container {
        pod: String::new(),
        runtime: Runtime::Host,
        name: "node-1".into(),
        ..pod(6, "", "", "")
    };
    let apache = "/usr/sbin/apache2";
    let mut listens = network(seen(1, Bind, apache, "0.0.0.0", 1), Protocol::Tcp, 80);
    listens.behaviour.access = ethogram_model::Access::LISTEN;
    let mut written = seen(1, File, apache, "/srv/a file with spaces", 4);
    written.behaviour.access = ethogram_model::Access::WRITE;
    let mut example = seen(1, Process, "/bin/dash", "/bin/my ping", 3);
    example.example = "ping -c1 db".into();
    let observations = vec![
        example,
        seen(2, Process, "/bin/dash", "/bin/my ping", 2),
        seen(1, File, apache, "/srv/a file with spaces", 7),
        written,
        seen(1, File, apache, "/etc/a", 1),
        seen(1, File, apache, "/etc/b", 1),
        seen(1, File, apache, "/etc/c", 1),
        seen(1, File, apache, "/etc/d", 1),
        ended(seen(1, File, "/bin/cat", "/etc/shadow", 9), Status::Deny),
        ended(seen(1, File, "/bin/cat", "/etc/audited", 8), Status::Audit),
        network(seen(1, Egress, apache, "10.0.0.2", 5), Protocol::Tcp, 3306),
        ended(
            network(seen(1, Egress, apache, "192.0.2.9", 1), Protocol::Tcp, 80),
            Status::Failed,
        ),
        ended(
            network(seen(1, Egress, apache, "192.0.2.8", 1), Protocol::Udp, 53),
            Status::Deny,
        ),
        network(seen(1, Egress, apache, "@bus", 2), Protocol::Unix, 0),
        network(seen(2, Ingress, apache, "10.0.0.9", 6), Protocol::Tcp6, 80),
        network(seen(1, Bind, apache, "0.0.0.0", 1), Protocol::Tcp, 80),
        listens,
        seen(1, Capability, apache, "CAP_NET_RAW", 1),
        network(
            seen(3, Bind, "/bin/resolver", "/run/my socket", 2),
            Protocol::Unix,
            0,
        ),
        seen(4, Process, "/bin/sh", "/bin/vault", 1),
        seen(5, Process, "/bin/sh", "/bin/redis", 1),
        seen(6, Process, "/bin/sh", "/bin/login", 1),
    ];
    Report {
        containers: vec![
            pod(1, "shop", "web-0", "web"),
            pod(2, "shop", "web-0", "side"),
            pod(3, "shop", "dns-0", "dns"),
            pod(4, "bank", "vault-0", "vault"),
            docker,
            host,
        ],
        observations,
        endpoints: vec![Endpoint {
            ip: [10, 0, 0, 2].into(),
            name: "svc/db".into(),
            namespace: "data".into(),
            labels: [("app".to_owned(), "db".to_owned())].into(),
            from: Timestamp(0),
            until: None,
        }],
        ..Report::empty(run("run-1", TIME, TIME))
    }
}

/// Servers in front of a store; they end with this.
pub(crate) struct World {
    pub(crate) store: Arc<SqliteStore>,
    observability: SocketAddr,
    log_service: SocketAddr,
    pub(crate) questions: Arc<Mutex<Vec<Question>>>,
    _stop: watch::Sender<bool>,
    _folder: TempDir,
}

impl World {
    /// One whose readers prove nothing.
    pub(crate) async fn open() -> Self {
        Self::new(Guard::open()).await
    }

    /// One with tokens.
    pub(crate) async fn with_tokens() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        let text = format!(
            "[[token]]\nname = \"vera\"\nsecret = \"{VIEWER}\"\nrole = \"viewer\"\nnamespaces = [\"shop\"]\n\
             [[token]]\nname = \"node-1\"\nsecret = \"{AGENT}\"\nrole = \"agent\"\nnode = \"*\"\n"
        );
        fs::write(&file, text).unwrap();
        let access = Access::new(Some(&file), false).unwrap();
        Self::new(Guard::new(Arc::new(access))).await
    }

    async fn new(guard: Guard) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
        store.apply(&world()).unwrap();
        let questions = Arc::<Mutex<Vec<Question>>>::default();
        let written = questions.clone();
        let guard = guard.audited(move |question| written.lock().unwrap().push(question));
        let served = Served::new(store.clone(), "c1".into(), guard);
        let (stop, stopped) = watch::channel(false);
        let (summaries, logs) = (listener().await, listener().await);
        let world = Self {
            store: store.clone(),
            observability: summaries.local_addr().unwrap(),
            log_service: logs.local_addr().unwrap(),
            questions,
            _stop: stop,
            _folder: folder,
        };
        let feed = Feed::start(store);
        tokio::spawn(serve_observability(
            served.clone(),
            Some(feed.clone()),
            incoming(summaries, None),
            stopped.clone(),
        ));
        tokio::spawn(serve_log_service(
            served,
            feed,
            incoming(logs, None),
            stopped,
        ));
        world
    }

    pub(crate) async fn observability(&self) -> ObservabilityClient<Channel> {
        ObservabilityClient::new(channel(self.observability).await)
    }

    pub(crate) async fn publisher(&self) -> PublisherClient<Channel> {
        PublisherClient::new(channel(self.observability).await)
    }

    pub(crate) async fn log_service(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(channel(self.log_service).await)
    }

    /// Where the stream is.
    pub(crate) fn log_service_address(&self) -> SocketAddr {
        self.log_service
    }

    /// Where the summaries are.
    pub(crate) async fn channel(&self) -> Channel {
        channel(self.observability).await
    }
}

pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}
