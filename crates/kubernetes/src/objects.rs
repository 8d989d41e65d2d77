//! What is kept of the API server's objects: a few fields each, so that ten thousand pods
//! with their long specs pass through without staying.

mod parse;

pub use parse::{ADDRESSES_MAX, LABELS_DROPPED, LABELS_MAX, ParseError, parse};

use ethogram_model::{Labels, Timestamp, Workload};
use std::{net::IpAddr, sync::Arc};

/// A unique id that the API server gave an object; never used again.
pub type Uid = Arc<str>;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pods.
    Pod,
    /// Services.
    Service,
    /// Addresses behind services.
    EndpointSlice,
    /// Nodes.
    Node,
    /// Namespaces, for their labels.
    Namespace,
    /// What a Deployment owns and what owns its pods.
    ReplicaSet,
    /// What a CronJob owns and what owns its pods.
    Job,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::Node,
        Self::Namespace,
        Self::ReplicaSet,
        Self::Job,
    ];

    /// The path of all objects of this kind in the cluster.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Pod => "/api/v1/pods",
            Self::Service => "/api/v1/services",
            Self::EndpointSlice => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Node => "/api/v1/nodes",
            Self::Namespace => "/api/v1/namespaces",
            Self::ReplicaSet => "/apis/apps/v1/replicasets",
            Self::Job => "/apis/batch/v1/jobs",
        }
    }

    /// The word for it in paths, roles and messages.
    #[must_use]
    pub fn plural(self) -> &'static str {
        let path = self.path();
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Whether its metadata is all that is needed of it, and asked for.
    #[must_use]
    pub const fn is_metadata_only(self) -> bool {
        matches!(self, Self::Namespace | Self::ReplicaSet | Self::Job)
    }
}

/// An object as the API server told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub uid: Uid,
    /// Its namespace; empty for what is in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, without those that only controllers read.
    pub labels: Labels,
    /// When it was made; `None` if the API server does not say.
    pub created: Option<Timestamp>,
    /// What is particular to its kind.
    pub details: Details,
}

impl Object {
    /// When a pod's last state says that it ended, to be asked once it is no more.
    #[must_use]
    pub fn ended(&self) -> Option<Timestamp> {
        let Details::Pod(pod) = &self.details else {
            return None;
        };
        match pod.end {
            End::At(time) => Some(time),
            End::Running | End::Ended => pod.deadline,
        }
    }
}

/// What is particular to a kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Details {
    /// Of a pod.
    Pod(Pod),
    /// Of a service.
    Service(Service),
    /// Of an endpoint slice.
    EndpointSlice(EndpointSlice),
    /// Of a node.
    Node(Node),
    /// Of a namespace: nothing.
    Namespace,
    /// Of a ReplicaSet.
    ReplicaSet(Option<Owner>),
    /// Of a Job.
    Job(Option<Owner>),
}

impl Details {
    /// The kind of the object.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::Namespace => Kind::Namespace,
            Self::ReplicaSet(_) => Kind::ReplicaSet,
            Self::Job(_) => Kind::Job,
        }
    }
}

/// The controller of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub uid: Uid,
    /// Its kind in lower case and its name.
    pub workload: Workload,
}

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The uid by which node and runtime know the pod, where it differs from the API
    /// server's: a static pod's, which the API server only mirrors.
    pub node_uid: Option<Uid>,
    /// Its own addresses; none for a pod on its node's network, whose address is the node's.
    pub ips: Vec<IpAddr>,
    /// When its node took it on.
    pub started: Option<Timestamp>,
    /// Whether and when it ended for good, so that others may get its addresses.
    pub end: End,
    /// By when it must have ended, if its end was asked for.
    pub deadline: Option<Timestamp>,
    /// Its controller.
    pub owner: Option<Owner>,
    /// The Deployment that must own it, from its labels and its ReplicaSet's name. True
    /// until the ReplicaSet itself is known.
    pub guessed_deployment: Option<String>,
}

/// Whether a pod ended for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It did not.
    #[default]
    Running,
    /// It did, and nobody says when.
    Ended,
    /// It did, with its last container.
    At(Timestamp),
}

/// What is kept of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Addresses of the service alone, one per IP family; none for headless services and
    /// external names.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses outside the cluster that lead to it: external IPs and load balancers'.
    pub external_ips: Vec<IpAddr>,
    /// Ports of every node that lead to it.
    pub node_ports: Vec<(Transport, u16)>,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// What is kept of an endpoint slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The service it belongs to; empty if it is nobody's.
    pub service: String,
    /// Those of its addresses that are no pod's.
    pub ips: Vec<IpAddr>,
}

/// What is kept of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its addresses, internal and external.
    pub ips: Vec<IpAddr>,
}
