//! Prints what a ClickHouse store costs: updates a second, disk per million rows, and how
//! long one namespace's summary takes among a million and ten million rows.
//!
//! `cargo run --release -p ethogram-clickhouse --example clickhouse_bench -- ADDRESS [MILLIONS]`
//! with the address of a server and an empty database for it to fill.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

use ethogram_clickhouse::ClickHouseStore;
use ethogram_model::{
    Behaviour, BootId, Container, ContainerKey, Kind, Name, Observation, Run, Selection, Tally,
    Timestamp,
};
use ethogram_store::{Report, Store};
use std::time::{Duration, Instant};

const CONTAINERS_PER_NODE: u64 = 30;
const ROWS_PER_CONTAINER: u64 = 300;
const NAMESPACES: u64 = 100;

/// A number without visible order, so that compression is not flattered.
fn scattered(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Everything one agent knows after `round` rounds; each round touches every behaviour.
fn report(node: u64, round: u64) -> Report {
    let boot = BootId::new(&format!("4f0c8a4e-0000-4000-8000-{node:012}"));
    let run = Run {
        id: format!("run-{node}"),
        boot: boot.clone(),
        node: format!("node-{node}"),
        hooks: "lsm".into(),
        started: Timestamp(1),
        last_alive: Timestamp(1_700_000_000_000_000_000 + round as i64),
        ended_cleanly: false,
    };
    let keys = (0..CONTAINERS_PER_NODE).map(|n| ContainerKey {
        boot: boot.clone(),
        cgroup: 4_000 + n * 37,
        incarnation: 0,
    });
    let keys: Vec<ContainerKey> = keys.collect();
    let containers = keys.iter().zip(0..).map(|(key, n)| {
        let mut container =
            Container::unknown(key.clone(), Name::from("/kubepods/x"), Timestamp(1));
        container.namespace = format!("ns-{}", (node + n) % NAMESPACES);
        container.pod = format!("pod-{node}-{n}");
        container
    });
    let sources: Vec<Name> = (0..10)
        .map(|n| Name::from(&*format!("/usr/bin/program-{n}")))
        .collect();
    let observations = keys.iter().flat_map(|key| {
        let sources = &sources;
        (0..ROWS_PER_CONTAINER).map(move |n| {
            // Replicas share most of their names; every third is this container's own.
            let own = scattered(node << 32 | key.cgroup << 16 | n);
            let target = match n % 3 {
                0 => format!("/var/lib/data/{own:016x}/segment"),
                _ => format!("/usr/lib/x86_64-linux-gnu/some/package/file-{n}.so"),
            };
            let time = 1_700_000_000_000_000_000 + (own >> 18) as i64;
            Observation {
                container: key.clone(),
                behaviour: Behaviour::new(
                    Kind::File,
                    sources[n as usize % 10].clone(),
                    target.as_str().into(),
                ),
                tally: Tally {
                    count: 1 + own % 1_000 + round,
                    first: Timestamp(time),
                    last: Timestamp(time + 1_000_000_000 * round as i64),
                },
                example: Name::default(),
            }
        })
    });
    Report {
        containers: containers.collect(),
        observations: observations.collect(),
        ..Report::empty(run)
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn print_queries(store: &ClickHouseStore, millions: u64) {
    let namespace = Selection {
        namespace: Some("ns-7".into()),
        ..Selection::default()
    };
    let mut rows = 0;
    let times = (0..7).map(|_| {
        let begun = Instant::now();
        rows = store.all_observations(&namespace).unwrap().len();
        begun.elapsed()
    });
    let time = median(times.collect());
    let bytes = store.overview().unwrap().bytes;
    println!(
        "{millions} M rows: {} MB on disk, {:.1} MB per million; one namespace of {NAMESPACES} ({rows} rows): {time:?}",
        bytes / 1_000_000,
        bytes as f64 / 1e6 / millions as f64
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .expect("the first argument is a store's address");
    let millions_max: u64 = arguments.next().map_or(10, |text| text.parse().unwrap());
    let store = ClickHouseStore::open(&address.parse().unwrap()).unwrap();
    let rows_per_node = CONTAINERS_PER_NODE * ROWS_PER_CONTAINER;
    let mut node = 0;
    for millions in [1, millions_max] {
        let (begun, from) = (Instant::now(), node);
        while node * rows_per_node < millions * 1_000_000 {
            store.apply(&report(node, 0)).unwrap();
            node += 1;
        }
        let written = (node - from) * rows_per_node;
        let rate = written as f64 / begun.elapsed().as_secs_f64();
        println!(
            "{written} new rows: {rate:.0} rows a second, reports of {rows_per_node} rows, one caller"
        );
        print_queries(&store, millions);
    }
    let begun = Instant::now();
    let updated = node.min(50);
    for round in 1..=4 {
        for node in 0..updated {
            store.apply(&report(node, round)).unwrap();
        }
    }
    let rate = (4 * updated * rows_per_node) as f64 / begun.elapsed().as_secs_f64();
    println!("updates of known rows: {rate:.0} a second");
    print_queries(&store, millions_max);
}
