//! The agent's half: tells a collector what changed in the agent's store.

use crate::{
    VERSIONS, batch,
    clock::now,
    limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, IN_FLIGHT_MAX, STRING_BYTES_MAX, STRINGS_MAX},
    proto::{
        self, FromAgent, FromCollector, from_agent, from_collector, refused::Reason,
        reports_client::ReportsClient,
    },
    strings::{Numbers, StringLimits},
};
use ethogram_model::Timestamp;
use ethogram_store::{Changes, PageLimits, Peer, Position, Spool, StoreError};
use std::{
    collections::{BTreeMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    codec::CompressionEncoding,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// How often changes are looked for, unless told otherwise.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// An agent without changes still says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// The first wait before another try; doubled by each failure,
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// up to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// How long a connection may take to come about, Welcome included.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
/// How long a batch may wait for its acknowledgement.
const ACK_WITHIN: Duration = Duration::from_secs(120);
/// How long a sender that is stopped goes on telling what is left.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often a line is tried on which nothing comes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);

/// What proves who is who.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Whose collector certificates are believed: a PEM file. Needed for `https`.
    pub ca: Option<PathBuf>,
    /// The agent's certificate and its key: PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A file with the agent's token.
    pub token: Option<PathBuf>,
}

/// Who reports, and where to.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// `https://HOST:PORT`, or `http://HOST:PORT` on a network that may be read.
    pub collector: String,
    /// Files that prove who is who, read again for every connection.
    pub trust: Trust,
    /// The machine's name.
    pub node: String,
    /// The boot that is running.
    pub boot: String,
    /// The agent's run.
    pub run: String,
    /// How often changes are looked for.
    pub report_every: Duration,
}

/// How the sender is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderStatus {
    /// Whether a collector listens now.
    pub connected: bool,
    /// Why the last connection failed or ended; empty while none did.
    pub last_error: String,
    /// When the collector last acknowledged all that was known a moment before.
    pub caught_up: Option<Timestamp>,
    /// How far the collector's clock is ahead of ours, in nanoseconds, by its last
    /// acknowledgement; wrong by at most the time that took.
    pub clock_behind_ns: Option<i64>,
    /// Batches acknowledged.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
    /// Rows that collectors refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Rows that retention removed before this collector had them.
    pub removed_unsent: u64,
    /// Connections begun.
    pub connections: u64,
}

/// Why a connection came to nothing, or ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {file}: {error}")]
    File { file: PathBuf, error: io::Error },
    #[error("{0}")]
    Setting(String),
    #[error("no connection to {collector}: {why}")]
    Connect { collector: String, why: String },
    #[error("the collector refused: {0}")]
    Refused(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the collector sent what no collector should: {0}")]
    Confused(&'static str),
    #[error("the collector did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the spool cannot be used: {0}")]
    Spool(#[from] StoreError),
    #[error("a task of the sender failed")]
    Panicked,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::Unimplemented => Self::Refused(message),
            code => Self::Broken(format!("{code:?}: {message}")),
        }
    }
}

/// Tells one collector what changes in a spool, as long as it runs.
pub struct Sender {
    spool: Arc<dyn Spool>,
    options: SenderOptions,
    status: watch::Sender<SenderStatus>,
    stop: watch::Receiver<bool>,
}

impl Sender {
    /// A sender, and where it says how it is doing. When `stop` turns true, it tells what
    /// is left, within ten seconds, and ends.
    #[must_use]
    pub fn new(
        spool: Arc<dyn Spool>,
        options: SenderOptions,
        stop: watch::Receiver<bool>,
    ) -> (Self, watch::Receiver<SenderStatus>) {
        let (status, seen) = watch::channel(SenderStatus::default());
        let sender = Self {
            spool,
            options,
            status,
            stop,
        };
        (sender, seen)
    }

