//! Asks a name server of its own for names, as the many resolvers of this world do it, and
//! connects to what it was told. Prints its truth: a line with address and name for each
//! address that must have a name in a summary, and with the address alone where none may.
//!
//! It runs in network and mount namespaces of its own, so that port 53 and resolv.conf are its.

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    io::read,
    mount::{MountPropagationFlags, mount_bind, mount_change},
    net::{RecvAncillaryBuffer, RecvFlags, recvmsg},
};
use std::{
    fs,
    io::{IoSliceMut, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    os::fd::AsFd,
    path::Path,
    thread,
};

const SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PORT: u16 = 53;
/// A port that nobody takes for a name server's.
const OTHER_PORT: u16 = 5_353;
/// What is told in all: one address for each name, in this order, from 127.1.0.1 on.
const NAMES: &[&str] = &[
    "recv.shop.example",
    "recvfrom.shop.example",
    "recvmsg.shop.example",
    "recvmmsg.shop.example",
    "read.shop.example",
    "peeked.shop.example",
    "alias.shop.example",
    "tcp-whole.shop.example",
    "tcp-pieces.shop.example",
    "tcp-parts.shop.example",
    "library.shop.example",
    "truncated.shop.example",
    "elsewhere.shop.example",
];
/// How often one name is asked for again.
const REPETITIONS: usize = 200;

fn main() -> Result<()> {
    enter_own_namespaces()?;
    serve(PORT)?;
    serve(OTHER_PORT)?;
    let mut truth = Vec::new();
    for name in NAMES {
        let address = ask(name).with_context(|| (*name).to_owned())?;
        connect_to(address)?;
        let is_seen = *name != "elsewhere.shop.example";
        truth.push(format!("{address} {}", if is_seen { name } else { "" }));
    }
    for _ in 0..REPETITIONS {
        ask(NAMES[0])?;
    }
    // An address under a second name, and one that was never asked for.
    ask("another-name-of-1.shop.example")?;
    connect_to(Ipv4Addr::new(127, 1, 0, 1))?;
    truth[0] = format!("127.1.0.1 another-name-of-1.shop.example,{}", NAMES[0]);
    let unasked = Ipv4Addr::new(127, 1, 0, 200);
    connect_to(unasked)?;
    truth.push(format!("{unasked} "));
    println!("{}", truth.join("\n"));
    Ok(())
}

// ---- asking ----

fn ask(name: &str) -> Result<Ipv4Addr> {
    let way = name.split('.').next().unwrap_or_default();
    let server = SocketAddr::from((SERVER, PORT));
    let mut buffer = [0; 1024];
    let bytes = match way {
        "library" | "truncated" => return ask_library(name),
        "tcp-whole" | "tcp-pieces" | "tcp-parts" => return ask_by_tcp(name, way),
        "recvfrom" => {
            let socket = UdpSocket::bind((SERVER, 0))?;
            socket.send_to(&question(name), server)?;
            socket.recv_from(&mut buffer)?.0
        }
        "recvmsg" => {
            let socket = UdpSocket::bind((SERVER, 0))?;
            socket.send_to(&question(name), server)?;
            receive(&socket, &mut [IoSliceMut::new(&mut buffer)])?
        }
        "recvmmsg" => {
            let socket = UdpSocket::bind((SERVER, 0))?;
            socket.send_to(&question(name), server)?;
            receive_many(&socket, &mut buffer)?
        }
        "elsewhere" => {
            let socket = connected((SERVER, OTHER_PORT).into(), name)?;
            socket.recv(&mut buffer)?
        }
        "read" => read(&connected(server, name)?, &mut buffer)?,
        "peeked" => {
            let socket = connected(server, name)?;
            socket.peek(&mut buffer)?;
            socket.recv(&mut buffer)?
        }
        _ => connected(server, name)?.recv(&mut buffer)?,
    };
    told(&buffer[..bytes])
}

fn connected(server: SocketAddr, name: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((SERVER, 0))?;
    socket.connect(server)?;
    socket.send(&question(name))?;
    Ok(socket)
}

fn receive(socket: impl AsFd, parts: &mut [IoSliceMut<'_>]) -> Result<usize> {
    let mut nothing_else = RecvAncillaryBuffer::default();
    Ok(recvmsg(socket, parts, &mut nothing_else, RecvFlags::empty())?.bytes)
}

fn receive_many(socket: &UdpSocket, buffer: &mut [u8]) -> Result<usize> {
    use std::os::fd::AsRawFd;
    let mut address = [0_u8; 16];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: a message header of zeros is valid: nothing is where its pointers say.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = &raw mut part;
    message.msg_hdr.msg_iovlen = 1;
    message.msg_hdr.msg_name = address.as_mut_ptr().cast();
    message.msg_hdr.msg_namelen = 16;
    // SAFETY: one message is passed, whose pointers are to memory that outlives the call.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            &raw mut message,
            1,
            0,
            std::ptr::null_mut(),
        )
    };
    ensure!(received == 1, "{}", std::io::Error::last_os_error());
    Ok(message.msg_len as usize)
}

