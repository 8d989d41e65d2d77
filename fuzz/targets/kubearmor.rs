//! Fuzzes what KubeArmor streams.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ethogram_neighbours::fuzz::kubearmor(bytes);
});
