//! Sockets that were open before the watch: what each of them means.

use std::collections::HashSet;

use ethogram_model::{Access, Behaviour, Kind, Name, Protocol};

use crate::{names, record::Socket};

/// A socket found open, kept until all are known: whether a connection was accepted or
/// made can be told only by the listening sockets beside it.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    pub(crate) cgroup: u64,
    pub(crate) exe: u64,
    pub(crate) time_ns: u64,
    socket: Socket<'static>,
    unix_name: Vec<u8>,
}

impl OpenSocket {
    pub(crate) fn new(cgroup: u64, exe: u64, time_ns: u64, socket: Socket<'_>) -> Self {
        let unix_name = socket.unix_name.to_vec();
        Self {
            cgroup,
            exe,
            time_ns,
            socket: Socket {
                unix_name: &[],
                ..socket
            },
            unix_name,
        }
    }
}

/// The behaviours behind sockets found open, each with the socket it comes from. The
/// source is not filled in yet.
pub(crate) fn behaviours(sockets: Vec<OpenSocket>) -> Vec<(OpenSocket, Behaviour)> {
    let listening: HashSet<(u64, u16)> = sockets
        .iter()
        .filter(|open| open.socket.listening && open.socket.local_port != 0)
        .map(|open| (open.socket.netns, open.socket.local_port))
        .collect();
    sockets
        .into_iter()
        .filter_map(|open| behaviour(&open, &listening).map(|behaviour| (open, behaviour)))
        .collect()
}

fn behaviour(open: &OpenSocket, listening: &HashSet<(u64, u16)>) -> Option<Behaviour> {
    let socket = &open.socket;
    let connected = socket.remote_port != 0;
    let row = |kind, target, port, access| Behaviour {
        protocol: socket.protocol,
        port,
        access: access | Access::AT_START,
        ..Behaviour::new(kind, Name::default(), target)
    };
    let none = Access::empty();
    Some(match socket.protocol {
        Protocol::Unix => {
            let name = names::unix_name(&open.unix_name);
            match (socket.listening, connected, socket.named) {
                (true, _, _) => row(Kind::Bind, name, 0, Access::LISTEN),
                (_, true, true) => row(Kind::Ingress, name, 0, none),
                (_, true, false) if !name.is_empty() => row(Kind::Egress, name, 0, none),
                (_, false, true) => row(Kind::Bind, name, 0, none),
                _ => return None, // a socketpair's end, or a socket not used yet
            }
        }
        Protocol::Netlink => {
            let key = crate::record::Key {
                kind: Kind::Bind,
                status: ethogram_model::Status::Allow,
                access: none,
                protocol: Protocol::Netlink,
                port: 0,
                address: [0; 16],
                prefix_bits: 0,
                joined: false,
                number: socket.number,
            };
            row(Kind::Bind, names::target(&key, &[], &[]), 0, none)
        }
        Protocol::None | Protocol::Packet | Protocol::Vsock | Protocol::Other => return None,
        _ if socket.listening => {
            let port = if socket.named { socket.local_port } else { 0 };
            row(
                Kind::Bind,
                names::address(socket.local),
                port,
                Access::LISTEN,
            )
        }
        _ if connected && listening.contains(&(socket.netns, socket.local_port)) => row(
            Kind::Ingress,
            names::address(socket.remote),
            socket.local_port,
            none,
        ),
        _ if connected => row(
            Kind::Egress,
            names::address(socket.remote),
            socket.remote_port,
            none,
        ),
        _ if socket.named => row(
            Kind::Bind,
            names::address(socket.local),
            socket.local_port,
            none,
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn tcp(listening: bool, local_port: u16, remote_port: u16, netns: u64) -> OpenSocket {
        let ip = |text: &str| text.parse::<IpAddr>().expect("a literal");
        let socket = Socket {
            protocol: Protocol::Tcp,
            listening,
            named: listening,
            remote: ip("10.0.0.9"),
            remote_port,
            local: ip("0.0.0.0"),
            local_port,
            netns,
            number: 0,
            unix_name: &[],
        };
        OpenSocket::new(7, 8, 9, socket)
    }

    #[test]
    fn a_connection_to_a_listening_port_was_accepted() {
        let open = vec![
            tcp(false, 80, 40_000, 1),
            tcp(true, 80, 0, 1),
            tcp(false, 50_000, 3306, 1),
            tcp(false, 80, 40_000, 2),
        ];
        let rows: Vec<_> = behaviours(open)
            .into_iter()
            .map(|(_, b)| (b.kind, b.port))
            .collect();
        assert_eq!(
            rows,
            [
                (Kind::Ingress, 80),
                (Kind::Bind, 80),
                (Kind::Egress, 3306),
                (Kind::Egress, 40_000), // another network namespace: nobody listens there
            ]
        );
    }
}
