//! Fuzzes records of the ring buffer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_sensor::fuzz::records(bytes);
});
