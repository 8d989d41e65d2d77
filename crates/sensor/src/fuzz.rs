//! What the kernel half sends, from any bytes.

use ethogram_model::Budget;
use proptest::prelude::*;

use crate::{clock::Clock, sensor::Intake, sockets};

/// Takes bytes as pieces, each with a length of two bytes before it, and each piece as a record
/// of the ring buffer, all the way to rows with names.
fn records(mut bytes: &[u8]) {
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
    for changed in intake.table.take_changed() {
        let behaviour = changed.behaviour;
        for name in [&behaviour.source, &behaviour.target, &changed.example] {
            assert_printable(name.as_str());
        }
    }
    intake.table.take_folds();
    for cgroup in intake.cgroups {
        assert_printable(cgroup.path.as_str());
    }
}

/// What every view relies on.
fn assert_printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[test]
fn seeds_lead_to_rows() {
    records(include_bytes!("testdata/records"));
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        records(&bytes);
    }

    /// Near what the kernel half sends.
    #[test]
    fn damaged_records_are_taken_or_refused(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = include_bytes!("testdata/records").to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        records(&bytes);
    }
}
