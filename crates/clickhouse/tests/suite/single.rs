//! One server, as old as Debian's.

use crate::{
    lab::{Databases, ServerProcess, address, ask},
    support::*,
};
use ethogram_clickhouse::{Address, ClickHouseStore, SCHEMA_VERSION};
use ethogram_model::{Selection, Timestamp};
use ethogram_store::{Report, Store, StoreError};
use std::{sync::OnceLock, thread};

conformance!(conformance: crate::single::fresh);

struct Single {
    server: ServerProcess,
    databases: Databases,
}

fn single() -> &'static Single {
    static SINGLE: OnceLock<Single> = OnceLock::new();
    SINGLE.get_or_init(|| {
        let server = ServerProcess::alone("single");
        let port = server.port;
        Single {
            server,
            databases: Databases::new(port, vec![port], "", ""),
        }
    })
}

fn fresh() -> Fresh {
    single().databases.fresh()
}

fn one(run_id: &str, count: u64) -> Report {
    report(
        &run(run_id),
        vec![observed(&key(1), opens("/a"), tally(count, 1, 2))],
    )
}

/// What SQLite's store refuses is right here: the order of runs does not matter.
#[test]
fn runs_may_report_in_any_order() {
    let Fresh { store, _place } = fresh();
    for (run_id, count) in [
        ("old", 10),
        ("young", 5),
        ("old", 12),
        ("old", 3),
        ("young", 5),
    ] {
        store.apply(&one(run_id, count)).unwrap();
    }
    assert_eq!(rows(&*store)[&(key(1), opens("/a"))], (17, 1, 2));
}

#[test]
fn two_collectors_need_no_agreement() {
    let Fresh { store: _, _place } = fresh();
    let collectors = [
        single().databases.open("side"),
        single().databases.open("side"),
    ];
    thread::scope(|scope| {
        for (number, collector) in collectors.iter().enumerate() {
            scope.spawn(move || {
                for round in 1..40_u64 {
                    // Both get each report, one of them late.
                    let count = if number == 0 { round } else { round / 2 + 1 };
                    let batch = (1..4)
                        .map(|n| observed(&key(n), opens("/a"), tally(count, 1, round as i64)));
                    collector
                        .apply(&report(&run("a"), batch.collect()))
                        .unwrap();
                }
            });
        }
    });
    let wanted: Rows = (1..4)
        .map(|n| ((key(n), opens("/a")), (39, 1, 39)))
        .collect();
    for collector in &collectors {
        assert_eq!(rows(collector), wanted);
    }
}

#[test]
fn many_agents_may_report_at_once() {
    const AGENTS: u64 = 24;
    let Fresh { store, _place } = fresh();
    thread::scope(|scope| {
        for agent in 0..AGENTS {
            let store = &store;
            scope.spawn(move || {
                for round in 1..10 {
                    let observations = vec![observed(&key(agent), opens("/a"), tally(round, 1, 1))];
                    store
                        .apply(&report(&run(&format!("run {agent}")), observations))
                        .unwrap();
                    // What was applied is there, in whatever batch it went.
                    assert_eq!(rows(&**store)[&(key(agent), opens("/a"))].0, round);
                }
            });
        }
    });
    assert_eq!(store.runs().unwrap().len() as u64, AGENTS);
}

#[test]
fn a_summary_reads_its_namespaces_rows_only() {
    let store = single().databases.open("granules");
    for n in 0..200_u64 {
        let namespace = if n == 77 { "dvwa" } else { "other" };
        let observations =
            (0..300).map(|m| observed(&key(n), opens(&format!("/{m}")), tally(1, 1, 1)));
        store
            .apply(&Report {
                containers: vec![container(n, namespace, "pod")],
                ..report(&run("a"), observations.collect())
            })
            .unwrap();
    }
    let port = single().server.port;
    ask(port, "OPTIMIZE TABLE granules.observation FINAL").unwrap();
    let dvwa = Selection {
        namespace: Some("dvwa".into()),
        ..Selection::default()
    };
    assert_eq!(store.all_observations(&dvwa).unwrap().len(), 300);
    // The server says how many rows it had to read: at most the granules (1,024 rows) that
    // the container's 300 rows are in.
    let query = "SELECT count() FROM granules.observation WHERE (boot, cgroup, incarnation) IN (('boot-1', 77, 0)) FORMAT JSON";
    let answer = ask(port, query).unwrap();
    let read = answer.split("\"rows_read\": ").nth(1).unwrap();
    let read: u64 = read.split(',').next().unwrap().trim().parse().unwrap();
    assert!(
        (300..=2 * 1_024).contains(&read),
        "{read} of 60,000 rows were read"
    );
}

