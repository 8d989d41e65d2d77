//! Whatever becomes of batches on their way, stores agree in the end.

use super::*;
use crate::strings::StringLimits;
use ethogram_model::Selection;
use ethogram_store::{PageLimits, Position, Spool, SqliteStore, Store};
use proptest::prelude::*;
use prost::Message;
use tempfile::TempDir;

type Rows = BTreeMap<(u64, Behaviour), (Tally, Name)>;

fn open(directory: &TempDir) -> SqliteStore {
    SqliteStore::open(&directory.path().join("store.db")).unwrap()
}

fn origin() -> Origin {
    Origin {
        node: "node".into(),
        store: "store".into(),
        boot: "boot-1".into(),
    }
}

fn rows(store: &SqliteStore) -> Rows {
    let everything = Selection {
        statuses: Status::ALL.to_vec(),
        ..Selection::default()
    };
    let all = store.all_observations(&everything).unwrap();
    let count = all.len();
    let rows: Rows = all
        .into_iter()
        .map(|o| ((o.container.cgroup, o.behaviour), (o.tally, o.example)))
        .collect();
    assert_eq!(rows.len(), count);
    rows
}

/// What name servers told, by cgroup and address.
fn told(store: &SqliteStore) -> BTreeMap<(u64, IpAddr, Name), (Timestamp, Timestamp)> {
    let told = store.resolutions(&Selection::default()).unwrap();
    told.into_iter()
        .map(|r| ((r.container.cgroup, r.ip, r.name), (r.first, r.last)))
        .collect()
}

/// A report of one run about containers of two boots. A row's times are its step's.
fn report(
    run: u32,
    step: u64,
    seen: &[(u64, u8)],
    counts: &mut BTreeMap<(u64, u8), u64>,
) -> Report {
    let mut report = Report::empty(Run {
        id: format!("run {run}"),
        boot: BootId::new("boot-1"),
        node: "node".into(),
        hooks: String::new(),
        started: Timestamp(1),
        last_alive: Timestamp(step as i64),
        ended_cleanly: false,
    });
    let seen: std::collections::BTreeSet<_> = seen.iter().copied().collect();
    for (cgroup, path) in seen {
        let key = ContainerKey {
            boot: BootId::new(if cgroup % 2 == 0 { "boot-0" } else { "boot-1" }),
            cgroup,
            incarnation: 0,
        };
        let count = counts.entry((cgroup, path)).or_default();
        *count += step;
        let target = format!("/file/{path}");
        report.resolutions.push(Resolution {
            container: key.clone(),
            ip: [192, 0, 2, path].into(),
            name: r"\x2e.example".into(),
            first: Timestamp(step as i64),
            last: Timestamp(step as i64),
        });
        report.observations.push(Observation {
            container: key,
            behaviour: Behaviour::new(Kind::File, "/bin/cat".into(), (&*target).into()),
            tally: Tally {
                count: *count,
                first: Timestamp(step as i64),
                last: Timestamp(step as i64),
            },
            example: Name::default(),
        });
    }
    report
}

/// What happens next between an agent and its collector.
#[derive(Clone, Debug)]
enum Step {
    /// The agent's store learns something, from this run or a new one.
    Learn { new_run: bool, seen: Vec<(u64, u8)> },
    /// The agent connects anew: from where it was acknowledged, with no strings known.
    Connect,
    /// A page is sent.
    Send,
    /// Of a connection, which may be an old one, the next batch arrives.
    Arrive { connection: usize },
    /// A batch that arrived before is applied again.
    Again { batch: usize },
    /// The agent hears how far its connection has been acknowledged.
    Hear,
}

fn step() -> impl Strategy<Value = Step> {
    let seen = prop::collection::vec((1..5_u64, 0..9_u8), 1..12);
    prop_oneof![
        3 => (prop::bool::weighted(0.15), seen).prop_map(|(new_run, seen)| Step::Learn { new_run, seen }),
        1 => Just(Step::Connect),
        4 => Just(Step::Send),
        4 => (0..4_usize).prop_map(|connection| Step::Arrive { connection }),
        1 => any::<usize>().prop_map(|batch| Step::Again { batch }),
        2 => Just(Step::Hear),
    ]
}

