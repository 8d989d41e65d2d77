//! Fuzzes what agents send to a collector.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_cluster::fuzz::stream(bytes);
});
