//! From the API server's JSON. Fields that are not named here are skipped without a copy.

use super::{Details, End, EndpointSlice, Kind, Node, Object, Owner, Pod, Service, Transport};
use ethogram_model::{Labels, Name, Timestamp, Workload};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

/// How many labels of an object are kept. Beyond it, [`LABELS_DROPPED`] says how many were not.
pub const LABELS_MAX: usize = 128;

/// The label that is added where an object has more than [`LABELS_MAX`]; its value is how
/// many were dropped.
pub const LABELS_DROPPED: &str = "ethogram.io/labels-dropped";

/// How many addresses or ports of one object are kept; an endpoint slice has at most a
/// thousand, everything else far fewer. An object with more is an error.
pub const ADDRESSES_MAX: usize = 4096;

/// An object that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is no JSON, or a field has an unexpected type.
    #[error("an object of {kind} is not as expected: {why}")]
    Json {
        /// What it should have been.
        kind: &'static str,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// It has more addresses than any real one.
    #[error("{kind} {name} has {found} addresses; at most {ADDRESSES_MAX} are taken")]
    Addresses {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
        /// How many there are.
        found: usize,
    },
}

/// Takes from an object's JSON what is kept of it.
///
/// # Errors
/// If it is not an object of this kind.
pub fn parse(kind: Kind, json: &str) -> Result<Object, ParseError> {
    let wrong = |why| ParseError::Json {
        kind: kind.plural(),
        why,
    };
    let (meta, details) = match kind {
        Kind::Pod => serde_json::from_str::<RawPod>(json).map(RawPod::keep),
        Kind::Service => serde_json::from_str::<RawService>(json).map(RawService::keep),
        Kind::EndpointSlice => serde_json::from_str::<RawSlice>(json).map(RawSlice::keep),
        Kind::Node => serde_json::from_str::<RawNode>(json).map(RawNode::keep),
        Kind::Namespace => {
            serde_json::from_str::<RawPlain>(json).map(|raw| (raw.metadata, Details::Namespace))
        }
        Kind::ReplicaSet => serde_json::from_str::<RawPlain>(json).map(|raw| {
            let owner = raw.metadata.controller();
            (raw.metadata, Details::ReplicaSet(owner))
        }),
        Kind::Job => serde_json::from_str::<RawPlain>(json).map(|raw| {
            let owner = raw.metadata.controller();
            (raw.metadata, Details::Job(owner))
        }),
    }
    .map_err(wrong)?;
    let found = addresses(&details);
    if found > ADDRESSES_MAX {
        return Err(ParseError::Addresses {
            kind: kind.plural(),
            name: printable(&meta.name),
            found,
        });
    }
    let created = time(meta.creation_timestamp.as_deref());
    let labels = meta.labels.iter().flatten();
    Ok(Object {
        uid: meta.uid.as_ref().into(),
        namespace: printable(&meta.namespace),
        name: printable(&meta.name),
        labels: match kind {
            Kind::EndpointSlice => shown_labels(labels.filter(|(key, _)| !is_of_slice(key))),
            _ => shown_labels(labels),
        },
        created,
        details,
    })
}

fn addresses(details: &Details) -> usize {
    match details {
        Details::Pod(pod) => pod.ips.len(),
        Details::Service(service) => {
            service.cluster_ips.len() + service.external_ips.len() + service.node_ports.len()
        }
        Details::EndpointSlice(slice) => slice.ips.len(),
        Details::Node(node) => node.ips.len(),
        Details::Namespace | Details::ReplicaSet(_) | Details::Job(_) => 0,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    creation_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    deletion_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(default)]
    annotations: Option<Annotations>,
    #[serde(borrow, default)]
    owner_references: Option<Vec<RawOwner<'a>>>,
}

#[derive(Deserialize)]
struct Annotations {
    /// On the API server's image of a static pod: the uid that its kubelet gave it.
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
}

#[derive(Deserialize)]
struct RawOwner<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(default)]
    controller: Option<bool>,
}

impl RawMeta<'_> {
    fn controller(&self) -> Option<Owner> {
        let is_controller = |owner: &&RawOwner| owner.controller == Some(true);
        let raw = self.owner_references.iter().flatten().find(is_controller)?;
        Some(Owner {
            uid: raw.uid.as_ref().into(),
            workload: Workload {
                kind: printable(&raw.kind.to_ascii_lowercase()),
                name: printable(&raw.name),
            },
        })
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(AsRef::as_ref)
    }

    /// The Deployment of a ReplicaSet that is called `DEPLOYMENT-HASH`.
    fn guessed_deployment(&self, owner: Option<&Owner>) -> Option<String> {
        let replica_set = &owner.filter(|o| o.workload.kind == "replicaset")?.workload;
        let hash = self.label("pod-template-hash")?;
        let name = replica_set.name.strip_suffix(hash)?.strip_suffix('-')?;
        (!hash.is_empty() && !name.is_empty()).then(|| name.to_owned())
    }
}

