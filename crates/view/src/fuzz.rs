//! Entry for fuzzing (`fuzz/`): summaries as an agent or a collector answers them, from any
//! bytes.

use crate::{Document, Format, TextOptions, render};

/// Every format.
const FORMATS: [Format; 5] = [
    Format::Text,
    Format::Json,
    Format::Yaml,
    Format::Csv,
    Format::Html,
];

/// Takes bytes as a document and writes it in every format. Returns in how many it could be
/// written.
pub fn document(bytes: &[u8]) -> usize {
    let Ok(document) = Document::from_json(bytes) else {
        return 0;
    };
    let mut written = 0;
    for format in FORMATS {
        let mut text = Vec::new();
        // Some documents cannot be written in some formats; none may break the reader.
        if render(&document, format, &TextOptions::default(), &mut text).is_ok() {
            let text = String::from_utf8(text).expect("every format is UTF-8");
            let is_escape = |c: char| c.is_control() && c != '\n' && c != '\r' && c != '\t';
            assert!(!text.chars().any(is_escape), "{text:?}");
            written += 1;
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const SEED: &[u8] = include_bytes!("../../../fuzz/seeds/document/summary.json");

    #[test]
    fn the_seed_is_understood() {
        assert_eq!(super::document(SEED), super::FORMATS.len());
    }

    proptest! {
        /// A little of what `make fuzz` does for longer.
        #[test]
        fn damaged_documents_are_taken_or_refused(
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = SEED.to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            super::document(&bytes);
        }
    }
}