    /// Connects, tells, and connects again when that ends.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let acknowledged_before = self.status.borrow().batches;
            let outcome = self.connect_and_tell().await;
            self.status.send_modify(|status| status.connected = false);
            let Err(failure) = outcome else {
                return;
            };
            if self.status.borrow().batches > acknowledged_before {
                failures = 0;
            }
            let wait = back_off(failures, RandomState::new().hash_one(failures));
            failures += 1;
            tracing::warn!(%failure, again_in_ms = wait.as_millis(), "not reporting");
            self.status
                .send_modify(|status| status.last_error = failure.to_string());
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut self.stop) => return,
            }
        }
    }

    /// Ends well only when told to stop.
    async fn connect_and_tell(&mut self) -> Result<(), Failure> {
        let mut stop = self.stop.clone();
        let connecting = timeout(CONNECT_WITHIN, self.connect());
        let connected = tokio::select! {
            connected = connecting => connected.map_err(|_| Failure::Silent(CONNECT_WITHIN))?,
            () = stopped(&mut stop) => return Ok(()),
        };
        let mut session = connected?;
        self.status.send_modify(|status| {
            status.connected = true;
            status.connections += 1;
        });
        session.tell(stop).await
    }

    async fn connect(&self) -> Result<Session<'_>, Failure> {
        let token = self.token()?;
        let channel = self.channel().await?;
        let (messages, outbound) = mpsc::channel(IN_FLIGHT_MAX as usize + 1);
        let hello = from_agent::Message::Hello(proto::Hello {
            versions: VERSIONS.to_vec(),
            node: self.options.node.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            store: in_background(&self.spool, |spool| spool.identity()).await?,
            boot: self.options.boot.clone(),
            run: self.options.run.clone(),
            clock_ns: now().0,
        });
        send(&messages, hello).await?;
        let mut request = Request::new(ReceiverStream::new(outbound));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let mut client = ReportsClient::new(channel).send_compressed(CompressionEncoding::Gzip);
        let mut answers = client.report(request).await?.into_inner();
        let first = answers.message().await?.and_then(|first| first.message);
        let Some(from_collector::Message::Welcome(welcome)) = first else {
            return Err(Failure::Confused("no Welcome"));
        };
        if !VERSIONS.contains(&welcome.version) {
            return Err(Failure::Confused("a version that was not offered"));
        }
        self.session(welcome, messages, answers).await
    }

    async fn session(
        &self,
        welcome: proto::Welcome,
        messages: mpsc::Sender<FromAgent>,
        answers: Streaming<FromCollector>,
    ) -> Result<Session<'_>, Failure> {
        let limits = welcome.limits.unwrap_or_default();
        let strings = StringLimits {
            strings_max: or_default(limits.strings_max, STRINGS_MAX),
            bytes_max: or_default(limits.string_bytes_max, STRING_BYTES_MAX),
        };
        let collector = welcome.collector;
        let name = collector.clone();
        let peer = in_background(&self.spool, move |spool| spool.peer(&name)).await?;
        Ok(Session {
            sender: self,
            position: begin(&peer, welcome.stamp),
            last_stamp: peer.stamp.max(welcome.stamp),
            removed_unsent: peer.removed_unsent,
            collector,
            messages,
            answers,
            numbers: Numbers::new(strings),
            // Each row may bring four strings, and half of the room may be used already.
            page: PageLimits {
                rows_max: (or_default(limits.rows_max, BATCH_ROWS_MAX))
                    .min(strings.strings_max / 8)
                    .max(1) as usize,
                bytes_max: (or_default(limits.bytes_max, BATCH_BYTES_MAX))
                    .min(strings.bytes_max / 2) as usize,
            },
            in_flight_max: or_default(limits.in_flight_max, IN_FLIGHT_MAX).min(IN_FLIGHT_MAX)
                as usize,
            in_flight: VecDeque::new(),
            sequence: 0,
            last_sent: None,
        })
    }

    fn token(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let Some(file) = &self.options.trust.token else {
            return Ok(None);
        };
        let text = read(file)?;
        let text = String::from_utf8_lossy(&text);
        let value = format!("Bearer {}", text.trim()).parse();
        value.map(Some).map_err(|_| {
            Failure::Setting(format!(
                "{} holds no token: one line of text is needed",
                file.display()
            ))
        })
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        let collector = &self.options.collector;
        let endpoint = Endpoint::from_shared(collector.clone())
            .map_err(|error| Failure::Setting(format!("{collector:?} is no address: {error}")))?
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .tcp_nodelay(true);
        let failed = |error: tonic::transport::Error| Failure::Connect {
            collector: collector.clone(),
            why: causes(&error),
        };
        let endpoint = if endpoint.uri().scheme_str() == Some("https") {
            endpoint.tls_config(self.tls()?).map_err(failed)?
        } else {
            endpoint
        };
        endpoint.connect().await.map_err(failed)
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let trust = &self.options.trust;
        let ca = trust.ca.as_ref().ok_or_else(|| {
            Failure::Setting(
                "an https collector needs the file of its certificate authority".into(),
            )
        })?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        Ok(match &trust.identity {
            Some((certificate, key)) => {
                tls.identity(Identity::from_pem(read(certificate)?, read(key)?))
            }
            None => tls,
        })
    }
}

