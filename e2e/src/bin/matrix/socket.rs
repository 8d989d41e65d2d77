//! The system calls of sockets.
//!
//! Addresses are passed as their bytes, which are as long as is said.

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::{
    ffi::CStr,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
};

pub(crate) fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    socket_of(family, kind, 0)
}

pub(crate) fn socket_of(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: only numbers are passed.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just opened this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// An address of any family, as its bytes.
pub(crate) struct Address(Vec<u8>);

impl Address {
    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        self.0.as_ptr().cast()
    }

    pub(crate) fn bytes(&self) -> u32 {
        u32::try_from(self.0.len()).expect("addresses are short")
    }

    fn of_family(family: i32) -> Self {
        let family = u16::try_from(family).expect("families are small");
        Self(family.to_ne_bytes().to_vec())
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// Of an IPv4 socket.
pub(crate) fn address(of: SocketAddr) -> Address {
    let SocketAddr::V4(of) = of else {
        panic!("only IPv4 is needed here");
    };
    Address::of_family(libc::AF_INET)
        .and(&of.port().to_be_bytes())
        .and(&of.ip().octets())
        .and(&[0; 8])
}

pub(crate) fn unix_address(path: &CStr) -> Address {
    Address::of_family(libc::AF_UNIX).and(path.to_bytes_with_nul())
}

const VMADDR_CID_LOCAL: u32 = 1;

/// `struct sockaddr_vm` of this machine.
pub(crate) fn vsock_address(port: u32) -> Address {
    Address::of_family(libc::AF_VSOCK)
        .and(&[0; 2])
        .and(&port.to_ne_bytes())
        .and(&VMADDR_CID_LOCAL.to_ne_bytes())
        .and(&[0; 4])
}

/// Whether this machine can reach itself by vsock.
pub(crate) fn vsock_loopback() -> bool {
    let socket = socket(libc::AF_VSOCK, libc::SOCK_STREAM);
    // Nobody listens there: without a loopback it cannot even be asked for.
    let outcome = socket.and_then(|socket| connect(&socket, &vsock_address(1)));
    outcome.is_err_and(|error| error.raw_os_error() == Some(libc::ECONNRESET))
}

const LOOPBACK_INDEX: i32 = 1;
/// Reserved for experiments: nobody takes such frames.
const ETH_P_EXPERIMENT: u16 = 0x88b5;

/// `struct sockaddr_ll` of the loopback interface.
pub(crate) fn packet_address() -> Address {
    Address::of_family(libc::AF_PACKET)
        .and(&ETH_P_EXPERIMENT.to_be_bytes())
        .and(&LOOPBACK_INDEX.to_ne_bytes())
        .and(&[0, 0, 0, 6])
        .and(&[0; 8])
}

pub(crate) fn bind(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    // SAFETY: the address is as long as is said, and the kernel only reads it.
    done(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.bytes()) })
}

pub(crate) fn connect(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    // SAFETY: as above.
    done(unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr(), address.bytes()) })
}

/// Sends a frame without content to the loopback interface.
pub(crate) fn send_frame(socket: &OwnedFd) -> io::Result<()> {
    let to = packet_address();
    // SAFETY: the message and the address are as long as is said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            [0_u8; 16].as_ptr().cast(),
            16,
            0,
            to.as_ptr(),
            to.bytes(),
        )
    };
    done(i32::try_from(sent).unwrap_or(-1))
}

/// A raw socket, in the clothes of the standard library's for datagrams.
pub(crate) fn raw_icmp() -> io::Result<UdpSocket> {
    Ok(socket_of(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?.into())
}

/// A message of one byte with an address, and all that its header points to.
pub(crate) struct Message {
    address: Box<[u8; 16]>,
    content: Box<[u8; 1]>,
    part: Box<libc::iovec>,
    header: libc::msghdr,
}

impl Message {
    pub(crate) fn to(to: SocketAddr) -> Self {
        let bytes = address(to)
            .0
            .try_into()
            .expect("an IPv4 address has 16 bytes");
        let (mut address, mut content) = (Box::new(bytes), Box::new(*b"m"));
        let mut part = Box::new(libc::iovec {
            iov_base: content.as_mut_ptr().cast(),
            iov_len: content.len(),
        });
        // SAFETY: zeroes are a header without anything.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = ptr::from_mut::<[u8; 16]>(&mut address).cast();
        header.msg_namelen = 16;
        header.msg_iov = &raw mut *part;
        header.msg_iovlen = 1;
        Self {
            address,
            content,
            part,
            header,
        }
    }

    /// What it points to lives as long as the message.
    pub(crate) fn header(&mut self) -> &mut libc::msghdr {
        debug_assert_eq!(self.part.iov_len, self.content.len());
        debug_assert_eq!(self.header.msg_name, self.address.as_mut_ptr().cast());
        &mut self.header
    }
}

pub(crate) fn send_message(socket: &UdpSocket, message: &mut Message) -> io::Result<()> {
    // SAFETY: the message is whole, and the kernel only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), message.header(), 0) };
    done(i32::try_from(sent).unwrap_or(-1))
}

pub(crate) fn receive_message(socket: &UdpSocket, message: &mut Message) -> io::Result<()> {
    // SAFETY: the message has the room that it says.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), message.header(), 0) };
    done(i32::try_from(received).unwrap_or(-1))
}

fn headers(messages: &mut [Message]) -> Vec<libc::mmsghdr> {
    let header = |message: &mut Message| libc::mmsghdr {
        msg_hdr: *message.header(),
        msg_len: 0,
    };
    messages.iter_mut().map(header).collect()
}

pub(crate) fn send_messages(socket: &UdpSocket, to: SocketAddr, count: usize) -> Result<()> {
    let mut messages: Vec<_> = (0..count).map(|_| Message::to(to)).collect();
    let mut headers = headers(&mut messages);
    let number = u32::try_from(count)?;
    // SAFETY: there are so many headers, each of a whole message.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), number, 0) };
    ensure!(
        usize::try_from(sent) == Ok(count),
        "{sent} messages were sent"
    );
    Ok(())
}

pub(crate) fn receive_messages(socket: &UdpSocket, count: usize) -> Result<()> {
    let nobody = SocketAddr::from(([0; 4], 0));
    let mut messages: Vec<_> = (0..count).map(|_| Message::to(nobody)).collect();
    let mut headers = headers(&mut messages);
    let number = u32::try_from(count)?;
    // SAFETY: there are so many headers, each of a message with the room that it says.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            number,
            0,
            ptr::null_mut(),
        )
    };
    ensure!(
        usize::try_from(received) == Ok(count),
        "{received} messages came"
    );
    Ok(())
}

/// The descriptor in the next message.
pub(crate) fn received_descriptor(socket: &UnixStream) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut content = [0; 1];
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut content)],
        &mut control,
        RecvFlags::empty(),
    )?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    descriptor.context("no descriptor came")
}
