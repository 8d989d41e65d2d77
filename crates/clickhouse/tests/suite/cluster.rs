//! Two shards, and a shard with two replicas.

use crate::{
    lab::{Cluster, Databases, address, ask},
    support::*,
};
use ethogram_clickhouse::ClickHouseStore;
use ethogram_model::Selection;
use ethogram_store::{Report, Store};
use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

conformance!(conformance: crate::cluster::fresh);

struct TwoShards {
    cluster: Cluster,
    databases: Databases,
}

fn two_shards() -> &'static TwoShards {
    static TWO_SHARDS: OnceLock<TwoShards> = OnceLock::new();
    TWO_SHARDS.get_or_init(|| {
        let cluster = Cluster::start("two");
        let (first, second) = (cluster.first.port, cluster.second.port);
        TwoShards {
            databases: Databases::new(first, vec![first, second], "&cluster=two", "_local"),
            cluster,
        }
    })
}

fn fresh() -> Fresh {
    two_shards().databases.fresh()
}

fn number(port: u16, query: &str) -> u64 {
    ask(port, query).unwrap().trim().parse().unwrap()
}

fn of_many_containers(count: u64) -> Report {
    let observations = (1..=40).map(|n| observed(&key(n), opens("/a"), tally(count, 1, 2)));
    let containers = (1..=40).map(|n| container(n, if n % 2 == 0 { "even" } else { "odd" }, "pod"));
    Report {
        containers: containers.collect(),
        ..report(&run("a"), observations.collect())
    }
}

#[test]
fn a_container_is_on_one_shard_and_every_server_knows_all() {
    let TwoShards { cluster, databases } = two_shards();
    let ports = [cluster.first.port, cluster.second.port];
    let stores =
        ports.map(|port| ClickHouseStore::open(&address(port, "spread", "&cluster=two")).unwrap());
    // Two collectors in front of different servers report the same things.
    for (store, count) in stores.iter().zip([5, 7]) {
        store.apply(&of_many_containers(count)).unwrap();
    }
    let sizes = ports.map(|port| {
        number(
            port,
            "SELECT uniqExact(boot, cgroup, incarnation) FROM spread.observation_local",
        )
    });
    assert_eq!(
        sizes.iter().sum::<u64>(),
        40,
        "no container is on both: {sizes:?}"
    );
    assert!(sizes.iter().all(|&size| size > 5), "{sizes:?}");
    let wanted: Rows = (1..=40)
        .map(|n| ((key(n), opens("/a")), (7, 1, 2)))
        .collect();
    let even = Selection {
        namespace: Some("even".into()),
        ..Selection::default()
    };
    for store in &stores {
        assert_eq!(rows(store), wanted);
        assert_eq!(store.all_observations(&even).unwrap().len(), 20);
    }
    drop(databases.open("spread"));
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_replica_takes_over_and_catches_up() {
    let mut cluster = Cluster::start("copied");
    let parameters = "&cluster=copied";
    let (second, copy) = (cluster.second.port, cluster.copy.port);
    let store = ClickHouseStore::open(&address(second, "d", parameters)).unwrap();
    store.apply(&of_many_containers(1)).unwrap();
    eventually("the copy has what the first replica has", || {
        number(copy, "SELECT count() FROM d.observation_local") > 0
    });

    let stopped = cluster.first.stop();
    let all = |count| -> Rows {
        (1..=40)
            .map(|n| ((key(n), opens("/a")), (count, 1, 2)))
            .collect()
    };
    assert_eq!(rows(&store), all(1), "the copy answers in its place");
    // The first attempts may find connections that died with the server.
    eventually("reports reach the copy", || {
        store.apply(&of_many_containers(2)).is_ok()
    });
    assert_eq!(rows(&store), all(2));

    cluster.first = stopped.start_again();
    let first = cluster.first.port;
    let newest =
        "SELECT min(c) FROM (SELECT maxMerge(count) AS c FROM d.observation_local GROUP BY cgroup)";
    eventually("the first replica catches up", || {
        ask(first, newest).is_ok_and(|count| count.trim() == "2")
    });
    assert_eq!(rows(&store), all(2));
}
