//! The collector as a process: who may report and read, what is written down about it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ethogram_cluster::{Sender, SenderOptions, Trust};
use ethogram_neighbours::{
    discovery::{self, observability_client::ObservabilityClient},
    feeder::{self, log_service_client::LogServiceClient},
};
use ethogram_store::{SqliteStore, Store};
use serde_json::Value;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt};

use crate::support::{Known, ethogram, said};

pub(crate) const AGENT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const VIEWER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const ADMIN: &str = "cccccccccccccccccccccccccccccccc";
pub(crate) const NODE: &str = "node-1";

/// A collector that ends with the test.
pub(crate) struct Collector {
    child: Child,
    /// Reads what it says after it is ready, until its end.
    rest_of_log: Option<JoinHandle<String>>,
    pub(crate) reports: SocketAddr,
    pub(crate) api: SocketAddr,
}

impl Collector {
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        let mut child = collector(folder, options)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the collector starts");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            let read = log.read_line(&mut line).expect("a line");
            assert_ne!(read, 0, "the collector ended before it was ready");
        }
        let address = |key: &str| {
            let (_, rest) = line.split_once(key).expect("the address is told");
            let address = rest.split_whitespace().next().expect("an address");
            address.parse().expect("an address")
        };
        let (reports, api) = (address("listen="), address("api="));
        let rest_of_log = std::thread::spawn(move || {
            let mut rest = Vec::new();
            log.read_to_end(&mut rest).expect("its log");
            String::from_utf8_lossy(&rest).into_owned()
        });
        Self {
            child,
            rest_of_log: Some(rest_of_log),
            reports,
            api,
        }
    }

    /// The status and the body of an answer.
    fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let mut stream = TcpStream::connect(self.api).expect("it listens");
        let token = token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// Asks it to end, and returns what it said since it was ready.
    pub(crate) fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        assert!(self.child.wait().expect("it ends").success());
        let log = self.rest_of_log.take().expect("nobody else takes it");
        log.join().expect("the log is read")
    }

    pub(crate) fn json(&self, path: &str, token: Option<&str>) -> Value {
        let (status, body) = self.get(path, token);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collector(folder: &Path, options: &[&str]) -> Command {
    let mut command = ethogram();
    command
        .args([
            "collector",
            "--listen",
            "127.0.0.1:0",
            "--api-listen",
            "127.0.0.1:0",
        ])
        .arg("--store")
        .arg(format!("sqlite:{}", folder.join("collector.db").display()))
        .args(options);
    command
}

/// Tells a collector all of a store.
pub(crate) fn tell(store: &Path, collector: String, trust: Trust) {
    let store = Arc::new(SqliteStore::open(store).expect("the agent's store"));
    let options = SenderOptions {
        collector,
        trust,
        node: NODE.into(),
        boot: "boot".into(),
        run: "run".into(),
        report_every: Duration::from_millis(20),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let (sender, status) = Sender::new(store, options, stopped);
        let task = tokio::spawn(sender.run());
        let begun = Instant::now();
        while status.borrow().caught_up.is_none() {
            let error = status.borrow().last_error.clone();
            assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.send(true).expect("the sender is there");
        task.await.expect("the sender ends well");
    });
}

pub(crate) fn tokens(folder: &Path) -> String {
    let file = folder.join("tokens.toml");
    let text = format!(
        "[[token]]\nname = \"node-1\"\nsecret = \"{AGENT}\"\nrole = \"agent\"\nnode = \"{NODE}\"\n\
         [[token]]\nname = \"vera\"\nsecret = \"{VIEWER}\"\nrole = \"viewer\"\nnamespaces = [\"dvwa\"]\n\
         [[token]]\nname = \"ada\"\nsecret = \"{ADMIN}\"\nrole = \"admin\"\n"
    );
    fs::write(&file, text).expect("the tokens");
    file.display().to_string()
}

#[test]
fn what_agents_report_is_read_by_those_who_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = folder.path().join("audit.jsonl");
    let tokens = tokens(folder.path());
    let options = [
        "--tokens",
        &tokens,
        "--audit-log",
        &audit.display().to_string(),
    ];
    let collector = Collector::start(folder.path(), &options);
    let token = folder.path().join("token");
    fs::write(&token, AGENT).expect("the token");
    let known = Known::world();
    let trust = Trust {
        token: Some(token),
        ..Trust::default()
    };
    tell(
        &known.file(),
        format!("http://{}", collector.reports),
        trust,
    );

    for (path, token, status, words) in [
        ("/v1/summary", None, 401, "no token"),
        (
            "/v1/summary",
            Some("dddddddddddddddddddddddddddddddd"),
            401,
            "unknown token",
        ),
        ("/v1/summary", Some(AGENT), 403, "read nothing"),
        ("/v1/summary", Some(VIEWER), 403, "namespaces dvwa only"),
        (
            "/v1/summary?namespace=shop",
            Some(VIEWER),
            403,
            "namespaces dvwa only",
        ),
        ("/v1/containers", Some(VIEWER), 403, "namespaces dvwa only"),
        ("/v1/agents", Some(VIEWER), 403, "namespaces dvwa only"),
        ("/metrics", None, 401, "no token"),
        (
            "/v1/summary?namespace=dvwa",
            Some(VIEWER),
            200,
            "ethogram.summary",
        ),
        ("/v1/health", None, 200, "ok"),
        ("/v1/nothing", Some(ADMIN), 404, "/v1/agents"),
    ] {
        let (found, body) = collector.get(path, token);
        assert_eq!(found, status, "{path} {body}");
        assert!(body.contains(words), "{path} {body}");
    }
    let agents = collector.json("/v1/agents", Some(ADMIN));
    let agent = &agents["agents"][0];
    assert_eq!(agent["node"], NODE);
    assert!(
        agent["lag_s"].as_f64().is_some_and(|lag| lag >= 0.0),
        "{agent}"
    );
    assert!(
        agent["rows"].as_u64().is_some_and(|rows| rows > 0),
        "{agent}"
    );
    let (_, metrics) = collector.get("/metrics", Some(ADMIN));
    assert!(
        metrics.contains("ethogram_collector_agent_rows_total{node=\"node-1\"}"),
        "{metrics}"
    );

    let written = fs::read_to_string(&audit).expect("the audit log");
    let lines: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let (reports, lines): (Vec<_>, Vec<_>) = lines.iter().partition(|line| {
        let what = line["what"].as_str().expect("a text");
        what.starts_with("Report ")
    });
    assert_eq!(lines.len(), 12, "every question but the probe's: {written}");
    let told = |line: &Value| {
        let keys = ["who", "role", "what", "status"];
        let [who, role, what, status] = keys.map(|key| line[key].clone());
        (who, role, what, status)
    };
    let begun = format!("Report node={NODE:?}");
    let reporting = (
        "node-1".into(),
        "agent".into(),
        begun.clone().into(),
        200.into(),
    );
    assert_eq!(told(reports[0]), reporting);
    let ended = reports[1]["what"].as_str().expect("a text");
    assert!(
        ended.starts_with(&format!("{begun} ended rows=")),
        "{written}"
    );
    assert_eq!(
        told(lines[0]),
        ("".into(), "".into(), "/v1/summary".into(), 401.into())
    );
    let asked = "/v1/summary?namespace=shop".into();
    assert_eq!(
        told(lines[4]),
        ("vera".into(), "viewer".into(), asked, 403.into())
    );
    assert!(!written.contains(VIEWER), "no secret is written down");
}

