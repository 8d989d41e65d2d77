//! Who did it.

use crate::{Name, Timestamp};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// A boot of a machine, as the kernel names it (`/proc/sys/kernel/random/boot_id`).
/// Cgroup ids start over with every boot, so they mean something only together with it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(Arc<str>);

impl BootId {
    /// Takes the text of a boot id, without white space around it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One instance of a container, service or recorded command: never reused, never moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey {
    /// The boot it lived in.
    pub boot: BootId,
    /// Its cgroup's id. On hosts without a useful v2 hierarchy the top byte says which v1
    /// hierarchy the id is of (1 memory, 2 pids), because each counts its ids by itself.
    pub cgroup: u64,
    /// Tells two containers apart that got the same cgroup id one after the other: 0 for
    /// the first, and so on.
    pub incarnation: u32,
}

/// Labels of a container or pod, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// What runs the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Not known yet, or no runtime that we know.
    #[default]
    Unknown,
    /// containerd, by CRI.
    Containerd,
    /// CRI-O, by CRI.
    CriO,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// A systemd unit.
    Systemd,
    /// A command recorded with `ethogram record`.
    Record,
    /// The rest of the host.
    Host,
}

impl Runtime {
    /// Every runtime with the word that stores, JSON and tables use.
    pub const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Unknown, ""),
        (Self::Containerd, "containerd"),
        (Self::CriO, "cri-o"),
        (Self::Docker, "docker"),
        (Self::Podman, "podman"),
        (Self::Systemd, "systemd"),
        (Self::Record, "record"),
        (Self::Host, "host"),
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(r, _)| *r == self)
            .map_or("", |(_, word)| word)
    }

    /// The runtime of a word; unknown words are [`Runtime::Unknown`].
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        Self::WORDS
            .iter()
            .find(|(_, w)| *w == word)
            .map_or(Self::Unknown, |(r, _)| *r)
    }
}

/// The owner of containers that come and go: a Deployment, a compose service, a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// `deployment`, `statefulset`, `daemonset`, `job`, `pod`, `compose`, `container`, `unit`, `command`, `host`.
    pub kind: String,
    /// Its name, unique within kind and namespace.
    pub name: String,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// All that is known of one container. Text fields are empty where nothing is known (yet).
///
/// Texts a workload's author chose freely (labels, names, images) are printable: the
/// identity crate escapes them as [`Name`] does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// Which instance.
    pub key: ContainerKey,
    /// The machine's name (cluster-wide unique).
    pub node: String,
    /// What runs it.
    pub runtime: Runtime,
    /// The runtime's id of it: 64 hexadecimal digits, a unit's name, or empty.
    pub id: String,
    /// The container's name; in Kubernetes the name in the pod spec.
    pub name: String,
    /// The image's name, as the user gave it.
    pub image: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Pod uid.
    pub pod_uid: String,
    /// The owner.
    pub workload: Workload,
    /// The pod's labels in Kubernetes, the container's elsewhere.
    pub labels: Labels,
    /// The cgroup's path below its hierarchy's root.
    pub cgroup_path: Name,
    /// Since when it is watched: its start, or the agent's.
    pub watched_since: Timestamp,
    /// Whether it already ran when the watch began, so that its past is not known.
    pub present_at_start: bool,
    /// When its cgroup went away.
    pub ended: Option<Timestamp>,
}

impl Container {
    /// A container of which nothing is known but its cgroup.
    #[must_use]
    pub fn unknown(key: ContainerKey, cgroup_path: Name, watched_since: Timestamp) -> Self {
        Self {
            key,
            node: String::new(),
            runtime: Runtime::Unknown,
            id: String::new(),
            name: String::new(),
            image: String::new(),
            namespace: String::new(),
            pod: String::new(),
            pod_uid: String::new(),
            workload: Workload::default(),
            labels: Labels::new(),
            cgroup_path,
            watched_since,
            present_at_start: false,
            ended: None,
        }
    }

    /// Whether it does nothing but hold a pod's namespaces: named `POD` by the kubelet's
    /// convention, or of an image called `pause`.
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        let image = self.image.split('@').next().unwrap_or_default();
        let image = image.rsplit('/').next().unwrap_or_default();
        let image = image.split(':').next().unwrap_or_default();
        let named_so = self.name == "POD" || self.name.starts_with("k8s_POD_");
        !self.pod.is_empty() && (named_so || image == "pause")
    }
}
