//! What a cgroup is, from its path alone.

use ethogram_model::{Name, Runtime};

/// What a cgroup, and every process in it, belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A container. Where containers run inside containers, the outermost.
    Container(ContainerCgroup),
    /// A systemd unit.
    Unit {
        /// The unit's name, printable, spelt as `systemctl` spells it.
        name: String,
        /// How many bytes of the path name the unit's own cgroup.
        root_len: usize,
    },
    /// The rest of the host: the root, slices, the levels above containers, and helpers
    /// of runtimes such as conmon.
    Host,
}

/// What a path tells of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerCgroup {
    /// The runtime, where the path gives it away.
    pub runtime: Runtime,
    /// The runtime's id of it; for containers that only have a name, that name.
    pub id: String,
    /// Whether the path is all that will ever be known: LXC and nspawn containers are
    /// named by it.
    pub named_by_path: bool,
    /// The pod's uid, where the path has it; empty otherwise.
    pub pod_uid: String,
    /// How many bytes of the path name the container's own cgroup; what follows is below it.
    pub root_len: usize,
}

/// Says what a cgroup is. `path` is below the hierarchy's root and may hold any bytes.
#[must_use]
pub fn classify(path: &[u8]) -> Role {
    container(path)
        .map(Role::Container)
        .or_else(|| unit(path))
        .unwrap_or(Role::Host)
}

/// The parts of a path, each with the offset of its end.
fn parts(path: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut end = 0;
    path.split(|&b| b == b'/').map(move |part| {
        let part_end = end + part.len();
        end = part_end + 1;
        (part, part_end)
    })
}

/// The outermost container of a path.
fn container(path: &[u8]) -> Option<ContainerCgroup> {
    let mut pod_uid = String::new();
    let mut parent: &[u8] = b"";
    let mut in_ecs = false;
    for (part, root_len) in parts(path) {
        let found = machine(parent, part)
            .map(|name| (Runtime::Unknown, name, true))
            .or_else(|| hex_container(parent, part).map(|(runtime, id)| (runtime, id, false)))
            .or_else(|| {
                fargate(part)
                    .filter(|_| in_ecs)
                    .map(|id| (Runtime::Unknown, id, false))
            });
        if let Some((runtime, id, named_by_path)) = found {
            return Some(ContainerCgroup {
                runtime,
                id,
                named_by_path,
                pod_uid: pod_uid_in(part).unwrap_or(pod_uid),
                root_len,
            });
        }
        in_ecs |= part == b"ecs";
        if let Some(uid) = pod_uid_in(part) {
            pod_uid = uid;
        }
        if !part.is_empty() {
            parent = part;
        }
    }
    None
}

/// Digits of a container id in every OCI runtime.
const ID_LEN: usize = 64;

/// A container whose cgroup's name ends in its id: `ID`, `docker-ID.scope`,
/// `cri-containerd-ID.scope`, `crio-ID`, `libpod-ID.scope`, `kata_ID`, and
/// `kubepods-...slice:cri-containerd:ID`, which containerd makes when its cgroup driver is
/// not the kubelet's.
fn hex_container(parent: &[u8], part: &[u8]) -> Option<(Runtime, String)> {
    let name = part.strip_suffix(b".scope").unwrap_or(part);
    let (prefix, id) = name.split_at(name.len().checked_sub(ID_LEN)?);
    if !id.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let prefix = match prefix {
        [] => b"",
        [word @ .., b'-' | b'_' | b':'] => word,
        _ => return None,
    };
    let prefix = prefix.rsplit(|&b| b == b':').next().unwrap_or(prefix);
    let helper = prefix.ends_with(b"conmon") || prefix.starts_with(b"libpod_pod");
    if helper {
        return None;
    }
    let runtime = match prefix {
        b"docker" => Runtime::Docker,
        b"cri-containerd" | b"nerdctl" => Runtime::Containerd,
        b"crio" => Runtime::CriO,
        b"libpod" | b"libpod-payload" => Runtime::Podman,
        b"" if parent == b"docker" => Runtime::Docker,
        _ => Runtime::Unknown,
    };
    Some((runtime, String::from_utf8_lossy(id).to_ascii_lowercase()))
}

