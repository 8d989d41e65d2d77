//! The tables of names: pure, time is a parameter.

mod claims;
mod coverage;
mod pods;
mod pool;

pub use claims::{FREED_KEPT_MAX, FREED_KEPT_S};
pub use coverage::{Coverage, SILENCES_KEPT_MAX, Silence, State};
pub use pods::{DEAD_PODS_KEPT_MAX, DEAD_PODS_KEPT_S, PodFacts};

use crate::objects::{Details, End, Kind, Object, Pod, Service, Transport, Uid};
use claims::{Claims, Interval, Right, Wanted, Who};
use coverage::Coverages;
use ethogram_model::{Container, Endpoint, Labels, Timestamp};
use pods::Pods;
use pool::Pool;
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// What was heard of the API server.
#[derive(Clone, Debug)]
pub enum Event {
    /// All objects of a kind are about to be told.
    Listing(Kind),
    /// An object is new or was changed, or is told again.
    Set(Box<Object>),
    /// An object is no more; when it ended, if its last state tells, else about now.
    Removed(Kind, Uid, Option<Timestamp>),
    /// All objects of a kind have been told. Those that are not among them are no more.
    Listed(Kind, HashSet<Uid>),
    /// The API server has nothing new of a kind.
    Heard(Kind),
    /// The API server does not answer on a kind, or refuses; why, and what to do about it.
    Away(Kind, String),
    /// An object could not be understood and was skipped; why.
    Malformed(Kind, String),
}

/// What is new since the last call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// Names of addresses that began, ended, or whose holder's labels changed.
    pub endpoints: Vec<Endpoint>,
    /// Services behind ports of every node that began, ended, or whose labels changed.
    pub node_ports: Vec<NodePort>,
    /// Pods, by the uid that their node knows, whose workload or labels are new.
    pub pods: Vec<Uid>,
}

/// A port of every node that leads to a service, from when to when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePort {
    /// Its protocol.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// `svc/NAME`.
    pub name: String,
    /// The service's namespace.
    pub namespace: String,
    /// The service's labels.
    pub labels: Labels,
    /// From when.
    pub from: Timestamp,
    /// Until when; `None` while it still holds.
    pub until: Option<Timestamp>,
}

/// How often each bound was hit since the start. All zero: nothing is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Ends of names forgotten before [`FREED_KEPT_S`]: the next name of the address may
    /// reach back behind the end.
    pub freed_forgotten_early: u64,
    /// Ended pods forgotten before [`DEAD_PODS_KEPT_S`]: late reports of theirs keep the
    /// workload and labels that their node knew.
    pub dead_pods_forgotten_early: u64,
    /// Silences no longer listed.
    pub silences_forgotten: u64,
}

/// The tables.
#[derive(Debug)]
pub struct Names {
    addresses: Claims<IpAddr>,
    ports: Claims<(Transport, u16)>,
    pods: Pods,
    /// What there is of each kind but pods.
    known: HashMap<Kind, HashSet<Uid>>,
    /// The labels of each namespace, with the uid that it has now.
    namespaces: HashMap<Arc<str>, (Uid, Arc<Labels>)>,
    coverage: Coverages,
    labels: Pool<Labels>,
    texts: Pool<str>,
    /// Names that an earlier watch left open.
    left_open: Vec<Endpoint>,
}

impl Names {
    /// Empty tables of these kinds. `left_open` are the endpoints without an end that an
    /// earlier watch told, as a store kept them: those that no longer hold are ended once
    /// everything was listed. Names that only agents give (`container/NAME`) are let alone.
    #[must_use]
    pub fn new(kinds: &[Kind], left_open: Vec<Endpoint>) -> Self {
        let ours = |e: &Endpoint| {
            let prefix = e.name.split_once('/').map(|(prefix, _)| prefix);
            e.until.is_none() && matches!(prefix, Some("pod" | "svc" | "node"))
        };
        Self {
            addresses: Claims::new(),
            ports: Claims::new(),
            pods: Pods::new(),
            known: HashMap::new(),
            namespaces: HashMap::new(),
            coverage: Coverages::new(kinds),
            labels: Pool::new(),
            texts: Pool::new(),
            left_open: left_open.into_iter().filter(ours).collect(),
        }
    }

