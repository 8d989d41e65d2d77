//! What the kernel is told of folded places: hashes, as `folds.h` computes them.

use std::net::IpAddr;

use ethogram_model::{Grain, Kind, Name, NewFold, Place};

use crate::names::MAPPED_BITS;

/// `FNV_PRIME` of `folds.h`.
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Whether a cgroup has folded places at all is kept at this hash.
pub(crate) const ANY: u64 = 0;

/// The number of `enum grain`.
pub(crate) fn grain(grain: Grain) -> u8 {
    match grain {
        Grain::Everything => 1,
        Grain::NotPorts => 2,
        Grain::Nothing => 3,
    }
}

/// The place's hash; `None` for one that only user space folds.
pub(crate) fn hash(fold: &NewFold) -> Option<u64> {
    match &fold.place {
        Place::Below(_) | Place::In(_) if matches!(fold.kind, Kind::File | Kind::Process) => {
            let path = Name::from_escaped(&fold.place.text()).to_bytes();
            let hash = seed(fold, 0, 0);
            Some(path.iter().fold(hash, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
            }))
        }
        Place::Net {
            protocol,
            port,
            address,
            bits,
        } => {
            let (address, bits) = match address {
                IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), bits + MAPPED_BITS),
                IpAddr::V6(v6) => (v6.to_bits(), *bits),
            };
            let hash = seed(fold, protocol.number(), *port);
            let (high, low) = ((address >> 64) as u64, address as u64);
            Some(mix(mix(mix(hash, high), low), u64::from(bits)))
        }
        Place::Below(_) | Place::In(_) | Place::All | Place::Just(_) => None,
    }
}

fn seed(fold: &NewFold, protocol: u8, port: u16) -> u64 {
    let word = u64::from(fold.kind.number())
        | u64::from(fold.status.number()) << 8
        | u64::from(protocol) << 16
        | u64::from(port) << 32;
    mix(0, word)
}

/// `mix` of `core.h`.
fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}
