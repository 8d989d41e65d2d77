//! How fast a store in a file is: `cargo run --release -p ethogram-store --example
//! upsert_bench [ROWS]`. Prints numbers; judges nothing.
//!
//! The world: containers of 5,000 rows each; ten containers are replicas of one image and
//! share four of five paths; ten make a namespace. Reports have 20,000 rows.

use ethogram_model::{
    Access, Behaviour, BootId, Container, ContainerKey, Kind, Name, Observation, Run, Selection,
    Tally, Timestamp,
};
use ethogram_store::{Limits, Report, SqliteStore, Store, StoreError};
use std::{
    hint::black_box,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const ROWS_DEFAULT: u64 = 1_000_000;
const ROWS_PER_CONTAINER: u64 = 5_000;
const CONTAINERS_PER_IMAGE: u64 = 10;
const CONTAINERS_PER_NAMESPACE: u64 = 10;
const ROWS_PER_REPORT: u64 = 20_000;
const ROWS_UPDATED: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(ROWS_DEFAULT), |text| text.parse())?;
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("store.db");
    let store = SqliteStore::open(&path)?;

    describe_containers(&store, rows.div_ceil(ROWS_PER_CONTAINER))?;
    measure(&store, "insert new rows", 1, rows, |n| n)?;
    let updated = ROWS_UPDATED.min(rows);
    measure(&store, "update, whole containers", 2, updated, |n| n)?;
    measure(&store, "the same once more", 3, updated, |n| n)?;
    // A prime steps through all rows, so each report has a few of every container.
    measure(&store, "update, rows at random", 4, updated, |n| {
        n * 7_919 % rows
    })?;

    drop(store);
    let begun = Instant::now();
    let store = SqliteStore::open(&path)?;
    say("open", begun.elapsed());
    let begun = Instant::now();
    store.check()?;
    say("check the whole file", begun.elapsed());
    let overview = store.overview()?;
    println!(
        "{:<28} {:>10.1} MB, {:.0} bytes a row",
        "size",
        overview.bytes as f64 / 1e6,
        overview.bytes as f64 / rows as f64
    );

    let middle = rows / ROWS_PER_CONTAINER / 2;
    let namespace = Selection {
        namespace: Some(namespace_of(middle)),
        ..Selection::default()
    };
    let pod = Selection {
        pod: Some(format!("pod-{middle}")),
        ..Selection::default()
    };
    for (what, selection) in [("one pod", &pod), ("one namespace", &namespace)] {
        for again in ["first time", "again"] {
            query(&store, &format!("{what}, {again}"), selection)?;
        }
    }
    let begun = Instant::now();
    let stats = store.stats(&Selection::default())?;
    say(
        &format!("stats of {} containers", stats.len()),
        begun.elapsed(),
    );

    halve(&store, overview.bytes)?;
    Ok(())
}

fn run(number: i64) -> Run {
    Run {
        id: format!("run {}", number / 3),
        boot: BootId::new("boot"),
        node: "node".into(),
        hooks: String::new(),
        started: Timestamp(0),
        last_alive: Timestamp(number),
        ended_cleanly: false,
    }
}

fn key(container: u64) -> ContainerKey {
    ContainerKey {
        boot: BootId::new("8b0d7c1e-63a0-4b0e-8d0a-0a52ad0f9f43"),
        cgroup: container,
        incarnation: 0,
    }
}

fn namespace_of(container: u64) -> String {
    format!("namespace-{}", container / CONTAINERS_PER_NAMESPACE)
}

fn describe_containers(store: &dyn Store, count: u64) -> Result<(), StoreError> {
    let containers = (0..count).map(|n| {
        let mut container = Container::unknown(key(n), Name::from("/kubepods/pod"), Timestamp(0));
        container.namespace = namespace_of(n);
        container.pod = format!("pod-{n}");
        container
    });
    store.apply(&Report {
        containers: containers.collect(),
        ..Report::empty(run(0))
    })
}

fn observation(row: u64, round: i64) -> Observation {
    let (container, n) = (row / ROWS_PER_CONTAINER, row % ROWS_PER_CONTAINER);
    let image = container / CONTAINERS_PER_IMAGE;
    let owner = if n % 5 == 0 {
        format!("pod{container}")
    } else {
        format!("image{image}")
    };
    let target = Name::from(&*format!("/usr/lib/{owner}/some/where/below/module-{n}.so"));
    let source = Name::from(&*format!("/usr/bin/program-{}", n % 8));
    let mut behaviour = Behaviour::new(Kind::File, source, target);
    behaviour.access = Access::READ;
    // Oldest anywhere.
    let last = Timestamp(
        1_764_000_000_000_000_000 + round * 1_000_000_000 + (row * 7_919 % 1_000_003) as i64,
    );
    Observation {
        container: key(container),
        behaviour,
        tally: Tally {
            count: round as u64 * 10,
            first: Timestamp(1_764_000_000_000_000_000),
            last,
        },
        example: Name::default(),
    }
}

/// Applies the rows that `pick` names in reports; making them is not measured.
fn measure(
    store: &dyn Store,
    what: &str,
    round: i64,
    rows: u64,
    pick: impl Fn(u64) -> u64,
) -> Result<(), StoreError> {
    let mut spent = Duration::ZERO;
    let mut slowest = Duration::ZERO;
    for begin in (0..rows).step_by(ROWS_PER_REPORT as usize) {
        let end = (begin + ROWS_PER_REPORT).min(rows);
        let observations = (begin..end).map(|n| observation(pick(n), round)).collect();
        let report = Report {
            observations,
            ..Report::empty(run(round))
        };
        let begun = Instant::now();
        store.apply(&report)?;
        let took = begun.elapsed();
        spent += took;
        slowest = slowest.max(took);
    }
    let rate = rows as f64 / spent.as_secs_f64();
    println!(
        "{what:<28} {rate:>10.0} rows/s, slowest report {:.0} ms",
        slowest.as_secs_f64() * 1e3
    );
    Ok(())
}

fn query(store: &dyn Store, what: &str, selection: &Selection) -> Result<(), StoreError> {
    let begun = Instant::now();
    let mut rows = 0_u64;
    store.observations(selection, &mut |observation| {
        black_box(observation);
        rows += 1;
        ControlFlow::Continue(())
    })?;
    say(&format!("{what}, {rows} rows"), begun.elapsed());
    Ok(())
}

/// Size retention, while an agent goes on reporting.
fn halve(store: &SqliteStore, bytes: u64) -> Result<(), Box<dyn std::error::Error>> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reporter = scope.spawn(|| -> Result<(u64, Duration), StoreError> {
            let (mut reports, mut slowest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let observations = (0..100).map(|n| observation(n, 5)).collect();
                let report = Report {
                    observations,
                    ..Report::empty(run(5))
                };
                let begun = Instant::now();
                store.apply(&report)?;
                slowest = slowest.max(begun.elapsed());
                reports += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok((reports, slowest))
        });
        let begun = Instant::now();
        let half = Limits {
            age_max: None,
            bytes_max: Some(bytes / 2),
        };
        let removed = store.retain(&half, Timestamp(0));
        done.store(true, Ordering::Relaxed);
        say(
            &format!("halve: {} rows removed", removed?.rows),
            begun.elapsed(),
        );
        let (reports, slowest) = reporter.join().expect("the reporter does not panic")?;
        say(&format!("slowest of {reports} reports meanwhile"), slowest);
        Ok(())
    })
}

fn say(what: &str, took: Duration) {
    println!("{what:<36} {:>8.2} ms", took.as_secs_f64() * 1e3);
}
