//! Who had an address when it was talked to.

use crate::{Endpoint, Kind, Labels, Observation, Timestamp};
use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

/// A named owner of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `pod/NAME`, `svc/NAME`, `node/NAME`, `container/NAME`.
    pub name: String,
    /// Kubernetes namespace, or empty.
    pub namespace: String,
    /// Labels of the pod or service.
    pub labels: Labels,
}

impl From<&Endpoint> for Peer {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            name: endpoint.name.clone(),
            namespace: endpoint.namespace.clone(),
            labels: endpoint.labels.clone(),
        }
    }
}

/// Endpoints by address.
pub struct Peers<'a> {
    by_ip: HashMap<IpAddr, Vec<&'a Endpoint>>,
}

impl<'a> Peers<'a> {
    /// Looks among these.
    #[must_use]
    pub fn new(endpoints: &'a [Endpoint]) -> Self {
        let mut by_ip = HashMap::<_, Vec<_>>::new();
        for endpoint in endpoints {
            by_ip.entry(endpoint.ip).or_default().push(endpoint);
        }
        Self { by_ip }
    }

    /// The peer of a connection, as of the time it was last seen.
    #[must_use]
    pub fn of(&self, observation: &Observation) -> Option<&'a Endpoint> {
        let behaviour = &observation.behaviour;
        if !matches!(behaviour.kind, Kind::Ingress | Kind::Egress) {
            return None;
        }
        let ip = behaviour.target.as_str().parse().ok()?;
        self.at(ip, observation.tally.last)
    }

    /// Who had an address at a time. Pods on the host's network share their node's
    /// address, so a node goes first: any of its pods would be a guess. Of the others the
    /// newest is right, because an address is given away again only after it was free.
    fn at(&self, ip: IpAddr, time: Timestamp) -> Option<&'a Endpoint> {
        let valid = |e: &&&Endpoint| e.from <= time && e.until.is_none_or(|until| time <= until);
        self.by_ip
            .get(&ip)?
            .iter()
            .filter(valid)
            .max_by_key(|e| {
                let is_node = e.name.starts_with("node/");
                (is_node, e.from, Reverse((&e.namespace, &e.name)))
            })
            .copied()
    }
}
