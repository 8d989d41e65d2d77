//! Telling what changed: nothing is left out, whatever happens between the pages.

use crate::support::*;
use ethogram_model::{Endpoint, Labels, Loss, LossReason, Resolution, Timestamp};
use ethogram_store::{Changes, Limits, PageLimits, Position, Report, Spool, SqliteStore, Store};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};
use tempfile::TempDir;

fn open() -> (SqliteStore, TempDir) {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    (store, directory)
}

const WIDE: PageLimits = PageLimits {
    rows_max: 10_000,
    bytes_max: 10_000_000,
};

/// What somebody knows who was told.
#[derive(Debug, Default, PartialEq)]
struct Replica {
    rows: Rows,
    losses: BTreeMap<(u64, LossReason), u64>,
    endpoints: BTreeMap<String, Option<Timestamp>>,
    resolutions: BTreeMap<(u64, String), (Timestamp, Timestamp)>,
    runs: BTreeMap<String, Timestamp>,
}

impl Replica {
    fn take(&mut self, changes: &Changes) {
        for changes in &changes.containers {
            for o in &changes.observations {
                let known = self
                    .rows
                    .entry((o.container.clone(), o.behaviour.clone()))
                    .or_insert((0, i64::MAX, i64::MIN));
                known.0 = known.0.max(o.tally.count);
                known.1 = known.1.min(o.tally.first.0);
                known.2 = known.2.max(o.tally.last.0);
            }
            for loss in &changes.losses {
                let key = (changes.container.key.cgroup, loss.reason);
                let known = self.losses.entry(key).or_default();
                *known = loss.count.max(*known);
            }
        }
        for endpoint in &changes.endpoints {
            self.endpoints.insert(endpoint.name.clone(), endpoint.until);
        }
        self.resolutions.extend(told(&changes.resolutions));
        for run in &changes.runs {
            self.runs.insert(run.id.clone(), run.last_alive);
        }
    }

    /// Reads to the end of a round.
    fn catch_up(
        &mut self,
        store: &SqliteStore,
        mut position: Position,
        limits: PageLimits,
    ) -> Position {
        loop {
            let changes = store.changes_since(&position, limits).unwrap();
            self.take(&changes);
            position = changes.position;
            if position.is_at_rest() {
                return position;
            }
        }
    }
}

fn whole(store: &SqliteStore) -> Replica {
    let losses = losses(store).into_iter();
    Replica {
        rows: rows(store),
        losses: losses
            .map(|((key, reason), n)| ((key.cgroup, reason), n))
            .collect(),
        endpoints: store
            .endpoints(None)
            .unwrap()
            .into_iter()
            .map(|e| (e.name, e.until))
            .collect(),
        resolutions: told(&store.resolutions(&everything()).unwrap()).collect(),
        runs: store
            .runs()
            .unwrap()
            .into_iter()
            .map(|r| (r.id, r.last_alive))
            .collect(),
    }
}

fn told(
    resolutions: &[Resolution],
) -> impl Iterator<Item = ((u64, String), (Timestamp, Timestamp))> + '_ {
    let key = |r: &Resolution| (r.container.cgroup, r.name.to_string());
    resolutions.iter().map(move |r| (key(r), (r.first, r.last)))
}

fn resolution(cgroup: u64, number: u8, time: i64) -> Resolution {
    Resolution {
        container: key(cgroup),
        ip: [192, 0, 2, number].into(),
        name: (&*format!("{number}.example")).into(),
        first: Timestamp(time),
        last: Timestamp(time),
    }
}

fn endpoint(number: u8, until: Option<i64>) -> Endpoint {
    Endpoint {
        ip: [10, 0, 0, number].into(),
        name: format!("pod/{number}"),
        namespace: "shop".into(),
        labels: Labels::new(),
        from: Timestamp(1),
        until: until.map(Timestamp),
    }
}

/// What may happen to a store and its reader.
#[derive(Clone, Debug)]
enum Step {
    /// A report: of a newer run or the same, with rows of containers, a loss, an endpoint.
    Report {
        new_run: bool,
        rows: Vec<(u64, u8)>,
        loss: Option<u64>,
        endpoint: Option<u8>,
    },
    /// A page is read.
    Page { rows_max: usize, bytes_max: usize },
    /// How far the reader is is written down, and read again.
    Restart,
    /// The reader starts from nothing, or where it began long ago.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let report = (
        prop::bool::weighted(0.1),
        prop::collection::vec((1..6_u64, 0..12_u8), 0..20),
        prop::option::of(1..6_u64),
        prop::option::of(0..8_u8),
    )
        .prop_map(|(new_run, rows, loss, endpoint)| Step::Report {
            new_run,
            rows,
            loss,
            endpoint,
        });
    prop_oneof![
        4 => report,
        6 => (1..8_usize, 1..2_000_usize).prop_map(|(rows_max, bytes_max)| Step::Page { rows_max, bytes_max }),
        1 => Just(Step::Restart),
        1 => Just(Step::Forget),
    ]
}

