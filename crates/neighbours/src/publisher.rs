//! What discovery-engine published: how often what was done since it was told last.
//!
//! A store knows totals, and a reader of this protocol adds up what it is told. So every
//! stream remembers what it told of each row, and tells the difference. It begins with the
//! totals that are there when it is opened. Where it was too slow for a page, it looks
//! through the whole store once: whatever was in the page is in a total.

use crate::{
    discovery::Request as Asked,
    feed::{Feed, Heard, Listener, Page},
    observability::{Wanted, is_told},
    publishing::{SummaryRequest, SummaryResponse, Workload, publisher_server::Publisher},
    server::{Served, stopped},
    who::Who,
    words::labels,
};
use ethogram_model::{
    Access, Behaviour, Container, ContainerKey, Endpoint, Kind, Observation, Peers, Protocol,
};
use ethogram_store::{Store, StoreError};
use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    net::IpAddr,
    ops::ControlFlow,
    sync::Arc,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Streams at a time.
const STREAMS_MAX: usize = 16;
/// Rows that a stream remembers, at some 30 bytes each.
const ROWS_MAX: usize = 1_000_000;
/// Summaries of a stream that are on their way to its reader.
const SUMMARIES_MAX: usize = 64;
/// The most that one summary can say.
const COUNT_MAX: u64 = i32::MAX as u64;

/// The service.
pub(crate) struct Publishing {
    served: Arc<Served>,
    feed: Arc<Feed>,
    room: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

type Summaries = mpsc::Sender<Result<SummaryResponse, Status>>;

#[tonic::async_trait]
impl Publisher for Publishing {
    type GetSummaryStream = ReceiverStream<Result<SummaryResponse, Status>>;

