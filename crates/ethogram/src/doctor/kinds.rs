//! Which hooks see which kind of behaviour here, and whether they did.

use ethogram_model::Kind;
use ethogram_sensor::HookStatus;
use serde::Serialize;

use super::blind_spots;

/// A kind of behaviour, and how it is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SeenKind {
    pub(crate) kind: &'static str,
    /// The attached hooks that tell of it.
    pub(crate) hooks: Vec<String>,
    /// Whether the self-test's program was seen doing it; `null` for kinds that it does not do
    /// on purpose.
    pub(crate) seen: Option<bool>,
    /// Ids of what is not seen of it.
    pub(crate) blind_spots: Vec<&'static str>,
}

/// Beginnings of the hooks that tell of a kind.
fn hooks_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Process => &[
            "tp_btf/sched_",
            "fentry/begin_new_exec",
            "tp_btf/sys_exit",
            "tp/raw_syscalls/sys_exit",
            "fexit/*_sys_*",
            "fexit/__sec",
        ],
        Kind::File => &[
            "tp_btf/sys_exit",
            "tp/raw_syscalls/sys_exit",
            "fexit/do_f",
            "fexit/security_path_",
            "fexit/vfs_",
            "fexit/chmod_common",
            "fexit/chown_common",
            "fexit/*_sys_*",
            "fexit/__sec",
        ],
        Kind::Egress => &[
            "tp_btf/inet_sock_set_state",
            "tp_btf/sys_exit",
            "tp/raw_syscalls/sys_exit",
            "fexit/*_sys_*",
            "fexit/__sec",
        ],
        Kind::Ingress | Kind::Bind | Kind::Syscall => &[
            "tp_btf/sys_exit",
            "tp/raw_syscalls/sys_exit",
            "fexit/*_sys_*",
            "fexit/__sec",
        ],
        Kind::Capability => &["tp_btf/cap_capable", "fexit/cap_capable"],
    }
}

/// All kinds, where these hooks are in use and this was seen of the self-test's program.
pub(super) fn of(hooks: &[HookStatus], seen: &[Kind]) -> Vec<SeenKind> {
    let spots = blind_spots::of(hooks);
    let of_kind = |&kind: &Kind| {
        let tells = |hook: &&HookStatus| {
            let mut beginnings = hooks_of(kind).iter();
            hook.attached && beginnings.any(|beginning| hook.hook.starts_with(beginning))
        };
        let hooks: Vec<_> = hooks
            .iter()
            .filter(tells)
            .map(|hook| hook.hook.clone())
            .collect();
        SeenKind {
            kind: kind.as_str(),
            hooks,
            seen: (kind != Kind::Capability).then(|| seen.contains(&kind)),
            blind_spots: spots
                .iter()
                .filter(|spot| spot.kinds.contains(&kind.as_str()))
                .map(|spot| spot.id)
                .collect(),
        }
    };
    Kind::ALL.iter().map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(name: &str) -> HookStatus {
        HookStatus {
            hook: name.to_owned(),
            attached: true,
            note: String::new(),
        }
    }

    #[test]
    fn a_kind_has_its_hooks_and_its_blind_spots() {
        let hooks = ["tp_btf/sys_exit", "tp_btf/sched_process_exec"].map(attached);
        let kinds = of(&hooks, &[Kind::Process, Kind::File]);
        let of_kind = |kind: Kind| {
            let found = kinds.iter().find(|seen| seen.kind == kind.as_str());
            found.expect("every kind is there").clone()
        };
        assert_eq!(of_kind(Kind::Process).hooks.len(), 2);
        assert_eq!(of_kind(Kind::File).hooks, ["tp_btf/sys_exit"]);
        assert_eq!(of_kind(Kind::File).seen, Some(true));
        assert_eq!(of_kind(Kind::Bind).seen, Some(false));
        assert!(of_kind(Kind::File).blind_spots.contains(&"io-uring"));
        let capability = of_kind(Kind::Capability);
        assert!(capability.hooks.is_empty() && capability.seen.is_none());
        assert!(capability.blind_spots.contains(&"no-capabilities"));
    }

    #[test]
    fn without_hooks_nothing_is_seen() {
        for kind in of(&[], &[]) {
            assert!(kind.hooks.is_empty() && kind.seen != Some(true));
        }
    }
}
