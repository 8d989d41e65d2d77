//! Servers that are away, and come back.

use crate::{
    lab::{Cluster, ServerProcess, address, ask},
    support::*,
};
use ethogram_clickhouse::ClickHouseStore;
use ethogram_model::Observation;
use ethogram_store::{Report, Store, StoreError};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

fn of(count: u64) -> Report {
    let observations: Vec<Observation> = (1..=30)
        .map(|n| observed(&key(n), opens("/a"), tally(count, 1, count as i64)))
        .collect();
    report(&run("a"), observations)
}

fn all(count: u64) -> Rows {
    (1..=30)
        .map(|n| ((key(n), opens("/a")), (count, 1, count as i64)))
        .collect()
}

fn is_unreachable(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable { .. })
}

/// Applies until it succeeds, as an agent does; gives the errors on the way.
fn apply_until_done(store: &ClickHouseStore, report: &Report) -> Vec<StoreError> {
    let mut errors = Vec::new();
    while let Err(error) = store.apply(report) {
        errors.push(error);
        assert!(errors.len() < 600, "{errors:?}");
        thread::sleep(Duration::from_millis(100));
    }
    errors
}

#[test]
fn a_killed_server_costs_errors_and_no_counts() {
    let mut server = ServerProcess::alone("killed");
    let store = ClickHouseStore::open(&address(server.port, "d", "")).unwrap();
    let mut errors = Vec::new();
    for round in 0..4_u64 {
        let stopping = AtomicBool::new(false);
        server = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut errors = Vec::new();
                for count in 1..=60 {
                    errors.extend(apply_until_done(&store, &of(round * 60 + count)));
                    if count == 20 {
                        stopping.store(true, Ordering::Release);
                    }
                }
                errors
            });
            while !stopping.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let server = server.stop().start_again();
            errors.extend(writer.join().unwrap());
            server
        });
        // Everything is there without being sent again: what was said to be applied is.
        assert_eq!(rows(&store), all((round + 1) * 60));
    }
    assert!(!errors.is_empty(), "the server was never missed");
    assert!(errors.iter().all(is_unreachable), "{errors:?}");
}

#[test]
fn a_server_that_is_away_is_named() {
    let server = ServerProcess::alone("away");
    let address = address(server.port, "d", "");
    let store = ClickHouseStore::open(&address).unwrap();
    drop(server.stop());
    for error in [
        store.apply(&of(1)).unwrap_err(),
        store.runs().unwrap_err(),
        ClickHouseStore::open(&address).err().unwrap(),
    ] {
        assert!(is_unreachable(&error), "{error:?}");
        let said = error.to_string();
        assert!(
            said.contains(&address.to_string()) && said.contains("again"),
            "{said}"
        );
    }
}

#[test]
fn something_else_at_the_port_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP\r\n").unwrap();
    });
    let error = ClickHouseStore::open(&address(port, "d", ""))
        .err()
        .unwrap();
    other.join().unwrap();
    assert!(is_unreachable(&error), "{error:?}");
}

/// One shard of two is away: what reached the other is there once, and what did not comes
/// with the next try.
#[test]
fn half_of_a_report_is_not_counted_twice() {
    let mut cluster = Cluster::start("half");
    let store = ClickHouseStore::open(&address(cluster.first.port, "d", "&cluster=two")).unwrap();
    store.apply(&of(1)).unwrap();
    let stopped = cluster.second.stop();
    let error = store.apply(&of(2)).unwrap_err();
    assert!(is_unreachable(&error), "{error:?}");
    assert!(is_unreachable(
        &store.all_observations(&everything()).unwrap_err()
    ));

    cluster.second = stopped.start_again();
    apply_until_done(&store, &of(2));
    assert_eq!(rows(&store), all(2));
    let second = cluster.second.port;
    let there = ask(second, "SELECT uniqExact(cgroup) FROM d.observation_local").unwrap();
    assert_ne!(there.trim(), "0", "the shard that was away has containers");
}

#[test]
fn a_server_that_hangs_delays_and_loses_nothing() {
    let server = ServerProcess::alone("frozen");
    let store = ClickHouseStore::open(&address(server.port, "d", "")).unwrap();
    store.apply(&of(1)).unwrap();
    server.freeze();
    let report = of(2);
    thread::scope(|scope| {
        let writer = scope.spawn(|| store.apply(&report));
        thread::sleep(Duration::from_millis(300));
        assert!(!writer.is_finished(), "nobody answered, yet it was applied");
        server.thaw();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(rows(&store), all(2));
}