/// Where to go on telling a collector that has what `stamp` says.
fn begin(peer: &Peer, stamp: i64) -> Position {
    if stamp < peer.stamp {
        // It has lost something that it had acknowledged: it was emptied, or put back to
        // an earlier state.
        Position::START
    } else {
        peer.position
    }
}

/// How long to wait after some failures in a row: anything from half of the doubled wait
/// to all of it, so that a thousand agents do not come back at once.
#[must_use]
pub fn back_off(failures: u32, random: u64) -> Duration {
    let whole = BACK_OFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACK_OFF_MAX);
    let part = (random % 1_000) as u32;
    whole / 2 + whole / 2 * part / 1_000
}

fn or_default(limit: u32, default: u32) -> u32 {
    if limit == 0 { default } else { limit }
}

fn read(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::File {
        file: file.clone(),
        error,
    })
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns when told to stop, also by whoever could tell being gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the other end is dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn in_background<T: Send + 'static>(
    spool: &Arc<dyn Spool>,
    work: impl FnOnce(&dyn Spool) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let spool = spool.clone();
    let done = tokio::task::spawn_blocking(move || work(&*spool)).await;
    Ok(done.map_err(|_| Failure::Panicked)??)
}

async fn send(
    messages: &mpsc::Sender<FromAgent>,
    message: from_agent::Message,
) -> Result<(), Failure> {
    let message = FromAgent {
        message: Some(message),
    };
    let sent = messages.send(message).await;
    sent.map_err(|_| Failure::Broken("it was closed".into()))
}

/// A batch on its way.
struct InFlight {
    sequence: u64,
    position: Position,
    stamp: i64,
    rows: u64,
    sent: Instant,
    sent_at: Timestamp,
}

/// One connection.
struct Session<'a> {
    sender: &'a Sender,
    collector: String,
    messages: mpsc::Sender<FromAgent>,
    answers: Streaming<FromCollector>,
    numbers: Numbers,
    page: PageLimits,
    in_flight_max: usize,
    in_flight: VecDeque<InFlight>,
    /// Up to where has been sent.
    position: Position,
    sequence: u64,
    last_stamp: i64,
    removed_unsent: u64,
    last_sent: Option<Instant>,
}

