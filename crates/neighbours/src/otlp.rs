//! OpenTelemetry: what changes in a store, told to an OTLP receiver over gRPC.
//!
//! Counts are cumulative sums, one data point for each row that changed; a row that is new is
//! a log record too. The store is the queue: what could not be told is read from it again,
//! with newer counts, so a receiver that is away costs no memory and sums lose nothing.

mod encode;

use crate::{
    log_service::now,
    server::stopped,
    wire::otlp::collector::{
        logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    },
};
use ethogram_cluster::back_off;
use ethogram_store::{Changes, PageLimits, Position, Spool, StoreError};
use std::{
    collections::hash_map::RandomState, error::Error, hash::BuildHasher, io, path::PathBuf,
    sync::Arc, time::Duration,
};
use tokio::{sync::watch, time::sleep};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};

/// How often what changed is told.
const EXPORT_EVERY: Duration = Duration::from_secs(5);
/// How long a receiver may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long the rest may take when told to stop.
const STOP_WITHIN: Duration = Duration::from_millis(1_500);
/// How much is told at a time; receivers take 4 MiB.
const PAGE: PageLimits = PageLimits {
    rows_max: 1_024,
    bytes_max: 512 << 10,
};

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// Whose certificate is believed: a PEM file. Needed for `https`.
    pub ca: Option<PathBuf>,
}

/// How telling goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows that the receiver took.
    pub rows: u64,
    /// Rows that it refused for good.
    pub dropped: u64,
    /// Tries that failed and were made again.
    pub retries: u64,
    /// Why the last try failed; empty while none did.
    pub last_error: String,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {file}: {error}")]
    File { file: PathBuf, error: io::Error },
    #[error("no connection: {0}")]
    Connect(String),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Answer(Box<Status>),
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    #[error("a task failed")]
    Panicked,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Answer(Box::new(status))
    }
}

impl Failure {
    /// Whether the same may be taken later, by the rules of OTLP.
    fn may_pass(&self) -> bool {
        let Self::Answer(status) = self else {
            return true;
        };
        matches!(
            status.code(),
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss
                | Code::Unknown
        )
    }
}

/// Tells a receiver what changes from a position on, until `stop` turns true.
pub async fn export(
    spool: Arc<dyn Spool>,
    from: Position,
    receiver: Receiver,
    cluster: String,
    status: watch::Sender<Exported>,
    stop: watch::Receiver<bool>,
) {
    let mut exporter = Exporter {
        spool,
        receiver,
        cluster,
        status,
        channel: None,
        position: from,
    };
    let mut failures = 0;
    loop {
        let told = tokio::select! {
            told = exporter.tell() => told,
            () = stopped(stop.clone()) => break,
        };
        let wait = match told {
            Ok(()) => {
                failures = 0;
                EXPORT_EVERY
            }
            Err(failure) => {
                exporter.failed(&failure);
                failures += 1;
                back_off(failures - 1, RandomState::new().hash_one(failures))
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = stopped(stop.clone()) => break,
        }
    }
    if tokio::time::timeout(STOP_WITHIN, exporter.tell())
        .await
        .is_err()
    {
        tracing::warn!("the OTLP receiver is not told what happened last");
    }
}

struct Exporter {
    spool: Arc<dyn Spool>,
    receiver: Receiver,
    cluster: String,
    status: watch::Sender<Exported>,
    channel: Option<Channel>,
    /// Up to where was told.
    position: Position,
}

impl Exporter {
    /// Tells all that changed, page by page.
    async fn tell(&mut self) -> Result<(), Failure> {
        loop {
            let position = self.position;
            let changes = in_background(&self.spool, move |spool| {
                spool.changes_since(&position, PAGE)
            })
            .await?;
            self.tell_page(&changes).await?;
            self.position = changes.position;
            if self.position.is_at_rest() {
                return Ok(());
            }
        }
    }

    /// Tells a page. What the receiver will never take is dropped and counted.
    async fn tell_page(&mut self, changes: &Changes) -> Result<(), Failure> {
        let metrics = encode::metrics(changes, &self.cluster);
        let logs = encode::logs(changes, &self.cluster, now());
        let rows: u64 = metrics.points;
        if rows == 0 {
            return Ok(());
        }
        let sent = self.send(metrics.request, logs).await;
        match sent {
            Ok(rejected) => self.status.send_modify(|status| {
                status.rows += rows.saturating_sub(rejected);
                status.dropped += rejected;
            }),
            Err(failure) if failure.may_pass() => {
                self.channel = None;
                return Err(failure);
            }
            Err(failure) => {
                tracing::warn!("the OTLP receiver refuses {rows} rows for good: {failure}");
                self.status.send_modify(|status| {
                    status.dropped += rows;
                    status.last_error = failure.to_string();
                });
            }
        }
        Ok(())
    }

    /// How many data points were rejected.
    async fn send(
        &mut self,
        metrics: ExportMetricsServiceRequest,
        logs: ExportLogsServiceRequest,
    ) -> Result<u64, Failure> {
        let channel = self.channel().await?;
        let mut client = MetricsServiceClient::new(channel.clone());
        let answer = client.export(metrics).await?.into_inner();
        if !logs.resource_logs.is_empty() {
            let mut client = LogsServiceClient::new(channel);
            let answer = client.export(logs).await?.into_inner();
            if let Some(partial) = answer
                .partial_success
                .filter(|p| p.rejected_log_records > 0)
            {
                tracing::warn!(
                    "the OTLP receiver rejected {} log records: {}",
                    partial.rejected_log_records,
                    partial.error_message
                );
            }
        }
        let rejected = answer.partial_success.map_or(0, |p| p.rejected_data_points);
        Ok(u64::try_from(rejected).unwrap_or_default())
    }

    async fn channel(&mut self) -> Result<Channel, Failure> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let failed = |error: tonic::transport::Error| {
            let cause = error.source().map(ToString::to_string);
            Failure::Connect(format!("{error}: {}", cause.unwrap_or_default()))
        };
        let endpoint = Channel::from_shared(self.receiver.url.clone())
            .map_err(|error| Failure::Connect(error.to_string()))?
            .timeout(ANSWER_WITHIN)
            .connect_timeout(ANSWER_WITHIN);
        let endpoint = match &self.receiver.ca {
            Some(file) => {
                let pem = std::fs::read(file).map_err(|error| Failure::File {
                    file: file.clone(),
                    error,
                })?;
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                endpoint.tls_config(tls).map_err(failed)?
            }
            None => endpoint,
        };
        let channel = endpoint.connect().await.map_err(failed)?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    fn failed(&self, failure: &Failure) {
        let text = failure.to_string();
        if self.status.borrow().last_error != text {
            tracing::warn!("cannot tell the OTLP receiver, will try again: {text}");
        }
        self.status.send_modify(|status| {
            status.retries += 1;
            status.last_error = text;
        });
    }
}

async fn in_background<T: Send + 'static>(
    spool: &Arc<dyn Spool>,
    work: impl FnOnce(&dyn Spool) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let spool = spool.clone();
    let done = tokio::task::spawn_blocking(move || work(&*spool)).await;
    Ok(done.map_err(|_| Failure::Panicked)??)
}
