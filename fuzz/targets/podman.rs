//! Fuzzes files of Podman.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_identity::fuzz::podman(bytes);
});
