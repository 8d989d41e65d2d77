//! KubeArmor's stream, made of what changes: one event for each row that is new or was
//! counted on, with its total.

use crate::{
    feed::{Feed, Heard, Listener, Page},
    feeder::{
        Alert, Log, Message, NonceMessage, Podowner, ReplyMessage, RequestMessage,
        log_service_server::LogService,
    },
    grammar::{result, say},
    server::{Served, stopped},
    who::{Who, is_of_host},
    words::{iso_date, labels},
};
use ethogram_cluster::access::Caller;
use ethogram_model::{Container, Observation, Status as Outcome, Timestamp};
use ethogram_store::ContainerChanges;
use std::{collections::HashMap, sync::Arc, time::SystemTime};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Streams at a time.
const STREAMS_MAX: usize = 64;
/// Events of a stream that are on their way to its reader.
const EVENTS_MAX: usize = 64;

/// The service.
pub(crate) struct Streams {
    served: Arc<Served>,
    feed: Arc<Feed>,
    room: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

type Events<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl LogService for Streams {
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
        request: Request<RequestMessage>,
    ) -> Result<Response<Self::WatchMessagesStream>, Status> {
        self.stream(&request, "WatchMessages", true).await
    }

    type WatchAlertsStream = Events<Alert>;

    async fn watch_alerts(
        &self,
        request: Request<RequestMessage>,
    ) -> Result<Response<Self::WatchAlertsStream>, Status> {
        let is_known = ["all", "policy"].contains(&request.get_ref().filter.as_str());
        self.stream(&request, "WatchAlerts", is_known).await
    }

    type WatchLogsStream = Events<Log>;

    async fn watch_logs(
        &self,
        request: Request<RequestMessage>,
    ) -> Result<Response<Self::WatchLogsStream>, Status> {
        let is_known = ["all", "system"].contains(&request.get_ref().filter.as_str());
        self.stream(&request, "WatchLogs", is_known).await
    }
}

impl Streams {
    /// Streams that end when `stop` turns true.
    pub(crate) fn new(served: Arc<Served>, feed: Arc<Feed>, stop: watch::Receiver<bool>) -> Self {
        Self {
            served,
            feed,
            room: Arc::new(Semaphore::new(STREAMS_MAX)),
            stop,
        }
    }

    /// Events as they come; with a filter that is not known none, as KubeArmor has it.
    async fn stream<E: Event>(
        &self,
        request: &Request<RequestMessage>,
        what: &str,
        filter_is_known: bool,
    ) -> Result<Response<Events<E>>, Status> {
        let caller = self.served.guard.admit(request, what, "")?;
        let (events, stream) = mpsc::channel(EVENTS_MAX);
        if filter_is_known {
            let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
                Status::resource_exhausted(format!("{STREAMS_MAX} streams are open already"))
            })?;
            let feed = Arc::clone(&self.feed);
            let listener = self.served.in_turn(move || feed.listen()).await?;
            let cluster = self.served.cluster.clone();
            let teller = Teller { caller, cluster };
            let stop = self.stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = teller.tell_all(listener, &events) => {}
                    () = stopped(stop) => {}
                }
                drop(place);
            });
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// What a stream is made of.
trait Event: Sized + Send + 'static {
    /// Those in a page that the caller may see.
    fn of_page(page: &Page, teller: &Teller) -> Vec<Self>;
    /// That the reader was too slow for so many rows.
    fn missed(rows: u64, teller: &Teller) -> Self;
}

/// Tells one reader.
struct Teller {
    caller: Caller,
    cluster: String,
}

impl Teller {
    /// Tells until the reader is gone or the feed ends.
    async fn tell_all<E: Event>(
        &self,
        mut listener: Listener,
        events: &mpsc::Sender<Result<E, Status>>,
    ) {
        loop {
            let heard = tokio::select! {
                heard = listener.next() => heard,
                () = events.closed() => return,
            };
            let to_tell = match heard {
                None => return,
                Some(Heard::Missed(rows)) => vec![E::missed(rows, self)],
                Some(Heard::Page(page)) => E::of_page(&page, self),
            };
            for event in to_tell {
                if events.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn sees(&self, container: &Container) -> bool {
        let own = Some(container.namespace.as_str()).filter(|name| !name.is_empty());
        self.caller.reads(own) && !container.is_sandbox()
    }

    fn containers<'a>(&self, page: &'a Page) -> impl Iterator<Item = &'a ContainerChanges> {
        let containers = page.changes.containers.iter();
        containers.filter(|changes| self.sees(&changes.container))
    }

    fn message(&self, node: &str, text: String) -> Message {
        let time = now();
        Message {
            timestamp: time.seconds(),
            updated_time: iso_date(time),
            cluster_name: self.cluster.clone(),
            host_name: node.to_owned(),
            r#type: "Message".into(),
            level: "WARN".into(),
            message: text,
            ..Message::default()
        }
    }
}

/// The time now; 1970 on a machine whose clock is before that.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ns = since_1970.map_or(0, |time| time.as_nanos());
    Timestamp(i64::try_from(ns).unwrap_or(i64::MAX))
}

fn missed(rows: u64) -> String {
    format!("{rows} changes are left out here: they were not read in time")
}

