//! Entries for fuzzing (`fuzz/`): what runtimes answer, from any bytes.

use crate::{Role, facts::Facts, runtimes};

/// Takes bytes for Docker's version, list and event. Returns how many containers they name.
pub fn docker(bytes: &[u8]) -> usize {
    printable(&runtimes::docker::fuzz(bytes))
}

/// Takes bytes for Podman's list of containers. Returns how many they name.
pub fn podman(bytes: &[u8]) -> usize {
    printable(&runtimes::podman::fuzz(bytes))
}

/// Takes bytes for each message of the Container Runtime Interface. Returns how many pods
/// they name.
pub fn cri(bytes: &[u8]) -> usize {
    printable(&runtimes::cri::fuzz(bytes))
}

/// Takes bytes for the path of a cgroup, whose last parts a container may choose. Returns
/// whether it is a container's.
pub fn cgroup(bytes: &[u8]) -> bool {
    match crate::classify(bytes) {
        Role::Container(container) => {
            assert!(container.root_len <= bytes.len());
            true
        }
        _ => false,
    }
}

/// What every view relies on. Returns how many facts there are.
fn printable(facts: &[Facts]) -> usize {
    for facts in facts {
        let texts = [
            &facts.name,
            &facts.image,
            &facts.namespace,
            &facts.pod,
            &facts.pod_uid,
        ];
        let labels = facts.labels.iter().flat_map(|(key, value)| [key, value]);
        for text in texts.into_iter().chain(labels) {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    facts.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    macro_rules! seed {
        ($name:literal) => {
            include_bytes!(concat!("../../../fuzz/seeds/", $name))
        };
    }

    #[test]
    fn seeds_are_understood() {
        assert!(super::docker(seed!("docker/list.json")) > 0);
        assert!(super::docker(seed!("docker/event.json")) > 0);
        assert!(super::podman(seed!("podman/containers.json")) > 0);
        assert!(super::cri(seed!("cri/pods")) > 0);
        assert!(super::cgroup(seed!("cgroup/docker")));
        assert!(super::cgroup(seed!("cgroup/kubernetes")));
    }

    proptest! {
        /// A little of what `make fuzz` does for longer.
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            super::docker(&bytes);
            super::podman(&bytes);
            super::cri(&bytes);
            super::cgroup(&bytes);
        }
    }
}
