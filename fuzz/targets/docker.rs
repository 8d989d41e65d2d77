//! Fuzzes answers of Docker.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_identity::fuzz::docker(bytes);
});
