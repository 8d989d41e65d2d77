//! What runtimes tell about containers, in one form for all of them.
//!
//! Every text here was chosen by somebody else: [`printable`] makes it safe to store and
//! to show, and bounds it.

use ethogram_model::{Labels, Name, Runtime, Timestamp, Workload};
use std::net::IpAddr;

/// The name of the container that holds a pod's namespaces (the sandbox, whose only
/// process is `pause`), as kubelets have always called it. No container of a pod spec can
/// have it, because those names are lower case, so it marks sandboxes for views that hide
/// them.
pub const SANDBOX_NAME: &str = "POD";

/// The longest text that is kept of a name or label; longer ones are cut and end in `…`.
pub const TEXT_BYTES_MAX: usize = 4096;

/// How many labels of a container are kept. Beyond it, [`LABELS_DROPPED`] says how many
/// were not.
pub const LABELS_MAX: usize = 128;

/// The label that is added where a container has more than [`LABELS_MAX`]; its value is
/// how many were dropped.
pub const LABELS_DROPPED: &str = "ethogram.io/labels-dropped";

/// What told a fact, from the one that knows least to the one that knows most. Several
/// may speak of one container: Podman's service and its files, or Docker and the CRI that
/// a Kubernetes put before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Files of Podman's storage.
    #[default]
    PodmanFiles,
    /// Docker's API: Docker, or Podman's service.
    Docker,
    /// The Kubernetes Container Runtime Interface: containerd, CRI-O, cri-dockerd.
    Cri,
}

impl Source {
    /// Every source.
    pub const ALL: &'static [Self] = &[Self::PodmanFiles, Self::Docker, Self::Cri];

    /// The word for it in options and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PodmanFiles => "podman-files",
            Self::Docker => "docker",
            Self::Cri => "cri",
        }
    }
}

/// What a runtime tells about one of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who says so.
    pub source: Source,
    /// The runtime's id of it, as in its cgroup's name.
    pub id: String,
    /// The runtime.
    pub runtime: Runtime,
    /// The container's name; [`SANDBOX_NAME`] for a pod's sandbox.
    pub name: String,
    /// The image's name.
    pub image: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Pod uid.
    pub pod_uid: String,
    /// The owner.
    pub workload: Workload,
    /// Labels to show.
    pub labels: Labels,
    /// Its addresses, or its pod's if it is a sandbox.
    pub addresses: Addresses,
}

/// What a runtime tells about the IP addresses of a container or pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// Nothing (yet), so what was known stays true.
    #[default]
    Untold,
    /// It has these.
    Held {
        /// The addresses.
        ips: Vec<IpAddr>,
        /// When it was created.
        since: Timestamp,
    },
    /// It has none any more: it does not run.
    Released,
}

/// Text of a runtime as it may be stored and shown.
#[must_use]
pub fn printable(text: &str) -> String {
    let escaped = |text: &str| Name::from(text).as_str().to_owned();
    if text.len() <= TEXT_BYTES_MAX {
        return escaped(text);
    }
    let cut = text.floor_char_boundary(TEXT_BYTES_MAX);
    escaped(&text[..cut]) + "…"
}

/// The labels that are worth showing: without those that only controllers read, printable,
/// and not more than [`LABELS_MAX`].
pub(crate) fn shown_labels<'a>(all: impl IntoIterator<Item = (&'a String, &'a String)>) -> Labels {
    let mut labels: Labels = all
        .into_iter()
        .filter(|(key, _)| !is_noise(key))
        .map(|(key, value)| (printable(key), printable(value)))
        .collect();
    let dropped = labels.len().saturating_sub(LABELS_MAX);
    if dropped > 0 {
        let last = labels.keys().nth(LABELS_MAX).cloned();
        labels.split_off(&last.expect("there are more than LABELS_MAX"));
        labels.insert(LABELS_DROPPED.to_owned(), dropped.to_string());
    }
    labels
}

fn is_noise(key: &str) -> bool {
    key.starts_with("io.kubernetes.")
        || matches!(key, "pod-template-hash" | "controller-revision-hash")
}

/// The owner of a pod, as its labels tell it without asking an API server. `label` looks
/// a label of the pod up.
pub(crate) fn pod_owner<'a>(pod: &str, label: impl Fn(&str) -> Option<&'a String>) -> Workload {
    let owner = |kind: &str, name: &str| Workload {
        kind: kind.to_owned(),
        name: printable(name),
    };
    // `NAME-HASH-SUFFIX`: the Deployment, its ReplicaSet's hash, and the pod's own suffix.
    if let Some(hash) = label("pod-template-hash").filter(|hash| !hash.is_empty())
        && let Some(end) = pod.rfind(&format!("-{hash}-")).filter(|end| *end > 0)
    {
        return owner("deployment", &pod[..end]);
    }
    let before_suffix = || match pod.rsplit_once('-') {
        Some((name, _)) if !name.is_empty() => name,
        _ => pod,
    };
    if label("statefulset.kubernetes.io/pod-name").is_some() {
        return owner("statefulset", before_suffix());
    }
    if let Some(job) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        return owner("job", job);
    }
    if label("controller-revision-hash").is_some() {
        return owner("daemonset", before_suffix());
    }
    owner("pod", pod)
}

