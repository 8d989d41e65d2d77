//! Floods: more behaviours than there is room for, in the kernel and in user space.

use ethogram_model::{Access, Behaviour, Budget, Kind};
use ethogram_sensor::Limits;

use crate::support::{Cgroup, Known, watched_within};

/// Small enough that every bound is hit.
const LIMITS: Limits = Limits {
    behaviours_max: 8192,
    behaviours_per_cgroup_max: 2048,
    ring_bytes: 16 << 20,
    executables_max: 256,
    budget: Budget::new(1024),
};

fn watched(programs: &[(&Cgroup, &str)]) -> Known {
    watched_within(LIMITS, programs)
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
