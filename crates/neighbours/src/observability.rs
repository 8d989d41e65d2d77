//! What discovery-engine answered to `karmor summary`.

use crate::{
    discovery::{
        DeployNameResponse, PodNameResponse, Request as Asked, Response as Answer,
        SysNwSummaryData, SysProcFileSummaryData, observability_server::Observability,
    },
    server::Served,
    who::{self, Who},
    words::{labels, parse_labels, unix_date},
};
use ethogram_cluster::access::Caller;
use ethogram_model::{
    Access, Container, Facts, Fold, Kind, Row, Selection, Status as Outcome, SummaryOptions, Tally,
    Timestamp, summarize,
};
use ethogram_store::{Store, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tonic::{Request, Response, Status};

/// The tables one can ask for, by karmor's words.
const TABLES: &[(&str, &[Kind])] = &[
    ("process", &[Kind::Process]),
    ("file", &[Kind::File]),
    ("network", &[Kind::Ingress, Kind::Egress, Kind::Bind]),
    ("ingress", &[Kind::Ingress]),
    ("egress", &[Kind::Egress]),
    ("bind", &[Kind::Bind]),
];

/// Whether rows of a kind have a place in discovery-engine's protocols.
pub(crate) fn is_told(kind: Kind) -> bool {
    TABLES.iter().any(|(_, kinds)| kinds.contains(&kind))
}

/// The service.
pub(crate) struct Answers(pub(crate) Arc<Served>);

#[tonic::async_trait]
impl Observability for Answers {
    async fn summary(&self, request: Request<Asked>) -> Result<Response<Answer>, Status> {
        self.answer(request, "Summary", |wanted, store, cluster| {
            summary(wanted, store, cluster)
        })
        .await
    }

    async fn summary_per_deploy(
        &self,
        request: Request<Asked>,
    ) -> Result<Response<Answer>, Status> {
        self.answer(request, "SummaryPerDeploy", |wanted, store, cluster| {
            let mut answer = summary(wanted, store, cluster)?;
            answer.deployment_name.clone_from(&wanted.deployment);
            answer.pod_name.clone_from(&wanted.pod);
            Ok(answer)
        })
        .await
    }

    async fn get_pod_names(
        &self,
        request: Request<Asked>,
    ) -> Result<Response<PodNameResponse>, Status> {
        self.answer(request, "GetPodNames", |wanted, store, _| {
            let names = names(wanted, store, |container| Who::is(container).pod)?;
            Ok(PodNameResponse { pod_name: names })
        })
        .await
    }

    async fn get_deploy_names(
        &self,
        request: Request<Asked>,
    ) -> Result<Response<DeployNameResponse>, Status> {
        self.answer(request, "GetDeployNames", |wanted, store, _| {
            let names = names(wanted, store, |container| &container.workload.name)?;
            Ok(DeployNameResponse { deploy_name: names })
        })
        .await
    }
}

impl Answers {
    /// Computes an answer for somebody who may ask, when it is its turn.
    async fn answer<T: Send + 'static>(
        &self,
        request: Request<Asked>,
        what: &str,
        compute: impl FnOnce(&Wanted, &dyn Store, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let namespace = request.get_ref().name_space.clone();
        let caller = self.0.guard.admit(&request, what, &namespace)?;
        let wanted = Wanted::new(request.into_inner(), caller, &self.0.cluster)?;
        let served = Arc::clone(&self.0);
        let computed = self
            .0
            .in_turn(move || compute(&wanted, served.store.as_ref(), &served.cluster));
        computed.await.map(Response::new)
    }
}

/// What is asked for.
pub(crate) struct Wanted {
    caller: Caller,
    namespace: String,
    pod: String,
    deployment: String,
    pub(crate) selection: Selection,
    fold: Fold,
    /// Whether it is asked of another cluster.
    is_elsewhere: bool,
}

impl Wanted {
    pub(crate) fn new(asked: Asked, caller: Caller, cluster: &str) -> Result<Self, Status> {
        let labels = parse_labels(&asked.label).map_err(Status::invalid_argument)?;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let selection = Selection {
            namespace: some(&asked.name_space).filter(|name| !who::stands_for_none(name)),
            labels,
            container: some(&asked.container_name),
            kinds: kinds(&asked.r#type)?,
            ..Selection::default()
        };
        Ok(Self {
            caller,
            is_elsewhere: !asked.cluster_name.is_empty() && asked.cluster_name != cluster,
            namespace: asked.name_space,
            pod: asked.pod_name,
            deployment: asked.deploy_name,
            selection,
            fold: if asked.aggregate {
                Fold::KUBEARMOR
            } else {
                Fold::None
            },
        })
    }

    /// All that is kept of the containers in question.
    fn whole(&self) -> Selection {
        Selection {
            kinds: Vec::new(),
            statuses: Outcome::ALL.to_vec(),
            ..self.selection.clone()
        }
    }

    pub(crate) fn wants(&self, container: &Container) -> bool {
        let Who { namespace, pod } = Who::is(container);
        let own = Some(container.namespace.as_str()).filter(|name| !name.is_empty());
        let is = |wanted: &str, value| wanted.is_empty() || wanted == value;
        !self.is_elsewhere
            && self.selection.selects(container)
            && self.caller.reads(own)
            && !container.is_sandbox()
            && is(&self.namespace, namespace)
            && is(&self.pod, pod)
            && is(&self.deployment, &container.workload.name)
    }

    /// The containers in question.
    pub(crate) fn containers(&self, store: &dyn Store) -> Result<Vec<Container>, StoreError> {
        let kept = store.containers(&self.selection)?.into_iter();
        let containers = kept.map(|kept| kept.container);
        Ok(containers.filter(|c| self.wants(c)).collect())
    }
}

fn kinds(words: &str) -> Result<Vec<Kind>, Status> {
    let mut kinds = Vec::new();
    for word in words.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let table = TABLES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word));
        let (_, found) = table.ok_or_else(|| {
            Status::invalid_argument(format!("unknown type {word:?}: use process, file, network"))
        })?;
        kinds.extend_from_slice(found);
    }
    Ok(kinds)
}

