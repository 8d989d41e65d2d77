//! KubeArmor as a source of events: its stream is counted into a store, as if an agent of
//! ours had reported it.
//!
//! The stream has no replay and no counters, so each connection is a [`Run`]: counts of a
//! run begin at nothing and the store adds runs up, and the time between two of them is one
//! in which nobody watched. What KubeArmor itself dropped is not told, so it cannot be
//! counted.

mod event;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod ledger;
mod twins;
mod words;

pub use ledger::Taken;

use crate::{
    feeder::{RequestMessage, log_service_client::LogServiceClient},
    log_service::{COUNT, now},
    server::stopped,
};
use ethogram_cluster::back_off;
use ethogram_model::{BootId, Run};
use ethogram_store::{Report, Store, StoreError};
use event::Event;
use ledger::Ledger;
use std::{
    collections::{HashMap, hash_map::RandomState},
    error::Error,
    hash::BuildHasher,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep, timeout},
};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};

/// How often what was counted is written.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often a run without news says that it is alive. Readers take a run for ended that is
/// silent for 30 s.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// How long a connection may take to come about.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
/// How often a line is tried on which nothing comes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// A connection that lasted so long did not fail.
const SOUND_AFTER: Duration = Duration::from_secs(30);

/// Whom to listen to.
#[derive(Clone, Debug)]
pub struct Source {
    /// `HOST:PORT` of a KubeArmor agent or relay, with `https://` in front for TLS.
    pub target: String,
    /// Whose certificate is believed: a PEM file. Needed for `https`.
    pub ca: Option<PathBuf>,
}

/// How listening goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Whether the streams are open.
    pub connected: bool,
    /// Connections that came about.
    pub connections: u64,
    /// Why the last one failed or ended; empty while none did.
    pub last_error: String,
    /// Events of the connections before the current one, and of that one.
    pub taken: Taken,
}

/// Why a connection came to nothing, or ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {file}: {error}")]
    File {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error("{0}")]
    Setting(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no connection within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("the stream ended")]
    Ended,
    #[error("this is an Ethogram, which has totals to tell: let it report with --collector")]
    Ours,
    #[error("the store cannot be used: {0}")]
    Store(#[from] StoreError),
    #[error("a task failed")]
    Panicked,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Broken(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// Counts what a source tells into a store until `stop` turns true; connects again whenever
/// a connection ends.
pub async fn consume(
    store: Arc<dyn Store>,
    source: Source,
    status: watch::Sender<Listening>,
    stop: watch::Receiver<bool>,
) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let outcome = Session::new(&store, &source, &status)
            .run(stop.clone())
            .await;
        status.send_modify(|status| status.connected = false);
        let Err(failure) = outcome else {
            return;
        };
        status.send_modify(|status| status.last_error = failure.to_string());
        if matches!(failure, Failure::Ours) {
            tracing::error!(source = source.target, "not listening any more: {failure}");
            return;
        }
        if begun.elapsed() > SOUND_AFTER {
            failures = 0;
        }
        let wait = back_off(failures, RandomState::new().hash_one(failures));
        failures += 1;
        tracing::warn!(
            source = source.target,
            again_in_ms = wait.as_millis(),
            "not listening to KubeArmor: {failure}"
        );
        tokio::select! {
            () = sleep(wait) => {}
            () = stopped(stop.clone()) => return,
        }
    }
}

/// One connection.
struct Session<'a> {
    store: &'a Arc<dyn Store>,
    source: &'a Source,
    status: &'a watch::Sender<Listening>,
    /// What connections before took.
    before: Taken,
}

impl<'a> Session<'a> {
    fn new(
        store: &'a Arc<dyn Store>,
        source: &'a Source,
        status: &'a watch::Sender<Listening>,
    ) -> Self {
        let before = status.borrow().taken;
        Self {
            store,
            source,
            status,
            before,
        }
    }

