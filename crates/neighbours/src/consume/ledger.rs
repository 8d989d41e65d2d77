//! What one connection has told so far: counts that only grow, and which of them changed.

use super::{
    event::{Event, Meaning},
    twins::{HOLD, Twins},
};
use ethogram_model::{
    Behaviour, Container, ContainerKey, Kind, Loss, LossReason, Name, Observation, Protocol, Run,
    Tally, Timestamp,
};
use ethogram_store::Report;
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::time::Instant;

/// Rows counted at a time, some 300 bytes each. What has no room is counted as lost.
const ROWS_MAX: usize = 500_000;

/// Counts of one run.
pub(super) struct Ledger {
    run: Run,
    containers: HashMap<ContainerKey, Container>,
    rows: HashMap<(ContainerKey, Behaviour), (Tally, Name)>,
    losses: HashMap<(ContainerKey, LossReason), u64>,
    changed_containers: HashSet<ContainerKey>,
    changed_rows: HashSet<(ContainerKey, Behaviour)>,
    changed_losses: HashSet<(ContainerKey, LossReason)>,
    twins: Twins,
    /// Connects that may be TCP's, in the order in which they came.
    held: VecDeque<(Instant, Event, Behaviour, Timestamp)>,
    pub(super) tally: Taken,
}

/// How many events were taken, and as what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Counted.
    pub counted: u64,
    /// Told before, on the other stream or on the same.
    pub repeated: u64,
    /// Of operations that we have no rows for.
    pub other: u64,
    /// Notices that alerts were left out.
    pub left_out: u64,
}

impl Taken {
    /// These and others.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            counted: self.counted + other.counted,
            repeated: self.repeated + other.repeated,
            other: self.other + other.other,
            left_out: self.left_out + other.left_out,
        }
    }
}

impl Ledger {
    pub(super) fn new(run: Run) -> Self {
        Self {
            run,
            containers: HashMap::new(),
            rows: HashMap::new(),
            losses: HashMap::new(),
            changed_containers: HashSet::new(),
            changed_rows: HashSet::new(),
            changed_losses: HashSet::new(),
            twins: Twins::default(),
            held: VecDeque::new(),
            tally: Taken::default(),
        }
    }

    /// Takes an event.
    pub(super) fn take(&mut self, event: Event, now: Timestamp, instant: Instant) {
        match event.meaning() {
            Meaning::Other => self.tally.other += 1,
            Meaning::LeftOut => {
                self.tally.left_out += 1;
                let key = self.meet(&event);
                self.lose(key, LossReason::Upstream);
            }
            Meaning::Done {
                behaviour,
                example,
                maybe_tcp,
            } => {
                let time = event.time(now);
                let is_repeated = self.twins.is_replay(&event, &behaviour, instant)
                    || self.twins.is_told(&event, &behaviour, instant);
                if is_repeated {
                    self.tally.repeated += 1;
                } else if maybe_tcp {
                    self.held.push_back((instant, event, behaviour, time));
                } else {
                    let is_tcp = matches!(behaviour.protocol, Protocol::Tcp | Protocol::Tcp6);
                    if behaviour.kind == Kind::Egress && is_tcp {
                        self.twins.tcp(&event, &behaviour, instant);
                    }
                    self.count(&event, behaviour, example, time);
                }
            }
        }
    }

    /// Decides about connects that have waited long enough; `all` at the end.
    pub(super) fn settle(&mut self, instant: Instant, all: bool) {
        while let Some((since, ..)) = self.held.front() {
            if !all && instant.duration_since(*since) < HOLD {
                return;
            }
            let (_, event, behaviour, time) = self.held.pop_front().expect("there is a front");
            if self.twins.was_tcp(&event, &behaviour) {
                self.tally.repeated += 1;
            } else {
                self.count(&event, behaviour, Name::default(), time);
            }
        }
    }

    fn count(&mut self, event: &Event, behaviour: Behaviour, example: Name, time: Timestamp) {
        let key = self.meet(event);
        let row = (key.clone(), behaviour);
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&row) {
            self.lose(key, LossReason::Store);
            return;
        }
        self.tally.counted += 1;
        let once = Tally::at(time, 1);
        self.rows
            .entry(row.clone())
            .and_modify(|(tally, _)| *tally = tally.plus(once))
            .or_insert((once, example));
        self.changed_rows.insert(row);
    }

    fn lose(&mut self, container: ContainerKey, reason: LossReason) {
        let loss = (container, reason);
        *self.losses.entry(loss.clone()).or_default() += 1;
        self.changed_losses.insert(loss);
    }

    /// The container an event is of, with what the event knows of it.
    fn meet(&mut self, event: &Event) -> ContainerKey {
        let told = event.container(&self.run.boot, self.run.started);
        let key = told.key.clone();
        match self.containers.get_mut(&key) {
            None => {
                self.containers.insert(key.clone(), told);
                self.changed_containers.insert(key.clone());
            }
            Some(known) => {
                let joined = joined(known, told);
                if *known != joined {
                    *known = joined;
                    self.changed_containers.insert(key.clone());
                }
            }
        }
        key
    }

    /// What changed since the last report, with counts since the run began.
    pub(super) fn report(&mut self, now: Timestamp, ended_cleanly: bool) -> Report {
        self.run.last_alive = self.run.last_alive.max(now);
        self.run.ended_cleanly = ended_cleanly;
        let containers = std::mem::take(&mut self.changed_containers).into_iter();
        let rows = std::mem::take(&mut self.changed_rows).into_iter();
        let losses = std::mem::take(&mut self.changed_losses).into_iter();
        Report {
            containers: containers
                .filter_map(|key| self.containers.get(&key).cloned())
                .collect(),
            observations: rows
                .filter_map(|row| {
                    let (tally, example) = self.rows.get(&row)?.clone();
                    let (container, behaviour) = row;
                    Some(Observation {
                        container,
                        behaviour,
                        tally,
                        example,
                    })
                })
                .collect(),
            losses: losses
                .filter_map(|(container, reason)| {
                    let count = *self.losses.get(&(container.clone(), reason))?;
                    Some((container, Loss { reason, count }))
                })
                .collect(),
            ..Report::empty(self.run.clone())
        }
    }

    /// Whether the next report has anything in it.
    pub(super) fn has_news(&self) -> bool {
        let changed = [&self.changed_rows.len(), &self.changed_losses.len()];
        changed.iter().any(|count| **count > 0) || !self.changed_containers.is_empty()
    }
}

/// A container with what is newly told of it; what is known is not replaced by nothing.
fn joined(known: &Container, told: Container) -> Container {
    let text = |known: &String, told: String| {
        if told.is_empty() { known.clone() } else { told }
    };
    Container {
        name: text(&known.name, told.name),
        image: text(&known.image, told.image),
        namespace: text(&known.namespace, told.namespace),
        pod: text(&known.pod, told.pod),
        labels: if told.labels.is_empty() {
            known.labels.clone()
        } else {
            told.labels
        },
        workload: if told.workload.name.is_empty() {
            known.workload.clone()
        } else {
            told.workload
        },
        ..known.clone()
    }
}
