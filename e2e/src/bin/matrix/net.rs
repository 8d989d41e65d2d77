//! Sockets of every family, all within this machine.

use crate::{
    deeds::{Cell, Lacking, Record, name, spot},
    places::c_path,
    socket::{self, Message},
    sys,
    uring::Ring,
};
use anyhow::{Result, ensure};
use ethogram_model::{Access, Kind, Name, Protocol};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, netlink, sendmsg};
use std::{
    io::IoSlice,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// How many messages are sent in one call.
const BURST: usize = 3;

fn nothing(_: &Path) -> Result<()> {
    Ok(())
}

fn cell(what: &str, how: &str, act: fn(&mut Record) -> Result<()>) -> Cell {
    Cell::new(what, how, nothing, act)
}

pub(crate) fn cells() -> Vec<Cell> {
    let mut cells = tcp_cells();
    cells.extend(udp_cells());
    cells.extend(unix_cells());
    cells.extend(other_cells());
    cells
}

// ---- TCP ----

fn tcp_cells() -> Vec<Cell> {
    vec![
        cell("TCP", "v4", |r| {
            tcp(r, V4, V4, Protocol::Tcp, Protocol::Tcp)
        }),
        cell("TCP", "v6", |r| {
            tcp(r, V6, V6, Protocol::Tcp6, Protocol::Tcp6)
        }),
        cell("TCP", "v4-mapped", |r| {
            let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
            tcp(r, ANY6, mapped, Protocol::Tcp6, Protocol::Tcp6)
        }),
        cell("TCP", "v4 client of a dual-stack server", |r| {
            tcp(r, ANY6, V4, Protocol::Tcp6, Protocol::Tcp)
        }),
        cell("TCP", "io_uring connect", |r| {
            let server = listen(r)?;
            let client = socket::socket(libc::AF_INET, libc::SOCK_STREAM)?;
            let to = socket::address((V4, r.port).into());
            let mut ring = ring(r)?;
            ring.connect(client.as_raw_fd(), to.as_ptr(), to.bytes())?;
            r.net(Kind::Egress, Protocol::Tcp, V4, r.port);
            accept(r, &server)
        }),
        cell("TCP", "io_uring accept", |r| ring_accept(r, false)),
        cell("TCP", "io_uring accept by a worker", |r| {
            ring_accept(r, true)
        }),
        Cell::new("TCP", "inherited socket", nothing, |r| {
            let server = listen(r)?;
            let port = r.port;
            let client = TcpStream::connect((V4, port))?;
            r.net(Kind::Egress, Protocol::Tcp, V4, port);
            // The child is this program still, and the socket was made by its parent.
            let status = sys::fork_and_wait(|| {
                let accepted = server.accept().is_ok();
                std::process::exit(i32::from(!accepted));
            })?;
            ensure!(status == 0, "the child could not accept");
            r.net(Kind::Ingress, Protocol::Tcp, V4, port);
            drop(client);
            Ok(())
        }),
        cell("TCP", "socket passed by SCM_RIGHTS", |r| {
            let server = listen(r)?;
            let passed = TcpListener::from(pass(server.as_fd())?);
            drop(server);
            let client = TcpStream::connect((V4, r.port))?;
            r.net(Kind::Egress, Protocol::Tcp, V4, r.port);
            accept(r, &passed)?;
            drop(client);
            Ok(())
        }),
    ]
}

fn tcp(
    r: &mut Record,
    server: IpAddr,
    to: IpAddr,
    accepting: Protocol,
    connecting: Protocol,
) -> Result<()> {
    let port = r.port;
    let listener = TcpListener::bind((server, port))?;
    r.net(Kind::Bind, accepting, server, port);
    r.listened(accepting, server, port);
    let client = TcpStream::connect((to, port))?;
    r.net(Kind::Egress, connecting, to, port);
    drop(listener.accept()?);
    r.net(Kind::Ingress, accepting, to, port);
    drop(client);
    Ok(())
}

fn listen(r: &mut Record) -> Result<TcpListener> {
    let listener = TcpListener::bind((V4, r.port))?;
    r.net(Kind::Bind, Protocol::Tcp, V4, r.port);
    r.listened(Protocol::Tcp, V4, r.port);
    Ok(listener)
}

fn accept(r: &mut Record, server: &TcpListener) -> Result<()> {
    drop(server.accept()?);
    r.net(Kind::Ingress, Protocol::Tcp, V4, r.port);
    Ok(())
}

fn ring(r: &mut Record) -> Result<Ring> {
    r.called("io_uring_setup");
    Ok(Ring::new()?)
}

const BY_RING: &[&str] = &[spot::IO_URING, spot::IO_URING_SOCKETS];

fn ring_accept(r: &mut Record, by_worker: bool) -> Result<()> {
    let server = listen(r)?;
    let client = TcpStream::connect((V4, r.port))?;
    r.net(Kind::Egress, Protocol::Tcp, V4, r.port);
    let mut ring = ring(r)?;
    if by_worker {
        ring = ring.with_workers();
    }
    drop(ring.accept(server.as_raw_fd())?);
    let hidden_by = &[spot::ACCEPTED_OTHERWISE];
    r.net_unseen(Kind::Ingress, Protocol::Tcp, V4, r.port, hidden_by);
    drop(client);
    Ok(())
}

/// Sends a descriptor to ourselves and returns what came.
fn pass(fd: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd> {
    let (one, other) = UnixStream::pair()?;
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(
        control.push(SendAncillaryMessage::ScmRights(&fds)),
        "a descriptor does not fit"
    );
    sendmsg(
        &one,
        &[IoSlice::new(b"m")],
        &mut control,
        SendFlags::empty(),
    )?;
    socket::received_descriptor(&other)
}

// ---- UDP ----

fn udp_cells() -> Vec<Cell> {
    let mut cells = vec![
        cell("UDP", "sendto, recvfrom", |r| {
            udp(r, V4, V4, Protocol::Udp, Protocol::Udp)
        }),
        cell("UDP", "v6", |r| {
            udp(r, V6, V6, Protocol::Udp6, Protocol::Udp6)
        }),
        cell("UDP", "v4-mapped", |r| {
            let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
            udp(r, ANY6, mapped, Protocol::Udp6, Protocol::Udp6)
        }),
        cell("UDP", "v4 client of a dual-stack server", |r| {
            udp(r, ANY6, V4, Protocol::Udp6, Protocol::Udp)
        }),
        cell("UDP", "connected", |r| {
            let server = udp_server(r)?;
            let client = udp_client(r)?;
            client.connect((V4, r.port))?;
            r.net(Kind::Egress, Protocol::Udp, V4, r.port);
            for _ in 0..BURST {
                client.send(b"m")?;
            }
            receive(r, &server, BURST)
        }),
        cell("UDP", "sendmsg, recvmsg", |r| {
            let (server, client) = (udp_server(r)?, udp_client(r)?);
            let mut message = Message::to((V4, r.port).into());
            socket::send_message(&client, &mut message)?;
            r.net(Kind::Egress, Protocol::Udp, V4, r.port);
            socket::receive_message(&server, &mut message)?;
            r.net(Kind::Ingress, Protocol::Udp, V4, r.port);
            Ok(())
        }),
        cell("UDP", "sendmmsg, recvmmsg", |r| {
            let (server, client) = (udp_server(r)?, udp_client(r)?);
            socket::send_messages(&client, (V4, r.port).into(), BURST)?;
            socket::receive_messages(&server, BURST)?;
            for _ in 0..BURST {
                r.net(Kind::Egress, Protocol::Udp, V4, r.port);
                r.net(Kind::Ingress, Protocol::Udp, V4, r.port);
            }
            Ok(())
        }),
        cell("UDP", "received without asking for the sender", |r| {
            let (server, client) = (udp_server(r)?, udp_client(r)?);
            client.send_to(b"m", (V4, r.port))?;
            r.net(Kind::Egress, Protocol::Udp, V4, r.port);
            server.recv(&mut [0; 8])?;
            r.net_unseen(
                Kind::Ingress,
                Protocol::Udp,
                V4,
                r.port,
                &[spot::UDP_WITHOUT_SENDER],
            );
            Ok(())
        }),
        cell("UDP", "inherited socket", |r| {
            let (server, client) = (udp_server(r)?, udp_client(r)?);
            let to = SocketAddr::from((V4, r.port));
            let status = sys::fork_and_wait(|| {
                std::process::exit(i32::from(client.send_to(b"m", to).is_err()));
            })?;
            ensure!(status == 0, "the child could not send");
            r.net(Kind::Egress, Protocol::Udp, V4, r.port);
            receive(r, &server, 1)
        }),
        cell("UDP", "socket passed by SCM_RIGHTS", |r| {
            let (server, client) = (udp_server(r)?, udp_client(r)?);
            let passed = UdpSocket::from(pass(client.as_fd())?);
            passed.send_to(b"m", (V4, r.port))?;
            r.net(Kind::Egress, Protocol::Udp, V4, r.port);
            receive(r, &server, 1)
        }),
        cell("UDP", "io_uring connect", |r| {
            let server = udp_server(r)?;
            let client = udp_client(r)?;
            let to = socket::address((V4, r.port).into());
            ring(r)?.connect(client.as_raw_fd(), to.as_ptr(), to.bytes())?;
            r.net_unseen(Kind::Egress, Protocol::Udp, V4, r.port, BY_RING);
            client.send(b"m")?;
            receive(r, &server, 1)
        }),
    ];
    for (how, by_worker) in [
        ("io_uring send", false),
        ("io_uring send by a worker", true),
    ] {
        cells.push(Cell::new("UDP", how, nothing, move |r| {
            let (server, client) = (udp_server(r)?, udp_client(r)?);
            let mut ring = ring(r)?;
            if by_worker {
                ring = ring.with_workers();
            }
            let mut message = Message::to((V4, r.port).into());
            ring.sendmsg(client.as_raw_fd(), message.header())?;
            r.net_unseen(Kind::Egress, Protocol::Udp, V4, r.port, BY_RING);
            receive(r, &server, 1)
        }));
    }
    cells.push(cell("UDP", "io_uring receive", |r| {
        let (server, client) = (udp_server(r)?, udp_client(r)?);
        client.send_to(b"m", (V4, r.port))?;
        r.net(Kind::Egress, Protocol::Udp, V4, r.port);
        let mut message = Message::to((V4, 0).into());
        ring(r)?.recvmsg(server.as_raw_fd(), message.header())?;
        r.net_unseen(Kind::Ingress, Protocol::Udp, V4, r.port, BY_RING);
        Ok(())
    }));
    cells
}

fn udp(
    r: &mut Record,
    server: IpAddr,
    to: IpAddr,
    accepting: Protocol,
    sending: Protocol,
) -> Result<()> {
    let port = r.port;
    let socket = UdpSocket::bind((server, port))?;
    r.net(Kind::Bind, accepting, server, port);
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        ANY6
    };
    let client = UdpSocket::bind((any, 0))?;
    r.net(Kind::Bind, sending, any, 0);
    client.send_to(b"m", (to, port))?;
    r.net(Kind::Egress, sending, to, port);
    socket.recv_from(&mut [0; 8])?;
    r.net(Kind::Ingress, accepting, to, port);
    Ok(())
}

fn udp_server(r: &mut Record) -> Result<UdpSocket> {
    let server = UdpSocket::bind((V4, r.port))?;
    r.net(Kind::Bind, Protocol::Udp, V4, r.port);
    Ok(server)
}

/// A client that never called bind.
fn udp_client(_: &mut Record) -> Result<UdpSocket> {
    Ok(socket::socket(libc::AF_INET, libc::SOCK_DGRAM)?.into())
}

fn receive(r: &mut Record, server: &UdpSocket, count: usize) -> Result<()> {
    for _ in 0..count {
        server.recv_from(&mut [0; 8])?;
        r.net(Kind::Ingress, Protocol::Udp, V4, r.port);
    }
    Ok(())
}

// ---- unix ----

fn unix_cells() -> Vec<Cell> {
    vec![
        cell("AF_UNIX", "stream, path", |r| {
            let path = r.path("socket");
            unix_stream(r, &UnixAddress::from_pathname(&path)?, &name(&path))
        }),
        cell("AF_UNIX", "stream, abstract", |r| {
            let (address, name) = abstract_address(r)?;
            unix_stream(r, &address, &name)
        }),
        cell("AF_UNIX", "datagrams, path", |r| {
            let path = r.path("socket");
            unix_datagram(r, &UnixAddress::from_pathname(&path)?, &name(&path))
        }),
        cell("AF_UNIX", "datagrams, abstract", |r| {
            let (address, name) = abstract_address(r)?;
            unix_datagram(r, &address, &name)
        }),
        cell("AF_UNIX", "seqpacket", |r| {
            let path = r.path("socket");
            let name = name(&path);
            let (server, client) = (seqpacket()?, seqpacket()?);
            let address = rustix::net::SocketAddrUnix::new(&path)?;
            rustix::net::bind(&server, &address)?;
            r.other_net(Kind::Bind, Protocol::Unix, name.clone());
            rustix::net::listen(&server, 1)?;
            unix_listened(r, &name);
            rustix::net::connect(&client, &address)?;
            r.other_net(Kind::Egress, Protocol::Unix, name.clone());
            drop(rustix::net::accept(&server)?);
            r.other_net(Kind::Ingress, Protocol::Unix, name);
            Ok(())
        }),
        cell("AF_UNIX", "socketpair", |_| {
            // Nobody is reached that was not there: no row.
            let (one, other) = UnixDatagram::pair()?;
            one.send(b"m")?;
            other.recv(&mut [0; 8])?;
            Ok(())
        }),
        cell("AF_UNIX", "io_uring connect and accept", |r| {
            let path = r.path("socket");
            let server = UnixListener::bind(&path)?;
            let name = name(&path);
            r.other_net(Kind::Bind, Protocol::Unix, name.clone());
            unix_listened(r, &name);
            let client = socket::socket(libc::AF_UNIX, libc::SOCK_STREAM)?;
            let to = socket::unix_address(&c_path(&path));
            let mut ring = ring(r)?;
            ring.connect(client.as_raw_fd(), to.as_ptr(), to.bytes())?;
            drop(ring.accept(server.as_raw_fd())?);
            for (kind, hidden_by) in [
                (Kind::Egress, BY_RING),
                (Kind::Ingress, &[spot::ACCEPTED_OTHERWISE]),
            ] {
                r.did_unseen(kind, name.clone(), hidden_by, |row| {
                    row.protocol = Protocol::Unix;
                });
            }
            Ok(())
        }),
    ]
}

fn seqpacket() -> Result<OwnedFd> {
    Ok(socket::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET)?)
}

