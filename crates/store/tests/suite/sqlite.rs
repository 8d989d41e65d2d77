//! What may happen to a file, a process and a disk.

use crate::support::*;
use ethogram_model::{Observation, Timestamp};
use ethogram_store::{Limits, Report, SCHEMA_VERSION, SqliteStore, Store, StoreError, move_aside};
use proptest::prelude::*;
use rusqlite::Connection;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::{
    ffi::CString,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

conformance!(conformance: crate::sqlite::fresh, an_older_run_is_refused_whole);

fn fresh() -> Fresh {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(&store_in(&directory)).unwrap();
    Fresh {
        store: Box::new(store),
        _place: Box::new(directory),
    }
}

fn store_in(directory: &TempDir) -> PathBuf {
    directory.path().join("store.db")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A few thousand rows with names, so that every table has pages of its own.
fn filled(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    let rows = (0..5_000).map(|n| {
        observed(
            &key(n % 5),
            opens(&format!("/usr/share/doc/{n}")),
            tally(n, 1, 2),
        )
    });
    store.apply(&report(&run("a"), rows.collect())).unwrap();
}

#[test]
fn only_the_owner_may_read_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("var/lib/store.db");
    let store = SqliteStore::open(&path).unwrap();
    store.apply(&Report::empty(run("a"))).unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o750);
    for companion in ["", "-wal", "-shm", ".lock"] {
        let file = PathBuf::from(format!("{}{companion}", path.display()));
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(store);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["store.db"], "a closed store is one file");
}

#[test]
fn a_second_writer_is_told_who_is_in_the_way() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    let first = SqliteStore::open(&path).unwrap();
    for _ in 0..2 {
        let error = SqliteStore::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(matches!(
            move_aside(&path, Timestamp(0)),
            Err(StoreError::Locked { .. })
        ));
    }
    first.apply(&Report::empty(run("a"))).unwrap();
    drop(first);
    SqliteStore::open(&path).unwrap();
}

