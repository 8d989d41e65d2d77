//! A collector that watches an API server: ours, over HTTP.

use std::time::{Duration, Instant};

use ethogram_cluster::Trust;
use ethogram_kubernetes::Kind as Object;
use ethogram_model::*;
use ethogram_store::{Report, SqliteStore, Store};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    collector::{Collector, tell},
    fake_api::{FakeApi, GoneAs, Mood},
    fake_http::{kubeconfig, serve},
    support::{Known, report, seen},
};

/// Longer than any of this can take.
const PATIENCE: Duration = Duration::from_secs(90);
/// 2026-01-02T00:00:00Z, a day after everything in the recorded cluster began.
const LATER: Timestamp = Timestamp(1_767_312_000_000_000_000);
const WEB: &str = "dvwa-web-6b8d9c4f75-q8x2p";

/// The recorded cluster's API server, and a collector that asks it.
struct Cluster {
    fake: FakeApi,
    folder: tempfile::TempDir,
    kubeconfig: tempfile::NamedTempFile,
    _runtime: Runtime,
}

impl Cluster {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let fake = FakeApi::recorded();
        let (address, _serving) = runtime.block_on(serve(&fake));
        Self {
            fake,
            folder: tempfile::tempdir().expect("a folder"),
            kubeconfig: kubeconfig(address),
            _runtime: runtime,
        }
    }

    fn collector(&self) -> Collector {
        let config = self.kubeconfig.path().display().to_string();
        Collector::start(self.folder.path(), &["--kubernetes", &config])
    }

    /// Who had an address, as the collector's store tells: name, and whether it has ended.
    fn owners(&self, ip: &str) -> Vec<(String, bool)> {
        let file = self.folder.path().join("collector.db");
        let store = SqliteStore::open_read_only(&file).expect("the store");
        let ip = ip.parse().expect("an address");
        let known = store.endpoints(Some(&[ip])).expect("endpoints");
        let owner = |endpoint: Endpoint| (endpoint.name, endpoint.until.is_some());
        known.into_iter().map(owner).collect()
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < PATIENCE,
            "it never came about that {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The web pod talks to the database's service, as its node tells it.
fn web() -> Report {
    let mut egress = seen(1, Kind::Egress, "/usr/sbin/apache2", "10.96.44.3", 0);
    egress.behaviour.protocol = Protocol::Tcp;
    egress.behaviour.port = 3306;
    egress.tally = Tally::at(LATER, 3);
    let mut container = Container::unknown(
        egress.container.clone(),
        Name::from("/kubepods/pod-web"),
        LATER,
    );
    container.node = "node-1".into();
    container.namespace = "dvwa".into();
    container.pod = WEB.into();
    container.pod_uid = "pod-web".into();
    container.name = "web".into();
    report(vec![container], vec![egress])
}

fn egress(collector: &Collector, query: &str) -> Value {
    let document = collector.json(&format!("/v1/summary?{query}"), None);
    document["subjects"][0]["tables"]["egress"][0].clone()
}

fn state(collector: &Collector, kind: &str) -> Value {
    let status = collector.json("/v1/status", None);
    status["kubernetes"]["kinds"][kind]["state"].clone()
}

#[test]
fn peers_owners_and_labels_are_the_clusters() {
    let cluster = Cluster::new();
    let collector = cluster.collector();
    let known = Known::of(&web());
    let reports = format!("http://{}", collector.reports);
    tell(&known.file(), reports, Trust::default());
    until("the service has its name", || {
        egress(&collector, "namespace=dvwa")["peer"] == "svc/dvwa-mysql-service"
    });
    until("the pod has its owner", || {
        let row = egress(&collector, "namespace=dvwa&workload=deployment/dvwa-web");
        row["count"] == 3
    });
    let labels = &cluster.fake.get(Object::Pod, WEB)["metadata"]["labels"];
    let (key, value) = ("app", labels["app"].as_str().expect("a label"));
    let row = egress(&collector, &format!("label={key}%3D{value}&by=workload"));
    assert_eq!(row["peer"], "svc/dvwa-mysql-service", "{row}");
}

#[test]
fn watching_does_not_delay_the_end() {
    let cluster = Cluster::new();
    let collector = cluster.collector();
    until("services are current", || {
        state(&collector, "services") == "current"
    });
    let log = collector.end();
    assert!(
        log.contains("ending") && !log.contains("did not end in time"),
        "{log}"
    );
}

#[test]
fn an_api_server_that_was_away_is_caught_up_with() {
    let cluster = Cluster::new();
    let collector = cluster.collector();
    until("services are current", || {
        state(&collector, "services") == "current"
    });
    cluster.fake.set_mood(Mood::Unreachable);
    until("it is said to be away", || {
        state(&collector, "services") == "away"
    });
    // What happens meanwhile is forgotten by the API server before it is back: 410 Gone.
    cluster.fake.delete(Object::Service, "dvwa-web");
    cluster
        .fake
        .change(Object::Service, "dvwa-mysql-service", |service| {
            service["metadata"]["name"] = json!("renamed");
            service["metadata"]["uid"] = json!("another");
            service["spec"]["clusterIP"] = json!("10.96.44.9");
            service["spec"]["clusterIPs"] = json!(["10.96.44.9"]);
        });
    cluster.fake.compact(GoneAs::Event);
    cluster.fake.set_mood(Mood::Well);
    until("the new service has its name", || {
        cluster.owners("10.96.44.9") == [("svc/renamed".to_owned(), false)]
    });
    until("the old one's name has ended", || {
        cluster.owners("10.96.44.4") == [("svc/dvwa-web".to_owned(), true)]
    });
    let status = collector.json("/v1/status", None);
    let silences = status["kubernetes"]["silences"].as_array().expect("a list");
    assert!(
        silences
            .iter()
            .any(|silence| silence["kind"] == "services" && silence["relisted"] == true),
        "what may be missing is told: {status}"
    );
}

#[test]
fn names_that_ended_while_nobody_listened_are_ended() {
    let cluster = Cluster::new();
    let named = || cluster.owners("10.96.44.4");
    let first = cluster.collector();
    until("the service has its name", || {
        named() == [("svc/dvwa-web".to_owned(), false)]
    });
    drop(first);
    cluster.fake.delete(Object::Service, "dvwa-web");
    let _second = cluster.collector();
    until("its name has ended", || {
        named() == [("svc/dvwa-web".to_owned(), true)]
    });
    assert_eq!(
        cluster.owners("10.96.44.3"),
        [("svc/dvwa-mysql-service".to_owned(), false)],
        "and what holds still is not begun anew"
    );
}

#[test]
fn an_api_server_that_cannot_be_asked_is_no_collector_without_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("db").display().to_string();
    for (word, words) in [
        ("/nowhere/kubeconfig", "/nowhere/kubeconfig"),
        ("in-cluster", "service account"),
    ] {
        let mut command = crate::support::ethogram();
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command.args(["collector", "--kubernetes", word, "--store"]);
        command.arg(format!("sqlite:{store}"));
        let said = crate::support::said(&mut command);
        assert_ne!(said.code, Some(0));
        assert!(said.err.contains(words), "{said:?}");
    }
}
