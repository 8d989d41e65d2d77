//! Fuzzes summaries as an agent or a collector answers them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_view::fuzz::document(bytes);
});
