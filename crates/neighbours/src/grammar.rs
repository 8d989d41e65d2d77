//! How KubeArmor says what was done: a source, an operation, and a resource and data with
//! words in them.

use ethogram_model::{Access, Behaviour, Kind, Name, Protocol, Status};
use std::net::IpAddr;

/// A behaviour in KubeArmor's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) operation: &'static str,
    pub(crate) resource: String,
    pub(crate) data: String,
    /// The executable that acts, or that runs after an exec.
    pub(crate) process: String,
    /// The executable before an exec.
    pub(crate) parent: String,
}

/// How an operation ended. Why one failed is not known.
pub(crate) fn result(status: Status) -> &'static str {
    match status {
        Status::Allow | Status::Audit => "Passed",
        Status::Deny => "Permission denied",
        Status::Failed => "Operation failed",
    }
}

/// Says a behaviour.
pub(crate) fn say(behaviour: &Behaviour, example: &Name) -> Said {
    let source = behaviour.source.to_string();
    let target = behaviour.target.to_string();
    let (operation, data, resource) = match behaviour.kind {
        Kind::Process => {
            return Said {
                operation: "Process",
                resource: with_arguments(&target, example.as_str()),
                data: "syscall=SYS_EXECVE".into(),
                process: target,
                parent: source,
            };
        }
        Kind::File => ("File", call_on_file(behaviour.access), target),
        Kind::Ingress | Kind::Egress => {
            let (data, resource) = connection(behaviour);
            ("Network", data, resource)
        }
        Kind::Bind => ("Network", "syscall=SYS_BIND".into(), address(behaviour)),
        Kind::Capability => ("Capabilities", "lsm=CAPABLE".into(), target),
        Kind::Syscall => {
            let call = format!("syscall=SYS_{}", target.to_uppercase());
            ("Syscall", call, String::new())
        }
    };
    Said {
        operation,
        resource,
        data,
        process: source,
        parent: String::new(),
    }
}

/// The path and what follows the program's own name among its arguments.
fn with_arguments(path: &str, arguments: &str) -> String {
    match arguments.split_once(' ') {
        Some((_, rest)) => format!("{path} {rest}"),
        None => path.to_owned(),
    }
}

/// A call that does what was done; which one it was is not kept.
fn call_on_file(access: Access) -> String {
    let (reads, writes) = (
        access.contains(Access::READ),
        access.contains(Access::WRITE),
    );
    let call = match (reads, writes) {
        (true, true) => "SYS_OPENAT fd=-100 flags=O_RDWR",
        (false, true) => "SYS_OPENAT fd=-100 flags=O_WRONLY",
        (true, false) => "SYS_OPENAT fd=-100 flags=O_RDONLY",
        _ if access.contains(Access::RENAME) => "SYS_RENAMEAT2",
        _ if access.contains(Access::DELETE) => "SYS_UNLINKAT",
        _ if access.contains(Access::CREATE) => "SYS_MKNODAT",
        _ if access.contains(Access::ATTR) => "SYS_FCHOWNAT",
        _ => "SYS_OPENAT fd=-100 flags=O_PATH",
    };
    format!("syscall={call}")
}

fn family(protocol: Protocol) -> &'static str {
    use Protocol as P;
    match protocol {
        P::Tcp | P::Udp | P::Icmp | P::Raw | P::Sctp => "AF_INET",
        P::Tcp6 | P::Udp6 | P::Icmp6 | P::Raw6 | P::Sctp6 => "AF_INET6",
        P::Unix | P::Netlink | P::Packet | P::Vsock => protocol.as_str(),
        P::None | P::Other => "AF_UNSPEC",
    }
}

fn connection(behaviour: &Behaviour) -> (String, String) {
    let is_in = behaviour.kind == Kind::Ingress;
    let is_tcp = matches!(behaviour.protocol, Protocol::Tcp | Protocol::Tcp6);
    let domain = family(behaviour.protocol);
    let how = match (is_tcp, is_in) {
        (true, true) => "kprobe=tcp_accept",
        (true, false) => "kprobe=tcp_connect",
        (false, true) => "syscall=SYS_RECVFROM",
        (false, false) => "syscall=SYS_CONNECT",
    };
    if behaviour.target.as_str().parse::<IpAddr>().is_err() {
        return (how.to_owned(), address(behaviour));
    }
    let resource = format!(
        "remoteip={} port={} protocol={}",
        behaviour.target, behaviour.port, behaviour.protocol
    );
    (format!("{how} domain={domain}"), resource)
}

/// An address as a call's argument.
fn address(behaviour: &Behaviour) -> String {
    let family = family(behaviour.protocol);
    let target = &behaviour.target;
    match behaviour.protocol {
        Protocol::Unix => format!("sa_family={family} sun_path={target}"),
        _ if target.is_empty() || target.as_str().parse::<IpAddr>().is_err() => {
            format!("sa_family={family}")
        }
        _ => format!(
            "sa_family={family} sin_port={} sin_addr={target}",
            behaviour.port
        ),
    }
}