#[test]
fn readers_see_what_is_committed_while_a_writer_writes() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    let writer = SqliteStore::open(&path).unwrap();
    let both = |n| {
        vec![
            observed(&key(1), opens("/a"), tally(n, 1, 1)),
            observed(&key(2), opens("/b"), tally(n, 1, 1)),
        ]
    };
    writer.apply(&report(&run("a"), both(1))).unwrap();
    let reader = SqliteStore::open_read_only(&path).unwrap();
    std::thread::scope(|scope| {
        let writing = scope
            .spawn(|| (2..200).for_each(|n| writer.apply(&report(&run("a"), both(n))).unwrap()));
        let mut last = 0;
        while !writing.is_finished() {
            let counts: Vec<u64> = rows(&reader).values().map(|row| row.0).collect();
            assert_eq!(counts.len(), 2);
            assert_eq!(counts[0], counts[1], "half a report was seen");
            assert!(counts[0] >= last);
            last = counts[0];
        }
    });
    assert_eq!(rows(&reader), rows(&writer));
    for refused in [
        reader.apply(&Report::empty(run("b"))),
        reader.retain(&Limits::default(), Timestamp(0)).map(drop),
    ] {
        assert!(
            matches!(refused, Err(StoreError::ReadOnly { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_reader_creates_nothing() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    assert!(matches!(
        SqliteStore::open_read_only(&path),
        Err(StoreError::Io { .. })
    ));
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    let error = SqliteStore::open_read_only(&path).err().unwrap();
    assert!(
        matches!(
            error,
            StoreError::OlderSchema {
                found: 0,
                known: SCHEMA_VERSION,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_store_on_a_read_only_medium_can_be_read() {
    let medium = Tmpfs::mount("size=8m");
    let path = medium.path().join("a store?#%.db");
    filled(&path);
    medium.remount(MountFlags::RDONLY, "");
    assert_eq!(
        rows(&SqliteStore::open_read_only(&path).unwrap()).len(),
        5_000
    );
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
}

#[test]
fn a_newer_schema_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    filled(&path);
    let newer = SCHEMA_VERSION + 1;
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", newer)
        .unwrap();
    let before = fs::read(&path).unwrap();
    for opened in [SqliteStore::open(&path), SqliteStore::open_read_only(&path)] {
        let error = opened.err().unwrap();
        assert!(
            matches!(error, StoreError::NewerSchema { found, known: SCHEMA_VERSION, .. } if found == newer),
            "{error:?}"
        );
        for version in [newer, SCHEMA_VERSION] {
            assert!(error.to_string().contains(&version.to_string()), "{error}");
        }
    }
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
}

#[test]
fn another_programs_database_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE songs (title)")
        .unwrap();
    let before = fs::read(&path).unwrap();
    for opened in [SqliteStore::open(&path), SqliteStore::open_read_only(&path)] {
        assert!(matches!(opened, Err(StoreError::NotAStore { .. })));
    }
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
}

/// Opens and uses a store in every way. `Err` with the first refusal.
fn use_all(path: &Path) -> Result<(), StoreError> {
    let store = SqliteStore::open(path)?;
    store.check()?;
    store.containers(&everything())?;
    store.all_observations(&everything())?;
    store.losses(&everything())?;
    store.stats(&everything())?;
    store.runs()?;
    store.endpoints(None)?;
    let again = (0..5_000).map(|n| {
        observed(
            &key(n % 5),
            opens(&format!("/usr/share/doc/{n}")),
            tally(n, 1, 2),
        )
    });
    store.apply(&report(&run("b"), again.collect()))?;
    let limits = Limits {
        age_max: Some(Duration::from_nanos(1)),
        bytes_max: Some(1),
    };
    store.retain(&limits, Timestamp(1_000)).map(drop)
}

fn assert_corrupt_and_replaceable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    let error = use_all(path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    let damaged = fs::read(path).unwrap();

    let aside = move_aside(path, Timestamp(1_764_000_000_999_999_999)).unwrap();
    let stem = format!("{}.corrupt-1764000000", path.display());
    assert!(
        aside.to_str().unwrap().starts_with(&stem),
        "{}",
        aside.display()
    );
    assert!(
        fs::read(&aside).unwrap() == damaged,
        "nothing is lost by moving"
    );
    use_all(path).unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn a_damaged_file_is_recognised_and_moved_aside() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    filled(&path);
    let sound = fs::read(&path).unwrap();
    let middle = sound.len() / 2 / 4096 * 4096;

    let mut zeroed = sound.clone();
    zeroed[middle..middle + 3 * 4096].fill(0);
    let mut scrambled = sound.clone();
    (0..4 * 4096).for_each(|n| scrambled[middle + n] ^= (n * 31 % 251) as u8 | 1);
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let text = b"not a database, but a text".repeat(9);
    let contents: [&[u8]; 6] = [
        &zeroed,
        &scrambled,
        &sound[..middle],
        &sound[..5_000],
        &noise,
        &text,
    ];
    for content in contents {
        assert_corrupt_and_replaceable(&path, content);
    }
    fs::write(&path, &sound).unwrap();
    use_all(&path).unwrap();
}

#[test]
fn a_log_goes_aside_with_its_file() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    fs::write(&path, "damaged").unwrap();
    let log = directory.path().join("store.db-wal");
    fs::write(&log, "its log").unwrap();
    let first = move_aside(&path, Timestamp(0)).unwrap();
    assert!(!log.exists());
    assert_eq!(
        fs::read(format!("{}-wal", first.display())).unwrap(),
        b"its log"
    );
    fs::write(&path, "damaged again").unwrap();
    let second = move_aside(&path, Timestamp(0)).unwrap();
    assert_ne!(first, second);
    assert_eq!(
        (fs::read(first).unwrap(), fs::read(second).unwrap()),
        (b"damaged".to_vec(), b"damaged again".to_vec())
    );
}

#[test]
fn flipped_bytes_never_panic() {
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    filled(&path);
    let sound = fs::read(&path).unwrap();
    let flips = prop::collection::vec((any::<prop::sample::Index>(), 1..=u8::MAX), 1..40);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(48)
    };
    proptest!(config, |(flips in flips)| {
        let mut damaged = sound.clone();
        for (at, mask) in flips {
            damaged[at.index(sound.len())] ^= mask;
        }
        for companion in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{companion}", path.display()));
        }
        fs::write(&path, damaged).unwrap();
        if let Err(error) = use_all(&path) {
            let expected = matches!(
                error,
                StoreError::Corrupt { .. } | StoreError::NotAStore { .. } | StoreError::NewerSchema { .. } | StoreError::Database { .. }
            );
            prop_assert!(expected, "{error:?}");
        }
    });
}

/// A file system of its own, as small as a test wants it, gone with the value.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(options: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let options = CString::new(options).unwrap();
        mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .expect("this test mounts a small tmpfs and must run as root");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, flags: MountFlags, options: &str) {
        mount_remount(
            self.path(),
            flags,
            CString::new(options).unwrap().as_c_str(),
        )
        .unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// The report number `n` of the disk-full test: new rows with long names.
fn bulky(n: u64) -> Report {
    let rows = (0..500).map(|m| {
        let path = format!("/var/lib/{n}/{m}/{}", "x".repeat(200));
        observed(&key(n), opens(&path), tally(n + 1, 1, 2))
    });
    report(&run("a"), rows.collect())
}

#[test]
fn a_full_disk_loses_nothing_that_was_applied() {
    let disk = Tmpfs::mount("size=4m");
    let path = disk.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let mut applied = 0;
    let error = loop {
        match store.apply(&bulky(applied)) {
            Ok(()) => applied += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    assert!(applied > 2, "{applied}");
    let expected = rows(&store);
    assert_eq!(expected.len() as u64, applied * 500);
    for _ in 0..3 {
        assert!(matches!(
            store.apply(&bulky(applied)),
            Err(StoreError::DiskFull { .. })
        ));
    }
    assert_eq!(rows(&store), expected);

    // As after a crash: another process finds the same.
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(rows(&store), expected);
    store.check().unwrap();

    disk.remount(MountFlags::empty(), "size=64m");
    store.apply(&bulky(applied)).unwrap();
    store.apply(&bulky(applied)).unwrap();
    assert_eq!(rows(&store).len() as u64, (applied + 1) * 500);
    store.check().unwrap();
}

#[test]
fn a_store_cannot_begin_on_a_full_disk() {
    let disk = Tmpfs::mount("size=64k");
    fs::write(disk.path().join("ballast"), [1; 60 * 1024]).unwrap();
    let error = SqliteStore::open(&disk.path().join("store.db"))
        .err()
        .unwrap();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
}

/// Where the killed writer is told its file and its run.
const KILLED_FILE: &str = "ETHOGRAM_TEST_KILLED_FILE";
const KILLED_RUN: &str = "ETHOGRAM_TEST_KILLED_RUN";
const KILLED_ROWS: u64 = 500;

/// Row `row` of the killed writer's report number `n`.
fn counted(row: u64, n: u64) -> Observation {
    observed(
        &key(row % 3),
        opens(&format!("/var/log/{row}")),
        tally(n * (row + 1), 1, 2),
    )
}

/// Applies reports number 1, 2, ... for ever, and says so after each.
fn write_until_killed(path: &Path, run_id: &str) -> ! {
    let store = SqliteStore::open(path).unwrap();
    let mut out = std::io::stdout();
    for n in 1.. {
        let rows = (0..KILLED_ROWS).map(|row| counted(row, n));
        store.apply(&report(&run(run_id), rows.collect())).unwrap();
        writeln!(out, "applied {n}").unwrap();
        out.flush().unwrap();
    }
    unreachable!("numbers do not end")
}

fn start_writer(path: &Path, run_id: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sqlite::a_killed_writer_keeps_what_it_applied",
            "--nocapture",
        ])
        .env(KILLED_FILE, path)
        .env(KILLED_RUN, run_id)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// This test runs itself once more as the process to be killed.
#[test]
fn a_killed_writer_keeps_what_it_applied() {
    if let (Some(path), Ok(run_id)) = (std::env::var_os(KILLED_FILE), std::env::var(KILLED_RUN)) {
        write_until_killed(Path::new(&path), &run_id);
    }
    const LIVES: u64 = 12;
    let directory = TempDir::new().unwrap();
    let path = store_in(&directory);
    let mut total = 0;
    for life in 0..LIVES {
        let mut child = start_writer(&path, &format!("life {life}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut next = || {
            lines.find_map(|line| {
                line.strip_prefix("applied ")
                    .map(|n| n.parse::<u64>().unwrap())
            })
        };
        // Each life ends at another point within a transaction.
        for _ in 0..3 + life {
            next().expect("the writer lives until it is killed");
        }
        std::thread::sleep(Duration::from_micros(life * 397));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = std::iter::from_fn(next).last().unwrap_or(3 + life);

        let store = SqliteStore::open(&path).unwrap();
        store.check().unwrap();
        let rows = rows(&store);
        assert_eq!(rows.len() as u64, KILLED_ROWS);
        // Row 0 counts 1 per report, so it tells how many reports this life had applied.
        let reached = rows[&(key(0), counted(0, 1).behaviour)].0 - total;
        assert!(
            reached == acknowledged || reached == acknowledged + 1,
            "life {life}: {acknowledged} acknowledged, {reached} found"
        );
        total += reached;
        for row in 0..KILLED_ROWS {
            let o = counted(row, total);
            assert_eq!(
                rows[&(o.container, o.behaviour)].0,
                o.tally.count,
                "life {life}, row {row}"
            );
        }
    }
}
