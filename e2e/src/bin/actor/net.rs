//! Operations on internet and netlink sockets, all over the loopback interface.

use crate::{
    ops::{Op, op},
    sys,
    worker::{Worker, binding, must_be_denied, must_fail},
};
use anyhow::{Context, Result, ensure};
use ethogram_model::{Access, Kind, Protocol, Status};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, ipproto, netlink,
        recvfrom, socket_with, sockopt,
    },
};
use std::{
    cell::OnceCell,
    io,
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket,
    },
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

/// Those that work in any network namespace.
pub(crate) const OPS: &[Op] = &[
    op("tcp", "tcp-v4", 60, tcp_v4),
    op("tcp", "tcp-v6", 30, tcp_v6),
    op("tcp", "tcp-mapped", 20, tcp_mapped),
    op("tcp", "tcp-v4-to-v6", 20, tcp_v4_to_v6),
    op("tcp", "tcp-bound-client", 20, tcp_bound_client),
    op("tcp", "tcp-nonblocking", 20, |w| tcp_nonblocking(w, false)),
    op("tcp", "tcp-nonblocking-asked-twice", 20, |w| {
        tcp_nonblocking(w, true)
    }),
    op("tcp", "tcp-refused", 30, tcp_refused),
    op(
        "tcp",
        "tcp-nonblocking-refused",
        20,
        tcp_nonblocking_refused,
    ),
    op("tcp", "tcp-nobody-there", 20, tcp_nobody_there),
    op("udp", "udp-sendto", 60, udp_sendto),
    op("udp", "udp-v6", 30, udp_v6),
    op("udp", "udp-mapped", 20, udp_mapped),
    op("udp", "udp-connected", 40, udp_connected),
    op("udp", "udp-many", 30, udp_many),
    op("udp", "udp-answer", 20, udp_answer),
    op("udp", "udp-broadcast-denied", 20, udp_broadcast_denied),
    op("icmp", "icmp-raw", 20, icmp_raw),
    op("icmp", "icmp-raw-v6", 10, icmp_raw_v6),
    op("bind", "bind-port", 30, bind_port),
    op("bind", "bind-any", 20, bind_any),
    op("bind", "listen", 20, listen),
    op("bind", "bind-denied", 5, bind_denied),
    op("netlink", "netlink-bind", 20, netlink_bind),
];

/// Those that need settings which only a network namespace of its own may have.
pub(crate) const OWN_NETWORK_OPS: &[Op] = &[op("icmp", "ping-socket", 10, ping_socket)];

const LOCAL4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LOCAL6: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// The address of some clients, to tell peers apart.
const OTHER4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// The port of the first thread; each has [`PORTS`] of its own, all below those that the
/// kernel hands out.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 8;
/// Where Linux begins to hand out ports by itself, by default.
const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// What each port of a thread is for, as its offset.
#[derive(Clone, Copy)]
enum Port {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
    /// Nobody listens here, ever.
    Closed,
    /// Bound for a moment only.
    Short,
    /// A client that wants to be answered.
    Answer,
}

/// A thread's servers, made when first needed.
pub(crate) struct Sockets {
    first_port: u16,
    tcp4: OnceCell<Rc<TcpListener>>,
    tcp6: OnceCell<Rc<TcpListener>>,
    udp4: OnceCell<Rc<UdpSocket>>,
    udp6: OnceCell<Rc<UdpSocket>>,
}

impl Sockets {
    /// Those of the thread with this number.
    pub(crate) fn new(number: usize) -> Result<Self> {
        let first_port = u16::try_from(number)
            .ok()
            .and_then(|number| number.checked_mul(PORTS)?.checked_add(FIRST_PORT))
            .filter(|port| *port < EPHEMERAL_PORT_MIN - PORTS)
            .context("there are not enough ports for so many threads")?;
        Ok(Self {
            first_port,
            tcp4: OnceCell::new(),
            tcp6: OnceCell::new(),
            udp4: OnceCell::new(),
            udp6: OnceCell::new(),
        })
    }
}

impl Worker {
    fn port(&self, port: Port) -> u16 {
        self.sockets.first_port + port as u16
    }