#[test]
fn a_newer_schema_is_left_alone() {
    drop(single().databases.open("newer"));
    let found = SCHEMA_VERSION + 1;
    let port = single().server.port;
    ask(
        port,
        &format!("INSERT INTO newer.schema_version VALUES ({found})"),
    )
    .unwrap();
    let error = ClickHouseStore::open(&address(port, "newer", ""))
        .err()
        .unwrap();
    assert!(
        matches!(&error, StoreError::NewerSchema { found: f, known, .. } if *f == found && *known == SCHEMA_VERSION),
        "{error:?}"
    );
    assert!(error.to_string().contains("newer ethogram"), "{error}");
}

#[test]
fn making_the_tables_may_be_interrupted_and_done_twice() {
    let port = single().server.port;
    let statements = ethogram_clickhouse::create_statements("half", None);
    for statement in &statements[..3] {
        ask(port, statement).unwrap();
    }
    let stores: Vec<ClickHouseStore> = thread::scope(|scope| {
        let open = || ClickHouseStore::open(&address(port, "half", "")).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    stores[0].apply(&one("a", 3)).unwrap();
    assert_eq!(rows(&stores[3]).len(), 1);
}

#[test]
fn user_and_password_are_used_and_not_told() {
    let port = single().server.port;
    let open = |credentials: &str| {
        let address: Address = format!("clickhouse://{credentials}@127.0.0.1:{port}/guarded")
            .parse()
            .unwrap();
        ClickHouseStore::open(&address)
    };
    open("guarded:s3cret%2F%40")
        .unwrap()
        .apply(&one("a", 1))
        .unwrap();
    for wrong in ["guarded:wrong", "nobody:s3cret"] {
        let Err(StoreError::Database { path, source }) = open(wrong) else {
            panic!("{wrong} was let in");
        };
        let said = format!("{} {source}", path.display());
        assert!(said.contains("user and password"), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn hostile_names_are_names() {
    let Fresh { store, _place } = fresh();
    let hostile = "'; DROP TABLE container; -- \\' ? {x:String} ?fields";
    let mut pod = container(1, hostile, hostile);
    pod.labels.insert(hostile.into(), hostile.into());
    store
        .apply(&Report {
            containers: vec![pod.clone(), container(2, "x", "y")],
            ..report(
                &run(hostile),
                vec![observed(&key(1), opens(hostile), tally(1, 1, 1))],
            )
        })
        .unwrap();
    let selection = Selection {
        namespace: Some(hostile.into()),
        pod: Some(hostile.into()),
        ..Selection::default()
    };
    let kept = store.containers(&selection).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].container, pod);
    assert_eq!(
        store.all_observations(&selection).unwrap()[0].behaviour,
        opens(hostile)
    );
    let source = Selection {
        source: Some(hostile.into()),
        ..selection
    };
    assert!(store.all_observations(&source).unwrap().is_empty());
    // Retention names runs in its statements.
    let young = ethogram_model::Run {
        last_alive: Timestamp(9_000),
        ..run("young")
    };
    store.apply(&Report::empty(young)).unwrap();
    let limits = ethogram_store::Limits {
        age_max: Some(std::time::Duration::from_nanos(1)),
        bytes_max: None,
    };
    let removed = store.retain(&limits, Timestamp(10_000)).unwrap();
    assert_eq!((removed.containers, removed.runs), (2, 1));
    assert_eq!(store.runs().unwrap().len(), 1);
}

/// The visitor may use a store, this one included.
#[test]
fn a_visitor_may_ask_the_store() {
    let Fresh { store, _place } = fresh();
    store.apply(&one("a", 1)).unwrap();
    let mut asked = 0;
    store
        .observations(&everything(), &mut |_| {
            asked += store.runs().unwrap().len();
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(asked, 1);
}
