//! What cannot be seen, whatever is done with this version's hooks. The one place that
//! says so: the table below is shown by `doctor`, and the documentation refers to it.

use ethogram_sensor::HookStatus;
use serde::Serialize;

/// Something that happens and is not, or not wholly, in the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BlindSpot {
    /// Stable, for programs.
    pub(crate) id: &'static str,
    /// The tables it concerns.
    pub(crate) kinds: &'static [&'static str],
    /// What is not seen.
    pub(crate) text: &'static str,
    /// What to do about it.
    pub(crate) remedy: &'static str,
    #[serde(skip)]
    applies: Applies,
}

/// Where it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applies {
    Always,
    /// Where a hook is attached.
    With(&'static str),
    /// Where none of these hooks is attached, or nobody knows.
    Without(&'static [&'static str]),
}

const CAPABLE: &str = "tp_btf/cap_capable";
const CAPABLE_FUNCTION: &str = "fexit/cap_capable";
/// Any of these knows who called an exec.
const CALLER_HOOKS: &[&str] = &[
    "tp_btf/sched_prepare_exec",
    "tp_btf/sched_process_fork",
    "fentry/begin_new_exec",
];
/// One of those below the system calls, where io_uring passes and names are resolved.
const BELOW_CALLS: &str = "fexit/vfs_rename";
/// Where a connection is accepted, by whatever way.
const ACCEPTED: &str = "fexit/security_sock_graft";

const ALL: &[BlindSpot] = &[
    BlindSpot {
        id: "io-uring",
        kinds: &["file", "ingress", "egress", "bind"],
        text: "Operations submitted through io_uring (open, unlink, rename, send, receive, connect other than TCP) pass the system calls by and are not seen. That a program uses it is a row: io_uring_setup.",
        remedy: "Where nothing needs it, turn it off: sysctl kernel.io_uring_disabled=2 (kernel 6.6 or newer). Recent Docker and containerd refuse it by their default seccomp profiles.",
        applies: Applies::Without(&[BELOW_CALLS]),
    },
    BlindSpot {
        id: "io-uring-sockets",
        kinds: &["ingress", "egress", "bind"],
        text: "Sockets used through io_uring (send, receive, bind, connect other than TCP) pass the system calls by and are not seen; nor are refusals to make, rename or remove files through it. That a program uses io_uring is a row: io_uring_setup.",
        remedy: "Where nothing needs it, turn it off: sysctl kernel.io_uring_disabled=2 (kernel 6.6 or newer). Recent Docker and containerd refuse it by their default seccomp profiles.",
        applies: Applies::With(BELOW_CALLS),
    },
    BlindSpot {
        id: "requested-paths",
        kinds: &["file"],
        text: "Files that are unlinked, renamed, made or changed by name, and opens that were refused, have the path that was asked for: symbolic links in it are not resolved. Such rows are marked as-requested.",
        remedy: "Read the mark (--wide) before drawing conclusions about links that a workload may make itself.",
        applies: Applies::Without(&[BELOW_CALLS]),
    },
    BlindSpot {
        id: "requested-refusals",
        kinds: &["file"],
        text: "What was refused, and what mknod made, has the path that was asked for: symbolic links in it are not resolved. Such rows are marked as-requested.",
        remedy: "Read the mark (--wide) before drawing conclusions about links that a workload may make itself.",
        applies: Applies::With(BELOW_CALLS),
    },
    BlindSpot {
        id: "udp-without-sender",
        kinds: &["ingress"],
        text: "Datagrams received by a program that does not ask who sent them are not seen.",
        remedy: "Look at the other side's egress, or at the bind row of the socket.",
        applies: Applies::Always,
    },
    BlindSpot {
        id: "names-elsewhere",
        kinds: &["egress"],
        text: "Names are known from plain DNS (UDP and TCP port 53) alone: not from DNS over TLS or HTTPS, mDNS, nscd or systemd-resolved's own socket, nor from answers that are received by io_uring or readv.",
        remedy: "The address is there all the same; --rev-dns-lookup asks what its owner calls it.",
        applies: Applies::Always,
    },
    BlindSpot {
        id: "connected-recvmsg",
        kinds: &["ingress"],
        text: "What is received by recvmsg on a connected socket is no row of its own.",
        remedy: "The connection itself is there, as egress or ingress.",
        applies: Applies::Always,
    },
    BlindSpot {
        id: "other-datagrams",
        kinds: &["ingress", "egress"],
        text: "What is sent to an address or received on sockets that are neither internet nor unix sockets (netlink, packet, vsock) is no row: of these, binds and connections are seen.",
        remedy: "Look at the bind rows: a program that uses such a socket without binding or connecting it is rare.",
        applies: Applies::Always,
    },
    BlindSpot {
        id: "no-capabilities",
        kinds: &["capability"],
        text: "Uses of capabilities are not seen: this kernel has no tracepoint for them.",
        remedy: "Kernel 6.14 or newer has it.",
        applies: Applies::Without(&[CAPABLE, CAPABLE_FUNCTION]),
    },
    BlindSpot {
        id: "memory-probes",
        kinds: &["capability"],
        text: "Checks for CAP_SYS_ADMIN during calls that take memory are left out: the kernel makes them for everybody, and they say nothing about the program.",
        remedy: "None is needed: what then uses the capability is seen.",
        applies: Applies::With(CAPABLE),
    },
    BlindSpot {
        id: "first-exec-parent",
        kinds: &["process"],
        text: "The first exec of a process that was not seen before is charged to its parent's executable.",
        remedy: "Kernel 6.10 or newer says who called it.",
        applies: Applies::Without(CALLER_HOOKS),
    },
    BlindSpot {
        id: "32-bit-sockets",
        kinds: &["ingress", "egress"],
        text: "What 32-bit programs send or receive by sendmsg and recvmsg, or bind, send or receive by socketcall, is not seen.",
        remedy: "TCP connections are seen all the same; for the rest run 64-bit programs.",
        applies: Applies::Always,
    },
    BlindSpot {
        id: "accepted-otherwise",
        kinds: &["ingress"],
        text: "Connections that are accepted through io_uring or by socketcall of 32-bit programs are not seen.",
        remedy: "Their server's bind rows are there. With trampolines they are seen.",
        applies: Applies::Without(&[ACCEPTED]),
    },
    BlindSpot {
        id: "open-descriptors",
        kinds: &["file"],
        text: "Reading, writing and mapping a file that is open already are no events: a row says how a file was opened, not how much of it was used. Nor is a descriptor seen that another process passed on.",
        remedy: "None: this is what keeps watching cheap.",
        applies: Applies::Always,
    },
];