/// Objects of which the metadata is enough.
#[derive(Deserialize)]
struct RawPlain<'a> {
    #[serde(borrow)]
    metadata: RawMeta<'a>,
}

#[derive(Deserialize)]
struct RawPod<'a> {
    #[serde(borrow)]
    metadata: RawMeta<'a>,
    #[serde(default)]
    spec: RawPodSpec,
    #[serde(default)]
    status: RawPodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawPodSpec {
    host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawPodStatus {
    phase: Option<String>,
    start_time: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<RawIp>>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<RawIp>>,
    container_statuses: Option<Vec<RawContainerStatus>>,
}

#[derive(Deserialize)]
struct RawIp {
    #[serde(default)]
    ip: Option<String>,
}

#[derive(Deserialize)]
struct RawContainerStatus {
    #[serde(default)]
    state: Option<RawContainerState>,
}

#[derive(Deserialize)]
struct RawContainerState {
    #[serde(default)]
    terminated: Option<RawTerminated>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTerminated {
    #[serde(default)]
    finished_at: Option<String>,
}

impl<'a> RawPod<'a> {
    fn keep(self) -> (RawMeta<'a>, Details) {
        let owner = self.metadata.controller();
        let mirror = self.metadata.annotations.as_ref();
        let pod = Pod {
            node_uid: mirror.and_then(|a| a.mirror.as_deref()).map(Into::into),
            ips: self.ips(),
            started: time(self.status.start_time.as_deref()),
            end: self.end(),
            deadline: time(self.metadata.deletion_timestamp.as_deref()),
            guessed_deployment: self.metadata.guessed_deployment(owner.as_ref()),
            owner,
        };
        (self.metadata, Details::Pod(pod))
    }

    fn ips(&self) -> Vec<IpAddr> {
        if self.spec.host_network == Some(true) {
            return Vec::new();
        }
        let all = |one: &Option<String>, more: &Option<Vec<RawIp>>| {
            let more = more.iter().flatten().filter_map(|raw| raw.ip.as_deref());
            addresses_of(one.as_deref().into_iter().chain(more))
        };
        let host = all(&self.status.host_ip, &self.status.host_ips);
        let mut own = all(&self.status.pod_ip, &self.status.pod_ips);
        own.retain(|ip| !host.contains(ip));
        own
    }

    fn end(&self) -> End {
        if !matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return End::Running;
        }
        let terminated = |raw: &RawContainerStatus| {
            let state = raw.state.as_ref()?.terminated.as_ref()?;
            time(state.finished_at.as_deref())
        };
        let containers = self.status.container_statuses.iter().flatten();
        containers
            .filter_map(terminated)
            .max()
            .map_or(End::Ended, End::At)
    }
}

#[derive(Deserialize)]
struct RawService<'a> {
    #[serde(borrow)]
    metadata: RawMeta<'a>,
    #[serde(default)]
    spec: RawServiceSpec,
    #[serde(default)]
    status: RawServiceStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<RawServicePort>>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawServicePort {
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    node_port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawServiceStatus {
    load_balancer: Option<RawLoadBalancer>,
}

#[derive(Deserialize)]
struct RawLoadBalancer {
    #[serde(default)]
    ingress: Option<Vec<RawIp>>,
}

impl<'a> RawService<'a> {
    fn keep(self) -> (RawMeta<'a>, Details) {
        let spec = &self.spec;
        // An external name is a word for DNS; addresses that are left over lead nowhere.
        if spec.kind.as_deref() == Some("ExternalName") {
            return (self.metadata, Details::Service(Service::default()));
        }
        let balancers = self.status.load_balancer.iter();
        let balancers = balancers.filter_map(|b| b.ingress.as_ref()).flatten();
        let external = spec.external_ips.iter().flatten().map(String::as_str);
        let cluster = spec.cluster_ips.iter().flatten().map(String::as_str);
        let service = Service {
            // `None` and the empty text are no addresses and fall away.
            cluster_ips: addresses_of(spec.cluster_ip.as_deref().into_iter().chain(cluster)),
            external_ips: addresses_of(
                external.chain(balancers.filter_map(|raw| raw.ip.as_deref())),
            ),
            node_ports: spec.ports.iter().flatten().filter_map(node_port).collect(),
        };
        (self.metadata, Details::Service(service))
    }
}

fn node_port(port: &RawServicePort) -> Option<(Transport, u16)> {
    let number = port.node_port.filter(|number| *number != 0)?;
    match port.protocol.as_deref() {
        None | Some("TCP") => Some((Transport::Tcp, number)),
        Some("UDP") => Some((Transport::Udp, number)),
        Some("SCTP") => Some((Transport::Sctp, number)),
        Some(_) => None,
    }
}

#[derive(Deserialize)]
struct RawSlice<'a> {
    #[serde(borrow)]
    metadata: RawMeta<'a>,
    #[serde(default)]
    endpoints: Option<Vec<RawEndpoint>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    #[serde(default)]
    addresses: Option<Vec<String>>,
    #[serde(default)]
    target_ref: Option<RawTarget>,
}

#[derive(Deserialize)]
struct RawTarget {
    #[serde(default)]
    kind: Option<String>,
}

impl<'a> RawSlice<'a> {
    fn keep(self) -> (RawMeta<'a>, Details) {
        let is_pod = |endpoint: &&RawEndpoint| {
            let target = endpoint.target_ref.as_ref();
            target.and_then(|t| t.kind.as_deref()) == Some("Pod")
        };
        let others = self.endpoints.iter().flatten().filter(|e| !is_pod(e));
        let texts = others.filter_map(|e| e.addresses.as_ref()).flatten();
        let slice = EndpointSlice {
            service: printable(self.metadata.label(SERVICE_OF_SLICE).unwrap_or_default()),
            ips: addresses_of(texts.map(String::as_str)),
        };
        (self.metadata, Details::EndpointSlice(slice))
    }
}

#[derive(Deserialize)]
struct RawNode<'a> {
    #[serde(borrow)]
    metadata: RawMeta<'a>,
    #[serde(default)]
    status: RawNodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawNodeStatus {
    addresses: Option<Vec<RawNodeAddress>>,
}

#[derive(Deserialize)]
struct RawNodeAddress {
    #[serde(default)]
    address: Option<String>,
}

impl<'a> RawNode<'a> {
    fn keep(self) -> (RawMeta<'a>, Details) {
        let all = self.status.addresses.iter().flatten();
        // Host names are among them and are no addresses.
        let ips = addresses_of(all.filter_map(|raw| raw.address.as_deref()));
        (self.metadata, Details::Node(Node { ips }))
    }
}

/// The addresses among texts, in the form in which connections show them, each once.
fn addresses_of<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for text in texts {
        let ip = text.parse::<IpAddr>().map(|ip| ip.to_canonical());
        if let Ok(ip) = ip
            && is_own(ip)
            && !ips.contains(&ip)
        {
            ips.push(ip);
        }
    }
    ips
}