/// The owner of a container outside Kubernetes: its compose service, or itself.
pub(crate) fn container_owner<'a>(
    name: &str,
    label: impl Fn(&str) -> Option<&'a String>,
) -> Workload {
    let project =
        label("com.docker.compose.project").or_else(|| label("io.podman.compose.project"));
    let service =
        label("com.docker.compose.service").or_else(|| label("io.podman.compose.service"));
    match (project, service) {
        (Some(project), Some(service)) => Workload {
            kind: "compose".to_owned(),
            name: format!("{}/{}", printable(project), printable(service)),
        },
        _ => Workload {
            kind: "container".to_owned(),
            name: printable(name),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        labels.iter().map(own).collect()
    }

    #[test]
    fn owners_of_pods() {
        let hash = ("pod-template-hash", "7c9f8b6d4");
        let revision = ("controller-revision-hash", "6d5c");
        let ordinal = ("statefulset.kubernetes.io/pod-name", "db-0");
        for (pod, labels, expected) in [
            (
                "dvwa-web-7c9f8b6d4-x2k9p",
                &[hash, ("app", "web")][..],
                "deployment/dvwa-web",
            ),
            (
                "a-7c9f8b6d4-7c9f8b6d4-x2k9p",
                &[hash],
                "deployment/a-7c9f8b6d4",
            ),
            ("-7c9f8b6d4-x2k9p", &[hash], "pod/-7c9f8b6d4-x2k9p"),
            ("bare-x2k9p", &[hash], "pod/bare-x2k9p"),
            ("bare-x2k9p", &[("pod-template-hash", "")], "pod/bare-x2k9p"),
            ("db-0", &[ordinal, revision], "statefulset/db"),
            ("kube-proxy-x2k9p", &[revision], "daemonset/kube-proxy"),
            ("solo", &[revision], "daemonset/solo"),
            (
                "backup-28391-abcde",
                &[("job-name", "backup-28391")],
                "job/backup-28391",
            ),
            (
                "b-abcde",
                &[("batch.kubernetes.io/job-name", "b"), ("job-name", "old")],
                "job/b",
            ),
            ("etcd-node1", &[("component", "etcd")], "pod/etcd-node1"),
            ("", &[], "pod/"),
            ("evil\x1b[31m", &[], r"pod/evil\x1b[31m"),
        ] {
            let labels = map(labels);
            assert_eq!(pod_owner(pod, |key| labels.get(key)).to_string(), expected);
        }
    }

    #[test]
    fn owners_of_containers() {
        let compose = map(&[
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "db\n"),
        ]);
        assert_eq!(
            container_owner("shop-db-1", |k| compose.get(k)).to_string(),
            r"compose/shop/db\x0a"
        );
        let podman = map(&[
            ("io.podman.compose.project", "shop"),
            ("com.docker.compose.service", "db"),
        ]);
        assert_eq!(
            container_owner("shop_db_1", |k| podman.get(k)).to_string(),
            "compose/shop/db"
        );
        assert_eq!(
            container_owner("web", |_| None).to_string(),
            "container/web"
        );
    }

    #[test]
    fn labels_are_shown_without_noise_and_bounded() {
        let labels = map(&[
            ("app", "web"),
            ("pod-template-hash", "x"),
            ("controller-revision-hash", "x"),
            ("io.kubernetes.pod.name", "x"),
            ("no\u{202e}te", "a\nb"),
        ]);
        assert_eq!(
            shown_labels(&labels),
            map(&[("app", "web"), ("no\\xe2\\x80\\xaete", "a\\x0ab")])
        );
        let many: BTreeMap<_, _> = (0..LABELS_MAX + 7)
            .map(|i| (format!("k{i:04}"), String::new()))
            .collect();
        let shown = shown_labels(&many);
        assert_eq!(shown.len(), LABELS_MAX + 1);
        assert_eq!(shown[LABELS_DROPPED], "7");
        let long = printable(&"é".repeat(TEXT_BYTES_MAX));
        assert!(long.ends_with('…') && long.len() <= TEXT_BYTES_MAX + '…'.len_utf8());
    }

    proptest! {
        #[test]
        fn no_name_breaks_the_owner(pod in "\\PC{0,20}", hash in "[a-z-]{0,4}", other in "\\PC*") {
            let labels = map(&[("pod-template-hash", &hash), ("job-name", &other)]);
            let owner = pod_owner(&pod, |key| labels.get(key));
            prop_assert!(["deployment", "job"].contains(&owner.kind.as_str()));
        }
    }
}
