//! Listening to KubeArmor, as which a server made from the same proto stands in.

use crate::support::{World, soon, until};
use ethogram_model::{
    Facts, Fold, Selection, Status as Outcome, Summary, SummaryOptions, Timestamp, summarize,
};
use ethogram_neighbours::{
    Listening, Source, consume,
    feeder::{
        Alert, Log, Message, NonceMessage, Podowner, ReplyMessage, RequestMessage,
        log_service_server::{LogService, LogServiceServer},
    },
};
use ethogram_store::{SqliteStore, Store};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

type Events<T> = ReceiverStream<Result<T, Status>>;
type Line<T> = Arc<Mutex<Option<mpsc::Sender<Result<T, Status>>>>>;

/// What KubeArmor would say, said by a test.
#[derive(Clone, Default)]
struct KubeArmor {
    logs: Line<Log>,
    alerts: Line<Alert>,
}

fn open<T>(line: &Line<T>) -> Response<Events<T>> {
    let (sender, events) = mpsc::channel(1_000);
    *line.lock().unwrap() = Some(sender);
    Response::new(ReceiverStream::new(events))
}

#[tonic::async_trait]
impl LogService for KubeArmor {
    async fn health_check(
        &self,
        request: Request<NonceMessage>,
    ) -> Result<Response<ReplyMessage>, Status> {
        let retval = request.get_ref().nonce;
        Ok(Response::new(ReplyMessage { retval }))
    }

    type WatchMessagesStream = Events<Message>;

    async fn watch_messages(
        &self,
        _: Request<RequestMessage>,
    ) -> Result<Response<Self::WatchMessagesStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    type WatchAlertsStream = Events<Alert>;

    async fn watch_alerts(
        &self,
        request: Request<RequestMessage>,
    ) -> Result<Response<Self::WatchAlertsStream>, Status> {
        assert_eq!(request.get_ref().filter, "all");
        Ok(open(&self.alerts))
    }

    type WatchLogsStream = Events<Log>;

    async fn watch_logs(
        &self,
        request: Request<RequestMessage>,
    ) -> Result<Response<Self::WatchLogsStream>, Status> {
        assert_eq!(request.get_ref().filter, "all");
        Ok(open(&self.logs))
    }
}

/// A listener, its store, and whom it listens to.
struct Ear {
    kubearmor: KubeArmor,
    store: Arc<SqliteStore>,
    status: watch::Receiver<Listening>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _folder: TempDir,
}

impl Ear {
    async fn new() -> Self {
        let kubearmor = KubeArmor::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = LogServiceServer::new(kubearmor.clone());
        let incoming = TcpListenerStream::new(listener);
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        Self::listen(kubearmor, address).await
    }

    async fn listen(kubearmor: KubeArmor, address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
        let (told, status) = watch::channel(Listening::default());
        let (stop, stopped) = watch::channel(false);
        let source = Source {
            target: address.to_string(),
            ca: None,
        };
        let task = tokio::spawn(consume(store.clone(), source, told, stopped));
        Self {
            kubearmor,
            store,
            status,
            stop,
            task,
            _folder: folder,
        }
    }

    async fn connected(&self, times: u64) {
        let status = || self.status.borrow().clone();
        until("it listens", || {
            status().connected && status().connections == times
        })
        .await;
    }

    async fn log(&self, log: Log) {
        let line = self.kubearmor.logs.lock().unwrap().clone();
        line.expect("it listens").send(Ok(log)).await.unwrap();
    }

    async fn alert(&self, alert: Alert) {
        let line = self.kubearmor.alerts.lock().unwrap().clone();
        line.expect("it listens").send(Ok(alert)).await.unwrap();
    }

    /// Waits until so many events were taken, whatever came of them.
    async fn taken(&self, events: u64) {
        until("all is taken", || {
            let taken = self.status.borrow().taken;
            taken.counted + taken.repeated + taken.other + taken.left_out == events
        })
        .await;
    }

