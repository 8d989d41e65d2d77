//! Entry for fuzzing (`fuzz/`): what an agent sends, from any bytes.

use prost::Message;

use crate::{
    batch::{self, Origin},
    strings::{StringLimits, Strings},
    wire::proto::{self, from_agent},
};

/// Takes bytes as pieces, each with a length of two bytes before it, and the pieces as the
/// messages of one stream. Returns how many observations they hold.
pub fn stream(mut bytes: &[u8]) -> usize {
    let origin = Origin {
        node: "node".to_owned(),
        store: "store".to_owned(),
        boot: "boot".to_owned(),
    };
    let mut strings = Strings::new(StringLimits {
        strings_max: 100,
        bytes_max: 10_000,
    });
    let mut observations = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        bytes = rest;
        let message = proto::FromAgent::decode(message).unwrap_or_default();
        let Some(from_agent::Message::Batch(batch)) = message.message else {
            continue;
        };
        if batch.forget_strings {
            strings.forget();
        }
        if strings.learn(&batch.strings).is_err() {
            break;
        }
        let Ok(decoded) = batch::decode(&batch, &strings, &origin) else {
            break;
        };
        let reports = decoded.reports.iter();
        for observation in reports.flat_map(|report| &report.observations) {
            let text = observation.behaviour.target.as_str();
            assert!(!text.chars().any(char::is_control), "{text:?}");
            observations += 1;
        }
    }
    observations
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn the_seed_is_understood() {
        assert!(super::stream(include_bytes!("../../../fuzz/seeds/stream/batch")) > 0);
    }

    proptest! {
        /// A little of what `make fuzz` does for longer.
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            super::stream(&bytes);
        }
    }
}
