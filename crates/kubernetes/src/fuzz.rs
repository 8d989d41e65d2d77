//! Entry for fuzzing (`fuzz/`): what an API server answers, from any bytes.

use crate::{Kind, objects, watch::wire};

/// Takes bytes for an object, a page of a list, and a line of a watch, whose objects may be of
/// any kind. Returns how many objects are understood.
pub fn answer(bytes: &[u8]) -> usize {
    let mut understood = 0;
    let mut take = |json: &str| {
        let objects = Kind::ALL.iter().map(|&kind| objects::parse(kind, json));
        understood += objects.filter(Result::is_ok).count();
    };
    if let Ok(json) = std::str::from_utf8(bytes) {
        take(json);
    }
    wire::fuzz(bytes, take);
    understood
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn seeds_are_understood() {
        for seed in [
            include_str!("../../../fuzz/seeds/kubernetes/pod.json"),
            include_str!("../../../fuzz/seeds/kubernetes/services.json"),
        ] {
            assert!(super::answer(seed.as_bytes()) > 0, "{seed}");
        }
    }

    proptest! {
        /// A little of what `make fuzz` does for longer.
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            super::answer(&bytes);
        }
    }
}