    /// Records a network behaviour.
    fn net(&mut self, kind: Kind, protocol: Protocol, address: impl Into<IpAddr>, port: u16) {
        self.net_with(kind, protocol, address, port, Status::Allow);
    }

    fn net_with(
        &mut self,
        kind: Kind,
        protocol: Protocol,
        address: impl Into<IpAddr>,
        port: u16,
        status: Status,
    ) {
        let target = address.into().to_canonical().to_string();
        self.did(kind, target.as_str().into(), |row| {
            (row.protocol, row.port, row.status) = (protocol, port, status);
        });
    }

    /// Records a listen.
    fn listens(&mut self, protocol: Protocol, address: impl Into<IpAddr>, port: u16) {
        let target = address.into().to_canonical().to_string();
        self.did(Kind::Bind, target.as_str().into(), |row| {
            (row.protocol, row.port, row.access) = (protocol, port, Access::LISTEN);
        });
    }

    fn tcp_server(&mut self, port: Port) -> Result<Rc<TcpListener>> {
        let (cell, address, protocol) = match port {
            Port::Tcp4 => (&self.sockets.tcp4, IpAddr::from(LOCAL4), Protocol::Tcp),
            _ => (
                &self.sockets.tcp6,
                Ipv6Addr::UNSPECIFIED.into(),
                Protocol::Tcp6,
            ),
        };
        if let Some(server) = cell.get() {
            return Ok(Rc::clone(server));
        }
        let number = self.port(port);
        let server = Rc::new(TcpListener::bind((address, number))?);
        let server = Rc::clone(cell.get_or_init(|| server));
        self.net(Kind::Bind, protocol, address, number);
        self.listens(protocol, address, number);
        Ok(server)
    }

    fn udp_server(&mut self, port: Port) -> Result<Rc<UdpSocket>> {
        let (cell, address, protocol) = match port {
            Port::Udp4 => (&self.sockets.udp4, IpAddr::from(LOCAL4), Protocol::Udp),
            _ => (
                &self.sockets.udp6,
                Ipv6Addr::UNSPECIFIED.into(),
                Protocol::Udp6,
            ),
        };
        if let Some(server) = cell.get() {
            return Ok(Rc::clone(server));
        }
        let number = self.port(port);
        let server = Rc::new(UdpSocket::bind((address, number))?);
        let server = Rc::clone(cell.get_or_init(|| server));
        self.net(Kind::Bind, protocol, address, number);
        Ok(server)
    }
}

/// Accepts by one of the two calls, and ends the connection so that it leaves no port
/// waiting: with a reset from the client.
fn accept_and_end(w: &mut Worker, server: &TcpListener, client: impl AsFd) -> Result<()> {
    let accepted = if w.rng.coin() {
        rustix::net::accept(server)?
    } else {
        rustix::net::accept_with(server, SocketFlags::CLOEXEC)?
    };
    sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    drop(client);
    drop(accepted);
    Ok(())
}

/// A connection from an ordinary client, told by the address it connects to.
fn tcp(
    w: &mut Worker,
    server: Port,
    to: IpAddr,
    client: Protocol,
    accepting: Protocol,
) -> Result<()> {
    let listener = w.tcp_server(server)?;
    let port = w.port(server);
    let stream = TcpStream::connect((to, port))?;
    w.net(Kind::Egress, client, to, port);
    accept_and_end(w, &listener, stream)?;
    w.net(Kind::Ingress, accepting, to, port);
    Ok(())
}

fn tcp_v4(w: &mut Worker) -> Result<()> {
    tcp(w, Port::Tcp4, LOCAL4.into(), Protocol::Tcp, Protocol::Tcp)
}

fn tcp_v6(w: &mut Worker) -> Result<()> {
    tcp(w, Port::Tcp6, LOCAL6.into(), Protocol::Tcp6, Protocol::Tcp6)
}

fn tcp_mapped(w: &mut Worker) -> Result<()> {
    let mapped = LOCAL4.to_ipv6_mapped();
    tcp(w, Port::Tcp6, mapped.into(), Protocol::Tcp6, Protocol::Tcp6)
}

fn tcp_v4_to_v6(w: &mut Worker) -> Result<()> {
    tcp(w, Port::Tcp6, LOCAL4.into(), Protocol::Tcp, Protocol::Tcp6)
}