/// Whether an address can name one holder: not those that every machine has.
fn is_own(ip: IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !link_local
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    let time: jiff::Timestamp = text?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp)
}

/// Names of objects are plain by the API server's rules; this holds whatever it says.
fn printable(text: &str) -> String {
    Name::from(text).as_str().to_owned()
}

fn shown_labels<'a, 'b: 'a>(
    all: impl Iterator<Item = (&'a Cow<'b, str>, &'a Cow<'b, str>)>,
) -> Labels {
    let mut labels: Labels = all
        .filter(|(key, _)| !is_noise(key))
        .map(|(key, value)| (printable(key), printable(value)))
        .collect();
    let dropped = labels.len().saturating_sub(LABELS_MAX);
    if dropped > 0 {
        let first_dropped = labels.keys().nth(LABELS_MAX).cloned();
        labels.split_off(&first_dropped.expect("there are more than LABELS_MAX"));
        labels.insert(LABELS_DROPPED.to_owned(), dropped.to_string());
    }
    labels
}

/// Labels that controllers put on pods for themselves: different for every pod or every
/// revision, so that nobody can select by them.
fn is_noise(key: &str) -> bool {
    matches!(
        key,
        "pod-template-hash"
            | "rollouts-pod-template-hash"
            | "pod-template-generation"
            | "controller-revision-hash"
            | "statefulset.kubernetes.io/pod-name"
            | "apps.kubernetes.io/pod-index"
            | "controller-uid"
            | "batch.kubernetes.io/controller-uid"
            | "job-name"
            | "batch.kubernetes.io/job-name"
            | "batch.kubernetes.io/job-completion-index"
    )
}

/// The label that says whose an endpoint slice is.
const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// Labels that a slice has of its own, besides those of its service.
fn is_of_slice(key: &str) -> bool {
    key == SERVICE_OF_SLICE || key.starts_with("endpointslice.kubernetes.io/")
}

#[cfg(test)]
mod tests;
