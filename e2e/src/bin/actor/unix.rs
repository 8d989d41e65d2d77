//! Operations on unix sockets.

use crate::{
    ops::{Op, op},
    sys,
    worker::{Worker, binding, must_be_denied, must_fail, names},
};
use anyhow::{Result, ensure};
use ethogram_model::{Access, Kind, Name, Protocol, Status};
use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
};

/// All of them.
pub(crate) const OPS: &[Op] = &[
    op("unix", "unix-stream", 40, stream),
    op("unix", "unix-relative", 10, relative),
    op("unix", "unix-datagram", 30, datagram),
    op("unix", "unix-datagram-connected", 20, datagram_connected),
    op("unix", "unix-refused", 20, refused),
    op("unix", "unix-denied", 5, denied),
    op("unix", "unix-pair", 20, pair),
];

/// Where a server of this thread is for a moment: below its directory, or abstract.
struct Address {
    socket: SocketAddr,
    name: Name,
    path: Option<crate::place::Place>,
}

fn any_address(w: &mut Worker) -> Result<Address> {
    let choices: [&[u8]; 2] = [b"server.sock", b"server \x1b[1m\xff"];
    let leaf = *w.rng.pick(&choices);
    if w.rng.coin() {
        let place = w.own_place(leaf);
        return Ok(Address {
            socket: SocketAddr::from_pathname(Path::new(crate::exec::argument(&place.path)))?,
            name: place.name.clone(),
            path: Some(place),
        });
    }
    let seed = w.plan.seed;
    let name = [format!("actor-{seed}-{}-", w.number).as_bytes(), leaf].concat();
    Ok(Address {
        socket: SocketAddr::from_abstract_name(&name)?,
        name: Name::from_bytes(&[b"@", &name[..]].concat()),
        path: None,
    })
}

/// Takes the name of a server away again.
fn remove(w: &mut Worker, address: &Address) -> Result<()> {
    if let Some(place) = &address.path {
        sys::unlink(&place.path)?;
        w.used(place, Access::DELETE);
    }
    Ok(())
}

fn unix(w: &mut Worker, kind: Kind, name: &Name, status: Status) {
    w.did(kind, name.clone(), |row| {
        (row.protocol, row.status) = (Protocol::Unix, status);
    });
}

fn allowed(w: &mut Worker, kind: Kind, name: &Name) {
    unix(w, kind, name, Status::Allow);
}

fn listens(w: &mut Worker, name: &Name) {
    w.did(Kind::Bind, name.clone(), |row| {
        (row.protocol, row.access) = (Protocol::Unix, Access::LISTEN);
    });
}

fn stream(w: &mut Worker) -> Result<()> {
    let _binding = binding();
    let address = any_address(w)?;
    let server = UnixListener::bind_addr(&address.socket)?;
    allowed(w, Kind::Bind, &address.name);
    listens(w, &address.name);
    for _ in 0..=w.rng.below(3) {
        let client = UnixStream::connect_addr(&address.socket)?;
        allowed(w, Kind::Egress, &address.name);
        server.accept()?;
        allowed(w, Kind::Ingress, &address.name);
        drop(client);
    }
    remove(w, &address)
}

/// Bound and reached by a path from the current directory.
fn relative(w: &mut Worker) -> Result<()> {
    let place = w.own_place(b"relative.sock");
    let thread = w
        .own
        .relative
        .clone()
        .expect("its directory is below the current one");
    let path = thread.join("relative.sock");
    let server = UnixListener::bind(&path)?;
    allowed(w, Kind::Bind, &place.name);
    listens(w, &place.name);
    let client = UnixStream::connect(&path)?;
    allowed(w, Kind::Egress, &place.name);
    server.accept()?;
    allowed(w, Kind::Ingress, &place.name);
    drop(client);
    sys::unlink(&place.path)?;
    w.used(&place, Access::DELETE);
    Ok(())
}

/// How many messages are sent in one go at most; a socket's queue holds ten.
const BURST_MAX: usize = 4;

fn receive(w: &mut Worker, server: &UnixDatagram, count: usize, name: &Name) -> Result<()> {
    for _ in 0..count {
        let (bytes, _) = server.recv_from(&mut [0; 8])?;
        ensure!(bytes == 1, "a message of {bytes} bytes came");
        allowed(w, Kind::Ingress, name);
    }
    Ok(())
}

fn datagram(w: &mut Worker) -> Result<()> {
    let _binding = binding();
    let address = any_address(w)?;
    let server = UnixDatagram::bind_addr(&address.socket)?;
    allowed(w, Kind::Bind, &address.name);
    let client = UnixDatagram::unbound()?;
    let count = 1 + w.rng.below(BURST_MAX);
    for _ in 0..count {
        client.send_to_addr(b"m", &address.socket)?;
        allowed(w, Kind::Egress, &address.name);
    }
    receive(w, &server, count, &address.name)?;
    remove(w, &address)
}

fn datagram_connected(w: &mut Worker) -> Result<()> {
    let _binding = binding();
    let address = any_address(w)?;
    let server = UnixDatagram::bind_addr(&address.socket)?;
    allowed(w, Kind::Bind, &address.name);
    let client = UnixDatagram::unbound()?;
    client.connect_addr(&address.socket)?;
    allowed(w, Kind::Egress, &address.name);
    let count = 1 + w.rng.below(BURST_MAX);
    for _ in 0..count {
        client.send(b"m")?;
    }
    receive(w, &server, count, &address.name)?;
    remove(w, &address)
}

/// A name whose listener is gone.
fn refused(w: &mut Worker) -> Result<()> {
    let place = w.own_place(names::STALE_SOCKET);
    must_fail(connect_to(&place), libc::ECONNREFUSED)?;
    unix(w, Kind::Egress, &place.name, Status::Failed);
    Ok(())
}

fn connect_to(place: &crate::place::Place) -> io::Result<UnixStream> {
    UnixStream::connect(crate::exec::argument(&place.path))
}

/// Connecting needs the right to write to the socket, binding that to write to its directory.
fn denied(w: &mut Worker) -> Result<()> {
    w.as_nobody(|w| {
        let stale = w.own_place(names::STALE_SOCKET);
        must_be_denied(connect_to(&stale))?;
        unix(w, Kind::Egress, &stale.name, Status::Deny);
        let place = w.own_place(b"forbidden.sock");
        must_be_denied(UnixListener::bind(crate::exec::argument(&place.path)))?;
        unix(w, Kind::Bind, &place.name, Status::Deny);
        Ok(())
    })
}

/// Two sockets that know nobody else.
fn pair(w: &mut Worker) -> Result<()> {
    let (one, other) = UnixStream::pair()?;
    ensure!(
        one.local_addr()?.is_unnamed() && other.peer_addr()?.is_unnamed(),
        "a pair of worker {} has names",
        w.number
    );
    Ok(())
}
