//! Files that the kernel forgets because a container's memory is wanted back, while they are
//! counted: no count is lost, and none is under another's name.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use ethogram_model::Budget;
use ethogram_sensor::Limits;

use crate::support::{Cgroup, assert_each_read, assert_no_foreign_names, watched_within};

/// Room for every key that there will be.
const WIDE: Limits = Limits {
    behaviours_max: 1 << 18,
    behaviours_per_cgroup_max: 1 << 18,
    ring_bytes: 16 << 20,
    executables_max: 4096,
    budget: Budget::new(1 << 21),
};

const FILES: usize = 5_000;

/// Makes files and puts them on the disk, since what is only in memory cannot be forgotten. Then
/// reads all of them three times, each time after the kernel took back what memory it could.
const FORGETFUL: &str = r#"
for $n (1..5000) { open(F, ">", "$ARGV[0]/$n") or die $!; close F; }
system("sync", "-f", $ARGV[0]) == 0 or die;
for (1..3) {
    # Less than was asked for may be there: that is told as an error.
    for (1..3) { open(R, ">", $reclaim) or die $!; print R "256M"; close R; }
    for $n (1..5000) { open(F, "<", "$ARGV[0]/$n") or die $!; close F; }
}
"#;

/// A cgroup of the v1 memory hierarchy, which goes with the test.
struct Memory {
    path: PathBuf,
}

impl Memory {
    /// Where there is that hierarchy: elsewhere a test's cgroup has its memory as well.
    fn new() -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let path = v1.join(format!("ethogram-test-memory-{}", std::process::id()));
        let is_there = v1.join("memory.force_empty").exists();
        is_there.then(|| {
            fs::create_dir(&path).unwrap();
            Self { path }
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        fs::remove_dir(&self.path).ok();
    }
}

#[test]
fn files_that_the_kernel_forgets_keep_their_names_and_counts() {
    let (memory, cgroup) = (Memory::new(), Cgroup::new());
    let (enter, reclaim) = match &memory {
        Some(Memory { path }) => (
            format!(
                r#"open(P, ">", "{}/cgroup.procs") or die $!; print P $$; close P;"#,
                path.display()
            ),
            path.join("memory.force_empty"),
        ),
        None => (String::new(), cgroup.path.join("memory.reclaim")),
    };
    let reader = format!(r#"$reclaim = "{}"; {enter} {FORGETFUL}"#, reclaim.display());
    let known = watched_within(WIDE, &[(&cgroup, &reader)]);
    // Made once, and read by at least two kernel objects each: what is told apart as they are.
    let forgotten = known.keys_made > 3 * FILES as u64;
    assert!(forgotten, "{} keys: nothing was forgotten", known.keys_made);
    assert_eq!(known.losses, HashMap::new());
    assert_each_read(&known, &cgroup, FILES, 3);
    assert_no_foreign_names(&known, &cgroup);
}
