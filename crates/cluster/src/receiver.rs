//! The collector's half: takes batches, keeps them, acknowledges them.

use crate::{
    VERSIONS,
    access::{Access, Role},
    agents::{AgentState, Agents, KeptBatch},
    batch::{self, Decoded, Origin},
    clock::now,
    described::Described,
    limits::{HELLO_WITHIN, Limits, SILENCE_MAX},
    listen::{Connection, Remote},
    proto::{
        self, FromAgent, FromCollector, from_agent, from_collector,
        refused::Reason,
        reports_server::{Reports, ReportsServer},
    },
    strings::{StringLimits, Strings},
};
use ethogram_model::ContainerKey;
use ethogram_store::{Report, Store, StoreError};
use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Code, Request, Response, Status, Streaming, codec::CompressionEncoding, transport::Server,
};

/// Answers that wait for the line. An agent that reads none is not read either.
const ANSWERS_MAX: usize = 16;
/// Characters of a text that only people read.
const PERSONAL_TEXT_MAX: usize = 64;
/// Characters of an identity, a boot or a run.
const IDENTITY_MAX: usize = 128;
/// Characters of a host name, as DNS has it.
const NODE_MAX: usize = 253;
/// How often a line is tried on which nothing comes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);

/// Takes what agents report into a store.
#[derive(Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    identity: String,
    limits: Limits,
    access: Arc<Access>,
    agents: Arc<Agents>,
    streams: Arc<Semaphore>,
    writes: Semaphore,
    audit: Option<Box<Audit>>,
    stop: watch::Receiver<bool>,
}

/// Somebody began to report, stopped, or was not let in.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// Who; empty for somebody unknown.
    pub who: String,
    /// In which role; empty likewise.
    pub role: String,
    /// For which node; empty if that was not said.
    pub node: String,
    /// Rows that were taken, refused ones too, where the stream has ended.
    pub rows: Option<u64>,
    /// What came of it.
    pub outcome: Code,
}

/// Where it is written down who reports.
type Audit = dyn Fn(Reporting) + Send + Sync;

impl Shared {
    fn write_down(&self, reporting: Reporting) {
        if let Some(audit) = &self.audit {
            audit(reporting);
        }
    }
}

impl Receiver {
    /// A receiver in front of a store with a name, which all receivers in front of the
    /// same store share. When `stop` turns true, its streams end.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        identity: String,
        limits: Limits,
        access: Arc<Access>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                identity,
                limits,
                access,
                agents: Arc::new(Agents::new(limits)),
                streams: Arc::new(Semaphore::new(limits.streams_max)),
                writes: Semaphore::new(limits.writes_max),
                audit: None,
                stop,
            }),
        }
    }

    /// Has it written down who reports, and who was not let in.
    ///
    /// # Panics
    /// If it serves already.
    #[must_use]
    pub fn audited(mut self, audit: impl Fn(Reporting) + Send + Sync + 'static) -> Self {
        let shared = Arc::get_mut(&mut self.shared).expect("it does not serve yet");
        shared.audit = Some(Box::new(audit));
        self
    }

    /// Who reports, and how far each has got.
    #[must_use]
    pub fn agents(&self) -> Arc<Agents> {
        self.shared.agents.clone()
    }
}

