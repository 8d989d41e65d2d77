//! Slots that are handed out again while others are counted in: no count is lost, and none is
//! under another's name.

use std::{collections::HashMap, thread};

use ethogram_model::{Access, Behaviour, Budget, Kind};
use ethogram_sensor::{Limits, Options, Sensor};

use crate::support::{Cgroup, Known, TICK};

/// Cgroups that end, one after the other.
const CGROUPS: usize = 8;
/// Files of each.
const FILES: usize = 200;

/// Room for the files of five of the cgroups.
const TIGHT: Limits = Limits {
    behaviours_max: 1024,
    behaviours_per_cgroup_max: 1024,
    ring_bytes: 16 << 20,
    executables_max: 4096,
    budget: Budget::new(1 << 21),
};

/// Reads each of 200 files five times, over half a second.
const READER: &str = r#"
for $n (1..200) { open(F, ">", "$ARGV[0]/$n") or die $!; close F; }
for (1..5) {
    for $n (1..200) { open(F, "<", "$ARGV[0]/$n") or die $!; close F; }
    select(undef, undef, undef, 0.1);
}
"#;

/// Files that are read in a cgroup's folder, with how often each was.
fn reads(known: &Known, cgroup: &Cgroup) -> HashMap<String, u64> {
    let folder = format!("{}/", cgroup.folder().display());
    let mut reads = HashMap::new();
    for ((id, row), count) in &known.counts {
        let is_read = row.kind == Kind::File && row.access.contains(Access::READ);
        let target = row.target.as_str();
        if *id == cgroup.id() && is_read && target.starts_with(&folder) {
            *reads.entry(target.to_owned()).or_default() += count;
        }
    }
    reads
}

fn assert_each_read(known: &Known, cgroup: &Cgroup, files: usize, times: u64) {
    let reads = reads(known, cgroup);
    assert_eq!(reads.len(), files);
    let wrong = reads.iter().find(|(_, count)| **count != times);
    assert_eq!(wrong, None);
}

/// Whatever is in the folder of a test's cgroup is its own.
fn assert_no_foreign_names(known: &Known, cgroup: &Cgroup) {
    let tests = std::env::temp_dir().join("ethogram-test-");
    let own = cgroup.folder().display().to_string();
    let is_foreign = |(id, row): &&(u64, Behaviour)| {
        let target = row.target.as_str();
        *id == cgroup.id()
            && target.starts_with(&tests.display().to_string())
            && !target.starts_with(&own)
    };
    assert_eq!(known.counts.keys().find(is_foreign), None);
}

#[test]
fn slots_of_ended_cgroups_count_for_others_and_for_nobody_before() {
    let mut sensor = Sensor::start(&Options {
        limits: TIGHT,
        ..Options::default()
    })
    .unwrap();
    let mut known = Known::default();
    let mut keys_made = 0;
    let cgroups: Vec<Cgroup> = (0..CGROUPS).map(|_| Cgroup::new()).collect();
    for cgroup in &cgroups {
        sensor.set_policy(cgroup.id(), true).unwrap();
        sensor.publish_policies();
        let mut program = cgroup.perl(READER);
        while program.try_wait().unwrap().is_none() {
            thread::sleep(TICK);
            known.collect(&mut sensor);
        }
        known.collect(&mut sensor);
        keys_made += sensor.keys_made();
        // Its slots rest while the next one runs.
        sensor.forget(cgroup.id());
        for _ in 0..3 {
            thread::sleep(TICK);
            known.collect(&mut sensor);
        }
    }
    sensor.detach();
    known.collect(&mut sensor);
    assert_eq!(known.losses, HashMap::new(), "nothing is lost");
    assert!(
        keys_made > u64::from(TIGHT.behaviours_max) * 3 / 2,
        "{keys_made} keys: no slot had to be used again"
    );
    for cgroup in &cgroups {
        assert_each_read(&known, cgroup, FILES, 5);
        assert_no_foreign_names(&known, cgroup);
    }
}
