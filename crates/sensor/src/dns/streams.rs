//! Answers over TCP, put together from what each call received.
//!
//! Each message has its length before it, in two bytes. Programs read the length apart or
//! along with the message, several messages at once or one in pieces.

use std::collections::HashMap;

/// Streams with part of a message at a time; beyond it the one that waited longest goes. A
/// message has at most 64 KiB, so together they take at most 8 MiB.
const STREAMS_MAX: usize = 128;

/// What one call received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Which socket, by its address in the kernel, which may be used again.
    pub(crate) socket: u64,
    /// Where in the stream it begins.
    pub(crate) place: u32,
    /// How long it is.
    pub(crate) length: u32,
    /// The beginning of it; all of it unless it is too long for a record.
    pub(crate) bytes: &'a [u8],
}

/// Streams that end in the middle of a message.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// By cgroup and socket.
    partial: HashMap<(u64, u64), Partial>,
    /// Counts pieces, to tell which stream waited longest.
    pieces: u64,
}

#[derive(Debug, Default)]
struct Partial {
    /// Where the next piece must begin.
    next: u32,
    bytes: Vec<u8>,
    last_piece: u64,
}

impl Streams {
    /// Takes a piece and hands over the messages that it completes. Returns the cgroup whose
    /// unfinished message had to go, if one had to.
    pub(crate) fn take(
        &mut self,
        cgroup: u64,
        piece: &Piece<'_>,
        mut message: impl FnMut(&[u8]),
    ) -> Option<u64> {
        self.pieces += 1;
        let key = (cgroup, piece.socket);
        let mut stream = self.partial.remove(&key).unwrap_or_default();
        if stream.next != piece.place {
            // Another connection, or something was missed: a message begins here, or what
            // follows is nonsense that does not parse.
            stream.bytes.clear();
        }
        stream.bytes.extend_from_slice(piece.bytes);
        stream.next = piece.place.wrapping_add(piece.length);
        stream.last_piece = self.pieces;
        let mut rest = &stream.bytes[..];
        while let Some((whole, after)) = split_message(rest) {
            message(whole);
            rest = after;
        }
        if (piece.bytes.len() as u64) < u64::from(piece.length) {
            // The rest was cut off and will not come.
            message(rest.get(2..).unwrap_or_default());
            return None;
        }
        if rest.is_empty() {
            return None;
        }
        stream.bytes.drain(..stream.bytes.len() - rest.len());
        self.partial.insert(key, stream);
        if self.partial.len() <= STREAMS_MAX {
            return None;
        }
        let oldest = self.partial.iter().min_by_key(|(_, s)| s.last_piece);
        let oldest = oldest.map(|(key, _)| *key)?;
        self.partial.remove(&oldest);
        Some(oldest.0)
    }

    /// Drops what a cgroup that is gone left unfinished.
    pub(crate) fn forget(&mut self, gone: impl Fn(u64) -> bool) {
        self.partial.retain(|(cgroup, _), _| !gone(*cgroup));
    }
}

/// The first message, if it is all there, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(streams: &mut Streams, socket: u64, place: u32, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let piece = Piece {
            socket,
            place,
            length: bytes.len() as u32,
            bytes,
        };
        streams.take(7, &piece, |message| messages.push(message.to_vec()));
        messages
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_its_messages_come_out(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..6),
            cuts in proptest::collection::vec(1..400_usize, 1..40),
            start in any::<u32>(),
        ) {
            let stream: Vec<u8> = messages.iter()
                .flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat())
                .collect();
            let mut streams = Streams::default();
            let mut found = Vec::new();
            let (mut rest, mut place) = (&stream[..], start);
            for cut in cuts.iter().cycle() {
                let (now, after) = rest.split_at(rest.len().min(*cut));
                found.extend(feed(&mut streams, 1, place, now));
                place = place.wrapping_add(now.len() as u32);
                rest = after;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(streams.partial.is_empty());
        }
    }

    #[test]
    fn a_new_connection_at_an_old_address_begins_anew() {
        let mut streams = Streams::default();
        assert!(feed(&mut streams, 1, 100, &[0, 9, 1]).is_empty());
        assert_eq!(feed(&mut streams, 1, 500, &[0, 2, 5, 6]), [[5, 6]]);
    }

    #[test]
    fn what_was_cut_off_is_handed_over_and_not_waited_for() {
        let mut streams = Streams::default();
        let mut messages = Vec::new();
        let piece = Piece {
            socket: 1,
            place: 0,
            length: 5_000,
            bytes: &[0x13, 0x86, 1, 2],
        };
        streams.take(7, &piece, |message| messages.push(message.to_vec()));
        assert_eq!(messages, [[1, 2]]);
        assert!(streams.partial.is_empty());
    }

    #[test]
    fn the_stream_that_waited_longest_makes_room() {
        let mut streams = Streams::default();
        let piece = |socket| Piece {
            socket,
            place: 0,
            length: 1,
            bytes: &[0],
        };
        for socket in 0..STREAMS_MAX as u64 {
            assert_eq!(streams.take(socket, &piece(socket), |_| ()), None);
        }
        assert_eq!(streams.take(999, &piece(999), |_| ()), Some(0));
        streams.forget(|cgroup| cgroup == 999);
        assert_eq!(streams.partial.len(), STREAMS_MAX - 1);
    }
}