fn abstract_address(r: &Record) -> Result<(UnixAddress, Name)> {
    let text = format!("matrix-{}", r.port);
    Ok((
        UnixAddress::from_abstract_name(&text)?,
        format!("@{text}").as_str().into(),
    ))
}

fn unix_listened(r: &mut Record, name: &Name) {
    r.did(Kind::Bind, name.clone(), |row| {
        (row.protocol, row.access) = (Protocol::Unix, Access::LISTEN);
    });
}

fn unix_stream(r: &mut Record, address: &UnixAddress, name: &Name) -> Result<()> {
    let server = UnixListener::bind_addr(address)?;
    r.other_net(Kind::Bind, Protocol::Unix, name.clone());
    unix_listened(r, name);
    let client = UnixStream::connect_addr(address)?;
    r.other_net(Kind::Egress, Protocol::Unix, name.clone());
    drop(server.accept()?);
    r.other_net(Kind::Ingress, Protocol::Unix, name.clone());
    drop(client);
    Ok(())
}

fn unix_datagram(r: &mut Record, address: &UnixAddress, name: &Name) -> Result<()> {
    let server = UnixDatagram::bind_addr(address)?;
    r.other_net(Kind::Bind, Protocol::Unix, name.clone());
    UnixDatagram::unbound()?.send_to_addr(b"m", address)?;
    r.other_net(Kind::Egress, Protocol::Unix, name.clone());
    server.recv_from(&mut [0; 8])?;
    r.other_net(Kind::Ingress, Protocol::Unix, name.clone());
    Ok(())
}