fn ask_by_tcp(name: &str, way: &str) -> Result<Ipv4Addr> {
    let mut stream = TcpStream::connect((SERVER, PORT))?;
    stream.write_all(&with_length(&question(name)))?;
    let mut buffer = [0; 1024];
    let mut bytes = 0;
    match way {
        "tcp-whole" => bytes = stream.read(&mut buffer)?,
        "tcp-parts" => {
            let (length, message) = buffer.split_at_mut(2);
            let parts = &mut [IoSliceMut::new(length), IoSliceMut::new(message)];
            bytes = receive(&stream, parts)?;
        }
        _ => {
            // The server says nothing more: all that comes is the answer.
            let length = loop {
                let piece = if bytes == 0 { 2 } else { 11 };
                bytes += read(&stream, &mut buffer[bytes..bytes + piece])?;
                let length = usize::from(u16::from_be_bytes([buffer[0], buffer[1]])) + 2;
                if bytes >= length {
                    break length;
                }
            };
            ensure!(bytes == length, "more than was said");
        }
    }
    told(&buffer[2..bytes])
}

/// The C library's resolver: it asks for both kinds of addresses, and again over TCP if it is
/// told that the answer was truncated.
fn ask_library(name: &str) -> Result<Ipv4Addr> {
    for address in (name, 9).to_socket_addrs()? {
        if let SocketAddr::V4(address) = address {
            return Ok(*address.ip());
        }
    }
    bail!("no address")
}

/// A datagram socket's connect is a row and needs nobody at the other end.
fn connect_to(address: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok(socket.connect((address, 9))?)
}

// ---- messages ----

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.');
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

fn question(name: &str) -> Vec<u8> {
    let header = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&header[..], &wire(name), &[0, 1, 0, 1]].concat()
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// The address at the end of an answer.
fn told(answer: &[u8]) -> Result<Ipv4Addr> {
    let end: [u8; 4] = *answer.last_chunk().context("too short an answer")?;
    Ok(end.into())
}

// ---- the server ----

fn serve(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((SERVER, port))?;
    let listener = TcpListener::bind((SERVER, port))?;
    thread::spawn(move || -> Result<()> {
        let mut buffer = [0; 1024];
        loop {
            let (bytes, client) = socket.recv_from(&mut buffer)?;
            socket.send_to(&answer(&buffer[..bytes], true)?, client)?;
        }
    });
    thread::spawn(move || -> Result<()> {
        for stream in listener.incoming() {
            let mut stream = stream?;
            // The library asks for both kinds at once, or one after the other.
            thread::spawn(move || -> Result<()> {
                loop {
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut question)?;
                    stream.write_all(&with_length(&answer(&question, false)?))?;
                }
            });
        }
        Ok(())
    });
    Ok(())
}

/// Answers a question. What else stands behind it (EDNS) is passed over.
fn answer(asked: &[u8], by_datagram: bool) -> Result<Vec<u8>> {
    let body = asked.get(12..).context("no question")?;
    let end = body.iter().position(|&byte| byte == 0).context("no name")?;
    let question = body.get(..end + 5).context("no type")?;
    let name = dotted(&question[..end]);
    let kind = question[end + 2];
    let mut records: Vec<Vec<u8>> = Vec::new();
    let is_truncated = by_datagram && name.starts_with("truncated");
    if kind == 1 && !is_truncated {
        let number = match NAMES.iter().position(|known| *known == name) {
            Some(at) => at as u8 + 1,
            None => 1,
        };
        let mut owner = vec![0xc0, 12];
        if name.starts_with("alias") {
            let real = wire("Real.shop.example");
            let fixed = [0, 5, 0, 1, 0, 0, 0, 9, 0, real.len() as u8];
            records.push([&owner[..], &fixed, &real].concat());
            owner = real;
        }
        let fixed = [0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 127, 1, 0, number];
        records.push([&owner[..], &fixed].concat());
    }
    let flags = if is_truncated { 0x87 } else { 0x85 };
    let header = [
        asked[0],
        asked[1],
        flags,
        0x80,
        0,
        1,
        0,
        records.len() as u8,
        0,
        0,
        0,
        0,
    ];
    Ok([&header[..], question, &records.concat()].concat())
}

fn dotted(mut wire: &[u8]) -> String {
    let mut labels = Vec::new();
    while let Some((&length, rest)) = wire.split_first() {
        let (label, after) = rest.split_at(usize::from(length).min(rest.len()));
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        wire = after;
    }
    labels.join(".")
}

// ---- namespaces ----

fn enter_own_namespaces() -> Result<()> {
    // SAFETY: this thread is the only one yet, and its descriptors stay shared with nobody.
    let failed = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
    ensure!(failed == 0, "unshare: {}", std::io::Error::last_os_error());
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    bring_loopback_up()?;
    let folder = std::env::temp_dir().join(format!("resolver-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let replaced = replace(
        &folder,
        "resolv.conf",
        "nameserver 127.0.0.1\noptions timeout:5\n",
    )
    .and_then(|()| replace(&folder, "nsswitch.conf", "hosts: dns\n"));
    fs::remove_dir_all(&folder)?;
    replaced
}

/// Puts a file of our own over one of /etc.
fn replace(folder: &Path, name: &str, content: &str) -> Result<()> {
    let (ours, theirs) = (folder.join(name), Path::new("/etc").join(name));
    fs::write(&ours, content)?;
    if !theirs.exists() {
        fs::write(&theirs, "")?;
    }
    let target = fs::canonicalize(&theirs)?;
    mount_bind(&ours, &target).with_context(|| format!("cannot cover {}", target.display()))
}

fn bring_loopback_up() -> Result<()> {
    use std::os::fd::AsRawFd;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: an interface request of zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (at, byte) in b"lo".iter().enumerate() {
        request.ifr_name[at] = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call and is of the type that this one takes.
    let failed = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )
    };
    ensure!(failed == 0, "lo: {}", std::io::Error::last_os_error());
    Ok(())
}
