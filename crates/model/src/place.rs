//! The tree of what behaviours act upon: directories, address prefixes, ports.
//!
//! Every behaviour stands below a chain of places, the widest first. A place that is folded
//! has a text of its own, which is the target of the row that stands for all below it:
//!
//! | place | text |
//! |---|---|
//! | everything of a kind | `**` |
//! | everything below a directory | `/var/cache/` |
//! | the files in a directory, not those in directories below it | `/var/cache/*` |
//! | abstract sockets; other names that are no paths | `@*`; `*` |
//! | addresses with a common prefix | `10.1.0.0/16`, `2001:db8::/32` |
//! | all ports of one address | `10.1.2.3` |
//! | all uses of one capability, system call, socket family | its name |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Access, Behaviour, Kind, Protocol};

/// A set of targets that can be folded into one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Everything of a kind and outcome.
    All,
    /// Everything below a directory, whose path ends in a slash.
    Below(Box<str>),
    /// What is directly in a directory, or has no directory.
    In(Box<str>),
    /// One name.
    Just(Box<str>),
    /// Addresses with a common prefix.
    Net {
        /// The protocol.
        protocol: Protocol,
        /// The local port of an ingress; 0 elsewhere, where ports are told apart below.
        port: u16,
        /// The prefix, with zeros behind it.
        address: IpAddr,
        /// Its length in bits.
        bits: u8,
    },
}

/// Lengths of the prefixes that addresses fold into; the last is the address itself.
const V4_BITS: [u8; 5] = [0, 8, 16, 24, 32];
/// 32 bits are a provider's, 48 a site's, 64 a link's.
const V6_BITS: [u8; 5] = [0, 32, 48, 64, 128];

/// The text of [`Place::All`].
const ALL: &str = "**";

impl Place {
    /// The places a behaviour stands below, the widest first. A folded behaviour's last
    /// one is that which it stands for.
    #[must_use]
    pub fn above(behaviour: &Behaviour) -> Vec<Self> {
        let text = behaviour.target.as_str();
        let folded = behaviour.access.contains(Access::FOLDED);
        let mut places = vec![Self::All];
        if folded && text == ALL {
            return places;
        }
        match behaviour.kind {
            Kind::Ingress | Kind::Egress | Kind::Bind if is_inet(behaviour.protocol) => {
                match prefix_of(text) {
                    Some((address, bits)) => networks(behaviour, address, bits, &mut places),
                    None => places.push(Self::Just(text.into())),
                }
            }
            Kind::Ingress | Kind::Egress | Kind::Bind if behaviour.protocol != Protocol::Unix => {
                places.push(Self::Just(text.into()));
            }
            Kind::Capability | Kind::Syscall => places.push(Self::Just(text.into())),
            Kind::Process | Kind::File | Kind::Ingress | Kind::Egress | Kind::Bind => {
                directories(text, folded, &mut places);
            }
        }
        places
    }

    /// The target of the row that stands for it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::All => ALL.to_owned(),
            Self::Below(directory) => directory.to_string(),
            Self::In(directory) => format!("{directory}*"),
            Self::Just(name) => name.to_string(),
            Self::Net { address, bits, .. } if *bits == address_bits(*address) => {
                address.to_string()
            }
            Self::Net { address, bits, .. } => format!("{address}/{bits}"),
        }
    }

    /// Whether all that stands below `other` stands below this one.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Below(above), Self::Below(below) | Self::In(below)) => {
                below.starts_with(&**above)
            }
            (
                Self::Net {
                    protocol,
                    port,
                    address,
                    bits,
                },
                Self::Net {
                    protocol: other_protocol,
                    port: other_port,
                    address: other_address,
                    bits: other_bits,
                },
            ) => {
                (protocol, port) == (other_protocol, other_port)
                    && bits <= other_bits
                    && masked(*other_address, *bits) == *address
            }
            _ => self == other,
        }
    }
}

fn is_inet(protocol: Protocol) -> bool {
    (Protocol::Tcp.number()..=Protocol::Sctp6.number()).contains(&protocol.number())
}

/// The directories above a path, and the last of them once more for what is directly in it.
fn directories(text: &str, folded: bool, places: &mut Vec<Place>) {
    if !text.starts_with('/') {
        let name_space = if text.starts_with('@') { "@" } else { "" };
        places.push(Place::In(name_space.into()));
        return;
    }
    let below = text
        .match_indices('/')
        .skip(1)
        .map(|(at, _)| Place::Below(text[..=at].into()));
    places.extend(below);
    if !(folded && text.ends_with('/')) {
        let end = text.rfind('/').map_or(0, |at| at + 1);
        places.push(Place::In(text[..end].into()));
    }
}