    /// Ends well only when told to stop.
    async fn run(&self, stop: watch::Receiver<bool>) -> Result<(), Failure> {
        let connecting = timeout(CONNECT_WITHIN, self.connect());
        let client = tokio::select! {
            connected = connecting => connected.map_err(|_| Failure::Silent(CONNECT_WITHIN))??,
            () = stopped(stop.clone()) => return Ok(()),
        };
        // Both or none: with one of them missing, what is blocked would be counted wrongly.
        let all = || RequestMessage {
            filter: "all".into(),
        };
        let (mut for_logs, mut for_alerts) = (client.clone(), client);
        let mut alerts = for_alerts.watch_alerts(all()).await?.into_inner();
        let mut logs = for_logs.watch_logs(all()).await?.into_inner();
        let mut ledger = Ledger::new(self.new_run());
        self.write(ledger.report(now(), false)).await?;
        self.status.send_modify(|status| {
            status.connected = true;
            status.connections += 1;
        });
        tracing::info!(source = self.source.target, "listening to KubeArmor");
        let mut ticks = interval(WRITE_EVERY);
        let mut written = Instant::now();
        let stopping = stopped(stop);
        tokio::pin!(stopping);
        let ended = loop {
            let event = tokio::select! {
                log = logs.message() => log.map(|log| {
                    log.map(|log| (is_ours(&log.event_data), Event::from(log)))
                }),
                alert = alerts.message() => alert.map(|alert| {
                    alert.map(|alert| (is_ours(&alert.event_data), Event::from(alert)))
                }),
                _ = ticks.tick() => {
                    ledger.settle(Instant::now(), false);
                    if ledger.has_news() || written.elapsed() >= ALIVE_EVERY {
                        written = Instant::now();
                        self.write(ledger.report(now(), false)).await?;
                        self.tell(ledger.tally);
                    }
                    continue;
                }
                () = &mut stopping => break Ok(()),
            };
            match event {
                Ok(Some((true, _))) => break Err(Failure::Ours),
                Ok(Some((false, event))) => ledger.take(event, now(), Instant::now()),
                Ok(None) => break Err(Failure::Ended),
                Err(status) => break Err(status.into()),
            }
        };
        ledger.settle(Instant::now(), true);
        self.write(ledger.report(now(), ended.is_ok())).await?;
        self.tell(ledger.tally);
        ended
    }

    fn tell(&self, taken: Taken) {
        let all = self.before.plus(taken);
        self.status.send_modify(|status| status.taken = all);
    }

    fn new_run(&self) -> Run {
        let started = now();
        let target = &self.source.target;
        Run {
            // Two runs of one source never begin in the same nanosecond.
            id: format!("kubearmor-{target}-{}", started.0),
            boot: BootId::new(&format!("kubearmor-{target}")),
            node: target.clone(),
            hooks: "kubearmor".into(),
            started,
            last_alive: started,
            ended_cleanly: false,
        }
    }

    async fn write(&self, report: Report) -> Result<(), Failure> {
        let store = Arc::clone(self.store);
        let report = Arc::new(report);
        let mut failures = 0;
        loop {
            let (store, report) = (store.clone(), report.clone());
            let applied = tokio::task::spawn_blocking(move || store.apply(&report)).await;
            let Err(error) = applied.map_err(|_| Failure::Panicked)? else {
                return Ok(());
            };
            // The stream is not read meanwhile, and KubeArmor drops in silence; with the
            // connection ended it is at least known that nobody watched.
            if failures == WRITES_MAX {
                return Err(error.into());
            }
            failures += 1;
            sleep(back_off(0, RandomState::new().hash_one(failures))).await;
        }
    }

    async fn connect(&self) -> Result<LogServiceClient<Channel>, Failure> {
        let target = &self.source.target;
        let uri = if target.contains("://") {
            target.clone()
        } else {
            format!("http://{target}")
        };
        let endpoint = Channel::from_shared(uri)
            .map_err(|error| Failure::Setting(format!("{target:?} is no address: {error}")))?
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .tcp_nodelay(true);
        let failed = |error: tonic::transport::Error| {
            let cause = error.source().map(ToString::to_string);
            Failure::Connect(format!("{error}: {}", cause.unwrap_or_default()))
        };
        let endpoint = match &self.source.ca {
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
        Ok(LogServiceClient::new(
            endpoint.connect().await.map_err(failed)?,
        ))
    }
}

/// Tries to write before the connection is given up.
const WRITES_MAX: u32 = 5;

/// Whether an event is made of totals, as our own stream's are.
fn is_ours(data: &HashMap<String, String>) -> bool {
    data.contains_key(COUNT)
}
