//! What was counted and is not in the store yet.

use std::{collections::HashMap, net::IpAddr};

use ethogram_model::{
    Behaviour, Container, ContainerKey, Endpoint, Loss, LossReason, Name, Observation, Resolution,
    Run, Tally, Timestamp,
};
use ethogram_store::Report;

/// What tells two endpoints apart in a store.
type EndpointKey = (IpAddr, String, String, Timestamp);

/// Reports joined into one: of every counter only its newest state, so that it grows with
/// the number of behaviours, not with time.
#[derive(Debug)]
pub(crate) struct Pending {
    run: Run,
    containers: HashMap<ContainerKey, Container>,
    observations: HashMap<(ContainerKey, Behaviour), (Tally, Name)>,
    losses: HashMap<(ContainerKey, LossReason), u64>,
    endpoints: HashMap<EndpointKey, Endpoint>,
    resolutions: HashMap<(ContainerKey, IpAddr, Name), (Timestamp, Timestamp)>,
}

impl Pending {
    /// Nothing yet, of a run.
    pub(crate) fn new(run: Run) -> Self {
        Self {
            run,
            containers: HashMap::new(),
            observations: HashMap::new(),
            losses: HashMap::new(),
            endpoints: HashMap::new(),
            resolutions: HashMap::new(),
        }
    }

    /// Adds a report of the same run that is newer than what is here.
    pub(crate) fn take_in(&mut self, report: Report) {
        self.run.last_alive = self.run.last_alive.max(report.run.last_alive);
        self.run.ended_cleanly |= report.run.ended_cleanly;
        for container in report.containers {
            self.containers.insert(container.key.clone(), container);
        }
        for Observation {
            container,
            behaviour,
            tally,
            example,
        } in report.observations
        {
            let kept = self
                .observations
                .entry((container, behaviour))
                .or_insert((tally, Name::default()));
            kept.0 = kept.0.join(tally);
            if kept.1.is_empty() {
                kept.1 = example;
            }
        }
        for (container, loss) in report.losses {
            let count = self.losses.entry((container, loss.reason)).or_default();
            *count = loss.count.max(*count);
        }
        for endpoint in report.endpoints {
            let Endpoint {
                ip,
                ref name,
                ref namespace,
                from,
                ..
            } = endpoint;
            let key = (ip, name.clone(), namespace.clone(), from);
            self.endpoints.insert(key, endpoint);
        }
        for Resolution {
            container,
            ip,
            name,
            first,
            last,
        } in report.resolutions
        {
            let key = (container, ip, name);
            let kept = self.resolutions.entry(key).or_insert((first, last));
            *kept = (kept.0.min(first), kept.1.max(last));
        }
    }

    /// Adds a report again that could not be applied; what is here is newer.
    pub(crate) fn put_back(&mut self, report: Report) {
        let newer = self.take();
        self.take_in(report);
        self.take_in(newer);
    }

    /// Takes everything out.
    pub(crate) fn take(&mut self) -> Report {
        let observations = std::mem::take(&mut self.observations).into_iter();
        let losses = std::mem::take(&mut self.losses).into_iter();
        Report {
            run: self.run.clone(),
            containers: std::mem::take(&mut self.containers).into_values().collect(),
            observations: observations
                .map(|((container, behaviour), (tally, example))| Observation {
                    container,
                    behaviour,
                    tally,
                    example,
                })
                .collect(),
            losses: losses
                .map(|((container, reason), count)| (container, Loss { reason, count }))
                .collect(),
            endpoints: std::mem::take(&mut self.endpoints).into_values().collect(),
            resolutions: std::mem::take(&mut self.resolutions)
                .into_iter()
                .map(|((container, ip, name), (first, last))| Resolution {
                    container,
                    ip,
                    name,
                    first,
                    last,
                })
                .collect(),
        }
    }

    /// Everything that would be written, in rows.
    pub(crate) fn rows(&self) -> usize {
        self.containers.len()
            + self.observations.len()
            + self.losses.len()
            + self.endpoints.len()
            + self.resolutions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::{BootId, Kind};

    fn run() -> Run {
        Run {
            id: "run".into(),
            boot: BootId::new("boot"),
            node: "node".into(),
            hooks: String::new(),
            started: Timestamp(0),
            last_alive: Timestamp(0),
            ended_cleanly: false,
        }
    }

    fn key(cgroup: u64) -> ContainerKey {
        ContainerKey {
            boot: BootId::new("boot"),
            cgroup,
            incarnation: 0,
        }
    }

    fn report(alive: i64, path: &str, count: u64, lost: u64) -> Report {
        let mut report = Report::empty(Run {
            last_alive: Timestamp(alive),
            ..run()
        });
        report.observations.push(Observation {
            container: key(1),
            behaviour: Behaviour::new(Kind::File, Name::default(), Name::from(path)),
            tally: Tally::at(Timestamp(alive), count),
            example: Name::default(),
        });
        report.losses.push((
            key(1),
            Loss {
                reason: LossReason::RingFull,
                count: lost,
            },
        ));
        report
    }

    /// When it was alive, each row as `target count first..last`, and the losses.
    fn content(report: &Report) -> (i64, Vec<String>, Vec<u64>) {
        let rows = report.observations.iter().map(|o| {
            let Tally { count, first, last } = o.tally;
            format!("{} {count} {}..{}", o.behaviour.target, first.0, last.0)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        let losses = report.losses.iter().map(|(_, loss)| loss.count).collect();
        (report.run.last_alive.0, rows, losses)
    }

    #[test]
    fn only_the_newest_state_of_a_counter_is_kept() {
        let mut pending = Pending::new(run());
        pending.take_in(report(1, "/a", 3, 1));
        pending.take_in(report(2, "/a", 5, 4));
        pending.take_in(report(3, "/b", 1, 4));
        assert_eq!(pending.rows(), 3);
        let rows = vec!["/a 5 1..2".to_owned(), "/b 1 3..3".to_owned()];
        assert_eq!(content(&pending.take()), (3, rows, vec![4]));
        assert_eq!(pending.rows(), 0);
    }

    #[test]
    fn what_could_not_be_applied_goes_below_what_came_since() {
        let mut pending = Pending::new(run());
        pending.take_in(report(1, "/a", 3, 1));
        let failed = pending.take();
        pending.take_in(report(2, "/a", 9, 2));
        let mut named = Container::unknown(key(1), Name::default(), Timestamp(0));
        named.name = "new".into();
        let mut newer = Report::empty(run());
        newer.containers.push(named.clone());
        pending.take_in(newer);
        let older = Container::unknown(key(1), Name::default(), Timestamp(0));
        pending.put_back(Report {
            containers: vec![older],
            ..failed
        });
        let all = pending.take();
        let rows = vec!["/a 9 1..2".to_owned()];
        assert_eq!(content(&all), (2, rows, vec![2]));
        assert_eq!(all.containers, [named]);
    }
}