#[test]
fn whoever_reads_on_knows_everything() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(96)
    };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| {
        let (store, _directory) = open();
        let mut replica = Replica::default();
        let mut position = Position::START;
        let mut last_run = 0;
        for (time, step) in steps.iter().enumerate() {
            match step {
                Step::Report { new_run, rows, loss, endpoint: number } => {
                    last_run += u64::from(*new_run);
                    let mut run = run(&format!("run {last_run}"));
                    let time = time as i64 + 1;
                    run.last_alive = Timestamp(time);
                    let observations = rows.iter().map(|&(cgroup, path)| {
                        observed(&key(cgroup), opens(&format!("/file/{path}")), tally(time as u64, time, time))
                    });
                    let observations: BTreeMap<_, _> =
                        observations.map(|o| ((o.container.clone(), o.behaviour.clone()), o)).collect();
                    let answered = rows.iter().filter(|(_, path)| path % 3 == 0);
                    store.apply(&Report {
                        resolutions: answered.map(|&(cgroup, path)| resolution(cgroup, path, time)).collect(),
                        losses: loss.iter().map(|&cgroup| (key(cgroup), Loss {
                            reason: if cgroup % 2 == 0 { LossReason::Store } else { LossReason::RingFull },
                            count: time as u64,
                        })).collect(),
                        endpoints: number.iter().map(|&n| endpoint(n, (time % 2 == 0).then_some(time))).collect(),
                        ..report(&run, observations.into_values().collect())
                    }).unwrap();
                }
                Step::Page { rows_max, bytes_max } => {
                    let limits = PageLimits { rows_max: *rows_max, bytes_max: *bytes_max };
                    let changes = store.changes_since(&position, limits).unwrap();
                    let count: usize = changes.containers.iter().map(|c| c.observations.len()).sum();
                    prop_assert!(count + changes.endpoints.len() + changes.resolutions.len() + changes.runs.len() <= *rows_max);
                    replica.take(&changes);
                    position = changes.position;
                }
                Step::Restart => {
                    store.peer("c").unwrap();
                    store.acknowledge("c", &position, time as i64).unwrap();
                    let peer = store.peer("c").unwrap();
                    prop_assert_eq!(peer.stamp, time as i64);
                    position = peer.position;
                }
                Step::Forget => position = Position::START,
            }
        }
        // The second round has what changed behind the first one's back.
        for _ in 0..2 {
            let limits = PageLimits { rows_max: 7, bytes_max: 900 };
            position = replica.catch_up(&store, position, limits);
        }
        prop_assert_eq!(&replica, &whole(&store));
        let idle = store.changes_since(&position, WIDE).unwrap();
        prop_assert!(idle.is_empty() && idle.position == position, "nothing changed since");
    });
}

#[test]
fn only_what_changed_is_told() {
    let (store, _directory) = open();
    let files = |paths: std::ops::Range<u32>| {
        paths
            .map(|n| observed(&key(1), opens(&format!("/file/{n}")), tally(1, 1, 1)))
            .collect()
    };
    store.apply(&report(&run("a"), files(0..1_000))).unwrap();
    let position = Replica::default().catch_up(&store, Position::START, WIDE);
    store.apply(&report(&run("a"), files(500..503))).unwrap();
    let changes = store.changes_since(&position, WIDE).unwrap();
    assert_eq!(changes.containers[0].observations.len(), 3);
    assert!(changes.position.is_at_rest());
}

#[test]
fn every_store_has_its_own_identity() {
    let (a, directory) = open();
    let (b, _directory) = open();
    let identity = a.identity().unwrap();
    assert_ne!(identity, b.identity().unwrap());
    assert!(identity.len() >= 32);
    drop(a);
    let again = SqliteStore::open(&directory.path().join("store.db")).unwrap();
    assert_eq!(again.identity().unwrap(), identity);
}

