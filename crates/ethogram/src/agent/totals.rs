//! Counts over all containers since the agent started, for its metrics. They only grow.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use ethogram_model::{ContainerKey, Kind, LossReason, Timestamp};
use ethogram_store::Report;

/// How long after its end what was last reported of a container is remembered: longer
/// than anything of it can still be reported.
const REMEMBERED: Duration = Duration::from_secs(120);

/// What was counted and lost over all containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Events by kind.
    pub(crate) events: BTreeMap<Kind, u64>,
    /// Events lost by reason.
    pub(crate) losses: BTreeMap<LossReason, u64>,
}

/// Adds cumulative reports up.
#[derive(Debug, Default)]
pub(crate) struct Adder {
    totals: Totals,
    told: HashMap<ContainerKey, Told>,
    ended: Vec<(Timestamp, ContainerKey)>,
    hasher: RandomState,
}

/// What was last told of a container. Behaviours are known by their hashes: 16 bytes each.
#[derive(Debug, Default)]
struct Told {
    counts: HashMap<u64, u64>,
    losses: HashMap<LossReason, u64>,
}

impl Adder {
    /// Adds what a report tells that was not told before.
    pub(crate) fn add(&mut self, report: &Report) {
        for observation in &report.observations {
            let told = self.told.entry(observation.container.clone()).or_default();
            let hash = self.hasher.hash_one(&observation.behaviour);
            let known = told.counts.entry(hash).or_default();
            let total = self.totals.events.entry(observation.behaviour.kind);
            *total.or_default() += grown(known, observation.tally.count);
        }
        for (container, loss) in &report.losses {
            let told = self.told.entry(container.clone()).or_default();
            let known = told.losses.entry(loss.reason).or_default();
            *self.totals.losses.entry(loss.reason).or_default() += grown(known, loss.count);
        }
        let ends = report.containers.iter();
        self.ended
            .extend(ends.filter_map(|c| Some((c.ended?, c.key.clone()))));
        self.forget(report.run.last_alive);
    }

    /// As it stands.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    fn forget(&mut self, now: Timestamp) {
        let Self { told, ended, .. } = self;
        ended.retain(|(end, container)| {
            let remembered = now.0.saturating_sub(end.0) < REMEMBERED.as_nanos() as i64;
            if !remembered {
                told.remove(container);
            }
            remembered
        });
    }
}

fn grown(known: &mut u64, count: u64) -> u64 {
    let grown = count.saturating_sub(*known);
    *known += grown;
    grown
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::{Behaviour, BootId, Container, Loss, Name, Observation, Run, Tally};

    fn report(time: i64) -> Report {
        let time = Timestamp(time * 1_000_000_000);
        Report::empty(Run {
            id: "r".into(),
            boot: BootId::new("b"),
            node: "n".into(),
            hooks: String::new(),
            started: time,
            last_alive: time,
            ended_cleanly: false,
        })
    }

    fn key(cgroup: u64) -> ContainerKey {
        ContainerKey {
            boot: BootId::new("b"),
            cgroup,
            incarnation: 0,
        }
    }

    fn seen(cgroup: u64, target: &str, count: u64) -> Observation {
        Observation {
            container: key(cgroup),
            behaviour: Behaviour::new(Kind::File, Name::default(), Name::from(target)),
            tally: Tally::at(Timestamp(0), count),
            example: Name::default(),
        }
    }

    #[test]
    fn cumulative_reports_are_counted_once() {
        let mut adder = Adder::default();
        for (a, b, lost) in [(2, 1, 1), (2, 1, 1), (5, 2, 4)] {
            let mut report = report(1);
            report.observations = vec![seen(1, "/a", a), seen(1, "/b", b), seen(2, "/a", 1)];
            let loss = Loss {
                reason: LossReason::RingFull,
                count: lost,
            };
            report.losses = vec![(key(1), loss)];
            adder.add(&report);
        }
        assert_eq!(adder.totals().events[&Kind::File], 5 + 2 + 1);
        assert_eq!(adder.totals().losses[&LossReason::RingFull], 4);
    }

    #[test]
    fn ended_containers_take_no_memory_and_leave_their_totals() {
        let mut adder = Adder::default();
        let mut last = report(10);
        last.observations = vec![seen(1, "/a", 3)];
        let mut container = Container::unknown(key(1), Name::default(), Timestamp(0));
        container.ended = Some(last.run.last_alive);
        last.containers = vec![container];
        adder.add(&last);
        assert_eq!(adder.told.len(), 1);
        adder.add(&report(200));
        assert_eq!((adder.told.len(), adder.ended.len()), (0, 0));
        assert_eq!(adder.totals().events[&Kind::File], 3);
    }
}