    async fn get_summary(
        &self,
        request: Request<SummaryRequest>,
    ) -> Result<Response<Self::GetSummaryStream>, Status> {
        let namespace = &request.get_ref().namespace;
        let guard = &self.served.guard;
        let caller = guard.admit(&request, "GetSummary", namespace)?;
        let cluster = self.served.cluster.clone();
        let wanted = Wanted::new(asked(request.into_inner()), caller, &cluster)?;
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{STREAMS_MAX} streams are open already"))
        })?;
        let mut teller = Teller {
            store: Arc::clone(&self.served.store),
            wanted,
            cluster,
            told: Told::default(),
        };
        let feed = Arc::clone(&self.feed);
        // Listening begins first, so that nothing happens in between.
        let begun = self.served.in_turn(move || {
            let listener = feed.listen()?;
            match teller.each_of_store(&mut |_, _| ()) {
                Ok(()) => Ok(Ok((listener, teller))),
                Err(failure) => failure.of_reader(),
            }
        });
        let (listener, teller) = begun.await??;
        let (summaries, stream) = mpsc::channel(SUMMARIES_MAX);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = teller.tell_all(listener, &summaries) => {}
                () = stopped(stop) => {}
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Publishing {
    /// Streams that end when `stop` turns true.
    pub(crate) fn new(served: Arc<Served>, feed: Arc<Feed>, stop: watch::Receiver<bool>) -> Self {
        let room = Arc::new(Semaphore::new(STREAMS_MAX));
        Self {
            served,
            feed,
            room,
            stop,
        }
    }
}

/// The question in the words of the other service, which has the same filters.
fn asked(request: SummaryRequest) -> Asked {
    Asked {
        cluster_name: request.cluster_name,
        name_space: request.namespace,
        label: request.labels,
        pod_name: request.pod_name,
        deploy_name: request.deployment_name,
        r#type: request.operation,
        ..Asked::default()
    }
}

/// Why a stream ends.
enum Failure {
    /// It would have to remember too many rows.
    TooMuch,
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    /// What is the reader's own doing, apart from what is not.
    fn of_reader<T>(self) -> Result<Result<T, Status>, StoreError> {
        match self {
            Self::TooMuch => Ok(Err(self.status())),
            Self::Store(error) => Err(error),
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::TooMuch => Status::resource_exhausted(format!(
                "more than {ROWS_MAX} rows: ask for one namespace, pod or operation"
            )),
            Self::Store(error) => Status::unavailable(error.to_string()),
        }
    }
}

/// The totals that were told of rows. Rows are known by two hashes with keys of their own,
/// which no workload can make collide.
#[derive(Default)]
struct Told {
    totals: HashMap<u128, u64>,
    hashes: [RandomState; 2],
}

impl Told {
    /// What was not told yet of a row's total. Totals that are lower than what was told are
    /// old ones.
    fn difference(
        &mut self,
        container: &ContainerKey,
        behaviour: &Behaviour,
        total: u64,
    ) -> Result<u64, Failure> {
        let [high, low] = &self.hashes;
        let hash = |state: &RandomState| u128::from(state.hash_one((container, behaviour)));
        let row = hash(high) << 64 | hash(low);
        if self.totals.len() >= ROWS_MAX && !self.totals.contains_key(&row) {
            return Err(Failure::TooMuch);
        }
        let told = self.totals.entry(row).or_default();
        let difference = total.saturating_sub(*told);
        *told += difference;
        Ok(difference)
    }
}

/// Tells one reader.
struct Teller {
    store: Arc<dyn Store>,
    wanted: Wanted,
    cluster: String,
    told: Told,
}

impl Teller {
    /// Tells until the reader is gone, the feed ends or something fails.
    async fn tell_all(mut self, mut listener: Listener, summaries: &Summaries) {
        loop {
            let heard = tokio::select! {
                heard = listener.next() => heard,
                () = summaries.closed() => return,
            };
            let Some(heard) = heard else {
                return;
            };
            let computed = spawn_blocking(move || {
                let computed = match heard {
                    Heard::Page(page) => self.of_page(&page),
                    Heard::Missed(_) => self.of_store(),
                };
                (self, computed)
            });
            // The runtime ends.
            let Ok((teller, computed)) = computed.await else {
                return;
            };
            self = teller;
            let to_tell = match computed {
                Ok(to_tell) => to_tell,
                Err(failure) => {
                    // An error means that the reader is gone.
                    let _ = summaries.send(Err(failure.status())).await;
                    return;
                }
            };
            for summary in to_tell {
                if summaries.send(Ok(summary)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What a page changes.
    fn of_page(&mut self, page: &Page) -> Result<Vec<SummaryResponse>, Failure> {
        let mut news = Vec::new();
        for changes in &page.changes.containers {
            let container = &changes.container;
            if self.wanted.wants(container) {
                for observation in &changes.observations {
                    if let Some(new) = self.news(container, observation.clone())? {
                        news.push((container.clone(), new));
                    }
                }
            }
        }
        Ok(self.summaries(&news)?)
    }

    /// What the whole store says that was not told.
    fn of_store(&mut self) -> Result<Vec<SummaryResponse>, Failure> {
        let mut news = Vec::new();
        self.each_of_store(&mut |container, new| news.push((container.clone(), new)))?;
        Ok(self.summaries(&news)?)
    }

    fn each_of_store(
        &mut self,
        tell: &mut dyn FnMut(&Container, Observation),
    ) -> Result<(), Failure> {
        let store = Arc::clone(&self.store);
        let containers = self.wanted.containers(store.as_ref())?;
        let containers: HashMap<_, _> = containers.iter().map(|one| (&one.key, one)).collect();
        let selection = self.wanted.selection.clone();
        let mut failure = None;
        store.observations(&selection, &mut |observation| {
            let Some(container) = containers.get(&observation.container) else {
                return ControlFlow::Continue(());
            };
            match self.news(container, observation) {
                Ok(Some(new)) => tell(container, new),
                Ok(None) => {}
                Err(why) => {
                    failure = Some(why);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// A row with what was not told of it, if there is something that the reader wants.
    fn news(
        &mut self,
        container: &Container,
        mut observation: Observation,
    ) -> Result<Option<Observation>, Failure> {
        let behaviour = &observation.behaviour;
        // What only listens was bound before, and is told as that.
        let is_wanted = is_told(behaviour.kind)
            && behaviour.access != Access::LISTEN
            && self.wanted.selection.selects_observation(&observation);
        if !is_wanted {
            return Ok(None);
        }
        let total = observation.tally.count;
        observation.tally.count = self.told.difference(&container.key, behaviour, total)?;
        Ok((observation.tally.count > 0).then_some(observation))
    }

    fn summaries(
        &self,
        news: &[(Container, Observation)],
    ) -> Result<Vec<SummaryResponse>, StoreError> {
        let targets = news.iter().map(|(_, one)| one.behaviour.target.as_str());
        let ips: Vec<IpAddr> = targets.filter_map(|target| target.parse().ok()).collect();
        let endpoints = match ips.is_empty() {
            true => Vec::new(),
            false => self.store.endpoints(Some(&ips))?,
        };
        let peers = Peers::new(&endpoints);
        let mut summaries = Vec::new();
        for (container, observation) in news {
            let peer = peers.of(observation);
            let summary = summary(container, observation, peer, &self.cluster);
            let mut rest = observation.tally.count;
            while rest > 0 {
                let count = rest.min(COUNT_MAX);
                summaries.push(SummaryResponse {
                    count: i32::try_from(count).unwrap_or(i32::MAX),
                    ..summary.clone()
                });
                rest -= count;
            }
        }
        Ok(summaries)
    }
}

fn summary(
    container: &Container,
    observation: &Observation,
    peer: Option<&Endpoint>,
    cluster: &str,
) -> SummaryResponse {
    let behaviour = &observation.behaviour;
    let Who { namespace, pod } = Who::is(container);
    let workload = &container.workload;
    let whole = SummaryResponse {
        cluster_name: cluster.to_owned(),
        namespace_name: namespace.to_owned(),
        container_name: container.name.clone(),
        container_image: container.image.clone(),
        container_id: container.id.clone(),
        pod_name: pod.to_owned(),
        labels: labels(&container.labels),
        deployment_name: workload.name.clone(),
        source: behaviour.source.to_string(),
        action: behaviour.status.to_string(),
        updated_time: observation.tally.last.seconds(),
        workload: (!workload.name.is_empty()).then(|| Workload {
            r#type: workload.kind.clone(),
            name: workload.name.clone(),
        }),
        ..SummaryResponse::default()
    };
    let target = behaviour.target.to_string();
    let is_path = behaviour.protocol == Protocol::Unix;
    match behaviour.kind {
        Kind::Process => SummaryResponse {
            operation: "Process".into(),
            destination: target,
            ..whole
        },
        Kind::Ingress | Kind::Egress => SummaryResponse {
            operation: "Network".into(),
            nw_type: behaviour.kind.to_string(),
            ip: peer.map_or(target, |peer| peer.name.clone()),
            port: behaviour.port.into(),
            protocol: behaviour.protocol.to_string(),
            dest_namespace: peer.map_or_else(String::new, |peer| peer.namespace.clone()),
            dest_labels: peer.map_or_else(String::new, |peer| labels(&peer.labels)),
            ..whole
        },
        Kind::Bind => SummaryResponse {
            operation: "Network".into(),
            nw_type: behaviour.kind.to_string(),
            protocol: behaviour.protocol.to_string(),
            ip: if is_path {
                target.clone()
            } else {
                String::new()
            },
            bind_address: target,
            bind_port: match behaviour.port {
                0 => String::new(),
                port => port.to_string(),
            },
            ..whole
        },
        _ => SummaryResponse {
            operation: "File".into(),
            destination: target,
            ..whole
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::BootId;

    #[test]
    fn differences_add_up_to_the_highest_total_whatever_the_order() {
        let container = |cgroup| ContainerKey {
            boot: BootId::new("b"),
            cgroup,
            incarnation: 0,
        };
        let row = Behaviour::new(Kind::File, "/a".into(), "/b".into());
        let mut told = Told::default();
        let mut sum = 0;
        for total in [5, 5, 3, 9, 7, 12] {
            let told = told.difference(&container(1), &row, total);
            sum += told.ok().expect("there is room");
        }
        assert_eq!(sum, 12);
        let other = told.difference(&container(2), &row, 4);
        assert_eq!(other.ok(), Some(4));
    }
}
