//! The cluster's names: who had which address when, who owns which pod.
//!
//! The API server knows what agents cannot: that 10.96.0.10 is `svc/kube-dns`, that a pod
//! on another node was `pod/web-7d4b9c-x2x7k` yesterday, that a ReplicaSet belongs to a
//! Deployment. This crate watches it, never asks it for an event, and keeps what it said:
//!
//! ```text
//! API server ─▶ watch (list once, then changes) ─▶ Event ─▶ Names ─▶ Endpoint, NodePort
//!                                                             └──▶ workload and labels of a pod
//! ```
//!
//! [`Watch`] does the talking. [`Names`] is pure: it takes typed events with the time at
//! which they were heard, does no I/O, and cannot fail.
//!
//! # What an address is called
//! An address has one name at a time, so intervals of one address never overlap. Where
//! several could claim it, the first of these does:
//!
//! 1. `node/NAME`: an address of a node. Pods on the host's network, load balancers and
//!    external IPs may share it, so naming any of those would be a guess; a [`NodePort`]
//!    tells services apart where the port is known.
//! 2. `svc/NAME`: a ClusterIP.
//! 3. `pod/NAME`: a pod's own address, also where it was reached through a headless
//!    service: the name that the client asked DNS for is not in the packet, and the pod is
//!    what it talked to. Of two pods with one address the one that got it last has it.
//! 4. `svc/NAME`: an external IP or a load balancer's; the oldest service first.
//! 5. `svc/NAME`: an address in an endpoint slice that is no pod's: a database outside
//!    the cluster, or the API server behind `svc/kubernetes`.
//!
//! # What happens when the API server is away
//! Names stay as they are. Each kind of object has its [`Coverage`], and what was not heard
//! in time is stated as a [`Silence`], with whether changes were only late (the watch was
//! resumed) or may be missing (everything had to be listed anew).

#![forbid(unsafe_code)]

mod connect;
mod forward;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod names;
mod objects;
mod reason;
mod watch;

pub use connect::{
    ConnectError, connect, connect_as_user, connect_in_cluster, has_kubeconfig, is_in_cluster,
};
pub use forward::{ForwardError, Forwarded, ServicePort, forward, secret};
pub use kube::Client;
pub use names::{
    Bounds, Coverage, DEAD_PODS_KEPT_MAX, DEAD_PODS_KEPT_S, Event, FREED_KEPT_MAX, FREED_KEPT_S,
    Names, NodePort, PodFacts, SILENCES_KEPT_MAX, Silence, State, Updates,
};
pub use objects::{
    ADDRESSES_MAX, Details, End, EndpointSlice, Kind, LABELS_DROPPED, LABELS_MAX, Node, Object,
    Owner, ParseError, Pod, Service, Transport, Uid, parse,
};
pub use watch::{
    BACKOFF_MAX_S, BACKOFF_MIN_MS, EVENTS_MAX, IDLE_MAX_S, LINE_BYTES_MAX, PAGE_BYTES_MAX,
    PAGE_OBJECTS, REQUEST_TIMEOUT_S, Scope, WATCH_S, Watch,
};
