//! Ethogram.
fn main() {}
