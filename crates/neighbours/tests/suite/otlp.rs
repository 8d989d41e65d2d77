//! OpenTelemetry, told to a receiver made from the same protos.

use crate::support::{TIME, World, run, seen, soon, until};
use ethogram_model::{Kind, Loss, LossReason, Status as Outcome};
use ethogram_neighbours::{
    Exported, Receiver, export,
    opentelemetry::{
        collector::{
            logs::v1::{
                ExportLogsServiceRequest, ExportLogsServiceResponse,
                logs_service_server::{LogsService, LogsServiceServer},
            },
            metrics::v1::{
                ExportMetricsPartialSuccess, ExportMetricsServiceRequest,
                ExportMetricsServiceResponse,
                metrics_service_server::{MetricsService, MetricsServiceServer},
            },
        },
        common::v1::{KeyValue, any_value::Value},
    },
};
use ethogram_store::{Report, Spool, Store};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

/// What was told: totals by target, and the bodies of log records.
#[derive(Default)]
struct Told {
    totals: BTreeMap<String, i64>,
    lost: Vec<i64>,
    logs: Vec<String>,
    pods: Vec<String>,
    /// How the next exports of metrics are to fail.
    failures: VecDeque<Code>,
    /// Data points to reject of the next export.
    reject: i64,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Told>>);

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(_) => None,
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut told = self.0.lock().unwrap();
        if let Some(code) = told.failures.pop_front() {
            return Err(Status::new(code, "as the test wants it"));
        }
        for resource in request.into_inner().resource_metrics {
            let attributes = resource.resource.unwrap().attributes;
            let pod = find(&attributes, "k8s.pod.name").unwrap_or_default();
            told.pods.push(pod.to_owned());
            for metric in resource.scope_metrics.into_iter().flat_map(|s| s.metrics) {
                let sum = metric.sum.unwrap();
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                for point in sum.data_points {
                    assert!(point.start_time_unix_nano <= point.time_unix_nano);
                    match find(&point.attributes, "ethogram.target") {
                        Some(target) => {
                            told.totals.insert(target.to_owned(), point.as_int);
                        }
                        None => told.lost.push(point.as_int),
                    }
                }
            }
        }
        let rejected_data_points = std::mem::take(&mut told.reject);
        let partial_success = (rejected_data_points > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message: "too old".into(),
        });
        Ok(Response::new(ExportMetricsServiceResponse {
            partial_success,
        }))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut told = self.0.lock().unwrap();
        for resource in request.into_inner().resource_logs {
            for record in resource.scope_logs.into_iter().flat_map(|s| s.log_records) {
                assert_eq!(record.event_name, "ethogram.behaviour");
                let body = record.body.unwrap().value.unwrap();
                let Value::StringValue(body) = body else {
                    panic!("{body:?}");
                };
                told.logs.push(format!("{} {body}", record.severity_text));
            }
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

struct Exporting {
    collector: Collector,
    status: watch::Receiver<Exported>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporting {
    async fn start(world: &World) -> Self {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver {
            url: format!("http://{}", listener.local_addr().unwrap()),
            ca: None,
        };
        let server = Server::builder()
            .add_service(MetricsServiceServer::new(collector.clone()))
            .add_service(LogsServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let (told, status) = watch::channel(Exported::default());
        let (stop, stopped) = watch::channel(false);
        let spool = world.store.clone() as Arc<dyn Spool>;
        let from = spool.head().unwrap();
        let exporting = export(spool, from, receiver, "c1".into(), told, stopped);
        Self {
            collector,
            status,
            stop,
            task: tokio::spawn(exporting),
        }
    }

    async fn rows(&self, rows: u64, dropped: u64) {
        until("all is told", || {
            let status = self.status.borrow();
            (status.rows, status.dropped) == (rows, dropped)
        })
        .await;
    }
}

fn counted(path: &str, count: u64) -> Report {
    let mut report = Report::empty(run("run-1", TIME, TIME + 1_000_000_000));
    report.observations = vec![seen(1, Kind::File, "/bin/cat", path, count)];
    report
}

#[tokio::test]
async fn totals_are_metrics_and_new_rows_are_logs() {
    let world = World::open().await;
    let exporting = Exporting::start(&world).await;
    let mut report = counted("/etc/a", 12);
    let mut refused = seen(1, Kind::File, "/bin/cat", "/etc/new", 2);
    refused.behaviour.status = Outcome::Deny;
    report.observations.push(refused);
    let loss = Loss {
        reason: LossReason::RingFull,
        count: 7,
    };
    report.losses = vec![(report.observations[0].container.clone(), loss)];
    world.store.apply(&report).unwrap();
    exporting.rows(3, 0).await;
    let told = exporting.collector.0.lock().unwrap();
    assert_eq!(told.totals["/etc/a"], 12);
    assert_eq!(told.totals["/etc/new"], 2);
    assert_eq!(told.lost, [7]);
    assert_eq!(told.pods, ["web-0"]);
    let mut logs = told.logs.clone();
    logs.sort();
    assert_eq!(
        logs,
        [
            "INFO file: /bin/cat > /etc/a Allow",
            "WARN file: /bin/cat > /etc/new Deny",
        ]
    );
}

#[tokio::test]
async fn a_receiver_that_fails_in_between_misses_no_count() {
    let world = World::open().await;
    let exporting = Exporting::start(&world).await;
    {
        let mut told = exporting.collector.0.lock().unwrap();
        told.failures = [Code::Unavailable, Code::ResourceExhausted].into();
    }
    world.store.apply(&counted("/srv/x", 1)).unwrap();
    until("it was tried", || exporting.status.borrow().retries > 0).await;
    // Counted on while the receiver is away: told once, with what is then the total.
    world.store.apply(&counted("/srv/x", 5)).unwrap();
    until("it is told", || {
        let told = exporting.collector.0.lock().unwrap();
        told.totals.get("/srv/x") == Some(&5)
    })
    .await;
    exporting.rows(1, 0).await;
    let logs = exporting.collector.0.lock().unwrap().logs.clone();
    assert_eq!(logs, ["INFO file: /bin/cat > /srv/x Allow"]);
    assert_eq!(exporting.status.borrow().retries, 2);
    assert_eq!(exporting.status.borrow().dropped, 0);
}

#[tokio::test]
async fn what_is_refused_for_good_is_counted() {
    let world = World::open().await;
    let exporting = Exporting::start(&world).await;
    exporting.collector.0.lock().unwrap().failures = [Code::InvalidArgument].into();
    world.store.apply(&counted("/srv/x", 1)).unwrap();
    exporting.rows(0, 1).await;
    exporting.collector.0.lock().unwrap().reject = 1;
    world.store.apply(&counted("/srv/x", 2)).unwrap();
    exporting.rows(0, 2).await;
    // What happened last is told at the end.
    world.store.apply(&counted("/srv/x", 3)).unwrap();
    exporting.stop.send_replace(true);
    soon(exporting.task).await.unwrap();
    let told = exporting.collector.0.lock().unwrap();
    assert_eq!(told.totals["/srv/x"], 3);
}