fn new_socket(family: AddressFamily, kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(
        family,
        kind,
        flags | SocketFlags::CLOEXEC,
        None,
    )?)
}

fn local4(port: u16) -> SocketAddr {
    SocketAddrV4::new(LOCAL4, port).into()
}

/// A client that chose its address, not its port.
fn tcp_bound_client(w: &mut Worker) -> Result<()> {
    let server = w.tcp_server(Port::Tcp4)?;
    let port = w.port(Port::Tcp4);
    let client = new_socket(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::empty(),
    )?;
    bind(&client, &SocketAddrV4::new(OTHER4, 0))?;
    w.net(Kind::Bind, Protocol::Tcp, OTHER4, 0);
    connect(&client, &local4(port))?;
    w.net(Kind::Egress, Protocol::Tcp, LOCAL4, port);
    accept_and_end(w, &server, client)?;
    w.net(Kind::Ingress, Protocol::Tcp, OTHER4, port);
    Ok(())
}

/// Starts a connection without waiting, waits for its end, and returns that.
fn connect_and_poll(client: &OwnedFd, to: SocketAddr) -> Result<io::Result<()>> {
    must_fail(
        connect(client, &to).map_err(io::Error::from),
        libc::EINPROGRESS,
    )?;
    poll(&mut [PollFd::new(client, PollFlags::OUT)], None)?;
    Ok(sockopt::socket_error(client)?.map_err(io::Error::from))
}

/// A connection that succeeds later is one, however often the program asks about it.
fn tcp_nonblocking(w: &mut Worker, ask_again: bool) -> Result<()> {
    let server = w.tcp_server(Port::Tcp4)?;
    let port = w.port(Port::Tcp4);
    let client = new_socket(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::NONBLOCK,
    )?;
    connect_and_poll(&client, local4(port))??;
    if ask_again {
        connect(&client, &local4(port))?;
    }
    w.net(Kind::Egress, Protocol::Tcp, LOCAL4, port);
    accept_and_end(w, &server, client)?;
    w.net(Kind::Ingress, Protocol::Tcp, LOCAL4, port);
    Ok(())
}

fn tcp_refused(w: &mut Worker) -> Result<()> {
    let port = w.port(Port::Closed);
    let (to, protocol): (IpAddr, _) = if w.rng.coin() {
        (LOCAL4.into(), Protocol::Tcp)
    } else {
        (LOCAL6.into(), Protocol::Tcp6)
    };
    must_fail(TcpStream::connect((to, port)), libc::ECONNREFUSED)?;
    w.net_with(Kind::Egress, protocol, to, port, Status::Failed);
    Ok(())
}

fn tcp_nonblocking_refused(w: &mut Worker) -> Result<()> {
    let port = w.port(Port::Closed);
    let client = new_socket(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::NONBLOCK,
    )?;
    must_fail(connect_and_poll(&client, local4(port))?, libc::ECONNREFUSED)?;
    w.net_with(Kind::Egress, Protocol::Tcp, LOCAL4, port, Status::Failed);
    Ok(())
}

/// An accept that finds nobody waiting is nothing.
fn tcp_nobody_there(w: &mut Worker) -> Result<()> {
    let server = w.tcp_server(Port::Tcp4)?;
    server.set_nonblocking(true)?;
    must_fail(server.accept(), libc::EAGAIN)?;
    Ok(server.set_nonblocking(false)?)
}

/// How many datagrams are sent in one go at most.
const BURST_MAX: usize = 4;

fn receive(
    w: &mut Worker,
    server: &UdpSocket,
    peer: IpAddr,
    protocol: Protocol,
    port: u16,
) -> Result<()> {
    let mut buffer = [0; 8];
    if w.rng.coin() {
        let (_, from) = server.recv_from(&mut buffer)?;
        ensure!(
            from.ip() == peer,
            "a message came from {from}, not from {peer}"
        );
    } else {
        let (_, _, from) = recvfrom(server, &mut buffer, RecvFlags::empty())?;
        ensure!(from.is_some(), "a message came from nowhere");
    }
    w.net(Kind::Ingress, protocol, peer, port);
    Ok(())
}