/// One connection: what is on its way, and what each end knows.
struct Line {
    numbers: Numbers,
    strings: Strings,
    position: Position,
    /// Sent: the batch, and where the agent is once it is acknowledged.
    on_its_way: std::collections::VecDeque<(Vec<u8>, Position)>,
    acknowledged: Option<Position>,
}

impl Line {
    fn begin(position: Position) -> Self {
        // So few strings that they are forgotten now and then.
        let limits = StringLimits {
            strings_max: 40,
            bytes_max: 1_000,
        };
        Self {
            numbers: Numbers::new(limits),
            strings: Strings::new(limits),
            position,
            on_its_way: Default::default(),
            acknowledged: None,
        }
    }

    fn send(&mut self, agent: &SqliteStore, stamp: i64) {
        let page = PageLimits {
            rows_max: 5,
            bytes_max: 2_000,
        };
        let changes = agent.changes_since(&self.position, page).unwrap();
        self.position = changes.position;
        let batch = encode(&changes, Timestamp(1_000_000), &mut self.numbers);
        let batch = proto::Batch { stamp, ..batch };
        self.on_its_way
            .push_back((batch.encode_to_vec(), self.position));
    }

    fn arrive(&mut self, collector: &SqliteStore) -> Option<Vec<Report>> {
        let (bytes, position) = self.on_its_way.pop_front()?;
        let batch = proto::Batch::decode(&*bytes).unwrap();
        if batch.forget_strings {
            self.strings.forget();
        }
        self.strings.learn(&batch.strings).unwrap();
        let decoded = decode(&batch, &self.strings, &origin()).unwrap();
        assert_eq!(decoded.unknown, 0);
        apply(collector, &decoded.reports);
        self.acknowledged = Some(position);
        Some(decoded.reports)
    }
}

fn apply(store: &SqliteStore, reports: &[Report]) {
    for report in reports {
        store.apply(report).unwrap();
    }
}

#[test]
fn re_sent_reordered_doubled_and_lost_batches_change_nothing() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(128)
    };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..80))| {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (agent, collector) = (open(&here), open(&there));
        let mut lines = vec![Line::begin(Position::START)];
        let mut arrived: Vec<Vec<Report>> = Vec::new();
        let (mut run, mut counts) = (0, BTreeMap::new());
        agent.peer("c").unwrap();
        for (number, step) in steps.iter().enumerate() {
            let current = lines.len() - 1;
            match step {
                Step::Learn { new_run, seen } => {
                    if *new_run {
                        run += 1;
                        counts.clear();
                    }
                    agent.apply(&report(run, number as u64 + 1, seen, &mut counts)).unwrap();
                }
                Step::Connect => lines.push(Line::begin(agent.peer("c").unwrap().position)),
                Step::Send => lines[current].send(&agent, number as i64 + 1),
                Step::Arrive { connection } => {
                    let back = connection % lines.len();
                    arrived.extend(lines[current - back].arrive(&collector));
                }
                Step::Again { batch } => {
                    if !arrived.is_empty() {
                        apply(&collector, &arrived[batch % arrived.len()]);
                    }
                }
                Step::Hear => {
                    if let Some(position) = lines[current].acknowledged {
                        agent.acknowledge("c", &position, number as i64).unwrap();
                    }
                }
            }
        }
        // At last one connection lasts; then the old ones' batches arrive as well.
        let mut last = Line::begin(agent.peer("c").unwrap().position);
        for _ in 0..2 {
            loop {
                last.send(&agent, steps.len() as i64 + 1);
                last.arrive(&collector);
                if last.position.is_at_rest() {
                    break;
                }
            }
        }
        prop_assert_eq!(rows(&collector), rows(&agent));
        for line in &mut lines {
            while line.arrive(&collector).is_some() {}
        }
        prop_assert_eq!(rows(&collector), rows(&agent));
        prop_assert_eq!(told(&collector), told(&agent));
    });
}
