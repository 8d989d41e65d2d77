//! What name servers answered: names that a program asked for, with their addresses.
//!
//! Everything here is hostile: a workload may run a name server of its own and say what it
//! likes. Messages are at most as long as a record of the ring, and `domain` reads them.

mod resolutions;
mod streams;

use std::net::IpAddr;

use domain::{
    base::{Message, ToName},
    rdata::{A, Aaaa},
};
use ethogram_model::Name;

pub(crate) use resolutions::Resolutions;
pub(crate) use streams::{Piece, Streams};

/// The addresses that a message gives for the name it was asked for, whatever aliases it
/// leads through. Empty if it is no answer, or gives none.
pub(crate) fn addresses(message: &[u8]) -> Vec<(IpAddr, Name)> {
    parse(message).unwrap_or_default()
}

fn parse(message: &[u8]) -> Option<Vec<(IpAddr, Name)>> {
    let message = Message::from_slice(message).ok()?;
    if !message.header().qr() || message.is_error() {
        return None;
    }
    let asked = name_of(message.sole_question().ok()?.qname());
    if asked.is_empty() {
        return None;
    }
    let owner = message.canonical_name()?;
    let answer = message.answer().ok()?;
    let v4 = answer.limit_to::<A>().map_while(Result::ok);
    let v6 = answer.limit_to::<Aaaa>().map_while(Result::ok);
    let v4 = v4
        .filter(|record| *record.owner() == owner)
        .map(|record| IpAddr::V4(record.data().addr()));
    let v6 = v6
        .filter(|record| *record.owner() == owner)
        .map(|record| IpAddr::V6(record.data().addr()));
    Some(
        v4.chain(v6)
            .map(|ip| (ip.to_canonical(), asked.clone()))
            .collect(),
    )
}

/// A name as people write it, in small letters and without the last dot. A byte that is not
/// of a host's name, a dot within a label among them, becomes `\xNN`.
fn name_of(name: impl ToName) -> Name {
    let mut text = String::new();
    for label in name.iter_labels().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label.as_slice() {
            if byte.is_ascii_alphanumeric() || b"-_".contains(byte) {
                text.push(char::from(byte.to_ascii_lowercase()));
            } else {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
    }
    Name::from_escaped(&text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A name on the wire.
    fn wire(name: &str) -> Vec<u8> {
        let labels = name.split('.').filter(|label| !label.is_empty());
        let mut bytes: Vec<u8> = labels
            .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
            .collect();
        bytes.push(0);
        bytes
    }

    /// A record: its owner on the wire, its type and its data.
    fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let fixed = [
            &kind.to_be_bytes()[..],
            &[0, 1, 0, 0, 0, 60],
            &(data.len() as u16).to_be_bytes(),
        ];
        [owner, &fixed.concat(), data].concat()
    }

    /// An answer to a question for a name, with the records given.
    pub(crate) fn answer(name: &str, records: &[Vec<u8>]) -> Vec<u8> {
        let count = (records.len() as u16).to_be_bytes();
        let header = [0x12, 0x34, 0x81, 0x80, 0, 1, count[0], count[1], 0, 0, 0, 0];
        [&header[..], &wire(name), &[0, 1, 0, 1], &records.concat()].concat()
    }

    /// A pointer to the name in the question.
    const ASKED: &[u8] = &[0xc0, 12];

    pub(crate) fn a(owner: &[u8], address: [u8; 4]) -> Vec<u8> {
        record(owner, 1, &address)
    }

    fn found(message: &[u8]) -> Vec<String> {
        let found = addresses(message);
        let mut found: Vec<_> = found
            .iter()
            .map(|(ip, name)| format!("{name} {ip}"))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn the_name_that_was_asked_for_has_the_addresses_at_the_end_of_its_aliases() {
        let records = [
            record(ASKED, 5, &wire("cdn.example.net")),
            record(&wire("CDN.example.net"), 5, &wire("edge.example.net")),
            a(&wire("edge.example.net"), [192, 0, 2, 1]),
            a(&wire("edge.example.net"), [192, 0, 2, 2]),
            a(&wire("other.example"), [192, 0, 2, 3]),
            record(
                &wire("edge.example.net"),
                28,
                &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            ),
        ];
        let expected =
            ["192.0.2.1", "192.0.2.2", "2001:db8::7"].map(|ip| format!("www.example.com {ip}"));
        assert_eq!(found(&answer("wWw.Example.com", &records)), expected);
    }

    #[test]
    fn an_answer_that_is_cut_says_what_is_left_of_it() {
        let whole = answer(
            "a.example",
            &[a(ASKED, [192, 0, 2, 1]), a(ASKED, [192, 0, 2, 2])],
        );
        assert_eq!(found(&whole[..whole.len() - 1]), ["a.example 192.0.2.1"]);
    }

    #[test]
    fn questions_errors_and_loops_say_nothing() {
        let good = answer("a.example", &[a(ASKED, [192, 0, 2, 1])]);
        let changed = |at: usize, to: u8| {
            let mut message = good.clone();
            message[at] = to;
            found(&message)
        };
        assert_eq!(found(&good).len(), 1);
        let nothing: Vec<String> = Vec::new();
        assert_eq!(changed(2, 0x01), nothing, "a question");
        assert_eq!(changed(3, 0x83), nothing, "no such name");
        assert_eq!(changed(5, 2), nothing, "two questions");
        let alias_of_itself = answer("a.example", &[record(ASKED, 5, ASKED)]);
        assert_eq!(found(&alias_of_itself), nothing);
        let points_at_itself = answer("a.example", &[a(&[0xc0, 27], [192, 0, 2, 1])]);
        assert_eq!(found(&points_at_itself), nothing);
    }

    #[test]
    fn a_name_cannot_look_like_anything_else() {
        let mut hostile = answer("xxxxx.yyyyyyy", &[a(ASKED, [192, 0, 2, 1])]);
        hostile[13..18].copy_from_slice(b"\x1b[1m.");
        hostile[19..26].copy_from_slice(b"p /(\\\xff\n");
        assert_eq!(
            found(&hostile),
            [r"\x1b\x5b1m\x2e.p\x20\x2f\x28\x5c\xff\x0a 192.0.2.1"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            at in 0..60_usize,
            to in any::<u8>(),
        ) {
            let _ = addresses(&bytes);
            // Nearly right is worse than random.
            let mut message = answer("www.example.com", &[record(ASKED, 5, &wire("b.example")), a(&wire("b.example"), [192, 0, 2, 1])]);
            let length = message.len();
            message[at % length] = to;
            for (ip, name) in addresses(&message) {
                prop_assert!(!ip.to_string().is_empty() && name.as_str().len() <= 4 * 255);
            }
        }
    }
}