// ---- other families ----

fn other_cells() -> Vec<Cell> {
    vec![
        cell("AF_NETLINK", "bind", |r| netlink_socket(r).map(drop)),
        cell("AF_NETLINK", "connect", |r| {
            let socket = netlink_socket(r)?;
            rustix::net::connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
            r.other_net(Kind::Egress, Protocol::Netlink, "NETLINK_ROUTE");
            Ok(())
        }),
        cell("AF_NETLINK", "sendto", |r| {
            let socket = netlink_socket(r)?;
            let nobody = netlink::SocketAddrNetlink::new(0, 0);
            rustix::net::sendto(&socket, &[0; 16], SendFlags::empty(), &nobody)?;
            r.did_unseen(
                Kind::Egress,
                "NETLINK_ROUTE",
                &[spot::OTHER_DATAGRAMS],
                |row| {
                    row.protocol = Protocol::Netlink;
                },
            );
            Ok(())
        }),
        cell("SOCK_RAW", "sendto", |r| {
            let socket = socket::raw_icmp()?;
            // An ICMP echo request whose checksum is wrong: nobody answers.
            socket.send_to(&[8, 0, 0, 0, 0, 0, 0, 0], (V4, 0))?;
            r.net(Kind::Egress, Protocol::Icmp, V4, 0);
            Ok(())
        }),
        Cell::new("AF_PACKET", "bind", packet_set_up, |r| {
            packet_socket(r).map(drop)
        }),
        Cell::new("AF_PACKET", "sendto", packet_set_up, |r| {
            let socket = packet_socket(r)?;
            socket::send_frame(&socket)?;
            r.did_unseen(Kind::Egress, "", &[spot::OTHER_DATAGRAMS], |row| {
                row.protocol = Protocol::Packet;
            });
            Ok(())
        }),
        Cell::new(
            "AF_VSOCK",
            "stream",
            |_| {
                has_family(
                    libc::AF_VSOCK,
                    libc::SOCK_STREAM,
                    0,
                    "vsock loopback",
                    socket::vsock_loopback,
                )
            },
            |r| {
                let port = u32::from(r.port);
                let (server, client) = (vsock()?, vsock()?);
                let address = socket::vsock_address(port);
                socket::bind(&server, &address)?;
                r.other_net(Kind::Bind, Protocol::Vsock, "");
                rustix::net::listen(&server, 1)?;
                r.did(Kind::Bind, "", |row| {
                    (row.protocol, row.access) = (Protocol::Vsock, Access::LISTEN);
                });
                socket::connect(&client, &address)?;
                r.other_net(Kind::Egress, Protocol::Vsock, "");
                drop(rustix::net::accept(&server)?);
                r.other_net(Kind::Ingress, Protocol::Vsock, "");
                Ok(())
            },
        ),
        Cell::new(
            "SCTP",
            "v4",
            |_| {
                has_family(
                    libc::AF_INET,
                    libc::SOCK_STREAM,
                    libc::IPPROTO_SCTP,
                    "SCTP",
                    || true,
                )
            },
            |r| {
                let (server, client) = (sctp()?, sctp()?);
                let address = socket::address((V4, r.port).into());
                socket::bind(&server, &address)?;
                r.net(Kind::Bind, Protocol::Sctp, V4, r.port);
                rustix::net::listen(&server, 1)?;
                r.listened(Protocol::Sctp, V4, r.port);
                socket::connect(&client, &address)?;
                r.net(Kind::Egress, Protocol::Sctp, V4, r.port);
                drop(rustix::net::accept(&server)?);
                r.net(Kind::Ingress, Protocol::Sctp, V4, r.port);
                Ok(())
            },
        ),
    ]
}

