//! One thing an executable does.

use crate::Name;
use std::fmt;

/// What is counted: (kind, source, target and how, outcome), within one container.
///
/// | kind | `source` | `target` | `protocol` | `port` | `access` |
/// | --- | --- | --- | --- | --- | --- |
/// | process | executable that called exec | executable that runs now | - | - | marks: memfd, deleted, upper layer |
/// | file | executable | path in the container | - | - | read, write, ... |
/// | ingress | executable | peer's address | yes | local port | - |
/// | egress | executable | peer's address | yes | remote port | - |
/// | bind | executable | bound address | yes | bound port | listen |
/// | capability | executable | `CAP_NET_RAW` | - | - | - |
/// | syscall | executable | `ptrace` | - | - | - |
///
/// Addresses are an IPv4 or IPv6 address, the path of a unix socket, `@name` for an
/// abstract one, or empty where there is none (netlink). A port is 0 where it means
/// nothing. Fields that mean nothing for a kind are at their default, so equality is
/// equality of behaviour.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Behaviour {
    /// Which table it belongs to.
    pub kind: Kind,
    /// The executable that acts, as its path in the container.
    pub source: Name,
    /// What it acts upon.
    pub target: Name,
    /// Network kinds only.
    pub protocol: Protocol,
    /// Network kinds only, host byte order; never an ephemeral local port.
    pub port: u16,
    /// How a file is used, and marks on what is named.
    pub access: Access,
    /// How it ended.
    pub status: Status,
}

impl Behaviour {
    /// A behaviour of a kind without network fields, allowed.
    #[must_use]
    pub fn new(kind: Kind, source: Name, target: Name) -> Self {
        Self {
            kind,
            source,
            target,
            protocol: Protocol::None,
            port: 0,
            access: Access::empty(),
            status: Status::Allow,
        }
    }
}

/// Defines a fieldless enum with a stable number (stores, wires) and a stable word
/// (tables, JSON, flags) for each variant, so that each is named once.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $number),+ }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number that stores and wires keep. Never reused, never changed.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The variant of a number; `None` for one this version does not know.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.number() == number)
            }

            /// The word that tables, JSON and command-line options use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The variant of a word, in any letter case.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.as_str().eq_ignore_ascii_case(word))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

vocabulary! {
    /// The table a behaviour belongs to.
    Kind {
        /// An executable starts another.
        Process = 1 "process",
        /// An executable uses a file.
        File = 2 "file",
        /// An executable accepts a connection or receives from a peer.
        Ingress = 3 "ingress",
        /// An executable connects or sends to a peer.
        Egress = 4 "egress",
        /// An executable binds an address.
        Bind = 5 "bind",
        /// An executable uses a capability.
        Capability = 6 "capability",
        /// An executable calls a security-sensitive system call.
        Syscall = 7 "syscall",
    }
}

vocabulary! {
    /// How it ended.
    Status {
        /// It succeeded.
        Allow = 0 "Allow",
        /// Refused with EACCES or EPERM, whoever refused: file modes, a security module, seccomp.
        Deny = 1 "Deny",
        /// It succeeded, and a policy says it should not have.
        Audit = 2 "Audit",
        /// It failed for another reason (refused connection, unreachable, timed out). Not
        /// an allowed behaviour, shown only on demand.
        Failed = 3 "Failed",
    }
}

vocabulary! {
    /// The protocol of a network behaviour.
    Protocol {
        /// Not a network behaviour.
        None = 0 "",
        /// TCP over an AF_INET socket.
        Tcp = 1 "TCP",
        /// TCP over an AF_INET6 socket; a v4-mapped peer is shown as its IPv4 address.
        Tcp6 = 2 "TCPv6",
        /// UDP over an AF_INET socket.
        Udp = 3 "UDP",
        /// UDP over an AF_INET6 socket.
        Udp6 = 4 "UDPv6",
        /// ICMP: a ping socket, or a raw socket of protocol ICMP.
        Icmp = 5 "ICMP",
        /// ICMPv6 likewise.
        Icmp6 = 6 "ICMPv6",
        /// Any other raw AF_INET socket.
        Raw = 7 "RAW",
        /// Any other raw AF_INET6 socket.
        Raw6 = 8 "RAWv6",
        /// SCTP over an AF_INET socket.
        Sctp = 9 "SCTP",
        /// SCTP over an AF_INET6 socket.
        Sctp6 = 10 "SCTPv6",
        /// A unix domain socket.
        Unix = 11 "AF_UNIX",
        /// A netlink socket; the target is the netlink family's name.
        Netlink = 12 "AF_NETLINK",
        /// A packet socket.
        Packet = 13 "AF_PACKET",
        /// A virtual machine socket.
        Vsock = 14 "AF_VSOCK",
        /// Any other address family; the target is its number.
        Other = 15 "OTHER",
    }
}