/// Serves a receiver on connections as they come, until it is told to stop.
///
/// # Errors
/// If the transport cannot be served.
pub async fn serve(
    receiver: Receiver,
    connections: impl Stream<Item = io::Result<Connection>>,
) -> Result<(), tonic::transport::Error> {
    let mut stop = receiver.shared.stop.clone();
    let bytes_max = receiver.shared.limits.batch_bytes_max as usize;
    let service = ReportsServer::new(receiver)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(bytes_max);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .max_concurrent_streams(4)
        .add_service(service)
        .serve_with_incoming_shutdown(connections, async move {
            // A sender that is gone stops nothing less than one that says so.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

#[tonic::async_trait]
impl Reports for Receiver {
    type ReportStream = ReceiverStream<Result<FromCollector, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let shared = self.shared.clone();
        let refuse = |status: Status, who: String, role: String| {
            shared.agents.count_refused_stream(reason_of(status.code()));
            shared.write_down(Reporting {
                who,
                role,
                node: String::new(),
                rows: None,
                outcome: status.code(),
            });
            status
        };
        let remote = request.extensions().get::<Remote>().cloned();
        let header = request.metadata().get("authorization");
        let header = header.map(|value| value.to_str().unwrap_or_default());
        let certificates = remote
            .as_ref()
            .map_or(&[][..], |remote| &remote.certificates);
        let caller = shared
            .access
            .identify(header, certificates, Role::Agent)
            .map_err(|denied| {
                let status = Status::unauthenticated(denied.to_string());
                refuse(status, String::new(), String::new())
            })?;
        let permit = shared.streams.clone().try_acquire_owned().map_err(|_| {
            let max = shared.limits.streams_max;
            let status = format!("{max} agents report already; come again later");
            let status = Status::resource_exhausted(status);
            refuse(status, caller.name.clone(), caller.role.to_string())
        })?;
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        let mut stream = AgentStream {
            shared: self.shared.clone(),
            inbound: request.into_inner(),
            answers,
            caller,
            address: remote.map_or_else(String::new, |remote| remote.address.to_string()),
            described: Described::default(),
            node: String::new(),
            rows: 0,
            _permit: permit,
        };
        tokio::spawn(async move {
            let status = stream.run().await;
            if status.code() != Code::Ok {
                stream
                    .shared
                    .agents
                    .count_refused_stream(reason_of(status.code()));
            }
            // An agent that is gone needs no reason.
            let _ = stream.answers.send(Err(status)).await;
        });
        Ok(Response::new(ReceiverStream::new(answered)))
    }
}

/// The word that metrics use for why a stream ended.
fn reason_of(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "unauthenticated",
        Code::PermissionDenied => "permission_denied",
        Code::FailedPrecondition => "no_common_version",
        Code::InvalidArgument => "malformed",
        Code::ResourceExhausted | Code::OutOfRange => "too_much",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "silent",
        _ => "broken_off",
    }
}

/// One agent's stream.
struct AgentStream {
    shared: Arc<Shared>,
    inbound: Streaming<FromAgent>,
    answers: mpsc::Sender<Result<FromCollector, Status>>,
    caller: crate::access::Caller,
    address: String,
    described: Described,
    /// As its Hello says.
    node: String,
    /// Rows that were taken so far.
    rows: u64,
    _permit: OwnedSemaphorePermit,
}

impl AgentStream {
    /// Takes batches until the stream ends, and says why it did.
    async fn run(&mut self) -> Status {
        let origin = match self.welcome().await {
            Ok(origin) => origin,
            Err(status) => {
                self.write_down(None, status.code());
                return status;
            }
        };
        self.write_down(None, Code::Ok);
        let mut stop = self.shared.stop.clone();
        let end = tokio::select! {
            end = self.take_batches(&origin) => end,
            // Dropped as well as told: the collector ends.
            _ = stop.wait_for(|stop| *stop) => Status::unavailable("the collector stops; come again"),
        };
        let why = match end.code() {
            Code::Ok => "the agent ended it",
            _ => end.message(),
        };
        self.shared.agents.disconnect(&origin.node, why);
        self.write_down(Some(self.rows), end.code());
        end
    }

    fn write_down(&self, rows: Option<u64>, outcome: Code) {
        self.shared.write_down(Reporting {
            who: self.caller.name.clone(),
            role: self.caller.role.to_string(),
            node: self.node.clone(),
            rows,
            outcome,
        });
    }

    async fn next(&mut self, within: Duration) -> Result<Option<FromAgent>, Status> {
        match timeout(within, self.inbound.message()).await {
            Ok(message) => message,
            Err(_) => Err(Status::deadline_exceeded(format!(
                "nothing was heard for {} s",
                within.as_secs()
            ))),
        }
    }

    async fn answer(&self, message: from_collector::Message) -> Result<(), Status> {
        let message = FromCollector {
            message: Some(message),
        };
        let sent = self.answers.send(Ok(message)).await;
        sent.map_err(|_| Status::cancelled("the agent is gone"))
    }

    async fn welcome(&mut self) -> Result<Origin, Status> {
        let first = self
            .next(HELLO_WITHIN)
            .await?
            .and_then(|first| first.message);
        let Some(from_agent::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a stream must begin with Hello"));
        };
        let received = now();
        check(&hello)?;
        self.node.clone_from(&hello.node);
        if !self.caller.reports_for(&hello.node) {
            return Err(Status::permission_denied(format!(
                "{:?} may not report for node {:?}: its role is {}{}",
                self.caller.name,
                hello.node,
                self.caller.role,
                match self.caller.role {
                    Role::Agent => ", of another node",
                    _ => ", and only agents report",
                },
            )));
        }
        let version = agree(&hello.versions)?;
        let origin = Origin {
            node: hello.node,
            store: hello.store,
            boot: hello.boot,
        };
        let store = self.shared.store.clone();
        let sources = origin.source_prefix();
        let stamp = blocking(move || store.last_alive(&sources)).await?;
        let stamp = stamp.map_err(unavailable)?.map_or(0, |alive| alive.0);
        let connected = self.shared.agents.connect(AgentState {
            node: origin.node.clone(),
            agent_version: shortened(&hello.agent_version),
            protocol: version,
            address: self.address.clone(),
            connected_at: received,
            ..AgentState::default()
        });
        connected.ok_or_else(|| Status::resource_exhausted("too many agents report already"))?;
        self.shared
            .agents
            .read_clock(&origin.node, hello.clock_ns, received);
        let limits = self.shared.limits;
        let answered = self
            .answer(from_collector::Message::Welcome(proto::Welcome {
                version,
                collector: self.shared.identity.clone(),
                stamp,
                limits: Some(proto::Limits {
                    rows_max: limits.batch_rows_max,
                    bytes_max: limits.batch_bytes_max,
                    in_flight_max: limits.in_flight_max,
                    strings_max: limits.strings_max,
                    string_bytes_max: limits.string_bytes_max,
                }),
                clock_ns: now().0,
            }))
            .await;
        if answered.is_err() {
            self.shared
                .agents
                .disconnect(&origin.node, "it left before it was welcomed");
        }
        answered.map(|()| origin)
    }

    async fn take_batches(&mut self, origin: &Origin) -> Status {
        match self.try_take_batches(origin).await {
            Ok(()) => Status::ok(""),
            Err(status) => status,
        }
    }

    async fn try_take_batches(&mut self, origin: &Origin) -> Result<(), Status> {
        let limits = self.shared.limits;
        let mut strings = Strings::new(StringLimits {
            strings_max: limits.strings_max,
            bytes_max: limits.string_bytes_max,
        });
        while let Some(message) = self.next(SILENCE_MAX).await? {
            match message.message {
                Some(from_agent::Message::Batch(batch)) => {
                    let ack = self.take(batch, &mut strings, origin).await?;
                    self.answer(from_collector::Message::Ack(ack)).await?;
                }
                Some(from_agent::Message::Hello(_)) => {
                    return Err(Status::invalid_argument("a second Hello"));
                }
                // Something that a newer agent says and an older collector may skip.
                None => {}
            }
        }
        Ok(())
    }

    /// Keeps a batch; returns when it is committed.
    async fn take(
        &mut self,
        batch: proto::Batch,
        strings: &mut Strings,
        origin: &Origin,
    ) -> Result<proto::Ack, Status> {
        let received = now();
        let agents = Arc::clone(&self.shared.agents);
        agents.read_clock(&origin.node, batch.clock_ns, received);
        if batch.forget_strings {
            strings.forget();
        }
        strings.learn(&batch.strings).map_err(|_| {
            Status::resource_exhausted("more strings than Welcome allows; forget some in time")
        })?;
        let rows = row_count(&batch);
        if rows > self.shared.limits.batch_rows_max as usize {
            return Err(Status::resource_exhausted(format!(
                "{rows} rows in a batch, {} are allowed",
                self.shared.limits.batch_rows_max
            )));
        }
        let Decoded {
            mut reports,
            unknown,
        } = batch::decode(&batch, strings, origin).map_err(|batch::Malformed(what)| {
            Status::invalid_argument(format!("a batch with {what}"))
        })?;
        let wait = agents.pace(&origin.node, rows, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let crowded_out = self.turn_away(&origin.node, &mut reports);
        let described = self.described.leave_out_known(&mut reports, Instant::now());
        let superseded = self.keep(reports).await?;
        if superseded == 0 {
            self.described.remember(described);
        }
        let refused = [
            (Reason::Unknown, unknown),
            (Reason::TooManyContainers, crowded_out),
            (Reason::Superseded, superseded),
        ];
        let refused: Vec<_> = refused.into_iter().filter(|(_, rows)| *rows > 0).collect();
        self.rows += rows as u64;
        agents.kept(
            &origin.node,
            &KeptBatch {
                received,
                rows: rows as u64,
                refused: refused
                    .iter()
                    .map(|&(reason, rows)| (refusal_word(reason), rows))
                    .collect(),
                removed_unsent: batch.removed_unsent,
                caught_up: batch.caught_up,
            },
        );
        Ok(proto::Ack {
            sequence: batch.sequence,
            refused: refused
                .into_iter()
                .map(|(reason, rows)| proto::Refused {
                    reason: reason.into(),
                    rows,
                })
                .collect(),
            clock_ns: received.0,
        })
    }

    /// Takes out what is of containers above the agent's quota; how many rows.
    fn turn_away(&self, node: &str, reports: &mut [Report]) -> u64 {
        let moment = Instant::now();
        let mut rows = 0;
        for report in reports {
            let excess: HashSet<ContainerKey> = report
                .containers
                .iter()
                .map(|container| &container.key)
                .filter(|key| !self.shared.agents.admits(node, key, moment))
                .cloned()
                .collect();
            if !excess.is_empty() {
                rows += remove(report, |key| excess.contains(key));
            }
        }
        rows
    }

    /// Applies reports; how many rows were refused because another source has them.
    async fn keep(&self, reports: Vec<Report>) -> Result<u64, Status> {
        let permit = self.shared.writes.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let store = self.shared.store.clone();
        let kept = blocking(move || {
            let mut refused = 0;
            for report in reports {
                refused += apply(&*store, report)?;
            }
            Ok(refused)
        });
        kept.await?.map_err(unavailable)
    }
}

/// Applies a report without the containers that another source has taken over; how many
/// rows these have.
fn apply(store: &dyn Store, report: Report) -> Result<u64, StoreError> {
    match store.apply(&report) {
        // Each by itself: taking them out one after the other would try the whole report
        // again for every one of them.
        Err(StoreError::SupersededRun { .. }) => apply_one_by_one(store, report),
        outcome => outcome.map(|()| 0),
    }
}

fn apply_one_by_one(store: &dyn Store, report: Report) -> Result<u64, StoreError> {
    let mut parts: BTreeMap<ContainerKey, Report> = BTreeMap::new();
    let new = || Report::empty(report.run.clone());
    for container in report.containers {
        let part = parts.entry(container.key.clone()).or_insert_with(new);
        part.containers.push(container);
    }
    for observation in report.observations {
        let part = parts
            .entry(observation.container.clone())
            .or_insert_with(new);
        part.observations.push(observation);
    }
    for (key, loss) in report.losses {
        let part = parts.entry(key.clone()).or_insert_with(new);
        part.losses.push((key, loss));
    }
    for resolution in report.resolutions {
        let part = parts
            .entry(resolution.container.clone())
            .or_insert_with(new);
        part.resolutions.push(resolution);
    }
    let mut refused = 0;
    for part in parts.into_values() {
        match store.apply(&part) {
            Err(StoreError::SupersededRun { .. }) => refused += rows_of(&part),
            outcome => outcome?,
        }
    }
    let rest = Report {
        endpoints: report.endpoints,
        ..Report::empty(report.run)
    };
    store.apply(&rest)?;
    Ok(refused)
}

/// Rows of a report, each container counting as one.
fn rows_of(report: &Report) -> u64 {
    let rows = report.observations.len() + report.losses.len() + report.resolutions.len();
    (report.containers.len() + rows) as u64
}

/// Takes containers out of a report; how many rows these have.
fn remove(report: &mut Report, is_removed: impl Fn(&ContainerKey) -> bool) -> u64 {
    let before = rows_of(report);
    report
        .containers
        .retain(|container| !is_removed(&container.key));
    report
        .observations
        .retain(|observation| !is_removed(&observation.container));
    report
        .losses
        .retain(|(container, _)| !is_removed(container));
    report
        .resolutions
        .retain(|resolution| !is_removed(&resolution.container));
    before - rows_of(report)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal("the collector failed; its log says how"))
}

fn unavailable(error: StoreError) -> Status {
    tracing::warn!(
        error = &error as &dyn std::error::Error,
        "the store refused a report"
    );
    Status::unavailable(format!(
        "the collector's store cannot keep this now: {error}"
    ))
}

fn row_count(batch: &proto::Batch) -> usize {
    let observations = batch
        .containers
        .iter()
        .map(|c| c.observations.len())
        .sum::<usize>();
    observations + batch.endpoints.len() + batch.resolutions.len() + batch.runs.len()
}

fn refusal_word(reason: Reason) -> &'static str {
    match reason {
        Reason::Other => "other",
        Reason::Unknown => "unknown",
        Reason::TooManyContainers => "too_many_containers",
        Reason::Superseded => "superseded",
    }
}

/// The highest version in common.
fn agree(theirs: &[u32]) -> Result<u32, Status> {
    let common = VERSIONS.iter().filter(|version| theirs.contains(version));
    common.copied().max().ok_or_else(|| {
        let older = VERSIONS.iter().max() < theirs.iter().max();
        Status::failed_precondition(format!(
            "this collector speaks versions {VERSIONS:?} of the protocol, the agent {theirs:?}: upgrade the {}",
            if older { "collector" } else { "agent" }
        ))
    })
}

fn check(hello: &proto::Hello) -> Result<(), Status> {
    let is_name = |text: &str, max: usize| {
        (1..=max).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    for (what, text, max) in [
        ("node", &hello.node, NODE_MAX),
        ("store", &hello.store, IDENTITY_MAX),
        ("boot", &hello.boot, IDENTITY_MAX),
    ] {
        if !is_name(text, max) {
            return Err(Status::invalid_argument(format!(
                "{what} must be 1 to {max} letters, digits, dots, hyphens or underscores"
            )));
        }
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    let printable = ethogram_model::Name::from_bytes(text.as_bytes());
    printable.as_str().chars().take(PERSONAL_TEXT_MAX).collect()
}