#[test]
fn summaries_are_those_of_the_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(folder.path(), &[]);
    let known = Known::world();
    tell(
        &known.file(),
        format!("http://{}", collector.reports),
        Trust::default(),
    );
    let whole = collector.json("/v1/summary?namespace=dvwa", None);
    let own: Value = serde_json::from_str(&known.ask("summary", &["-n", "dvwa", "-o", "json"]).out)
        .expect("JSON");
    let tables = |document: &Value| -> Vec<Value> {
        let subjects = document["subjects"].as_array().expect("subjects");
        subjects
            .iter()
            .map(|subject| subject["tables"].clone())
            .collect()
    };
    assert!(!tables(&own).is_empty());
    assert_eq!(tables(&whole), tables(&own));
}

#[test]
fn certificates_are_made_and_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let out = folder.path().display().to_string();
    let made = said(ethogram().args(["certs", "--out", &out, "--node", NODE]));
    assert!(made.out.contains("node-1.crt"), "{made:?}");
    let (cert, key, ca) = (file("collector.crt"), file("collector.key"), file("ca.crt"));
    let options = ["--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca];
    let collector = Collector::start(folder.path(), &options);
    let known = Known::world();
    let trust = Trust {
        ca: Some(ca.into()),
        identity: Some((file("node-1.crt").into(), file("node-1.key").into())),
        token: None,
    };
    tell(
        &known.file(),
        format!("https://localhost:{}", collector.reports.port()),
        trust,
    );
    let store = SqliteStore::open_read_only(&folder.path().join("collector.db")).expect("a store");
    assert!(store.overview().expect("an overview").containers > 0);
}

