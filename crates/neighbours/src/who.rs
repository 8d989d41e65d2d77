//! What the neighbours call a container's pod and namespace, where there is none.

use ethogram_model::{Container, Runtime};

/// Where KubeArmor puts containers that no orchestrator runs.
const CONTAINERS: &str = "container_namespace";
/// Where discovery-engine put what is no container.
const HOSTS: &str = "accuknox-vm-namespace";
/// What discovery-engine called a host.
const HOST: &str = "accuknox-vm-podname";

/// A container, as the neighbours know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
}

impl<'a> Who<'a> {
    pub(crate) fn is(container: &'a Container) -> Self {
        if !container.pod.is_empty() {
            return Self {
                namespace: &container.namespace,
                pod: &container.pod,
            };
        }
        let names = [
            container.name.as_str(),
            &container.id,
            container.cgroup_path.as_str(),
        ];
        let name = names.into_iter().find(|name| !name.is_empty());
        let name = name.unwrap_or_default();
        match container.runtime {
            Runtime::Host => Self {
                namespace: HOSTS,
                pod: HOST,
            },
            Runtime::Systemd | Runtime::Record => Self {
                namespace: HOSTS,
                pod: name,
            },
            _ => Self {
                namespace: CONTAINERS,
                pod: name,
            },
        }
    }
}

/// Whether a namespace is one of those that stand for none.
pub(crate) fn stands_for_none(namespace: &str) -> bool {
    [CONTAINERS, HOSTS].contains(&namespace)
}

/// Whether it is no container.
pub(crate) fn is_of_host(container: &Container) -> bool {
    matches!(
        container.runtime,
        Runtime::Host | Runtime::Systemd | Runtime::Record
    )
}
