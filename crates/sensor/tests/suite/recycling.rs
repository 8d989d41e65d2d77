//! Slots that are handed out again while others are counted in: no count is lost, and none is
//! under another's name.

use std::{collections::HashMap, thread};

use ethogram_model::Budget;
use ethogram_sensor::{Limits, Options, Sensor};

use crate::support::{Cgroup, Known, TICK, assert_each_read, assert_no_foreign_names};

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