/// Containers of AWS Fargate: `/ecs/TASK/TASK-NUMBER`, with a task of 32 hexadecimal digits.
fn fargate(part: &[u8]) -> Option<String> {
    let (task, number) = part.split_at_checked(32)?;
    let number = number.strip_prefix(b"-")?;
    let is_id = task.iter().all(u8::is_ascii_hexdigit)
        && !number.is_empty()
        && number.iter().all(u8::is_ascii_digit);
    is_id.then(|| String::from_utf8_lossy(part).into_owned())
}

/// The name of a system container: LXC's `lxc.payload.NAME`, `lxc.payload/NAME` and
/// `lxc/NAME`, and nspawn's `machine-NAME.scope` and `systemd-nspawn@NAME.service`.
fn machine(parent: &[u8], part: &[u8]) -> Option<String> {
    let name = if let Some(name) = part.strip_prefix(b"lxc.payload.") {
        name
    } else if matches!(parent, b"lxc" | b"lxc.payload") {
        part
    } else if let Some(name) = part.strip_prefix(b"systemd-nspawn@") {
        name.strip_suffix(b".service")?
    } else if parent == b"machine.slice" {
        let name = part.strip_prefix(b"machine-")?.strip_suffix(b".scope")?;
        // Virtual machines of libvirt: on the host they are a process like any other.
        if name.starts_with(b"qemu") {
            return None;
        }
        name
    } else {
        return None;
    };
    (!name.is_empty()).then(|| unit_text(name))
}

/// The uid in the cgroup of a pod: `podUID` (cgroupfs driver), or
/// `kubepods-burstable-podUID.slice` with underscores for dashes (systemd driver).
fn pod_uid_in(part: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(part).ok()?;
    let text = text.split(".slice").next().unwrap_or(text);
    let uid = match text.strip_prefix("pod") {
        Some(uid) => uid,
        None if text.contains("kubepods") => text.rsplit_once("-pod")?.1,
        None => return None,
    };
    let uid = uid.replace('_', "-");
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let is_uid = digits == 32 && uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    is_uid.then_some(uid)
}

/// Kinds of units that have cgroups with processes in them.
const UNIT_SUFFIXES: &[&[u8]] = &[b".service", b".scope", b".socket", b".mount", b".swap"];

/// The outermost unit of a path.
fn unit(path: &[u8]) -> Option<Role> {
    let (part, root_len) = parts(path).find(|(part, _)| {
        let suffix = UNIT_SUFFIXES.iter().find(|s| part.ends_with(s));
        // The scope of a helper is as much a part of the runtime as its name says.
        suffix.is_some_and(|s| part.len() > s.len()) && !is_conmon(part)
    })?;
    Some(Role::Unit {
        name: unit_text(part),
        root_len,
    })
}

fn is_conmon(part: &[u8]) -> bool {
    part.starts_with(b"crio-conmon-") || part.starts_with(b"libpod-conmon-")
}

