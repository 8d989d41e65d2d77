//! Cgroups of a test, programs in them, and what somebody knows who joins all that is told.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use ethogram_model::{Access, Behaviour, Kind, LossReason};
use ethogram_sensor::{Limits, Options, Sensor};

/// Longer than slots rest: what is evicted is used again meanwhile.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A cgroup of a test, which goes with it.
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
}

impl Cgroup {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(PathBuf::from)
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .expect("a cgroup v2 hierarchy is mounted");
        let path = root.join(format!("ethogram-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub(crate) fn id(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }

    /// Runs a Perl program in it, with a folder of its own as its argument.
    pub(crate) fn perl(&self, program: &str) -> Child {
        let procs = self.path.join("cgroup.procs");
        Command::new("sh")
            .args(["-c", r#"echo $$ > "$1" && exec perl -e "$2" "$3""#, "sh"])
            .arg(procs)
            .arg(program)
            .arg(self.folder())
            .spawn()
            .unwrap()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        let folder = std::env::temp_dir().join(self.path.file_name().unwrap());
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir_all(self.folder()).ok();
        fs::remove_dir(&self.path).ok();
    }
}

/// What somebody knows who joins all that the sensor tells.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) counts: HashMap<(u64, Behaviour), u64>,
    pub(crate) losses: HashMap<(u64, LossReason), u64>,
    pub(crate) most_rows: usize,
    pub(crate) most_executables: usize,
    pub(crate) keys_made: u64,
}

impl Known {
    pub(crate) fn collect(&mut self, sensor: &mut Sensor) {
        let update = sensor.collect();
        for change in update.changes {
            let key = (change.cgroup, change.behaviour);
            self.counts.insert(key, change.tally.count);
        }
        for (cgroup, loss) in update.losses {
            self.losses.insert((cgroup, loss.reason), loss.count);
        }
        self.most_rows = self.most_rows.max(sensor.rows());
        self.most_executables = self.most_executables.max(sensor.executables());
    }

    /// The sum over a cgroup's rows of Perl that `which` chooses.
    pub(crate) fn sum(&self, cgroup: &Cgroup, which: impl Fn(&Behaviour) -> bool) -> u64 {
        self.counts
            .iter()
            .filter(|((id, row), _)| {
                *id == cgroup.id() && row.source.as_str().contains("perl") && which(row)
            })
            .map(|(_, count)| count)
            .sum()
    }

    pub(crate) fn is_folded(&self, cgroup: &Cgroup, target: &str) -> bool {
        self.counts.keys().any(|(id, row)| {
            *id == cgroup.id()
                && row.target.as_str() == target
                && row.access.contains(Access::FOLDED)
        })
    }
}

/// Runs programs side by side, each in its cgroup, until all have ended.
pub(crate) fn watched_within(limits: Limits, programs: &[(&Cgroup, &str)]) -> Known {
    let mut sensor = Sensor::start(&Options {
        limits,
        ..Options::default()
    })
    .unwrap();
    for (cgroup, _) in programs {
        sensor.set_policy(cgroup.id(), true).unwrap();
    }
    sensor.publish_policies();
    let mut children: Vec<Child> = programs
        .iter()
        .map(|(cgroup, program)| cgroup.perl(program))
        .collect();
    let mut known = Known::default();
    while !children.is_empty() {
        let wait = Instant::now() + TICK;
        sensor.wait(TICK);
        thread::sleep(wait.saturating_duration_since(Instant::now()));
        known.collect(&mut sensor);
        children.retain_mut(|child| match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{status}");
                false
            }
            None => true,
        });
    }
    known.keys_made = sensor.keys_made();
    sensor.detach();
    known.collect(&mut sensor);
    assert_eq!(known.losses, HashMap::new(), "nothing is lost");
    known
}

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

/// The cgroup read so many files of its folder, each so often.
pub(crate) fn assert_each_read(known: &Known, cgroup: &Cgroup, files: usize, times: u64) {
    let reads = reads(known, cgroup);
    assert_eq!(reads.len(), files);
    let wrong = reads.iter().find(|(_, count)| **count != times);
    assert_eq!(wrong, None);
}

/// Whatever is in the folder of a test's cgroup is its own.
pub(crate) fn assert_no_foreign_names(known: &Known, cgroup: &Cgroup) {
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