fn names(
    wanted: &Wanted,
    store: &dyn Store,
    name: impl Fn(&Container) -> &str,
) -> Result<Vec<String>, StoreError> {
    let containers = wanted.containers(store)?;
    let names: BTreeSet<&str> = containers.iter().map(name).collect();
    let names = names.into_iter().filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

fn summary(wanted: &Wanted, store: &dyn Store, cluster: &str) -> Result<Answer, StoreError> {
    let containers = wanted.containers(store)?;
    let facts = Facts {
        containers: &containers,
        observations: &store.all_observations(&wanted.whole())?,
        endpoints: &store.endpoints(None)?,
        ..Facts::default()
    };
    let options = SummaryOptions {
        selection: wanted.selection.clone(),
        fold: wanted.fold,
        ..SummaryOptions::default()
    };
    // Nothing of the answer depends on the present.
    let summary = summarize(&facts, &options, Timestamp::default());
    let mut tables = Tables::default();
    for row in summary.subjects.iter().flat_map(|subject| &subject.rows) {
        tables.add(row);
    }
    let mut answer = tables.answer();
    if let Some(newest) = containers.last() {
        let Who { namespace, pod } = Who::is(newest);
        let names: BTreeSet<&str> = containers.iter().map(|c| c.name.as_str()).collect();
        pod.clone_into(&mut answer.pod_name);
        namespace.clone_into(&mut answer.namespace);
        cluster.clone_into(&mut answer.cluster_name);
        answer.label = labels(&newest.labels);
        answer.container_name = names.into_iter().collect::<Vec<_>>().join(",");
        answer.deployment_name.clone_from(&newest.workload.name);
    }
    Ok(answer)
}

/// What tells two rows of a table apart, as far as the protocol can say it.
type Key = [String; 6];

/// Rows as they are shown, several containers of a pod put together.
#[derive(Default)]
struct Tables {
    tables: BTreeMap<Kind, BTreeMap<Key, Tally>>,
    /// Binds that were only seen to listen.
    listens: BTreeMap<Key, Tally>,
}

impl Tables {
    fn add(&mut self, row: &Row) {
        let behaviour = &row.behaviour;
        let is_listen = behaviour.kind == Kind::Bind && behaviour.access == Access::LISTEN;
        let table = if is_listen {
            &mut self.listens
        } else {
            self.tables.entry(behaviour.kind).or_default()
        };
        let tally = table.entry(key(row));
        tally
            .and_modify(|tally| *tally = tally.plus(row.tally))
            .or_insert(row.tally);
    }

    fn answer(mut self) -> Answer {
        // A socket that is bound and then listens is one bind point.
        let binds = self.tables.entry(Kind::Bind).or_default();
        for (key, tally) in self.listens {
            binds.entry(key).or_insert(tally);
        }
        let mut table = |kind| self.tables.remove(&kind).unwrap_or_default().into_iter();
        Answer {
            process_data: table(Kind::Process).map(file_row).collect(),
            file_data: table(Kind::File).map(file_row).collect(),
            ingress_connection: table(Kind::Ingress).map(connection_row).collect(),
            egress_connection: table(Kind::Egress).map(connection_row).collect(),
            bind_connection: table(Kind::Bind).map(bind_row).collect(),
            ..Answer::default()
        }
    }
}

fn key(row: &Row) -> Key {
    let behaviour = &row.behaviour;
    let source = behaviour.source.to_string();
    let target = behaviour.target.to_string();
    let status = behaviour.status.as_str();
    let protocol = protocol(row);
    let port = match behaviour.port {
        0 => String::new(),
        port => port.to_string(),
    };
    let none = String::new;
    match (behaviour.kind, &row.peer) {
        (Kind::Ingress | Kind::Egress, Some(peer)) => [
            protocol,
            source,
            peer.name.clone(),
            port,
            labels(&peer.labels),
            peer.namespace.clone(),
        ],
        (Kind::Ingress | Kind::Egress, None) => [protocol, source, target, port, none(), none()],
        (Kind::Bind, _) => [protocol, source, port, target, none(), none()],
        _ => [source, target, status.into(), none(), none(), none()],
    }
}

/// Rows of connections have no place for an outcome, so what is out of the ordinary is
/// said with the protocol: `TCP (Deny)`.
fn protocol(row: &Row) -> String {
    let protocol = row.behaviour.protocol;
    match row.behaviour.status {
        Outcome::Allow => protocol.to_string(),
        status => format!("{protocol} ({status})"),
    }
}

fn file_row(([source, destination, status, ..], tally): (Key, Tally)) -> SysProcFileSummaryData {
    SysProcFileSummaryData {
        source,
        destination,
        count: tally.count.to_string(),
        updated_time: unix_date(tally.last),
        status,
    }
}

fn connection_row(
    ([protocol, command, ip, port, labels, namespace], tally): (Key, Tally),
) -> SysNwSummaryData {
    SysNwSummaryData {
        protocol,
        command,
        ip,
        port,
        labels,
        namespace,
        count: tally.count.to_string(),
        updated_time: unix_date(tally.last),
        ..SysNwSummaryData::default()
    }
}

fn bind_row(
    ([protocol, command, bind_port, bind_address, ..], tally): (Key, Tally),
) -> SysNwSummaryData {
    SysNwSummaryData {
        protocol,
        command,
        bind_port,
        bind_address,
        count: tally.count.to_string(),
        updated_time: unix_date(tally.last),
        ..SysNwSummaryData::default()
    }
}