    /// Stops listening, and says what was kept.
    async fn rows(self) -> Vec<String> {
        self.stop.send_replace(true);
        soon(self.task).await.unwrap();
        rows(&summary(&self.store))
    }
}

fn summary(store: &SqliteStore) -> Summary {
    let all = Selection {
        statuses: Outcome::ALL.to_vec(),
        ..Selection::default()
    };
    let kept = store.containers(&all).unwrap().into_iter();
    let containers: Vec<_> = kept.map(|kept| kept.container).collect();
    let facts = Facts {
        containers: &containers,
        observations: &store.all_observations(&all).unwrap(),
        losses: &store.losses(&all).unwrap(),
        runs: &store.runs().unwrap(),
        ..Facts::default()
    };
    let options = SummaryOptions {
        selection: all,
        fold: Fold::None,
        ..SummaryOptions::default()
    };
    summarize(&facts, &options, Timestamp(i64::MAX / 2))
}

/// `KIND SOURCE > PROTOCOL TARGET PORT (ACCESS) STATUS COUNT`, what is empty left out.
fn rows(summary: &Summary) -> Vec<String> {
    let rows = summary.subjects.iter().flat_map(|subject| &subject.rows);
    rows.map(|row| {
        let b = &row.behaviour;
        let port = match b.port {
            0 => String::new(),
            port => port.to_string(),
        };
        let access = b.access.to_string();
        let parts = [
            b.kind.as_str(),
            b.source.as_str(),
            ">",
            b.protocol.as_str(),
            b.target.as_str(),
            &port,
            &access,
            b.status.as_str(),
            &row.tally.count.to_string(),
        ];
        let said = parts.into_iter().filter(|part| !part.is_empty());
        said.collect::<Vec<_>>().join(" ")
    })
    .collect()
}

/// A log as KubeArmor tells it; each with another microsecond.
fn said(operation: &str, source: &str, resource: &str, data: &str) -> Log {
    use std::sync::atomic::{AtomicU32, Ordering};
    static MICROSECOND: AtomicU32 = AtomicU32::new(0);
    let microsecond = MICROSECOND.fetch_add(1, Ordering::Relaxed);
    let process = source.split(" -").next().unwrap_or_default();
    Log {
        timestamp: 1_764_000_000,
        updated_time: format!("2025-11-24T16:00:00.{microsecond:06}Z"),
        cluster_name: "default".into(),
        host_name: "node-1".into(),
        namespace_name: "shop".into(),
        pod_name: "web-0".into(),
        container_id: "c".repeat(64),
        container_name: "web".into(),
        container_image: "example.org/web:1@sha256:0123".into(),
        host_pid: 100,
        r#type: "ContainerLog".into(),
        source: source.into(),
        process_name: process.into(),
        operation: operation.into(),
        resource: resource.into(),
        data: data.into(),
        result: "Passed".into(),
        labels: "app=web,tier=front".into(),
        owner: Some(Podowner {
            r#ref: "Deployment".into(),
            name: "web".into(),
            namespace: "shop".into(),
        }),
        ..Log::default()
    }
}

fn opened(path: &str) -> Log {
    let data = "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY|O_CLOEXEC";
    said("File", "/bin/cat --show-all", path, data)
}

fn started(pid: i32, line: &str) -> Log {
    Log {
        host_pid: pid,
        parent_process_name: "/bin/my shell".into(),
        process_name: line.split(" -").next().unwrap_or_default().into(),
        ..said("Process", "/bin/my shell -c x", line, "syscall=SYS_EXECVE")
    }
}

