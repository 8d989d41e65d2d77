//! What the kernel's verifier had to do for each program: `name instructions`, sorted.
//!
//! `tools/verifier.sh` holds these numbers against a baseline, because the verifier gives up
//! at a million and a harmless change can multiply them. Needs root and kernel 5.16.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
};

use ethogram_sensor::{Options, Sensor};
use libbpf_rs::query::{ProgInfoIter, ProgramInfo};

fn main() -> Result<(), Box<dyn Error>> {
    let before: BTreeSet<u32> = programs().map(|program| program.id).collect();
    let _sensor = Sensor::start(&Options::default())?;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for program in programs().filter(|program| !before.contains(&program.id)) {
        // Another sensor that starts at this moment has the same programs.
        let name = program.name.to_string_lossy().into_owned();
        let count = counts.entry(name).or_default();
        *count = program.verified_insns.max(*count);
    }
    for (name, count) in counts {
        println!("{name} {count}");
    }
    Ok(())
}

fn programs() -> impl Iterator<Item = ProgramInfo> {
    ProgInfoIter::default()
}
