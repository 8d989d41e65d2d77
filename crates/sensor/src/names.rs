//! From what the kernel keeps to the names people use.

use std::net::IpAddr;

use ethogram_model::{Kind, Name, Protocol};

use crate::{
    calls,
    record::{Key, ip_of},
};

/// What a behaviour acts upon, as text.
pub(crate) fn target(key: &Key, path: &[u8], extra: &[u8]) -> Name {
    use ethogram_model::Access;
    match key.kind {
        // The kernel cut it down to the place that takes it in.
        Kind::File | Kind::Process if key.access.contains(Access::FOLDED) => {
            let slash: &[u8] = if key.joined { b"/" } else { b"" };
            Name::from_bytes(&[path, slash, extra].concat())
        }
        Kind::File | Kind::Process if key.access.contains(Access::REQUESTED) => {
            requested_path(path, extra)
        }
        // A name in a directory that the kernel resolved.
        Kind::File if !extra.is_empty() => requested_path(path, extra),
        Kind::File | Kind::Process => Name::from_bytes(path),
        Kind::Capability => capability(key.number),
        Kind::Syscall => Name::from(calls::sensitive_name(key.number)),
        Kind::Ingress | Kind::Egress | Kind::Bind => match key.protocol {
            // A relative name comes with what it is relative to, or with where it leads.
            Protocol::Unix if key.access.contains(Access::REQUESTED) => requested_path(path, extra),
            Protocol::Unix if !path.is_empty() => Name::from_bytes(path),
            Protocol::Unix => unix_name(extra),
            Protocol::Netlink => netlink_family(key.number),
            Protocol::Other => Name::from(format!("AF_{}", key.number).as_str()),
            Protocol::Packet | Protocol::Vsock | Protocol::None => Name::default(),
            _ if key.access.contains(Access::FOLDED) => prefix(key.address, key.prefix_bits),
            _ => address(ip_of(key.address)),
        },
    }
}

/// An address as text.
pub(crate) fn address(ip: IpAddr) -> Name {
    Name::from(ip.to_string().as_str())
}

/// Addresses with a common prefix, of which the bits are counted as in IPv6.
fn prefix(bytes: [u8; 16], bits: u8) -> Name {
    let address = ip_of(bytes);
    let (bits, all) = match address {
        IpAddr::V4(_) if bits >= MAPPED_BITS => (bits - MAPPED_BITS, 32),
        IpAddr::V4(_) | IpAddr::V6(_) => (bits, 128),
    };
    if bits == all {
        self::address(address)
    } else {
        Name::from(format!("{address}/{bits}").as_str())
    }
}

/// Bits that all v4-mapped addresses have in common.
pub(crate) const MAPPED_BITS: u8 = 96;

/// A unix socket's name: a path, or `@name` for one in the abstract name space.
pub(crate) fn unix_name(raw: &[u8]) -> Name {
    match raw.split_first() {
        None => Name::default(),
        Some((0, name)) => Name::from_bytes(&[b"@", name].concat()),
        Some(_) => Name::from_bytes(raw),
    }
}

/// Example arguments: NUL-separated in the kernel, shown with spaces.
pub(crate) fn arguments(raw: &[u8]) -> Name {
    let end = raw
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let spaced: Vec<u8> = raw[..end]
        .iter()
        .map(|&byte| if byte == 0 { b' ' } else { byte })
        .collect();
    Name::from_bytes(&spaced)
}

/// A path as requested, made absolute by the directory it starts from and freed of `.`,
/// `..` and doubled slashes. By text alone: symbolic links are not resolved.
pub(crate) fn requested_path(base: &[u8], requested: &[u8]) -> Name {
    let mut parts: Vec<&[u8]> = Vec::new();
    let start = if requested.starts_with(b"/") {
        &[][..]
    } else {
        base
    };
    for part in start
        .split(|&b| b == b'/')
        .chain(requested.split(|&b| b == b'/'))
    {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut path = Vec::with_capacity(base.len() + requested.len() + 1);
    for part in parts {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Name::from_bytes(&path)
}

/// Names of `include/uapi/linux/netlink.h`, by protocol number.
const NETLINK: &[(u64, &str)] = &[
    (0, "NETLINK_ROUTE"),
    (2, "NETLINK_USERSOCK"),
    (3, "NETLINK_FIREWALL"),
    (4, "NETLINK_SOCK_DIAG"),
    (5, "NETLINK_NFLOG"),
    (6, "NETLINK_XFRM"),
    (7, "NETLINK_SELINUX"),
    (8, "NETLINK_ISCSI"),
    (9, "NETLINK_AUDIT"),
    (10, "NETLINK_FIB_LOOKUP"),
    (11, "NETLINK_CONNECTOR"),
    (12, "NETLINK_NETFILTER"),
    (14, "NETLINK_DNRTMSG"),
    (15, "NETLINK_KOBJECT_UEVENT"),
    (16, "NETLINK_GENERIC"),
    (18, "NETLINK_SCSITRANSPORT"),
    (19, "NETLINK_ECRYPTFS"),
    (20, "NETLINK_RDMA"),
    (21, "NETLINK_CRYPTO"),
    (22, "NETLINK_SMC"),
];

fn netlink_family(number: u64) -> Name {
    match NETLINK.iter().find(|(n, _)| *n == number) {
        Some((_, name)) => Name::from(*name),
        None => Name::from(format!("NETLINK_{number}").as_str()),
    }
}

/// Names of `include/uapi/linux/capability.h`, by number.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

fn capability(number: u64) -> Name {
    match usize::try_from(number)
        .ok()
        .and_then(|n| CAPABILITIES.get(n))
    {
        Some(name) => Name::from(*name),
        None => Name::from(format!("CAP_{number}").as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_paths_become_absolute() {
        for (base, requested, path) in [
            ("/work", "a/b", "/work/a/b"),
            ("/work", "/etc/passwd", "/etc/passwd"),
            ("/work/x", "../y/./z//w/", "/work/y/z/w"),
            ("/", "../..", "/"),
            ("/work", "/", "/"),
        ] {
            assert_eq!(
                requested_path(base.as_bytes(), requested.as_bytes()).as_str(),
                path
            );
        }
    }

    #[test]
    fn unix_names() {
        assert_eq!(unix_name(b"/run/x.sock").as_str(), "/run/x.sock");
        assert_eq!(unix_name(b"\0bus\0x").as_str(), "@bus\\x00x");
        assert!(unix_name(b"").is_empty());
    }

    #[test]
    fn arguments_are_spaced() {
        assert_eq!(arguments(b"ls\0-la\0\0").as_str(), "ls -la");
        assert_eq!(arguments(b"\0\0").as_str(), "");
    }

    #[test]
    fn numbers_have_names() {
        assert_eq!(capability(13).as_str(), "CAP_NET_RAW");
        assert_eq!(capability(63).as_str(), "CAP_63");
        assert_eq!(netlink_family(0).as_str(), "NETLINK_ROUTE");
        assert_eq!(netlink_family(77).as_str(), "NETLINK_77");
    }
}
