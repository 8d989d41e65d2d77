//! Fuzzes answers of CRI runtimes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_identity::fuzz::cri(bytes);
});