#[test]
fn the_command_line_asks_a_collector() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let out = folder.path().display().to_string();
    said(ethogram().args(["certs", "--out", &out, "--node", NODE])).ok();
    let (cert, key, ca) = (file("collector.crt"), file("collector.key"), file("ca.crt"));
    let tokens = tokens(folder.path());
    let options = ["--tls-cert", &cert, "--tls-key", &key, "--tokens", &tokens];
    let collector = Collector::start(folder.path(), &options);
    let known = Known::world();
    for (name, secret) in [("agent", AGENT), ("viewer", VIEWER)] {
        fs::write(file(name), secret).expect("the token");
    }
    let trust = Trust {
        ca: Some(ca.clone().into()),
        token: Some(file("agent").into()),
        ..Trust::default()
    };
    let reports = format!("https://localhost:{}", collector.reports.port());
    tell(&known.file(), reports, trust);

    let port = collector.api.port();
    let ask = |url: String, options: &[&str]| {
        let mut command = ethogram();
        command.args(["summary", "--server", &url]).args(options);
        said(&mut command)
    };
    let https = || format!("https://localhost:{port}");
    let (viewer, agent) = (file("viewer"), file("agent"));
    let own = known.ask("summary", &["-n", "dvwa"]).ok().out;
    let told = ask(
        https(),
        &["--ca", &ca, "--token-file", &viewer, "-n", "dvwa"],
    )
    .ok();
    assert!(told.out.contains("/etc/shadow") && own.contains("/etc/shadow"));
    let listed = said(
        ethogram()
            .args(["containers", "--all", "-n", "dvwa", "--server", &https()])
            .env("ETHOGRAM_CA", &ca)
            .env("ETHOGRAM_TOKEN_FILE", &viewer),
    );
    assert!(listed.ok().out.contains("web-1"));
    let stranger = file("stranger");
    let out = folder.path().join("other").display().to_string();
    said(ethogram().args(["certs", "--out", &out])).ok();
    let other = format!("{out}/ca.crt");
    fs::write(&stranger, "dddddddddddddddddddddddddddddddd").expect("a token");
    let address = format!("https://127.0.0.1:{port}");
    for (url, options, words) in [
        (
            https(),
            vec!["--ca", &ca, "--token-file", &viewer],
            "dvwa only",
        ),
        (
            https(),
            vec!["--ca", &ca, "--token-file", &agent],
            "read nothing",
        ),
        (
            https(),
            vec!["--ca", &ca, "--token-file", &stranger],
            "unknown token",
        ),
        (https(), vec!["--ca", &ca], "no token"),
        (https(), vec![], "needs --ca"),
        (address, vec!["--ca", &other], "cannot reach"),
        (
            format!("http://localhost:{port}"),
            vec![],
            "lost the collector",
        ),
        (
            "http://192.0.2.1:1".into(),
            vec!["--token-file", &viewer],
            "over http",
        ),
        ("localhost".into(), vec![], "https://HOST:PORT"),
        (
            https(),
            vec!["--ca", &ca, "--token-file", "/nowhere"],
            "/nowhere",
        ),
    ] {
        let said = ask(url, &options);
        assert_ne!(said.code, Some(0), "{options:?}");
        assert!(said.err.contains(words), "{options:?}: {said:?}");
    }
}

#[test]
fn what_would_be_unsafe_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |options: &[&str]| {
        let output = collector(folder.path(), options).output().expect("it ends");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    let mut open = ethogram();
    open.args(["collector", "--listen", "0.0.0.0:0"]);
    let open = open.output().expect("it ends");
    let open = String::from_utf8_lossy(&open.stderr).into_owned();
    assert!(open.contains("everybody could report and read"), "{open}");
    let missing = refused(&["--tokens", "/nowhere/tokens"]);
    assert!(missing.contains("/nowhere/tokens"), "{missing}");

    let _first = Collector::start(folder.path(), &[]);
    let second = refused(&[]);
    assert!(second.contains("in use by another writer"), "{second}");
}

