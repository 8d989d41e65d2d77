//! Records of the ring buffer, decoded.

use std::net::{IpAddr, Ipv6Addr};

use ethogram_model::{Access, Kind, Protocol, Status};

use crate::{bpf::types, dns::Piece};

/// One record, borrowed from the ring.
#[derive(Debug)]
pub(crate) struct Record<'ring> {
    pub(crate) time_ns: u64,
    pub(crate) cgroup: u64,
    /// Identity of an executable.
    pub(crate) exe: u64,
    pub(crate) content: Content<'ring>,
}

/// What a record says.
#[derive(Debug)]
pub(crate) enum Content<'ring> {
    /// One event of a behaviour; later ones are counted in `slot`, if there is one.
    Behaviour {
        slot: Option<u32>,
        key: Key,
        path: &'ring [u8],
        extra: &'ring [u8],
    },
    /// The path of the executable `exe`.
    Executable {
        path: &'ring [u8],
        requested: &'ring [u8],
    },
    /// A cgroup appeared.
    CgroupNew { path: &'ring [u8] },
    /// A cgroup went away.
    CgroupGone { path: &'ring [u8] },
    /// A socket that look-back found open.
    Socket(Socket<'ring>),
    /// An answer of a name server, over UDP.
    Answer { message: &'ring [u8] },
    /// A piece of what a name server said over TCP.
    AnswerPiece(Piece<'ring>),
}

/// The decoded part of a behaviour's key that is not a mere identity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) status: Status,
    pub(crate) access: Access,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) address: [u8; 16],
    /// Length of the prefix, if it is folded.
    pub(crate) prefix_bits: u8,
    /// Whether a folded path is two with a slash between them.
    pub(crate) joined: bool,
    /// Capability, netlink protocol, address family, or index of a system call.
    pub(crate) number: u64,
}

/// A socket found open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Socket<'ring> {
    pub(crate) protocol: Protocol,
    pub(crate) listening: bool,
    /// The program chose the local port (inet) or has a name of its own (unix).
    pub(crate) named: bool,
    pub(crate) remote: IpAddr,
    /// Inet: the peer's port, 0 if not connected. Unix: 1 if connected.
    pub(crate) remote_port: u16,
    pub(crate) local: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) netns: u64,
    pub(crate) number: u64,
    pub(crate) unix_name: &'ring [u8],
}

/// Bytes of the fixed part of a record.
const HEADER_BYTES: usize = size_of::<types::record>();

/// No map of counters has more places than this: 16 Mi.
const SLOTS_MAX: u32 = 1 << 24;

/// Decodes one record. `None`: it is not one that this version's programs write.
pub(crate) fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let header = crate::bpf::header_of(bytes)?;
    let body = bytes.get(HEADER_BYTES..)?;
    let (path, rest) = body.split_at_checked(usize::from(header.path_bytes))?;
    let extra = rest.get(..usize::from(header.extra_bytes))?;
    let content = match header.r#type {
        1 => Content::Behaviour {
            slot: slot_of(header.slot)?,
            key: key_of(&header)?,
            path,
            extra,
        },
        2 => Content::Executable {
            path,
            requested: extra,
        },
        3 => Content::CgroupNew { path: extra },
        4 => Content::CgroupGone { path: extra },
        5 => Content::Socket(socket_of(&header, extra)?),
        6 => match Protocol::from_number(header.key.protocol)? {
            Protocol::Tcp | Protocol::Tcp6 => Content::AnswerPiece(piece_of(&header, extra)),
            _ => Content::Answer { message: extra },
        },
        _ => return None,
    };
    Some(Record {
        time_ns: header.time_ns,
        cgroup: header.key.cgroup,
        exe: header.key.exe,
        content,
    })
}

/// The place where later events are counted, if there is one. Beyond every map is nonsense.
fn slot_of(slot: u32) -> Option<Option<u32>> {
    match slot {
        u32::MAX => Some(None),
        slot if slot < SLOTS_MAX => Some(Some(slot)),
        _ => None,
    }
}

fn key_of(header: &types::record) -> Option<Key> {
    let key = &header.key;
    Some(Key {
        kind: Kind::from_number(key.kind)?,
        status: Status::from_number(key.status)?,
        access: Access::from_bits(key.access | header.marks),
        protocol: Protocol::from_number(key.protocol)?,
        port: key.port,
        address: address_bytes(key.id[0], key.id[1]),
        prefix_bits: u8::try_from(key.id[2]).unwrap_or(128),
        joined: key.id[3] != 0,
        number: key.id[0],
    })
}

fn socket_of<'ring>(header: &types::record, unix_name: &'ring [u8]) -> Option<Socket<'ring>> {
    let key = &header.key;
    Some(Socket {
        protocol: Protocol::from_number(key.protocol)?,
        listening: header.listening != 0,
        named: header.explicit_port != 0,
        remote: ip_of(address_bytes(key.id[0], key.id[1])),
        remote_port: key.port,
        local: ip_of(address_bytes(header.local[0], header.local[1])),
        local_port: header.local_port,
        netns: header.netns,
        number: key.id[0],
        unix_name,
    })
}

fn piece_of<'ring>(header: &types::record, bytes: &'ring [u8]) -> Piece<'ring> {
    let [socket, place, length, _] = header.key.id;
    Piece {
        socket,
        // Places wrap around with TCP's sequence numbers, and no call returns more than 2 GiB.
        place: place as u32,
        length: length as u32,
        bytes,
    }
}

fn address_bytes(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_ne_bytes());
    bytes[8..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

/// IPv4 travels as v4-mapped IPv6.
pub(crate) fn ip_of(bytes: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(bytes);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn truncated_and_foreign_records_are_refused() {
        assert!(decode(&[]).is_none());
        assert!(decode(&[0; 20]).is_none());
        assert!(
            decode(&[0; HEADER_BYTES]).is_none(),
            "type 0 is none of ours"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(Record { content: Content::Behaviour { path, extra, .. }, .. }) = decode(&bytes) {
                prop_assert!(path.len() + extra.len() <= bytes.len());
            }
        }
    }
}
