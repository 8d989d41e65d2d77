//! Floods: more behaviours than there is room for, in the kernel and in user space.

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

use ethogram_model::{Access, Behaviour, Budget, Kind, LossReason};
use ethogram_sensor::{Limits, Options, Sensor};

/// Small enough that every bound is hit.
const LIMITS: Limits = Limits {
    behaviours_max: 8192,
    behaviours_per_cgroup_max: 2048,
    ring_bytes: 16 << 20,
    executables_max: 256,
    budget: Budget::new(1024),
};

/// Longer than slots rest: what is evicted is used again meanwhile.
const TICK: Duration = Duration::from_millis(100);

/// A cgroup of a test, which goes with it.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn new() -> Self {
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

    fn id(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }

    /// Runs a Perl program in it, with a folder of its own as its argument.
    fn perl(&self, program: &str) -> Child {
        let procs = self.path.join("cgroup.procs");
        Command::new("sh")
            .args(["-c", r#"echo $$ > "$1" && exec perl -e "$2" "$3""#, "sh"])
            .arg(procs)
            .arg(program)
            .arg(self.folder())
            .spawn()
            .unwrap()
    }

    fn folder(&self) -> PathBuf {
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
struct Known {
    counts: HashMap<(u64, Behaviour), u64>,
    losses: HashMap<(u64, LossReason), u64>,
    most_rows: usize,
    most_executables: usize,
    keys_made: u64,
}

impl Known {
    fn collect(&mut self, sensor: &mut Sensor) {
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
    fn sum(&self, cgroup: &Cgroup, which: impl Fn(&Behaviour) -> bool) -> u64 {
        self.counts
            .iter()
            .filter(|((id, row), _)| {
                *id == cgroup.id() && row.source.as_str().contains("perl") && which(row)
            })
            .map(|(_, count)| count)
            .sum()
    }

    fn is_folded(&self, cgroup: &Cgroup, target: &str) -> bool {
        self.counts.keys().any(|(id, row)| {
            *id == cgroup.id()
                && row.target.as_str() == target
                && row.access.contains(Access::FOLDED)
        })
    }
}

/// Runs programs side by side, each in its cgroup, until all have ended.
fn watched(programs: &[(&Cgroup, &str)]) -> Known {
    let mut sensor = Sensor::start(&Options {
        limits: LIMITS,
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

/// Makes and removes files of different names.
const TEMPORARY_FILES: &str = r#"
for $n (1..60000) { open(F, ">", "$ARGV[0]/$n") or die $!; close F; unlink "$ARGV[0]/$n" or die $!; }
"#;

/// Makes and removes one file again and again: each is another to the kernel.
const ONE_FILE: &str = r#"
for (1..60000) { open(F, ">", "$ARGV[0]/x") or die $!; close F; unlink "$ARGV[0]/x" or die $!; }
"#;

/// A server with many peers: datagrams from 20,000 addresses to one port.
const PEERS: &str = r#"
use Socket;
socket(S, PF_INET, SOCK_DGRAM, 0) or die $!;
bind(S, sockaddr_in(0, INADDR_ANY)) or die $!;
my ($port) = sockaddr_in(getsockname S);
close S;
socket(S, PF_INET, SOCK_DGRAM, 0) or die $!;
bind(S, sockaddr_in($port, INADDR_ANY)) or die $!;
for $n (1..20000) {
    socket(C, PF_INET, SOCK_DGRAM, 0) or die $!;
    bind(C, pack_sockaddr_in(0, pack("N", (127 << 24) + $n * 503))) or die $!;
    send(C, "x", 0, sockaddr_in($port, INADDR_LOOPBACK)) or die $!;
    recv(S, $_, 1, 0) or die $!;
    close C;
}
"#;

/// A scan: a datagram to each port.
const SCAN: &str = r#"
use Socket;
socket(S, PF_INET, SOCK_DGRAM, 0) or die $!;
for $port (1..30000) { send(S, "x", 0, sockaddr_in($port, INADDR_LOOPBACK)); }
"#;

/// Runs 3,000 executables, each with a name of its own; each looks libraries up in `/etc` once.
const EXECUTABLES: &str = r#"
link("/bin/true", "$ARGV[0]/0") or system("cp", "/bin/true", "$ARGV[0]/0");
for $n (1..3000) {
    link("$ARGV[0]/0", "$ARGV[0]/x$n") or die $!;
    system("$ARGV[0]/x$n") == 0 or die $!;
    unlink "$ARGV[0]/x$n" or die $!;
}
"#;

/// Uses ever other files, over some seconds.
const STEADY: &str = r#"
for $n (1..500) { open(F, ">", "$ARGV[0]/$n") or die $!; close F; select(undef, undef, undef, 0.01) }
"#;

/// A few files, each often.
const NEIGHBOUR: &str = r#"
for (1..3000) { for $n (1..5) { open(F, "<", "/proc/self/stat") or die $!; close F; select(undef, undef, undef, 0.0002) } }
"#;

fn is(kind: Kind, access: Access) -> impl Fn(&Behaviour) -> bool {
    move |row| row.kind == kind && row.access.contains(access)
}

/// The kernel is told five times a second at most what folds, and from then on makes no keys.
/// How many it makes until then depends on how fast the flood is, but those are not most.
fn assert_folds_in_the_kernel(known: &Known, behaviours: u64) {
    let made = known.keys_made;
    assert!(
        made < behaviours / 2,
        "{made} keys for {behaviours} behaviours"
    );
}

#[test]
fn temporary_files_fold_into_their_directory_and_are_all_counted() {
    let cgroup = Cgroup::new();
    let known = watched(&[(&cgroup, TEMPORARY_FILES)]);
    let place = cgroup.folder().display().to_string();
    let below = |row: &Behaviour| row.target.as_str().starts_with(&place);
    let of = |access| known.sum(&cgroup, |row| below(row) && is(Kind::File, access)(row));
    assert_eq!((of(Access::CREATE), of(Access::DELETE)), (60_000, 60_000));
    assert!(known.is_folded(&cgroup, &format!("{place}/*")));
    assert!(known.most_rows < 200, "{} rows", known.most_rows);
    assert_folds_in_the_kernel(&known, 120_000);
}

#[test]
fn one_file_that_is_always_new_stays_one_row_while_its_keys_come_and_go() {
    let cgroup = Cgroup::new();
    let known = watched(&[(&cgroup, ONE_FILE)]);
    let file = cgroup.folder().join("x").display().to_string();
    let of = |access| {
        known.sum(&cgroup, |row| {
            row.target.as_str() == file && is(Kind::File, access)(row)
        })
    };
    assert_eq!((of(Access::CREATE), of(Access::DELETE)), (60_000, 60_000));
}

#[test]
fn peers_fold_into_prefixes_and_ports_into_any() {
    let (server, scanner) = (Cgroup::new(), Cgroup::new());
    let known = watched(&[(&server, PEERS), (&scanner, SCAN)]);
    assert_eq!(
        known.sum(&server, is(Kind::Ingress, Access::empty())),
        20_000
    );
    assert_eq!(
        known.sum(&server, is(Kind::Egress, Access::empty())),
        20_000
    );
    assert_eq!(known.sum(&server, is(Kind::Bind, Access::empty())), 20_002);
    assert!(known.is_folded(&server, "127.0.0.0/8"));
    assert_eq!(
        known.sum(&scanner, is(Kind::Egress, Access::empty())),
        30_000
    );
    assert!(known.is_folded(&scanner, "127.0.0.1"));
    assert!(known.most_rows < 2_000, "{} rows", known.most_rows);
    assert_folds_in_the_kernel(&known, 70_000);
}

#[test]
fn executables_come_and_go_and_what_they_do_is_all_counted() {
    let (flood, neighbour) = (Cgroup::new(), Cgroup::new());
    let known = watched(&[(&flood, EXECUTABLES), (&neighbour, STEADY)]);
    let place = flood.folder().display().to_string();
    let of = |kind, prefix: &str| -> u64 {
        let is = |(id, row): &&(u64, Behaviour)| {
            *id == flood.id() && row.kind == kind && row.target.as_str().starts_with(prefix)
        };
        let rows = known.counts.keys().filter(is);
        rows.map(|key| known.counts[key]).sum()
    };
    assert_eq!(of(Kind::Process, &format!("{place}/")), 3_000);
    // Perl does as well, and so does cp where the links need a copy.
    let looked_up = of(Kind::File, "/etc/");
    assert!((3_001..=3_002).contains(&looked_up), "{looked_up}");
    let created = |row: &Behaviour| row.access.contains(Access::CREATE);
    assert_eq!(known.sum(&neighbour, created), 500);
    let nameless = known.counts.keys().find(|(_, row)| row.source.is_empty());
    assert_eq!(
        nameless, None,
        "an executable's name was forgotten too soon"
    );
    let names = known.most_executables;
    assert!(names < 1_500, "{names} names of executables");
    assert!(known.most_rows < 1_500, "{} rows", known.most_rows);
}

#[test]
fn a_flood_costs_its_neighbour_nothing() {
    let (flood, neighbour) = (Cgroup::new(), Cgroup::new());
    let known = watched(&[
        (&flood, &TEMPORARY_FILES.replace("60000", "120000")),
        (&neighbour, NEIGHBOUR),
    ]);
    let of = |row: &Behaviour| row.target.as_str().ends_with("/stat");
    assert_eq!(known.sum(&neighbour, of), 15_000);
    assert!(
        known
            .counts
            .keys()
            .all(|(id, row)| { *id != neighbour.id() || !row.access.contains(Access::FOLDED) })
    );
}
