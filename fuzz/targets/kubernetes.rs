//! Fuzzes answers of API servers.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_kubernetes::fuzz::answer(bytes);
});