impl Event for Message {
    fn of_page(page: &Page, teller: &Teller) -> Vec<Self> {
        let losses = teller.containers(page).flat_map(|changes| {
            let container = &changes.container;
            let Who { namespace, pod } = Who::is(container);
            let name = &container.name;
            changes.losses.iter().map(move |loss| {
                let text = format!(
                    "{namespace}/{pod} ({name}): {} events were not counted so far ({})",
                    loss.count, loss.reason
                );
                teller.message(&container.node, text)
            })
        });
        let gaps = page.gaps.iter().map(|gap| {
            let (from, until) = (iso_date(gap.from), iso_date(gap.until));
            teller.message(&gap.node, format!("not watched from {from} to {until}"))
        });
        // What nobody watched concerns all namespaces.
        let all = teller.caller.reads(None);
        losses.chain(gaps.filter(|_| all)).collect()
    }

    fn missed(rows: u64, teller: &Teller) -> Self {
        teller.message("", missed(rows))
    }
}

impl Event for Log {
    fn of_page(page: &Page, teller: &Teller) -> Vec<Self> {
        let containers = teller.containers(page);
        let logs = containers.flat_map(|changes| {
            let observations = changes.observations.iter();
            observations.map(|observation| log(&changes.container, observation, &teller.cluster))
        });
        logs.collect()
    }

    fn missed(rows: u64, teller: &Teller) -> Self {
        let time = now();
        Self {
            timestamp: time.seconds(),
            updated_time: iso_date(time),
            cluster_name: teller.cluster.clone(),
            r#type: "SystemEvent".into(),
            data: format!("dropped={rows}"),
            result: missed(rows),
            event_data: HashMap::from([("dropped".into(), rows.to_string())]),
            ..Self::default()
        }
    }
}

impl Event for Alert {
    fn of_page(page: &Page, teller: &Teller) -> Vec<Self> {
        let containers = teller.containers(page);
        let alerts = containers.flat_map(|changes| {
            let observations = changes.observations.iter();
            observations
                .filter(|o| matches!(o.behaviour.status, Outcome::Deny | Outcome::Audit))
                .map(|observation| alert(&changes.container, observation, &teller.cluster))
        });
        alerts.collect()
    }

    fn missed(rows: u64, teller: &Teller) -> Self {
        let log = Log::missed(rows, teller);
        Self {
            timestamp: log.timestamp,
            updated_time: log.updated_time,
            cluster_name: log.cluster_name,
            r#type: log.r#type,
            data: log.data,
            message: log.result,
            event_data: log.event_data,
            ..Self::default()
        }
    }
}

fn log(container: &Container, observation: &Observation, cluster: &str) -> Log {
    let behaviour = &observation.behaviour;
    let said = say(behaviour, &observation.example);
    let last = observation.tally.last;
    let is_of_host = is_of_host(container);
    let who = Who::is(container);
    Log {
        timestamp: last.seconds(),
        updated_time: iso_date(last),
        cluster_name: cluster.to_owned(),
        host_name: container.node.clone(),
        namespace_name: unless(is_of_host, who.namespace),
        pod_name: unless(is_of_host, who.pod),
        container_id: unless(is_of_host, &container.id),
        container_name: unless(is_of_host, &container.name),
        r#type: if is_of_host {
            "HostLog"
        } else {
            "ContainerLog"
        }
        .into(),
        source: behaviour.source.to_string(),
        operation: said.operation.into(),
        resource: said.resource,
        data: said.data,
        result: result(behaviour.status).into(),
        container_image: container.image.clone(),
        parent_process_name: said.parent,
        process_name: said.process,
        labels: labels(&container.labels),
        owner: owner(container),
        event_data: event_data(observation),
        ..Log::default()
    }
}

fn unless(is: bool, text: &str) -> String {
    if is { String::new() } else { text.to_owned() }
}

fn owner(container: &Container) -> Option<Podowner> {
    let workload = &container.workload;
    let is_owned = !container.pod.is_empty() && !workload.name.is_empty();
    is_owned.then(|| Podowner {
        r#ref: workload.kind.clone(),
        name: workload.name.clone(),
        namespace: container.namespace.clone(),
    })
}

/// What an event that stands for many has to say beyond KubeArmor's fields. `count` is the
/// total so far: of several events of one row the last one counts.
fn event_data(observation: &Observation) -> HashMap<String, String> {
    let behaviour = &observation.behaviour;
    let data = [
        (COUNT, observation.tally.count.to_string()),
        ("first_seen", iso_date(observation.tally.first)),
        ("status", behaviour.status.to_string()),
        ("access", behaviour.access.to_string()),
    ];
    let said = data.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The key in an event's data that says how often something was done so far.
pub(crate) const COUNT: &str = "ethogram_count";

fn alert(container: &Container, observation: &Observation, cluster: &str) -> Alert {
    let log = log(container, observation, cluster);
    let is_denied = observation.behaviour.status == Outcome::Deny;
    let of_host = log.r#type == "HostLog";
    Alert {
        timestamp: log.timestamp,
        updated_time: log.updated_time,
        cluster_name: log.cluster_name,
        host_name: log.host_name,
        namespace_name: log.namespace_name,
        pod_name: log.pod_name,
        container_id: log.container_id,
        container_name: log.container_name,
        message: if is_denied {
            "refused, by whomever".into()
        } else {
            "allowed, against a policy".into()
        },
        r#type: if of_host {
            "MatchedHostPolicy".into()
        } else {
            "MatchedPolicy".into()
        },
        source: log.source,
        operation: log.operation,
        resource: log.resource,
        data: log.data,
        action: if is_denied { "Block" } else { "Audit" }.into(),
        result: log.result,
        container_image: log.container_image,
        parent_process_name: log.parent_process_name,
        process_name: log.process_name,
        labels: log.labels,
        owner: log.owner,
        event_data: log.event_data,
        ..Alert::default()
    }
}