/// A unit's name as `systemctl` spells it: the `\x2d` that systemd writes for a dash in a
/// name happens to be the escape of a [`Name`], so it is kept and not escaped again.
fn unit_text(raw: &[u8]) -> String {
    let name = match std::str::from_utf8(raw) {
        Ok(text) => Name::from_escaped(text),
        Err(_) => Name::from_bytes(raw),
    };
    name.as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const UID: &str = "0d7a1c52-3f7e-4c1b-9a55-6f1e2d3c4b5a";

    fn path(pattern: &str) -> String {
        pattern
            .replace("<A>", A)
            .replace("<B>", B)
            .replace("<UID_>", &UID.replace('-', "_"))
            .replace("<UID>", UID)
    }

    #[test]
    fn containers_of_every_runtime() {
        use Runtime::{Containerd, CriO, Docker, Podman, Unknown};
        // (path, with | after the container's own cgroup; runtime; id; whether in a pod)
        let table: &[(&str, Runtime, &str, bool)] = &[
            ("/kubepods/burstable/pod<UID>/<A>|", Unknown, A, true),
            ("/kubepods/pod<UID>/<A>|", Unknown, A, true),
            (
                "/kubepods/besteffort/pod<UID>/<A>|/init.scope",
                Unknown,
                A,
                true,
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/cri-containerd-<A>.scope|",
                Containerd,
                A,
                true,
            ),
            (
                "/kubepods.slice/kubepods-pod<UID_>.slice/cri-containerd-<A>.scope|",
                Containerd,
                A,
                true,
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<UID_>.slice/crio-<A>.scope|",
                CriO,
                A,
                true,
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<UID_>.slice/crio-<A>.scope|/container",
                CriO,
                A,
                true,
            ),
            ("/kubepods/burstable/pod<UID>/crio-<A>|", CriO, A, true),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/docker-<A>.scope|",
                Docker,
                A,
                true,
            ),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod<UID_>.slice:cri-containerd:<A>|",
                Containerd,
                A,
                true,
            ),
            ("/k8s.io/<A>|", Unknown, A, false),
            // kind: the node is a Docker container, and the outermost wins.
            (
                "/system.slice/docker-<B>.scope|/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<UID_>.slice/cri-containerd-<A>.scope",
                Docker,
                B,
                false,
            ),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod<UID_>.slice/cri-containerd-<A>.scope|",
                Containerd,
                A,
                true,
            ),
            (
                "/docker/<B>|/kubelet/kubepods/burstable/pod<UID>/<A>",
                Docker,
                B,
                false,
            ),
            ("/docker/<A>|", Docker, A, false),
            ("/docker/<A>|/docker/<B>", Docker, A, false),
            ("/docker/<A>|/system.slice/ssh.service", Docker, A, false),
            ("/system.slice/docker-<A>.scope|", Docker, A, false),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-<A>.scope|",
                Docker,
                A,
                false,
            ),
            ("/my-parent/<A>|", Unknown, A, false),
            ("/libpod_parent/libpod-<A>|", Podman, A, false),
            ("/machine.slice/libpod-<A>.scope|", Podman, A, false),
            (
                "/machine.slice/libpod-<A>.scope|/container",
                Podman,
                A,
                false,
            ),
            (
                "/machine.slice/machine-libpod_pod_<B>.slice/libpod-<A>.scope|",
                Podman,
                A,
                false,
            ),
            (
                "/libpod_parent/libpod_pod_<B>/libpod-<A>|",
                Podman,
                A,
                false,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<A>.scope|",
                Podman,
                A,
                false,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-77.scope/libpod-payload-<A>|",
                Podman,
                A,
                false,
            ),
            (
                "/system.slice/web.service/libpod-payload-<A>|",
                Podman,
                A,
                false,
            ),
            ("/system.slice/nerdctl-<A>.scope|", Containerd, A, false),
            ("/default/<A>|", Unknown, A, false),
            (
                "/ecs/8b5a4e7c9d2f4a61b3c0d1e2f3a4b5c6/<A>|",
                Unknown,
                A,
                false,
            ),
            (
                "/ecstasks.slice/ecstasks-8b5a4e7c9d2f4a61b3c0d1e2f3a4b5c6.slice/docker-<A>.scope|",
                Docker,
                A,
                false,
            ),
            (
                "/ecs/8b5a4e7c9d2f4a61b3c0d1e2f3a4b5c6/8b5a4e7c9d2f4a61b3c0d1e2f3a4b5c6-1234567890|",
                Unknown,
                "8b5a4e7c9d2f4a61b3c0d1e2f3a4b5c6-1234567890",
                false,
            ),
            ("/kubepods/burstable/pod<UID>/kata_<A>|", Unknown, A, true),
            ("/lxc.payload.web|", Unknown, "web", false),
            (
                "/lxc.payload.web|/system.slice/docker-<A>.scope",
                Unknown,
                "web",
                false,
            ),
            ("/lxc.payload/web|", Unknown, "web", false),
            (
                "/lxc/101|/ns/system.slice/cron.service",
                Unknown,
                "101",
                false,
            ),
            (
                "/machine.slice/machine-debian.scope|/payload",
                Unknown,
                "debian",
                false,
            ),
            (
                r"/machine.slice/machine-my\x2dbox.scope|",
                Unknown,
                r"my\x2dbox",
                false,
            ),
            (
                "/machine.slice/systemd-nspawn@box.service|/payload/init.scope",
                Unknown,
                "box",
                false,
            ),
        ];
        for (pattern, runtime, id, in_pod) in table {
            let marked = path(pattern);
            let root_len = marked.find('|').unwrap();
            let plain = marked.replace('|', "");
            let Role::Container(found) = classify(plain.as_bytes()) else {
                panic!("{plain} is not a container");
            };
            assert_eq!(
                (found.runtime, found.id.as_str()),
                (*runtime, *id),
                "{plain}"
            );
            assert_eq!(found.pod_uid, if *in_pod { UID } else { "" }, "{plain}");
            assert_eq!(found.root_len, root_len, "{plain}");
        }
    }

    #[test]
    fn uids_of_static_pods_have_no_dashes() {
        let plain = path("/kubepods/burstable/pod0d7a1c523f7e4c1b9a556f1e2d3c4b5a/<A>");
        let Role::Container(found) = classify(plain.as_bytes()) else {
            panic!("{plain}");
        };
        assert_eq!(found.pod_uid, "0d7a1c523f7e4c1b9a556f1e2d3c4b5a");
    }

    #[test]
    fn units() {
        let table: &[(&str, &str)] = &[
            ("/system.slice/nginx.service|", "nginx.service"),
            ("/system.slice/nginx.service|/worker", "nginx.service"),
            (
                "/system.slice/system-getty.slice/getty@tty1.service|",
                "getty@tty1.service",
            ),
            (
                r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid-1.service|",
                r"systemd-fsck@dev-disk-by\x2duuid-1.service",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service|/app.slice/firefox.service",
                "user@1000.service",
            ),
            (
                "/user.slice/user-1000.slice/session-1.scope|",
                "session-1.scope",
            ),
            ("/init.scope|", "init.scope"),
            ("/system.slice/dev-mqueue.mount|", "dev-mqueue.mount"),
            (
                r"/machine.slice/machine-qemu\x2d1\x2dvm.scope|/libvirt",
                r"machine-qemu\x2d1\x2dvm.scope",
            ),
            ("/system.slice/containerd.service|", "containerd.service"),
            (
                "/system.slice/a\x1b[31m\n.service|",
                "a\\x1b[31m\\x0a.service",
            ),
            (r"/system.slice/a\y.service|", r"a\\y.service"),
        ];
        for (pattern, name) in table {
            let marked = path(pattern);
            let expected = Role::Unit {
                name: (*name).to_owned(),
                root_len: marked.find('|').unwrap(),
            };
            let plain = marked.replace('|', "");
            assert_eq!(classify(plain.as_bytes()), expected, "{plain}");
        }
        let invalid = classify(b"/system.slice/\xff.service");
        assert_eq!(
            invalid,
            Role::Unit {
                name: r"\xff.service".into(),
                root_len: 23
            }
        );
    }

    #[test]
    fn neither_containers_nor_units() {
        for pattern in [
            "/",
            "",
            "//",
            "/..",
            "/system.slice",
            "/user.slice/user-1000.slice",
            "/kubepods",
            "/kubepods/burstable",
            "/kubepods/burstable/pod<UID>",
            "/kubepods.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID_>.slice/crio-conmon-<A>.scope",
            "/kubepods/burstable/pod<UID>/crio-conmon-<A>",
            "/machine.slice/libpod-conmon-<A>.scope",
            "/libpod_parent/libpod-conmon-<A>",
            "/libpod_parent",
            "/libpod_parent/libpod_pod_<A>",
            "/machine.slice/machine-libpod_pod_<A>.slice",
            "/docker",
            "/docker/buildkit",
            "/ecs",
            "/ecs/8b5a4e7c9d2f4a61b3c0d1e2f3a4b5c6",
            "/lxc.monitor.web",
            "/lxc",
            "/lxc.payload.",
            "/lxc/",
            "/machine.slice",
            "/.service",
            "/.scope",
            "/0<A>",
            "/x<A>",
            "/process_api/b1eac249b592a27903f4e07ece13f990",
            "/docker/0123456789ab",
        ] {
            let plain = path(pattern);
            assert_eq!(classify(plain.as_bytes()), Role::Host, "{plain}");
        }
    }

    proptest! {
        #[test]
        fn what_is_below_a_container_belongs_to_it(
            root in prop::sample::select(vec![
                "/docker/<A>", "/kubepods/pod<UID>/<A>", "/machine.slice/libpod-<A>.scope", "/lxc.payload.web", "/lxc/a",
            ]),
            below in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let root = path(root).into_bytes();
            let nested = [&root[..], b"/", &below].concat();
            prop_assert_eq!(classify(&nested), classify(&root));
        }

        #[test]
        fn any_path_is_stood_and_its_root_is_a_part_of_it(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let root_len = match classify(&raw) {
                Role::Container(c) => c.root_len,
                Role::Unit { name, root_len } => {
                    prop_assert!(!name.chars().any(char::is_control));
                    root_len
                }
                Role::Host => 0,
            };
            prop_assert!(root_len <= raw.len());
            prop_assert!(root_len == raw.len() || raw[root_len] == b'/' || root_len == 0);
        }
    }
}