/// The blind spots where these hooks are in use.
pub(crate) fn of(hooks: &[HookStatus]) -> Vec<BlindSpot> {
    let attached = |name: &str| hooks.iter().any(|hook| hook.attached && hook.hook == name);
    let applies = |spot: &&BlindSpot| match spot.applies {
        Applies::Always => true,
        Applies::With(hook) => attached(hook),
        Applies::Without(hooks) => !hooks.iter().any(|hook| attached(hook)),
    };
    ALL.iter().filter(applies).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::Kind;
    use std::collections::HashSet;

    fn hook(name: &str, attached: bool) -> HookStatus {
        HookStatus {
            hook: name.to_owned(),
            attached,
            note: String::new(),
        }
    }

    #[test]
    fn each_says_what_and_what_to_do() {
        let mut ids = HashSet::new();
        for spot in ALL {
            assert!(ids.insert(spot.id), "{} twice", spot.id);
            assert!(
                spot.text.ends_with('.') && spot.remedy.ends_with('.'),
                "{}",
                spot.id
            );
            for kind in spot.kinds {
                assert!(Kind::from_word(kind).is_some(), "{kind} of {}", spot.id);
            }
        }
    }

    #[test]
    fn hooks_decide() {
        let ids =
            |hooks: &[HookStatus]| of(hooks).iter().map(|spot| spot.id).collect::<HashSet<_>>();
        let new = ids(&[hook(CAPABLE, true), hook(CALLER_HOOKS[0], true)]);
        assert!(new.contains("memory-probes"));
        assert!(!new.contains("no-capabilities") && !new.contains("first-exec-parent"));
        let old = ids(&[hook(CAPABLE, false), hook(CALLER_HOOKS[0], false)]);
        assert!(!old.contains("memory-probes"));
        assert!(old.contains("no-capabilities") && old.contains("first-exec-parent"));
        assert_eq!(ids(&[]), old, "unknown is as bad as absent");
        assert!(old.contains("io-uring") && new.contains("io-uring"));
        let below = ids(&[hook(CAPABLE_FUNCTION, true), hook(BELOW_CALLS, true)]);
        assert!(!below.contains("io-uring") && below.contains("io-uring-sockets"));
        assert!(!below.contains("no-capabilities") && !below.contains("memory-probes"));
    }
}