/// Messages from a new socket that is not connected.
fn udp(w: &mut Worker, server: Port, to: IpAddr, protocol: Protocol) -> Result<()> {
    let receiver = w.udp_server(server)?;
    let port = w.port(server);
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let sender = new_socket(family, SocketType::DGRAM, SocketFlags::empty())?;
    for _ in 0..=w.rng.below(BURST_MAX) {
        let address = SocketAddr::new(to, port);
        rustix::net::sendto(
            &sender,
            b"message",
            rustix::net::SendFlags::empty(),
            &address,
        )?;
        w.net(Kind::Egress, protocol, to, port);
        receive(w, &receiver, to, protocol, port)?;
    }
    Ok(())
}

fn udp_sendto(w: &mut Worker) -> Result<()> {
    udp(w, Port::Udp4, LOCAL4.into(), Protocol::Udp)
}

fn udp_v6(w: &mut Worker) -> Result<()> {
    udp(w, Port::Udp6, LOCAL6.into(), Protocol::Udp6)
}

fn udp_mapped(w: &mut Worker) -> Result<()> {
    let mapped = LOCAL4.to_ipv6_mapped();
    udp(w, Port::Udp6, mapped.into(), Protocol::Udp6)
}

/// What a connected socket sends is part of its connection.
fn udp_connected(w: &mut Worker) -> Result<()> {
    let receiver = w.udp_server(Port::Udp4)?;
    let port = w.port(Port::Udp4);
    let sender = new_socket(AddressFamily::INET, SocketType::DGRAM, SocketFlags::empty())?;
    connect(&sender, &local4(port))?;
    w.net(Kind::Egress, Protocol::Udp, LOCAL4, port);
    for _ in 0..=w.rng.below(BURST_MAX) {
        rustix::net::send(&sender, b"message", rustix::net::SendFlags::empty())?;
        receive(w, &receiver, LOCAL4.into(), Protocol::Udp, port)?;
    }
    Ok(())
}

fn udp_many(w: &mut Worker) -> Result<()> {
    let receiver = w.udp_server(Port::Udp4)?;
    let port = w.port(Port::Udp4);
    let sender = new_socket(AddressFamily::INET, SocketType::DGRAM, SocketFlags::empty())?;
    let count = 1 + w.rng.below(BURST_MAX);
    sys::sendmmsg(&sender, SocketAddrV4::new(LOCAL4, port), count)?;
    sys::recvmmsg(&receiver, count)?;
    for _ in 0..count {
        w.net(Kind::Egress, Protocol::Udp, LOCAL4, port);
        w.net(Kind::Ingress, Protocol::Udp, LOCAL4, port);
    }
    Ok(())
}

/// A client with a port of its own is answered.
fn udp_answer(w: &mut Worker) -> Result<()> {
    let _binding = binding();
    let server = w.udp_server(Port::Udp4)?;
    let (port, answer_port) = (w.port(Port::Udp4), w.port(Port::Answer));
    let client = UdpSocket::bind(local4(answer_port))?;
    w.net(Kind::Bind, Protocol::Udp, LOCAL4, answer_port);
    client.send_to(b"question", local4(port))?;
    w.net(Kind::Egress, Protocol::Udp, LOCAL4, port);
    receive(w, &server, LOCAL4.into(), Protocol::Udp, port)?;
    server.send_to(b"answer", local4(answer_port))?;
    w.net(Kind::Egress, Protocol::Udp, LOCAL4, answer_port);
    receive(w, &client, LOCAL4.into(), Protocol::Udp, answer_port)
}

/// The kernel refuses broadcasts to sockets that did not ask to make them.
fn udp_broadcast_denied(w: &mut Worker) -> Result<()> {
    const BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
    let port = w.port(Port::Closed);
    let to: SocketAddr = SocketAddrV4::new(BROADCAST, port).into();
    let sender = new_socket(AddressFamily::INET, SocketType::DGRAM, SocketFlags::empty())?;
    let result = if w.rng.coin() {
        connect(&sender, &to)
    } else {
        rustix::net::sendto(&sender, b"message", rustix::net::SendFlags::empty(), &to).map(drop)
    };
    must_be_denied(result.map_err(io::Error::from))?;
    w.net_with(Kind::Egress, Protocol::Udp, BROADCAST, port, Status::Deny);
    Ok(())
}

