//! The names that a container's programs asked for, beside the addresses they talked to.

use crate::{Kind, Name, Observation, Resolution};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// Names shown beside one row: those that were told last.
const NAMES_MAX: usize = 8;

/// What name servers told, by container and address.
pub(super) struct Resolved<'a> {
    by_place: HashMap<(&'a crate::ContainerKey, IpAddr), Vec<&'a Resolution>>,
}

/// Names of one row, with the time each was last told.
pub(super) type Names<'a> = BTreeMap<&'a Name, crate::Timestamp>;

impl<'a> Resolved<'a> {
    pub(super) fn new(resolutions: &'a [Resolution]) -> Self {
        let mut by_place = HashMap::<_, Vec<_>>::new();
        for resolution in resolutions {
            let place = (&resolution.container, resolution.ip.to_canonical());
            by_place.entry(place).or_default().push(resolution);
        }
        Self { by_place }
    }

    /// Adds the names that a connection's address had for its container. What was told only
    /// after it was last seen cannot have led there.
    pub(super) fn add_names(&self, observation: &Observation, names: &mut Names<'a>) {
        let behaviour = &observation.behaviour;
        if behaviour.kind != Kind::Egress || self.by_place.is_empty() {
            return;
        }
        let Ok(ip) = behaviour.target.as_str().parse::<IpAddr>() else {
            return;
        };
        let told = self
            .by_place
            .get(&(&observation.container, ip.to_canonical()));
        for resolution in told.into_iter().flatten() {
            if resolution.first <= observation.tally.last {
                let last = names.entry(&resolution.name).or_insert(resolution.last);
                *last = resolution.last.max(*last);
            }
        }
    }
}

/// The names in the order of a row: the one told last comes first.
pub(super) fn in_order(names: &Names<'_>) -> Vec<Name> {
    let mut names: Vec<_> = names.iter().collect();
    names.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let names = names.into_iter().take(NAMES_MAX);
    names.map(|(name, _)| (*name).clone()).collect()
}