/// The alert about the same as a log, as an enforcer tells it.
fn blocked(log: &Log) -> Alert {
    Alert {
        timestamp: log.timestamp,
        updated_time: "2025-11-24T16:00:01.000000Z".into(),
        host_name: log.host_name.clone(),
        namespace_name: log.namespace_name.clone(),
        pod_name: log.pod_name.clone(),
        container_id: log.container_id.clone(),
        container_name: log.container_name.clone(),
        host_pid: log.host_pid,
        r#type: "MatchedPolicy".into(),
        source: log.source.clone(),
        process_name: log.process_name.clone(),
        parent_process_name: log.parent_process_name.clone(),
        operation: log.operation.clone(),
        resource: log.resource.clone(),
        data: "lsm=FILE_OPEN".into(),
        action: "Block".into(),
        result: "Permission denied".into(),
        policy_name: "no-secrets".into(),
        ..Alert::default()
    }
}

#[tokio::test]
async fn events_become_rows() {
    let ear = Ear::new().await;
    ear.connected(1).await;
    let php = "/usr/bin/php";
    let events = [
        started(1, "/usr/bin/my tool -v"),
        started(2, "/usr/bin/my tool -v"),
        opened("/srv/a file with spaces"),
        opened("/srv/a file with spaces"),
        // Older versions separate by commas.
        said(
            "File",
            php,
            "/tmp/x",
            "syscall=SYS_OPENAT,fd=-100,flags=O_WRONLY|O_CREAT",
        ),
        said("File", php, "/tmp/x", "syscall=SYS_UNLINKAT flags="),
        Log {
            result: "No such file or directory".into(),
            ..opened("/srv/nothing")
        },
        Log {
            result: "Operation not permitted".into(),
            ..opened("/srv/secret")
        },
        said(
            "Network",
            php,
            "remoteip=10.0.0.9 port=80 protocol=TCP remotehost=pod/shop/lb",
            "kprobe=tcp_accept domain=AF_INET",
        ),
        said(
            "Network",
            php,
            "remoteip=fd00::1 port=443 protocol=TCPv6",
            "kprobe=tcp_connect domain=AF_INET6",
        ),
        said(
            "Network",
            php,
            "sun_path=/run/my socket sa_family=AF_UNIX",
            "syscall=SYS_CONNECT fd=3",
        ),
        said(
            "Network",
            php,
            "sun_path=\0bus sa_family=AF_UNIX",
            "syscall=SYS_CONNECT fd=3",
        ),
        said(
            "Network",
            php,
            "sin_port=80 sin_addr=0.0.0.0 sa_family=AF_INET",
            "syscall=SYS_BIND fd=3",
        ),
        said(
            "Network",
            php,
            "sa_family=AF_INET sin_port=53",
            "kfunc=UDP_SENDSKB domain=AF_INET daddr=10.0.0.10 qtype=A",
        ),
        said("Syscall", php, "", "syscall=SYS_PTRACE pid=1"),
        said("Capabilities", php, "CAP_NET_RAW", "lsm=CAPABLE"),
        // No behaviour that there is a row for.
        said("Network", php, "", "syscall=SYS_LISTEN fd=3"),
    ];
    let count = events.len() as u64;
    for event in events {
        ear.log(event).await;
    }
    ear.taken(count).await;
    let kept = ear.store.containers(&Selection::default()).unwrap();
    let container = &kept[0].container;
    assert_eq!(
        [&container.node, &container.namespace, &container.pod],
        ["node-1", "shop", "web-0"]
    );
    assert_eq!(container.workload.to_string(), "deployment/web");
    assert_eq!(container.image, "example.org/web:1");
    assert_eq!(container.labels["tier"], "front");
    assert_eq!(
        ear.rows().await,
        [
            "process /bin/my shell > /usr/bin/my tool Allow 2",
            "file /bin/cat > /srv/a file with spaces read Allow 2",
            "file /bin/cat > /srv/nothing read Failed 1",
            "file /bin/cat > /srv/secret read Deny 1",
            "file /usr/bin/php > /tmp/x write Allow 1",
            "file /usr/bin/php > /tmp/x delete Allow 1",
            "ingress /usr/bin/php > TCP 10.0.0.9 80 Allow 1",
            "egress /usr/bin/php > AF_UNIX /run/my socket Allow 1",
            "egress /usr/bin/php > UDP 10.0.0.10 53 Allow 1",
            "egress /usr/bin/php > AF_UNIX @bus Allow 1",
            "egress /usr/bin/php > TCPv6 fd00::1 443 Allow 1",
            "bind /usr/bin/php > 0.0.0.0 80 Allow 1",
            "capability /usr/bin/php > CAP_NET_RAW Allow 1",
            "syscall /usr/bin/php > ptrace Allow 1",
        ]
    );
}