    /// Takes what was heard at `now`.
    pub fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Listing(kind) => self.coverage.listing(kind, now),
            Event::Set(object) => {
                self.coverage.heard(object.details.kind(), now);
                self.set(*object, now);
            }
            Event::Removed(kind, uid, ended) => {
                self.coverage.heard(kind, now);
                self.remove(kind, &uid, ended.map_or(now, |ended| ended.min(now)));
            }
            Event::Listed(kind, uids) => {
                for uid in self.missing(kind, &uids) {
                    self.remove(kind, &uid, now);
                }
                self.coverage.listed(kind, uids.len(), now);
            }
            Event::Heard(kind) => self.coverage.heard(kind, now),
            Event::Away(kind, why) => self.coverage.away(kind, &why, now),
            Event::Malformed(kind, why) => self.coverage.malformed(kind, why),
        }
        if self.coverage.is_settled() {
            self.addresses.open(now);
            self.ports.open(now);
        }
        self.addresses.tick(now);
        self.ports.tick(now);
        self.pods.tick(now);
    }

    /// What is new since the last call. Names are given once every kind was listed, or
    /// failed to be.
    pub fn changed(&mut self, now: Timestamp) -> Updates {
        let mut endpoints: Vec<_> = self.addresses.changed().iter().map(endpoint).collect();
        if self.coverage.is_complete() {
            let left_open = std::mem::take(&mut self.left_open);
            endpoints.extend(left_open.into_iter().filter_map(|e| self.closed(e, now)));
        }
        Updates {
            endpoints,
            node_ports: self.ports.changed().iter().map(node_port).collect(),
            pods: self.pods.changed(),
        }
    }

    /// What is known of a pod, by the uid that its node knows it by; ended pods for a while.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<PodFacts<'_>> {
        self.pods.facts(uid)
    }

    /// Gives a container the namespace, pod name, workload and labels of its pod. False if
    /// the pod is not known (yet), or the container is in none.
    pub fn enrich(&self, container: &mut Container) -> bool {
        let Some(pod) = self.pod(&container.pod_uid) else {
            return false;
        };
        pod.namespace.clone_into(&mut container.namespace);
        pod.name.clone_into(&mut container.pod);
        container.workload.clone_from(pod.workload);
        container.labels.clone_from(pod.labels);
        true
    }

    /// The labels of a namespace.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        let (_, labels) = self.namespaces.get(namespace)?;
        Some(labels)
    }

    /// How well each kind is known.
    pub fn coverage(&self) -> impl Iterator<Item = &Coverage> {
        self.coverage.all()
    }

    /// When nothing was heard, oldest first.
    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.coverage.silences()
    }

    /// How often each bound was hit.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            freed_forgotten_early: self.addresses.forgotten_early() + self.ports.forgotten_early(),
            dead_pods_forgotten_early: self.pods.forgotten_early(),
            silences_forgotten: self.coverage.forgotten(),
        }
    }

    fn set(&mut self, object: Object, now: Timestamp) {
        let kind = object.details.kind();
        let labels = self.labels.get(object.labels);
        let namespace = self.texts.get(object.namespace.as_str());
        let who = |prefix: &str, name: &str| {
            Arc::new(Who {
                name: format!("{prefix}/{name}").into(),
                namespace: Arc::clone(&namespace),
                labels: Arc::clone(&labels),
            })
        };
        let created = object.created.unwrap_or(now).min(now);
        let is_new = kind != Kind::Pod
            && self
                .known
                .entry(kind)
                .or_default()
                .insert(object.uid.clone());
        // What an object gets later in its life, it gets about when that is told.
        let from = if is_new { created } else { now };
        let wanted = |right: Right, ips: &[IpAddr]| -> Vec<Wanted<IpAddr>> {
            ips.iter().map(|ip| want(*ip, right, from)).collect()
        };
        match object.details {
            Details::Pod(pod) => {
                let who = who("pod", &object.name);
                self.set_pod(&object.uid, &who, pod, created, now);
            }
            Details::Service(service) => {
                let who = who("svc", &object.name);
                let addresses = of_service(&service, from);
                self.addresses.set(&object.uid, &who, &addresses, now);
                let ports = service.node_ports.iter();
                let ports: Vec<_> = ports.map(|p| want(*p, Right::Service, from)).collect();
                self.ports.set(&object.uid, &who, &ports, now);
            }
            Details::EndpointSlice(slice) => {
                let named = if slice.service.is_empty() {
                    &[][..]
                } else {
                    &slice.ips
                };
                let who = who("svc", &slice.service);
                let addresses = wanted(Right::Slice, named);
                self.addresses.set(&object.uid, &who, &addresses, now);
            }
            Details::Node(node) => {
                let who = who("node", &object.name);
                let addresses = wanted(Right::Node, &node.ips);
                self.addresses.set(&object.uid, &who, &addresses, now);
            }
            Details::Namespace => {
                let name = self.texts.get(object.name.as_str());
                self.namespaces.insert(name, (object.uid, labels));
            }
            Details::ReplicaSet(owner) => {
                self.pods
                    .set_owner(object.uid, "replicaset", object.name, owner);
            }
            Details::Job(owner) => self.pods.set_owner(object.uid, "job", object.name, owner),
        }
    }

    fn set_pod(&mut self, uid: &Uid, who: &Arc<Who>, pod: Pod, created: Timestamp, now: Timestamp) {
        let ended = match pod.end {
            End::Running => None,
            End::Ended => Some(now),
            End::At(time) => Some(time.min(now)),
        };
        let from = pod.started.unwrap_or(created).min(now);
        let seen = self.pods.seen(uid);
        // A pod that was seen without its address before got it after that. Its traffic may
        // be older than the telling, so its name begins earlier if the address was free.
        let kept_since = Timestamp(now.0.saturating_sub(FREED_KEPT_S * 1_000_000_000));
        let claim = |ip: &IpAddr| Wanted {
            key: *ip,
            right: Right::Pod,
            from: seen.map_or(from, |_| from.max(kept_since)),
            since: seen.map_or(from, |seen| from.max(seen)),
        };
        let wanted: Vec<_> = pod.ips.iter().map(claim).collect();
        self.pods.set(uid, who, pod, now);
        match ended {
            None => self.addresses.set(uid, who, &wanted, now),
            Some(ended) => self.addresses.end(uid, ended),
        }
    }

    fn remove(&mut self, kind: Kind, uid: &Uid, ended: Timestamp) {
        if let Some(known) = self.known.get_mut(&kind) {
            known.remove(uid);
        }
        match kind {
            Kind::Pod => {
                self.pods.removed(uid, ended);
                self.addresses.end(uid, ended);
            }
            Kind::Service | Kind::EndpointSlice | Kind::Node => {
                self.addresses.end(uid, ended);
                self.ports.end(uid, ended);
            }
            Kind::Namespace => self.namespaces.retain(|_, (known, _)| known != uid),
            Kind::ReplicaSet | Kind::Job => self.pods.remove_owner(uid),
        }
    }

    /// What there was of a kind and is not listed any more.
    fn missing(&self, kind: Kind, listed: &HashSet<Uid>) -> Vec<Uid> {
        let is_missing = |uid: &&Uid| !listed.contains(*uid);
        if kind == Kind::Pod {
            return self.pods.live().filter(is_missing).cloned().collect();
        }
        let known = self.known.get(&kind).into_iter().flatten();
        known.filter(is_missing).cloned().collect()
    }

    /// An endpoint that an earlier watch left open, with its end; `None` if it still holds.
    fn closed(&self, mut left: Endpoint, now: Timestamp) -> Option<Endpoint> {
        let end = match self.addresses.holder(left.ip) {
            Some((who, from)) => {
                let is_same = *who.name == *left.name && *who.namespace == *left.namespace;
                if is_same && from == left.from {
                    return None;
                }
                from.min(now)
            }
            None => now,
        };
        left.until = Some(end.max(left.from));
        Some(left)
    }
}

fn of_service(service: &Service, from: Timestamp) -> Vec<Wanted<IpAddr>> {
    let cluster = service.cluster_ips.iter();
    let external = service.external_ips.iter();
    let external = external.filter(|ip| !service.cluster_ips.contains(ip));
    cluster
        .map(|ip| want(*ip, Right::Service, from))
        .chain(external.map(|ip| want(*ip, Right::External, from)))
        .collect()
}

fn want<K>(key: K, right: Right, from: Timestamp) -> Wanted<K> {
    Wanted {
        key,
        right,
        from,
        since: from,
    }
}

fn endpoint(interval: &Interval<IpAddr>) -> Endpoint {
    Endpoint {
        ip: interval.key,
        name: interval.who.name.to_string(),
        namespace: interval.who.namespace.to_string(),
        labels: Labels::clone(&interval.who.labels),
        from: interval.from,
        until: interval.until,
    }
}

fn node_port(interval: &Interval<(Transport, u16)>) -> NodePort {
    let (transport, port) = interval.key;
    NodePort {
        transport,
        port,
        name: interval.who.name.to_string(),
        namespace: interval.who.namespace.to_string(),
        labels: Labels::clone(&interval.who.labels),
        from: interval.from,
        until: interval.until,
    }
}
