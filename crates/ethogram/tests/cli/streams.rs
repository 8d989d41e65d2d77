//! A collector that tells others what changes: lines of JSON, and an OpenTelemetry receiver
//! of ours.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ethogram_cluster::Trust;
use ethogram_model::{Kind, Tally};
use ethogram_neighbours::opentelemetry::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value as Any},
};
use ethogram_store::{SqliteStore, Store};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    collector::{Collector, tell},
    support::{Known, ethogram, minute, said, seen, world},
};

/// Longer than any of this can take.
const PATIENCE: Duration = Duration::from_secs(90);

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A row as a stream names it: kind, executable, what it acts on. The small world has no two
/// rows of one container that this does not tell apart.
type Row = (String, String, String, String);

/// How often what was done, as the world says.
fn truth(world: &ethogram_store::Report) -> BTreeMap<Row, u64> {
    let pods: BTreeMap<_, _> = world.containers.iter().map(|c| (&c.key, c)).collect();
    let rows = world.observations.iter().map(|one| {
        let behaviour = &one.behaviour;
        let row = (
            pods[&one.container].id.clone(),
            behaviour.kind.to_string(),
            behaviour.source.to_string(),
            behaviour.target.to_string(),
        );
        (row, one.tally.count)
    });
    rows.collect()
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parsed = whole.lines().map(|line| {
        let value: Value = serde_json::from_str(line).expect("a line is JSON");
        assert_eq!(value["schema"], "ethogram.event/v1");
        value
    });
    parsed.filter(|line| line["event"] == "row").collect()
}

/// The last count that was told of each row.
fn counts(lines: &[Value]) -> BTreeMap<Row, u64> {
    let told = lines.iter().map(|line| {
        let text = |key: &str| line[key].as_str().expect("a text").to_owned();
        let row = (
            text("container_id"),
            text("kind"),
            text("source"),
            text("target"),
        );
        (row, line["count"].as_u64().expect("a number"))
    });
    told.collect()
}

/// What was done since: one row more often, one for the first time.
fn more() -> ethogram_store::Report {
    let mut more = world();
    more.run.last_alive = minute(62);
    more.observations = vec![
        seen(6, Kind::File, "/bin/cache", "/data/dump", 41),
        seen(6, Kind::File, "/bin/cache", "/data/new", 41),
    ];
    more.observations[0].tally = Tally {
        count: 9,
        ..more.observations[0].tally
    };
    more
}

#[test]
fn each_change_is_a_line_also_after_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.jsonl");
    // The small world is of 2023.
    let events = file.display().to_string();
    let options = ["--events", &events, "--retention-age", "36500d"];
    let collector = Collector::start(folder.path(), &options);
    let known = Known::world();
    let reports = |collector: &Collector| format!("http://{}", collector.reports);
    tell(&known.file(), reports(&collector), Trust::default());
    let expected = truth(&world());
    until("everything is told", || counts(&lines(&file)) == expected);
    assert!(lines(&file).iter().all(|line| line["new"] == true));
    // Killed: dropping it does that.
    drop(collector);
    let before = lines(&file).len();
    let collector = Collector::start(folder.path(), &options);
    let agent = SqliteStore::open(&known.file()).expect("the agent's store");
    agent.apply(&more()).expect("a report that fits");
    drop(agent);
    tell(&known.file(), reports(&collector), Trust::default());
    let changed = || {
        let lines = lines(&file);
        let told = lines[before..].iter().map(|line| {
            let target = line["target"].as_str().expect("a text").to_owned();
            (target, (line["count"].as_u64(), line["new"].as_bool()))
        });
        told.collect::<BTreeMap<_, _>>()
    };
    let row = |target: &str, count, new| (target.to_owned(), (Some(count), Some(new)));
    let expected = BTreeMap::from([row("/data/dump", 9, false), row("/data/new", 2, true)]);
    until("both rows are told", || changed().len() >= expected.len());
    assert_eq!(changed(), expected);
}

/// What a receiver was told: the last sum of each series, and how often a row was new.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    sums: BTreeMap<Row, u64>,
    new: usize,
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|pair| pair.key == key);
    let value = value.and_then(|pair| pair.value.clone()?.value);
    match value {
        Some(Any::StringValue(text)) => text,
        other => panic!("{key} is no text: {other:?}"),
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut received = self.0.lock().expect("nobody panicked");
        for of in request.into_inner().resource_metrics {
            let resource = of.resource.unwrap_or_default().attributes;
            for metric in of.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                if metric.name != "ethogram.behaviour.count" {
                    continue;
                }
                for point in metric.sum.unwrap_or_default().data_points {
                    let row = (
                        text(&resource, "container.id"),
                        text(&point.attributes, "ethogram.kind"),
                        text(&point.attributes, "process.executable.path"),
                        text(&point.attributes, "ethogram.target"),
                    );
                    let sum = u64::try_from(point.as_int).expect("a count");
                    received.sums.insert(row, sum);
                }
            }
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let scopes = request.into_inner().resource_logs.into_iter();
        let scopes = scopes.flat_map(|of| of.scope_logs);
        let new: usize = scopes.map(|scope| scope.log_records.len()).sum();
        self.0.lock().expect("nobody panicked").new += new;
        Ok(Response::new(Default::default()))
    }
}

#[test]
fn an_opentelemetry_receiver_is_told_sums_and_what_is_new() {
    let runtime = Runtime::new().expect("a runtime");
    let receiver = Receiver::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let server = Server::builder()
        .add_service(MetricsServiceServer::new(receiver.clone()))
        .add_service(LogsServiceServer::new(receiver.clone()));
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let folder = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(
        folder.path(),
        &["--otlp", &url, "--retention-age", "36500d"],
    );
    let known = Known::world();
    let reports = format!("http://{}", collector.reports);
    tell(&known.file(), reports, Trust::default());
    let expected = truth(&world());
    until("everything is told", || {
        receiver.0.lock().expect("nobody panicked").sums == expected
    });
    until("what is new is told", || {
        receiver.0.lock().expect("nobody panicked").new == expected.len()
    });
    let status = collector.json("/v1/status", None);
    assert_eq!(status["otlp"]["url"], url.as_str(), "{status}");
    assert_eq!(status["otlp"]["dropped_rows"], 0, "{status}");
}

#[test]
fn what_no_store_of_clickhouse_tells_is_refused_at_once() {
    for option in [
        ["--events", "-"],
        ["--otlp", "http://127.0.0.1:1"],
        ["--kubearmor-listen", "127.0.0.1:0"],
    ] {
        let mut command = ethogram();
        // Nobody is there, and nobody is asked.
        command.args(["collector", "--store", "clickhouse://127.0.0.1:1/x"]);
        let refused = said(command.args(option));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("let the agents tell"), "{refused:?}");
    }
}