#[test]
fn karmor_is_answered_where_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = folder.path().join("audit.jsonl");
    let port = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("its address").to_string()
    };
    let (summaries, logs) = (port(), port());
    let collector = Collector::start(
        folder.path(),
        &[
            "--observability-listen",
            &summaries,
            "--kubearmor-listen",
            &logs,
            "--cluster",
            "c1",
            "--audit-log",
            &audit.display().to_string(),
        ],
    );
    let known = Known::world();
    tell(
        &known.file(),
        format!("http://{}", collector.reports),
        Trust::default(),
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = ObservabilityClient::connect(format!("http://{summaries}")).await;
        let mut client = client.expect("it listens");
        let request = discovery::Request {
            name_space: "dvwa".into(),
            ..Default::default()
        };
        let pods = client.get_pod_names(request.clone()).await;
        let pods = pods.expect("it answers").into_inner().pod_name;
        assert!(pods.contains(&"web-1".to_owned()), "{pods:?}");
        let request = discovery::Request {
            pod_name: "web-1".into(),
            ..request
        };
        let answer = client.summary(request).await.expect("it answers");
        let answer = answer.into_inner();
        assert_eq!(answer.cluster_name, "c1");
        let files = &answer.file_data;
        assert!(
            files
                .iter()
                .any(|row| row.destination == "/etc/shadow" && row.status == "Deny"),
            "{files:?}"
        );
        let client = LogServiceClient::connect(format!("http://{logs}")).await;
        let nonce = feeder::NonceMessage { nonce: 7 };
        let reply = client.expect("it listens").health_check(nonce).await;
        assert_eq!(reply.expect("it answers").into_inner().retval, 7);
    });
    let written = fs::read_to_string(&audit).expect("the audit log");
    assert!(written.contains("Summary namespace"), "{written}");
}

#[test]
fn karmor_is_not_answered_beyond_this_machine_without_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    for option in ["--observability-listen", "--kubearmor-listen"] {
        let refused = said(&mut collector(folder.path(), &[option, "0.0.0.0"]));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("--tokens"), "{refused:?}");
    }
}

/// A KubeArmor that has one thing to say.
struct KubeArmor;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;
type Streamed<T> = Result<tonic::Response<Events<T>>, tonic::Status>;

#[tonic::async_trait]
impl feeder::log_service_server::LogService for KubeArmor {
    async fn health_check(
        &self,
        _: tonic::Request<feeder::NonceMessage>,
    ) -> Result<tonic::Response<feeder::ReplyMessage>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks"))
    }

    type WatchMessagesStream = Events<feeder::Message>;

    async fn watch_messages(
        &self,
        _: tonic::Request<feeder::RequestMessage>,
    ) -> Streamed<feeder::Message> {
        Err(tonic::Status::unimplemented("nobody asks"))
    }

    type WatchAlertsStream = Events<feeder::Alert>;

    async fn watch_alerts(
        &self,
        _: tonic::Request<feeder::RequestMessage>,
    ) -> Streamed<feeder::Alert> {
        Ok(tonic::Response::new(Box::pin(tokio_stream::pending())))
    }

    type WatchLogsStream = Events<feeder::Log>;

    async fn watch_logs(&self, _: tonic::Request<feeder::RequestMessage>) -> Streamed<feeder::Log> {
        let log = feeder::Log {
            host_name: NODE.into(),
            namespace_name: "shop".into(),
            pod_name: "web-0".into(),
            container_id: "c".repeat(64),
            container_name: "web".into(),
            operation: "File".into(),
            source: "/bin/cat".into(),
            resource: "/srv/a file".into(),
            data: "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY".into(),
            result: "Passed".into(),
            ..Default::default()
        };
        let events = tokio_stream::once(Ok(log)).chain(tokio_stream::pending());
        Ok(tonic::Response::new(Box::pin(events)))
    }
}

#[test]
fn kubearmor_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a free port");
    let target = listener.local_addr().expect("its address").to_string();
    let service = feeder::log_service_server::LogServiceServer::new(KubeArmor);
    let server = tonic::transport::Server::builder().add_service(service);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    runtime.spawn(server.serve_with_incoming(incoming));
    let collector = Collector::start(folder.path(), &["--from-kubearmor", &target]);
    let begun = Instant::now();
    let source = loop {
        let status = collector.json("/v1/status", None);
        let source = &status["kubearmor"][0];
        if source["counted"] == 1 {
            break source.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(source["target"], target.as_str());
    assert_eq!(source["connected"], true);
    let summary = collector.json("/v1/summary?namespace=shop", None);
    let row = &summary["subjects"][0]["tables"]["file"][0];
    assert_eq!(row["target"], "/srv/a file");
}
