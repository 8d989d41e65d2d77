//! Which containers make one subject, and what its header says.

use super::{Completeness, Row, SummaryOptions};
use crate::{Container, ContainerKey, Kind, Labels, Runtime, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// What makes one subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// One container of one pod with all its restarts; elsewhere one container.
    #[default]
    Container,
    /// The same container of all pods of a workload.
    Workload,
}

impl Group {
    /// The word that JSON and options use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Workload => "workload",
        }
    }
}

/// One or several containers that a reader thinks of as one, with all they did.
///
/// Lists have no duplicates and are sorted, oldest container first where they have an age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The cluster's name, or empty.
    pub cluster: String,
    /// Kubernetes namespace, or empty.
    pub namespace: String,
    /// Pod names; none outside Kubernetes, several only for a workload.
    pub pods: Vec<String>,
    /// Container names; several only for a workload outside Kubernetes.
    pub containers: Vec<String>,
    /// The owner.
    pub workload: Workload,
    /// Labels that all its containers have.
    pub labels: Labels,
    /// Images.
    pub images: Vec<String>,
    /// Machines.
    pub nodes: Vec<String>,
    /// Runtimes that are known.
    pub runtimes: Vec<Runtime>,
    /// The runtime's ids of the containers.
    pub container_ids: Vec<String>,
    /// The control group of a container of which nothing else is known, or empty.
    pub cgroup: String,
    /// How many containers, restarts counted.
    pub instances: u64,
    /// What they did, sorted by kind, source, target.
    pub rows: Vec<Row>,
    /// What is missing from the rows.
    pub completeness: Completeness,
}

impl Subject {
    /// The containers are sorted by age and not none.
    pub(super) fn new(
        containers: &[&Container],
        options: &SummaryOptions,
        rows: Vec<Row>,
        completeness: Completeness,
    ) -> Self {
        let newest = containers
            .last()
            .expect("a group is made by its first container");
        let texts = |field: fn(&Container) -> &str| unique(containers, |c| field(c).to_owned());
        let mut runtimes = unique(containers, |c| c.runtime);
        runtimes.retain(|runtime| *runtime != Runtime::Unknown);
        let anonymous = newest.pod.is_empty() && newest.name.is_empty() && newest.id.is_empty();
        Self {
            cluster: options.cluster.clone(),
            namespace: newest.namespace.clone(),
            pods: texts(|c| &c.pod),
            containers: texts(|c| &c.name),
            workload: newest.workload.clone(),
            labels: common_labels(containers),
            images: texts(|c| &c.image),
            nodes: texts(|c| &c.node),
            runtimes,
            container_ids: texts(|c| &c.id),
            cgroup: if anonymous {
                newest.cgroup_path.to_string()
            } else {
                String::new()
            },
            instances: containers.len() as u64,
            rows,
            completeness,
        }
    }

    /// The rows of one table.
    #[must_use]
    pub fn table(&self, kind: Kind) -> &[Row] {
        let start = self.rows.partition_point(|row| row.behaviour.kind < kind);
        let end = self.rows.partition_point(|row| row.behaviour.kind <= kind);
        &self.rows[start..end]
    }
}

/// Values in the order of the containers, each once, without those that say nothing.
fn unique<T: Ord + Clone + Default>(
    containers: &[&Container],
    field: impl Fn(&Container) -> T,
) -> Vec<T> {
    let mut seen = BTreeSet::from([T::default()]);
    let values = containers.iter().map(|c| field(c));
    values.filter(|value| seen.insert(value.clone())).collect()
}

fn common_labels(containers: &[&Container]) -> Labels {
    let Some((first, others)) = containers.split_first() else {
        return Labels::new();
    };
    let in_all = |key: &String, value: &String| {
        others
            .iter()
            .all(|other| other.labels.get(key) == Some(value))
    };
    let mut labels = first.labels.clone();
    labels.retain(|key, value| in_all(key, value));
    labels
}

/// What must be equal for two containers to be one subject, in the order of subjects.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct SubjectKey<'a> {
    namespace: &'a str,
    /// Pod or workload.
    owner: &'a str,
    /// Tells owners of one name apart: a pod's uid, a workload's kind.
    owner_identity: &'a str,
    container: &'a str,
    node: &'a str,
    id: &'a str,
    instance: Option<&'a ContainerKey>,
}

impl<'a> SubjectKey<'a> {
    fn of(container: &'a Container, group: Group) -> Self {
        let in_pod = !container.pod.is_empty();
        let namespace = &container.namespace;
        let workload = &container.workload;
        // Outside Kubernetes each machine has workloads of its own.
        let node = if in_pod { "" } else { &container.node };
        if group == Group::Workload && !workload.name.is_empty() {
            return Self {
                namespace,
                owner: &workload.name,
                owner_identity: &workload.kind,
                // Replicas differ in name where there are no pods to hold them.
                container: if in_pod { &container.name } else { "" },
                node,
                ..Self::default()
            };
        }
        let named_in_pod = in_pod && !container.name.is_empty();
        let is_host = container.runtime == Runtime::Host;
        let is_known = named_in_pod || is_host || !container.id.is_empty();
        Self {
            namespace,
            owner: &container.pod,
            owner_identity: &container.pod_uid,
            container: &container.name,
            node,
            id: if named_in_pod { "" } else { &container.id },
            instance: (!is_known).then_some(&container.key),
        }
    }
}

/// The selected containers by subject, each group sorted by age.
pub(super) fn group<'a>(
    containers: &'a [Container],
    options: &SummaryOptions,
) -> Vec<Vec<&'a Container>> {
    let selected = containers
        .iter()
        .filter(|c| options.selection.selects(c) && (options.sandboxes || !c.is_sandbox()));
    let mut groups = BTreeMap::<SubjectKey, Vec<&Container>>::new();
    for container in selected {
        let key = SubjectKey::of(container, options.group);
        groups.entry(key).or_default().push(container);
    }
    for group in groups.values_mut() {
        group.sort_by_key(|c| (c.watched_since, &c.key));
    }
    groups.into_values().collect()
}
