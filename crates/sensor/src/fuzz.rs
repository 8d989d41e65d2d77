//! Entries for fuzzing (`fuzz/`): what the kernel half sends, from any bytes.

use ethogram_model::Budget;

use crate::{clock::Clock, dns, sensor::Intake, sockets};

/// Takes bytes as pieces, each with a length of two bytes before it, and each piece as a record
/// of the ring buffer, all the way to rows with names. Returns how many rows there are, and how many
/// records were not understood.
pub fn records(mut bytes: &[u8]) -> (usize, u64) {
    let mut stream = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (record, rest) = rest.split_at(length);
        stream.extend_from_slice(&(length as u32).to_ne_bytes());
        stream.extend_from_slice(record);
        bytes = rest;
    }
    let mut intake = Intake::new(Budget::DEFAULT);
    intake.take(&stream, Clock::read());
    for (_, behaviour) in sockets::behaviours(intake.sockets) {
        assert_printable(behaviour.target.as_str());
    }
    let changed = intake.table.take_changed();
    for row in &changed {
        let behaviour = &row.behaviour;
        for name in [&behaviour.source, &behaviour.target, &row.example] {
            assert_printable(name.as_str());
        }
    }
    intake.table.take_folds();
    for cgroup in intake.cgroups {
        assert_printable(cgroup.path.as_str());
    }
    (changed.len(), intake.malformed)
}

/// Takes bytes as an answer of a name server. Returns how many addresses it gives.
pub fn answer(bytes: &[u8]) -> usize {
    let addresses = dns::addresses(bytes);
    for (_, name) in &addresses {
        assert_printable(name.as_str());
    }
    addresses.len()
}

/// What every view relies on.
fn assert_printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Records of every type, kind and outcome.
    const RECORDS: &[u8] = include_bytes!("../../../fuzz/seeds/records/all");
    const ANSWER: &[u8] = include_bytes!("../../../fuzz/seeds/answer/alias");

    #[test]
    fn seeds_are_understood() {
        let (rows, malformed) = super::records(RECORDS);
        assert!(
            rows > 0 && malformed == 0,
            "{rows} rows, {malformed} malformed"
        );
        assert!(super::answer(ANSWER) > 0);
    }

    proptest! {
        /// A little of what `make fuzz` does for longer.
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            super::records(&bytes);
            super::answer(&bytes);
        }

        /// Near what the kernel half sends.
        #[test]
        fn damaged_records_are_taken_or_refused(
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        ) {
            let mut bytes = RECORDS.to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            super::records(&bytes);
        }
    }
}
