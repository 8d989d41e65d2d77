//! What is kept and sent: behaviours with their tallies, and names for addresses.

use crate::{Behaviour, ContainerKey, Labels, Name, Tally, Timestamp};
use std::net::IpAddr;

/// One behaviour of one container, and how often it was seen in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Who.
    pub container: ContainerKey,
    /// What.
    pub behaviour: Behaviour,
    /// How often so far; cumulative, so taking it twice changes nothing.
    pub tally: Tally,
    /// An example that is not part of the behaviour's identity: the arguments of the first
    /// exec of a process row. Empty where there is none.
    pub example: Name,
}

/// Who had an IP address, from when to when. Addresses are used again, so a name is true
/// only for an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// `pod/NAME`, `svc/NAME`, `node/NAME`, `container/NAME`.
    pub name: String,
    /// Kubernetes namespace, or empty.
    pub namespace: String,
    /// Labels of the pod or service.
    pub labels: Labels,
    /// From when.
    pub from: Timestamp,
    /// Until when; `None` while it still holds.
    pub until: Option<Timestamp>,
}

/// A name that a container's program asked a name server for, with an address it was given.
///
/// It has no count: first and last join by min and max, so taking it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Who asked.
    pub container: ContainerKey,
    /// The address.
    pub ip: IpAddr,
    /// The name, in small letters and without the last dot.
    pub name: Name,
    /// When it was first told.
    pub first: Timestamp,
    /// When it was last told, to a minute.
    pub last: Timestamp,
}