/// Whether the kernel has such sockets, and what else is needed.
fn has_family(family: i32, kind: i32, protocol: i32, what: &str, more: fn() -> bool) -> Result<()> {
    match socket::socket_of(family, kind, protocol) {
        Ok(_) if more() => Ok(()),
        _ => Err(Lacking(what.into()).into()),
    }
}

fn netlink_socket(r: &mut Record) -> Result<OwnedFd> {
    let socket = socket::socket(libc::AF_NETLINK, libc::SOCK_RAW)?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    r.other_net(Kind::Bind, Protocol::Netlink, "NETLINK_ROUTE");
    Ok(socket)
}

fn packet_set_up(_: &Path) -> Result<()> {
    has_family(
        libc::AF_PACKET,
        libc::SOCK_DGRAM,
        0,
        "packet sockets",
        || true,
    )
}

fn packet_socket(r: &mut Record) -> Result<OwnedFd> {
    let socket = socket::socket_of(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    socket::bind(&socket, &socket::packet_address())?;
    r.other_net(Kind::Bind, Protocol::Packet, "");
    Ok(socket)
}

fn vsock() -> Result<OwnedFd> {
    Ok(socket::socket_of(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?)
}

fn sctp() -> Result<OwnedFd> {
    Ok(socket::socket_of(
        libc::AF_INET,
        libc::SOCK_STREAM,
        libc::IPPROTO_SCTP,
    )?)
}