/// An echo request with neither number nor checksum, which every kernel drops unanswered;
/// its type is 8 for ICMP and 128 for ICMPv6.
fn echo_request(kind: u8) -> [u8; 8] {
    [kind, 0, 0, 0, 0, 0, 0, 1]
}

fn icmp(w: &mut Worker, kind: SocketType, to: IpAddr) -> Result<()> {
    let (family, ip_protocol, request, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, Protocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, Protocol::Icmp6),
    };
    let sender = socket_with(family, kind, SocketFlags::CLOEXEC, Some(ip_protocol))?;
    let to_socket = SocketAddr::new(to, 0);
    rustix::net::sendto(
        &sender,
        &echo_request(request),
        rustix::net::SendFlags::empty(),
        &to_socket,
    )?;
    w.net(Kind::Egress, protocol, to, 0);
    Ok(())
}

fn icmp_raw(w: &mut Worker) -> Result<()> {
    icmp(w, SocketType::RAW, LOCAL4.into())
}

fn icmp_raw_v6(w: &mut Worker) -> Result<()> {
    icmp(w, SocketType::RAW, LOCAL6.into())
}

fn ping_socket(w: &mut Worker) -> Result<()> {
    icmp(w, SocketType::DGRAM, LOCAL4.into())
}

/// An address to bind, with a kind of socket.
fn any_bind(w: &mut Worker) -> (SocketType, IpAddr, Protocol) {
    let addresses: [IpAddr; 5] = [
        LOCAL4.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        LOCAL6.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        LOCAL4.to_ipv6_mapped().into(),
    ];
    let address = *w.rng.pick(&addresses);
    let (kind, protocol) = match (w.rng.coin(), address) {
        (true, IpAddr::V4(_)) => (SocketType::STREAM, Protocol::Tcp),
        (true, IpAddr::V6(_)) => (SocketType::STREAM, Protocol::Tcp6),
        (false, IpAddr::V4(_)) => (SocketType::DGRAM, Protocol::Udp),
        (false, IpAddr::V6(_)) => (SocketType::DGRAM, Protocol::Udp6),
    };
    (kind, address, protocol)
}

fn bind_to(w: &mut Worker, port: u16) -> Result<()> {
    let _binding = binding();
    let (kind, address, protocol) = any_bind(w);
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = new_socket(family, kind, SocketFlags::empty())?;
    bind(&socket, &SocketAddr::new(address, port))?;
    w.net(Kind::Bind, protocol, address, port);
    Ok(())
}

fn bind_port(w: &mut Worker) -> Result<()> {
    bind_to(w, w.port(Port::Short))
}

fn bind_any(w: &mut Worker) -> Result<()> {
    bind_to(w, 0)
}

/// A server comes and goes, and may change its mind about its backlog.
fn listen(w: &mut Worker) -> Result<()> {
    let _binding = binding();
    let port = w.port(Port::Short);
    let server = new_socket(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::empty(),
    )?;
    bind(&server, &local4(port))?;
    w.net(Kind::Bind, Protocol::Tcp, LOCAL4, port);
    for backlog in 0..=w.rng.below(2) {
        rustix::net::listen(&server, i32::try_from(backlog)?)?;
        w.listens(Protocol::Tcp, LOCAL4, port);
    }
    Ok(())
}

/// The low ports are root's.
fn bind_denied(w: &mut Worker) -> Result<()> {
    const PORT: u16 = 80;
    w.as_nobody(|w| {
        let socket = new_socket(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::empty(),
        )?;
        must_be_denied(bind(&socket, &local4(PORT)).map_err(io::Error::from))?;
        w.net_with(Kind::Bind, Protocol::Tcp, LOCAL4, PORT, Status::Deny);
        Ok(())
    })
}

fn netlink_bind(w: &mut Worker) -> Result<()> {
    let (family, name) = *w.rng.pick(&[
        (None, "NETLINK_ROUTE"),
        (Some(netlink::KOBJECT_UEVENT), "NETLINK_KOBJECT_UEVENT"),
        (Some(netlink::GENERIC), "NETLINK_GENERIC"),
    ]);
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, family)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    w.did(Kind::Bind, name.into(), |row| {
        row.protocol = Protocol::Netlink;
    });
    Ok(())
}