/// A set of ways a file is used, with marks on what is named. Empty for a file opened as
/// a mere handle (`O_PATH`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access(u16);

impl Access {
    /// Opened for reading.
    pub const READ: Self = Self(1);
    /// Opened for writing, or truncated.
    pub const WRITE: Self = Self(1 << 1);
    /// Came into being: created by an open, mkdir, mknod, symlink, link, or as the new name of a rename.
    pub const CREATE: Self = Self(1 << 2);
    /// Unlinked or rmdir'ed.
    pub const DELETE: Self = Self(1 << 3);
    /// Renamed: the old name and the new one.
    pub const RENAME: Self = Self(1 << 4);
    /// Mode, owner or link count changed.
    pub const ATTR: Self = Self(1 << 5);
    /// A bound socket also listens.
    pub const LISTEN: Self = Self(1 << 6);
    /// Mark: an executable that lives in memory only (memfd).
    pub const MEMFD: Self = Self(1 << 7);
    /// Mark: the file has no name any more.
    pub const DELETED: Self = Self(1 << 8);
    /// Mark: an executable from a container's writable (upper) layer: not part of its image.
    pub const UPPER: Self = Self(1 << 9);
    /// Mark: the path is longer than 4096 bytes and its beginning is cut off.
    pub const CUT: Self = Self(1 << 10);
    /// Mark: the path is the one the program asked for, because no kernel object was left
    /// to ask (a refused open, an unlink seen by tracepoint): symbolic links in it are unresolved.
    pub const REQUESTED: Self = Self(1 << 11);
    /// Mark: it was there already when the watch began (look-back).
    pub const AT_START: Self = Self(1 << 12);
    /// Mark: stands for many siblings, folded at the source because a budget was reached.
    pub const FOLDED: Self = Self(1 << 13);

    /// Every flag with its word, in the order they are shown.
    pub const WORDS: &'static [(Self, &'static str)] = &[
        (Self::READ, "read"),
        (Self::WRITE, "write"),
        (Self::CREATE, "create"),
        (Self::DELETE, "delete"),
        (Self::RENAME, "rename"),
        (Self::ATTR, "attr"),
        (Self::LISTEN, "listen"),
        (Self::MEMFD, "memfd"),
        (Self::DELETED, "deleted"),
        (Self::UPPER, "upper-layer"),
        (Self::CUT, "cut"),
        (Self::REQUESTED, "as-requested"),
        (Self::AT_START, "at-start"),
        (Self::FOLDED, "folded"),
    ];

    /// No use, no mark.
    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The bits that stores and wires keep.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Flags from bits; bits this version does not know are kept.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Whether nothing is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without the flags of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The words of the flags that are set.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS
            .iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|(_, word)| *word)
    }

    /// The flag of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(_, w)| w.eq_ignore_ascii_case(word))
            .map(|(flag, _)| *flag)
    }
}

impl std::ops::BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Access {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.words().collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_lead_back() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
            assert_eq!(Kind::from_word(kind.as_str()), Some(kind));
        }
        for &status in Status::ALL {
            assert_eq!(Status::from_number(status.number()), Some(status));
            assert_eq!(
                Status::from_word(&status.as_str().to_lowercase()),
                Some(status)
            );
        }
        for &protocol in Protocol::ALL {
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
        }
        for (flag, word) in Access::WORDS {
            assert_eq!(Access::from_word(word), Some(*flag));
        }
    }

    #[test]
    fn access_is_a_set() {
        let both = Access::READ | Access::WRITE;
        assert!(both.contains(Access::READ) && !both.contains(Access::CREATE));
        assert_eq!(both.to_string(), "read,write");
        assert_eq!(both.without(Access::READ), Access::WRITE);
        assert_eq!(Access::from_bits(both.bits()), both);
    }
}