#[tokio::test]
async fn what_is_blocked_counts_once_and_is_no_allowed_row() {
    let ear = Ear::new().await;
    ear.connected(1).await;
    for path in ["/etc/shadow", "/etc/shadow", "/etc/gshadow"] {
        let log = Log {
            result: "Permission denied".into(),
            ..opened(path)
        };
        // The two streams come in any order.
        if path == "/etc/shadow" {
            ear.alert(blocked(&log)).await;
            ear.log(log).await;
        } else {
            ear.log(log.clone()).await;
            ear.alert(blocked(&log)).await;
        }
    }
    // An audited one comes on one stream only.
    let audited = Alert {
        action: "Audit".into(),
        result: "Passed".into(),
        ..blocked(&opened("/etc/audited"))
    };
    ear.alert(audited).await;
    ear.taken(7).await;
    assert_eq!(ear.status.borrow().taken.repeated, 3);
    let rows = ear.rows().await;
    // Which stream came first decides whether the access is known.
    let rows: Vec<_> = rows.iter().map(|row| row.replace("read ", "")).collect();
    let count = |path: &str| -> u64 {
        let rows = rows.iter().filter(|row| row.contains(path));
        rows.map(|row| {
            assert!(row.contains(" Deny "), "{row}");
            row.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
    };
    assert_eq!((count("/etc/shadow"), count("/etc/gshadow")), (2, 1));
    assert!(rows.contains(&"file /bin/cat > /etc/audited Audit 1".to_owned()));
}

#[tokio::test]
async fn what_is_replayed_counts_once() {
    let ear = Ear::new().await;
    ear.connected(1).await;
    // A container that is known late: the same again and again, the start with new times.
    let open = opened("/srv/early");
    for _ in 0..10 {
        ear.log(open.clone()).await;
        ear.log(started(7, "/usr/bin/early -x")).await;
    }
    // What really happened twice, by two processes or at two times, counts twice.
    ear.log(started(8, "/usr/bin/early -x")).await;
    ear.log(opened("/srv/early")).await;
    ear.taken(22).await;
    assert_eq!(
        ear.rows().await,
        [
            "process /bin/my shell > /usr/bin/early Allow 2",
            "file /bin/cat > /srv/early read Allow 2",
        ]
    );
}

#[tokio::test]
async fn a_connection_of_tcp_is_told_twice_and_counts_once() {
    let ear = Ear::new().await;
    ear.connected(1).await;
    let tcp = || {
        said(
            "Network",
            "/bin/curl",
            "remoteip=192.0.2.1 port=443 protocol=TCP",
            "kprobe=tcp_connect domain=AF_INET",
        )
    };
    let call = |port| {
        let resource = format!("sa_family=AF_INET sin_port={port} sin_addr=192.0.2.1");
        said(
            "Network",
            "/bin/curl",
            &resource,
            "syscall=SYS_CONNECT fd=5",
        )
    };
    ear.log(tcp()).await;
    ear.log(call(443)).await;
    ear.log(call(443)).await;
    ear.log(tcp()).await;
    // No connection of TCP's; of which protocol is not told.
    ear.log(call(53)).await;
    ear.taken(5).await;
    assert_eq!(
        ear.rows().await,
        [
            "egress /bin/curl > 192.0.2.1 53 Allow 1",
            "egress /bin/curl > TCP 192.0.2.1 443 Allow 2",
        ]
    );
}

#[tokio::test]
async fn alerts_left_out_are_losses() {
    let ear = Ear::new().await;
    ear.connected(1).await;
    for microsecond in 0..3 {
        let notice = Alert {
            operation: "AlertThreshold".into(),
            updated_time: format!("2025-11-24T16:00:09.00000{microsecond}Z"),
            max_alerts_per_sec: 10,
            dropping_alerts_interval: 30,
            ..blocked(&opened(""))
        };
        ear.alert(notice).await;
    }
    ear.taken(3).await;
    let losses = ear.store.losses(&Selection::default()).unwrap();
    assert_eq!(losses.len(), 1);
    let loss = losses[0].1;
    assert_eq!((loss.reason.as_str(), loss.count), ("upstream", 3));
}

#[tokio::test]
async fn hosts_and_late_names() {
    let ear = Ear::new().await;
    ear.connected(1).await;
    let host = Log {
        r#type: "HostLog".into(),
        container_id: String::new(),
        namespace_name: String::new(),
        pod_name: String::new(),
        ..opened("/etc/hosts")
    };
    let docker = Log {
        namespace_name: "container_namespace".into(),
        pod_name: "cache".into(),
        container_name: "cache".into(),
        container_id: "d".repeat(64),
        ..opened("/data")
    };
    let nameless = Log {
        container_id: "e".repeat(64),
        namespace_name: String::new(),
        pod_name: String::new(),
        container_name: String::new(),
        ..opened("/early")
    };
    let named = Log {
        container_id: "e".repeat(64),
        ..opened("/late")
    };
    for log in [host, docker, nameless, named] {
        ear.log(log).await;
    }
    ear.taken(4).await;
    let kept = ear.store.containers(&Selection::default()).unwrap();
    let mut who: Vec<_> = kept
        .iter()
        .map(|kept| {
            let c = &kept.container;
            format!(
                "{}|{}|{}|{}",
                c.runtime.as_str(),
                c.namespace,
                c.pod,
                c.name
            )
        })
        .collect();
    who.sort();
    assert_eq!(who, ["host|||node-1", "|shop|web-0|web", "|||cache"]);
}

#[tokio::test]
async fn a_broken_stream_is_a_gap_and_counts_go_on() {
    let ear = Ear::new().await;
    ear.connected(1).await;
    ear.log(opened("/srv/a")).await;
    ear.log(opened("/srv/a")).await;
    ear.taken(2).await;
    *ear.kubearmor.logs.lock().unwrap() = None;
    ear.connected(2).await;
    assert_eq!(ear.status.borrow().last_error, "the stream ended");
    ear.log(opened("/srv/a")).await;
    ear.taken(3).await;
    let store = ear.store.clone();
    assert_eq!(ear.rows().await, ["file /bin/cat > /srv/a read Allow 3"]);
    let runs = store.runs().unwrap();
    assert_eq!(runs.len(), 2);
    let completeness = &summary(&store).subjects[0].completeness;
    let gap = completeness.gaps.iter().find(|gap| gap.until.is_some());
    assert_eq!(gap.unwrap().until, Some(runs[1].started));
    assert!(!completeness.is_complete());
}

#[tokio::test]
async fn an_ethogram_is_not_taken_for_a_kubearmor() {
    let world = World::open().await;
    let ear = Ear::listen(KubeArmor::default(), world.log_service_address()).await;
    ear.connected(1).await;
    let mut more = crate::support::world();
    more.run.last_alive.0 += 1;
    more.observations
        .iter_mut()
        .for_each(|o| o.tally.count += 1);
    world.store.apply(&more).unwrap();
    soon(ear.task).await.unwrap();
    let error = ear.status.borrow().last_error.clone();
    assert!(error.contains("--collector"), "{error}");
    let observations = ear.store.all_observations(&Selection::default()).unwrap();
    assert_eq!(observations, []);
}
