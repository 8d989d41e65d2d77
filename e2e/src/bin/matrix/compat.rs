//! Calls as 32-bit programs make them: by `int 0x80`, which any x86 program may use. What
//! they point to lies below 4 GiB.

use crate::{
    deeds::{Cell, Record, name, spot},
    exec, socket, sys,
};
use anyhow::{Result, ensure};
use ethogram_model::{Kind, Protocol};
use std::{
    ffi::CStr,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Numbers of `asm/unistd_32.h`, and operations of `socketcall`.
mod number {
    pub(super) const OPEN: u32 = 5;
    pub(super) const EXECVE: u32 = 11;
    pub(super) const SOCKETCALL: u32 = 102;
    pub(super) const SETUID32: u32 = 213;
    pub(super) const BIND: u32 = 361;
    pub(super) const CONNECT: u32 = 362;
    pub(super) const LISTEN: u32 = 363;
    pub(super) const ACCEPT4: u32 = 364;
    pub(super) const SENDTO: u32 = 369;
    pub(super) const SENDMSG: u32 = 370;
    pub(super) const SYS_BIND: u32 = 2;
    pub(super) const SYS_CONNECT: u32 = 3;
    pub(super) const SYS_ACCEPT: u32 = 5;
    pub(super) const SYS_SENDTO: u32 = 11;
}

#[cfg(target_arch = "x86_64")]
fn call(number: u32, arguments: &[u32]) -> io::Result<u32> {
    let mut registers = [0; 6];
    registers[..arguments.len()].copy_from_slice(arguments);
    let mut result = u64::from(number);
    // SAFETY: the callers pass numbers, and addresses of memory below 4 GiB that outlives
    // the call. The kernel changes rax and, for 32-bit calls, r8 to r11. Of rbx and rbp the
    // compiler makes its own use, so they are exchanged for the time of the call.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "xchg {last}, rbp",
            "int 0x80",
            "xchg {last}, rbp",
            "xchg {first}, rbx",
            first = inout(reg) u64::from(registers[0]) => _,
            last = inout(reg) u64::from(registers[5]) => _,
            inout("rax") result,
            in("rcx") u64::from(registers[1]),
            in("rdx") u64::from(registers[2]),
            in("rsi") u64::from(registers[3]),
            in("rdi") u64::from(registers[4]),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let result = u32::try_from(result & 0xffff_ffff).expect("it is masked");
    match result.cast_signed() {
        error @ -4095..0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(result),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn call(_: u32, _: &[u32]) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A copy of the bytes below 4 GiB, which stays there.
fn low(bytes: &[u8]) -> io::Result<u32> {
    sys::low_memory(bytes)
}

fn descriptor(result: io::Result<u32>) -> io::Result<OwnedFd> {
    // SAFETY: the callers pass the result of a call that has just opened this descriptor.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) })
}

/// `open` for reading.
pub(crate) fn open(path: &CStr) -> io::Result<OwnedFd> {
    descriptor(call(number::OPEN, &[low(path.to_bytes_with_nul())?, 0]))
}

/// `struct sockaddr_in`.
fn address(port: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(
        u16::try_from(libc::AF_INET)
            .expect("it is small")
            .to_ne_bytes(),
    );
    bytes.extend(port.to_be_bytes());
    bytes.extend(Ipv4Addr::LOCALHOST.octets());
    bytes.extend([0; 8]);
    bytes
}

const ADDRESS_BYTES: u32 = 16;

fn words(words: &[u32]) -> io::Result<u32> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    low(&bytes)
}

fn socketcall(operation: u32, arguments: &[u32]) -> io::Result<u32> {
    call(number::SOCKETCALL, &[operation, words(arguments)?])
}

fn raw(socket: &impl AsRawFd) -> u32 {
    socket.as_raw_fd().cast_unsigned()
}

pub(crate) fn cells() -> Vec<Cell> {
    let cell = |what: &str, place: &str, act: fn(&mut Record) -> Result<()>| {
        Cell::new(what, place, |_| Ok(()), act)
    };
    let mut cells = vec![
        cell("32-bit setuid", "root", |record| {
            call(number::SETUID32, &[0])?;
            record.called("setuid");
            Ok(())
        }),
        cell("32-bit TCP", "calls of their own", |record| {
            tcp(record, false)
        }),
        cell("32-bit TCP", "socketcall", |record| tcp(record, true)),
        cell("32-bit UDP", "sendto", |record| {
            udp(record, &[], |socket, to| {
                call(
                    number::SENDTO,
                    &[socket, low(b"m")?, 1, 0, to, ADDRESS_BYTES],
                )
                .map(drop)
            })
        }),
        cell("32-bit UDP", "sendmsg", |record| {
            udp(record, &[spot::SOCKETS_32_BIT], |socket, to| {
                let part = words(&[low(b"m")?, 1])?;
                let message = words(&[to, ADDRESS_BYTES, part, 1, 0, 0, 0])?;
                call(number::SENDMSG, &[socket, message, 0]).map(drop)
            })
        }),
        cell("32-bit UDP", "socketcall", |record| {
            udp(record, &[spot::SOCKETS_32_BIT], |socket, to| {
                socketcall(
                    number::SYS_SENDTO,
                    &[socket, low(b"m")?, 1, 0, to, ADDRESS_BYTES],
                )
                .map(drop)
            })
        }),
    ];
    cells.push(Cell::new(
        "32-bit execve",
        "plain",
        exec::make_program,
        |record| {
            let program = record.path("program");
            let path = low(crate::places::c_path(&program).to_bytes_with_nul())?;
            let arguments = words(&[path, low(c"exit".to_bytes_with_nul())?, 0])?;
            let environment = words(&[0])?;
            exec::in_child(|| {
                let _ = call(number::EXECVE, &[path, arguments, environment]);
            })?;
            record.did(Kind::Process, name(&program), |_| ());
            Ok(())
        },
    ));
    cells
}

/// Listens, connects and accepts, each by a 32-bit call.
fn tcp(record: &mut Record, by_socketcall: bool) -> Result<()> {
    let port = record.port;
    let to = low(&address(port))?;
    let (server, client) = (
        socket::socket(libc::AF_INET, libc::SOCK_STREAM)?,
        socket::socket(libc::AF_INET, libc::SOCK_STREAM)?,
    );
    let hidden: &[&'static str] = if by_socketcall {
        &[spot::SOCKETS_32_BIT]
    } else {
        &[]
    };
    if by_socketcall {
        socketcall(number::SYS_BIND, &[raw(&server), to, ADDRESS_BYTES])?;
    } else {
        call(number::BIND, &[raw(&server), to, ADDRESS_BYTES])?;
    }
    record.net_unseen(Kind::Bind, Protocol::Tcp, Ipv4Addr::LOCALHOST, port, hidden);
    call(number::LISTEN, &[raw(&server), 1])?;
    record.listened(Protocol::Tcp, Ipv4Addr::LOCALHOST, port);
    if by_socketcall {
        socketcall(number::SYS_CONNECT, &[raw(&client), to, ADDRESS_BYTES])?;
    } else {
        call(number::CONNECT, &[raw(&client), to, ADDRESS_BYTES])?;
    }
    // By its state machine.
    record.net(Kind::Egress, Protocol::Tcp, Ipv4Addr::LOCALHOST, port);
    let accepted = descriptor(if by_socketcall {
        socketcall(number::SYS_ACCEPT, &[raw(&server), 0, 0])
    } else {
        call(number::ACCEPT4, &[raw(&server), 0, 0, 0])
    })?;
    let hidden: &[&'static str] = if by_socketcall {
        &[spot::ACCEPTED_OTHERWISE]
    } else {
        &[]
    };
    record.net_unseen(
        Kind::Ingress,
        Protocol::Tcp,
        Ipv4Addr::LOCALHOST,
        port,
        hidden,
    );
    drop(accepted);
    Ok(())
}

/// Sends a datagram; the server receives it by a 64-bit call.
fn udp(
    record: &mut Record,
    hidden_by: &[&'static str],
    send: impl FnOnce(u32, u32) -> io::Result<()>,
) -> Result<()> {
    let port = record.port;
    let server = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    record.net(Kind::Bind, Protocol::Udp, Ipv4Addr::LOCALHOST, port);
    let client = socket::socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    send(raw(&client), low(&address(port))?)?;
    record.net_unseen(
        Kind::Egress,
        Protocol::Udp,
        Ipv4Addr::LOCALHOST,
        port,
        hidden_by,
    );
    let (bytes, _) = server.recv_from(&mut [0; 8])?;
    ensure!(bytes == 1, "a message of {bytes} bytes came");
    record.net(Kind::Ingress, Protocol::Udp, Ipv4Addr::LOCALHOST, port);
    Ok(())
}