impl Session<'_> {
    /// Tells until the connection ends or, when told to stop, all is told.
    async fn tell(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut next_look = Instant::now();
        let mut stop_at = None;
        let mut last_look_done = false;
        loop {
            let may_send = self.in_flight.len() < self.in_flight_max;
            let is_due = !self.position.is_at_rest() || Instant::now() >= next_look;
            if may_send && is_due && !last_look_done {
                self.send_page().await?;
                if self.position.is_at_rest() {
                    next_look = Instant::now() + self.sender.options.report_every;
                    last_look_done = stop_at.is_some();
                }
                continue;
            }
            if last_look_done && self.in_flight.is_empty() {
                return Ok(());
            }
            let oldest = self.in_flight.front().map(|batch| batch.sent + ACK_WITHIN);
            let late = oldest.unwrap_or_else(|| Instant::now() + ACK_WITHIN);
            tokio::select! {
                answer = timeout_at(stop_at.unwrap_or(late).min(late), self.answers.message()) => {
                    let answer = answer.map_err(|_| Failure::Silent(ACK_WITHIN));
                    match answer {
                        Err(_) if stop_at.is_some() => return Ok(()),
                        Err(_) if oldest.is_none() => {}
                        Err(failure) => return Err(failure),
                        Ok(answer) => self.take(answer?).await?,
                    }
                }
                () = sleep_until(next_look), if may_send && !last_look_done => {}
                () = stopped(&mut stop), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + STOP_WITHIN);
                    // What is known by now is told in one more round.
                    next_look = Instant::now();
                }
            }
        }
    }

    async fn send_page(&mut self) -> Result<(), Failure> {
        let (position, page) = (self.position, self.page);
        let spool = &self.sender.spool;
        let changes =
            in_background(spool, move |spool| spool.changes_since(&position, page)).await?;
        let is_heartbeat = self
            .last_sent
            .is_none_or(|sent| sent.elapsed() >= HEARTBEAT_EVERY);
        if changes.is_empty() && position.is_at_rest() && !is_heartbeat {
            self.position = changes.position;
            return Ok(());
        }
        self.send_changes(&changes).await
    }

    async fn send_changes(&mut self, changes: &Changes) -> Result<(), Failure> {
        let clock = now();
        self.sequence += 1;
        self.last_stamp = clock.0.max(self.last_stamp.saturating_add(1));
        self.position = changes.position;
        let batch = proto::Batch {
            sequence: self.sequence,
            stamp: self.last_stamp,
            removed_unsent: self.removed_unsent,
            ..batch::encode(changes, clock, &mut self.numbers)
        };
        let observations = changes.containers.iter().map(|c| c.observations.len());
        let rows = observations.sum::<usize>()
            + changes.endpoints.len()
            + changes.resolutions.len()
            + changes.runs.len();
        self.in_flight.push_back(InFlight {
            sequence: self.sequence,
            position: self.position,
            stamp: self.last_stamp,
            rows: rows as u64,
            sent: Instant::now(),
            sent_at: clock,
        });
        self.last_sent = Some(Instant::now());
        match send(&self.messages, from_agent::Message::Batch(batch)).await {
            Ok(()) => Ok(()),
            // The collector's last words say why.
            Err(closed) => loop {
                match self.answers.message().await? {
                    Some(answer) => self.take(Some(answer)).await?,
                    None => return Err(closed),
                }
            },
        }
    }

    async fn take(&mut self, answer: Option<FromCollector>) -> Result<(), Failure> {
        let Some(answer) = answer else {
            return Err(Failure::Broken("the collector ended it".into()));
        };
        match answer.message {
            Some(from_collector::Message::Ack(ack)) => self.acknowledge(&ack).await,
            Some(from_collector::Message::Welcome(_)) => Err(Failure::Confused("a second Welcome")),
            // Something that a newer collector says and an older agent may skip.
            None => Ok(()),
        }
    }

    async fn acknowledge(&mut self, ack: &proto::Ack) -> Result<(), Failure> {
        let expected = self.in_flight.pop_front();
        let Some(batch) = expected.filter(|batch| batch.sequence == ack.sequence) else {
            return Err(Failure::Confused("an Ack out of order"));
        };
        self.report_refusals(&ack.refused);
        let collector = self.collector.clone();
        let (position, stamp) = (batch.position, batch.stamp);
        let peer = in_background(&self.sender.spool, move |spool| {
            spool.acknowledge(&collector, &position, stamp)?;
            spool.peer(&collector)
        });
        self.note_removed(peer.await?.removed_unsent);
        self.sender.status.send_modify(|status| {
            status.batches += 1;
            status.rows += batch.rows;
            status.clock_behind_ns = Some(ack.clock_ns.saturating_sub(batch.sent_at.0));
            status.removed_unsent = self.removed_unsent;
            if batch.position.is_at_rest() {
                status.caught_up = Some(batch.sent_at);
            }
        });
        Ok(())
    }

    fn note_removed(&mut self, removed_unsent: u64) {
        let more = removed_unsent.saturating_sub(self.removed_unsent);
        if more > 0 {
            tracing::warn!(
                rows = more,
                collector = self.collector,
                "retention removed rows that the collector did not have yet; give the agent's store more room"
            );
        }
        self.removed_unsent = removed_unsent;
    }

    fn report_refusals(&self, refused: &[proto::Refused]) {
        for refusal in refused {
            let reason = Reason::try_from(refusal.reason).unwrap_or(Reason::Other);
            let word = reason.as_str_name().to_ascii_lowercase();
            tracing::warn!(
                reason = word,
                rows = refusal.rows,
                "the collector refused rows"
            );
            self.sender.status.send_modify(|status| {
                *status.refused.entry(word).or_default() += refusal.rows;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_differ() {
        let least = |failures| back_off(failures, 0).as_millis();
        assert_eq!([0, 1, 2, 3].map(least), [500, 1_000, 2_000, 4_000]);
        assert!(back_off(0, 1) > back_off(0, 0));
        for failures in [6, 20, u32::MAX] {
            assert_eq!(back_off(failures, 0), BACK_OFF_MAX / 2);
            assert!(back_off(failures, 999) <= BACK_OFF_MAX);
        }
    }
}
