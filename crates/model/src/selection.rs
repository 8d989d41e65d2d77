//! Which part of what is known a reader asks for.

use crate::{Container, Kind, Labels, Observation, Status, Timestamp};

/// A filter over containers and observations. An empty selection selects everything, but
/// for [`Status::Failed`], which must be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Kubernetes namespace, exactly.
    pub namespace: Option<String>,
    /// Labels that must all be there with these values.
    pub labels: Labels,
    /// Pod name, exactly, or a prefix ending in `*`.
    pub pod: Option<String>,
    /// Container name or id (a prefix of at least 12 digits suffices), exactly, or a prefix ending in `*`.
    pub container: Option<String>,
    /// Workload as `kind/name` or `name`.
    pub workload: Option<String>,
    /// Node name, exactly.
    pub node: Option<String>,
    /// Kinds to show; empty for all.
    pub kinds: Vec<Kind>,
    /// Outcomes to show; empty for all but [`Status::Failed`].
    pub statuses: Vec<Status>,
    /// The acting executable, exactly, or a prefix ending in `*`.
    pub source: Option<String>,
    /// Last seen at or after this time.
    pub since: Option<Timestamp>,
    /// First seen before this time.
    pub until: Option<Timestamp>,
}

impl Selection {
    /// Whether a container is selected.
    #[must_use]
    pub fn selects(&self, container: &Container) -> bool {
        let is = |wanted: &Option<String>, value: &str| {
            wanted
                .as_deref()
                .is_none_or(|wanted| matches_pattern(wanted, value))
        };
        is(&self.namespace, &container.namespace)
            && is(&self.node, &container.node)
            && is(&self.pod, &container.pod)
            && self.container.as_deref().is_none_or(|wanted| {
                matches_pattern(wanted, &container.name) || matches_id(wanted, &container.id)
            })
            && self
                .workload
                .as_deref()
                .is_none_or(|wanted| match wanted.split_once('/') {
                    Some((kind, name)) => {
                        container.workload.kind.eq_ignore_ascii_case(kind)
                            && matches_pattern(name, &container.workload.name)
                    }
                    None => matches_pattern(wanted, &container.workload.name),
                })
            && self
                .labels
                .iter()
                .all(|(key, value)| container.labels.get(key) == Some(value))
    }

    /// Whether an observation (of a selected container) is selected.
    #[must_use]
    pub fn selects_observation(&self, observation: &Observation) -> bool {
        let behaviour = &observation.behaviour;
        (self.kinds.is_empty() || self.kinds.contains(&behaviour.kind))
            && self.selects_status(behaviour.status)
            && self
                .source
                .as_deref()
                .is_none_or(|wanted| matches_pattern(wanted, behaviour.source.as_str()))
            && self
                .since
                .is_none_or(|since| observation.tally.last >= since)
            && self
                .until
                .is_none_or(|until| observation.tally.first < until)
    }

    fn selects_status(&self, status: Status) -> bool {
        if self.statuses.is_empty() {
            status != Status::Failed
        } else {
            self.statuses.contains(&status)
        }
    }
}

/// `name` exactly, or `prefix*`.
fn matches_pattern(wanted: &str, value: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(prefix) => value.starts_with(prefix),
        None => wanted == value,
    }
}

/// The shortest prefix of a container id that runtimes print.
const ID_PREFIX_MIN: usize = 12;

fn matches_id(wanted: &str, id: &str) -> bool {
    wanted == id || (wanted.len() >= ID_PREFIX_MIN && id.starts_with(wanted))
}