fn networks(behaviour: &Behaviour, address: IpAddr, bits: u8, places: &mut Vec<Place>) {
    // Behind a peer's address there is nothing to tell apart; elsewhere there are ports.
    let is_ingress = behaviour.kind == Kind::Ingress;
    let lengths = match address {
        IpAddr::V4(_) => V4_BITS,
        IpAddr::V6(_) => V6_BITS,
    };
    let lengths = &lengths[..lengths.len() - usize::from(is_ingress)];
    let wide_enough = lengths.iter().filter(|length| **length <= bits);
    places.extend(wide_enough.map(|&bits| Place::Net {
        protocol: behaviour.protocol,
        port: if is_ingress { behaviour.port } else { 0 },
        address: masked(address, bits),
        bits,
    }));
}

/// `10.1.2.3`, or `10.1.0.0/16`.
fn prefix_of(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address.parse().ok()?, Some(bits.parse().ok()?)),
        None => (text.parse().ok()?, None),
    };
    let all = address_bits(address);
    let bits: u8 = bits.unwrap_or(all);
    (bits <= all).then_some((address, bits))
}

fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(behaviour: &Behaviour) -> Vec<String> {
        Place::above(behaviour).iter().map(Place::text).collect()
    }

    fn network(kind: Kind, protocol: Protocol, target: &str, port: u16) -> Behaviour {
        Behaviour {
            protocol,
            port,
            ..Behaviour::new(kind, "/bin/a".into(), target.into())
        }
    }

    #[test]
    fn files_stand_below_their_directories() {
        let file = |path: &str| Behaviour::new(Kind::File, "/bin/a".into(), path.into());
        for (path, expected) in [
            ("/a/b/x", &["**", "/a/", "/a/b/", "/a/b/*"][..]),
            ("/x", &["**", "/*"]),
            ("/", &["**", "/*"]),
            ("memfd:x", &["**", "*"]),
            ("", &["**", "*"]),
        ] {
            assert_eq!(texts(&file(path)), expected, "{path}");
        }
    }

    #[test]
    fn peers_stand_below_their_prefixes() {
        for (behaviour, expected) in [
            (
                network(Kind::Ingress, Protocol::Tcp, "10.1.2.3", 80),
                &[
                    "**",
                    "0.0.0.0/0",
                    "10.0.0.0/8",
                    "10.1.0.0/16",
                    "10.1.2.0/24",
                ][..],
            ),
            (
                network(Kind::Egress, Protocol::Tcp, "10.1.2.3", 80),
                &[
                    "**",
                    "0.0.0.0/0",
                    "10.0.0.0/8",
                    "10.1.0.0/16",
                    "10.1.2.0/24",
                    "10.1.2.3",
                ],
            ),
            (
                network(Kind::Ingress, Protocol::Udp6, "2001:db8:1:2:3::4", 53),
                &[
                    "**",
                    "::/0",
                    "2001:db8::/32",
                    "2001:db8:1::/48",
                    "2001:db8:1:2::/64",
                ],
            ),
            (
                network(Kind::Egress, Protocol::Unix, "@bus", 0),
                &["**", "@*"],
            ),
            (
                network(Kind::Bind, Protocol::Unix, "/run/x", 0),
                &["**", "/run/", "/run/*"],
            ),
            (
                network(Kind::Bind, Protocol::Netlink, "NETLINK_ROUTE", 0),
                &["**", "NETLINK_ROUTE"],
            ),
        ] {
            assert_eq!(texts(&behaviour), expected, "{}", behaviour.target);
        }
    }

    #[test]
    fn a_folded_row_says_which_place_it_stands_for() {
        for behaviour in [
            Behaviour::new(Kind::File, "/bin/a".into(), "/a/b/x".into()),
            Behaviour::new(Kind::Syscall, "/bin/a".into(), "ptrace".into()),
            network(Kind::Ingress, Protocol::Tcp, "10.1.2.3", 80),
            network(Kind::Egress, Protocol::Tcp6, "2001:db8:1:2:3::4", 443),
            network(Kind::Egress, Protocol::Unix, "@bus", 0),
        ] {
            let places = Place::above(&behaviour);
            for (at, place) in places.iter().enumerate() {
                let folded = Behaviour {
                    target: place.text().as_str().into(),
                    access: Access::FOLDED,
                    ..behaviour.clone()
                };
                assert_eq!(Place::above(&folded), places[..=at], "{}", folded.target);
                assert!(places[..=at].iter().all(|above| above.contains(place)));
                assert!(places[at + 1..].iter().all(|below| !below.contains(place)));
            }
        }
    }
}