#[test]
fn what_retention_removes_unsent_is_counted() {
    let (store, _directory) = open();
    let rows = |n, count, time| {
        observed(
            &key(1),
            opens(&format!("/file/{n}")),
            tally(count, time, time),
        )
    };
    let old = 1_000_000_000;
    store
        .apply(&report(&run("a"), vec![rows(1, 5, old), rows(2, 7, old)]))
        .unwrap();
    // Without a collector that waits nothing is unsent.
    let age = Limits {
        age_max: Some(Duration::from_secs(10)),
        bytes_max: None,
    };
    let now = Timestamp(100 * old);
    assert_eq!(store.retain(&age, now).unwrap().rows, 2);
    let mut replica = Replica::default();
    replica.catch_up(&store, Position::START, WIDE);
    assert!(replica.losses.is_empty(), "{replica:?}");

    // One has all, one has nothing.
    store.peer("has all").unwrap();
    store.peer("has nothing").unwrap();
    store
        .apply(&report(
            &run("a"),
            vec![rows(3, 11, old), rows(4, 13, old), rows(5, 1, 99 * old)],
        ))
        .unwrap();
    let position = replica.catch_up(&store, Position::START, WIDE);
    store.acknowledge("has all", &position, 1).unwrap();
    assert_eq!(store.retain(&age, now).unwrap().rows, 2);
    assert_eq!(store.peer("has all").unwrap().removed_unsent, 0);
    assert_eq!(store.peer("has nothing").unwrap().removed_unsent, 2);

    // The container says how many events are missing, added to what the agent knows.
    let lost = Loss {
        reason: LossReason::Store,
        count: 100,
    };
    store
        .apply(&Report {
            losses: vec![(key(1), lost)],
            ..report(&run("a"), vec![])
        })
        .unwrap();
    replica.catch_up(&store, position, WIDE);
    assert_eq!(
        replica.losses,
        BTreeMap::from([((1, LossReason::Store), 100 + 11 + 13)])
    );
    assert_eq!(
        store.losses(&everything()).unwrap()[0].1,
        lost,
        "here nothing is missing"
    );
}

#[test]
fn a_store_from_before_tells_all_it_has() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../src/sql/0001_initial.sql"))
        .unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1;
         INSERT INTO run VALUES (1, 'a', 'boot-1', 'node-1', '', 1, 2, 0);
         INSERT INTO container (id, boot, cgroup, incarnation, run_id, node, watched_since_ns)
             VALUES (1, 'boot-1', 1, 0, 1, 'node-1', 5);
         INSERT INTO text VALUES (1, '/usr/bin/php'), (2, '/file/1');
         INSERT INTO observation VALUES (1, 2, 1, 2, 0, 0, 0, 0, 3, 1, 4, 1, 2, '');
         INSERT INTO loss VALUES (1, 0, 1, 1, 2);
         INSERT INTO endpoint VALUES (x'0a000001', 1, 'shop', 'pod/1', '{}', NULL);",
    )
    .unwrap();
    // The mark by which a store is known as ours.
    old.pragma_update(None, "application_id", 0x4574_686f)
        .unwrap();
    drop(old);
    let store = SqliteStore::open(&path).unwrap();
    let mut replica = Replica::default();
    replica.catch_up(&store, Position::START, WIDE);
    assert_eq!(replica, whole(&store));
    assert_eq!(replica.rows.values().next().unwrap().0, 7);
    assert_eq!(
        (
            replica.losses.len(),
            replica.endpoints.len(),
            replica.runs.len()
        ),
        (1, 1, 1)
    );
    // It can be written as ever.
    store
        .apply(&Report {
            endpoints: vec![endpoint(1, Some(9))],
            ..report(&run("a"), vec![])
        })
        .unwrap();
    assert_eq!(store.endpoints(None).unwrap()[0].until, Some(Timestamp(9)));
}

#[test]
fn since_when_a_container_is_watched_is_not_made_up() {
    let (store, _directory) = open();
    let row = observed(&key(1), opens("/file"), tally(1, 1, 1));
    store.apply(&report(&run("a"), vec![row])).unwrap();
    let told = |store: &SqliteStore| {
        let changes = store.changes_since(&Position::START, WIDE).unwrap();
        changes.containers[0].container.watched_since.0
    };
    assert_eq!(told(&store), i64::MAX);
    let containers = vec![container(1, "shop", "web")];
    store
        .apply(&Report {
            containers,
            ..report(&run("a"), vec![])
        })
        .unwrap();
    assert_eq!(told(&store), 1_000);
}
