//! The watch: what the kernel counted, joined with whose it is, as reports for a store.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result};
use ethogram_identity::{
    Identity, Tracking, Updates,
    cgroups::{Hierarchies, Hierarchy},
};
use ethogram_model::{
    Access, Behaviour, BootId, Container, ContainerKey, Folding, Loss, LossReason, Name,
    Observation, Resolution, Run, Tally, Timestamp,
};
use ethogram_sensor::{CgroupChange, Change, HookSet, Resolved, Sensor, Update, V1Controller};
use ethogram_store::Report;
use tokio::runtime::Handle;

use crate::{clock::now, host};

/// How long a change waits for its container before it is reported under its bare cgroup.
const PLACE_WITHIN: Duration = Duration::from_secs(60);

/// How long after its end a container's place in the kernel is kept, for late events.
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// Changes that may wait for their containers, over all cgroups; beyond it they are
/// reported under their bare cgroups at once.
const UNPLACED_MAX: usize = 100_000;

/// What is known of a cgroup whose container is not known yet.
struct Unplaced {
    /// Since when it waits.
    since: Timestamp,
    /// What it did, with an example of each.
    rows: HashMap<Behaviour, (Tally, Name)>,
    /// What name servers told it.
    resolved: HashMap<(IpAddr, Name), Resolved>,
}

impl Unplaced {
    fn new(since: Timestamp) -> Self {
        Self {
            since,
            rows: HashMap::new(),
            resolved: HashMap::new(),
        }
    }
}

/// Several cgroups may count for a container, and each has a budget of its own. What folded
/// in one is counted as folded in all: counts are told as sums over the cgroups, and one
/// that folded a row knows no more how often that row was seen.
#[derive(Default)]
struct Foldings {
    folding: Folding,
    /// Counted in rows of cgroups that did not fold them, by the row that takes them in.
    taken_in: HashMap<Behaviour, Tally>,
}

impl Foldings {
    /// The row that a behaviour is told in, with what was taken in for it. What it grew by
    /// is taken in if that is not its own.
    fn take_in(&mut self, behaviour: &Behaviour, grown: Tally) -> (Behaviour, Option<Tally>) {
        let row = self.folding.row(behaviour).into_owned();
        if row == *behaviour {
            return (row, self.taken_in.get(behaviour).copied());
        }
        let taken_in = self
            .taken_in
            .entry(row.clone())
            .and_modify(|tally| *tally = tally.plus(grown))
            .or_insert(grown);
        let taken_in = *taken_in;
        (row, Some(taken_in))
    }
}

/// What a cgroup was counted doing.
struct Counted {
    behaviour: Behaviour,
    /// Cumulative.
    tally: Tally,
    /// How much of the count was not told before.
    grown: u64,
    example: Name,
}

/// Sensor and identity together.
pub(crate) struct Watch {
    sensor: Sensor,
    identity: Identity,
    run: Run,
    /// What was known when the watch began, until the first report takes it.
    known_at_start: Updates,
    /// What was decided about each cgroup.
    tracking: HashMap<u64, Tracking>,
    /// Cgroups that count for a container: its own and those nested in it.
    members: HashMap<ContainerKey, BTreeSet<u64>>,
    /// Cgroups whose container is not known yet.
    unplaced: HashMap<u64, Unplaced>,
    /// What folded in any cgroup of a container.
    foldings: HashMap<ContainerKey, Foldings>,
    /// Losses by container, reason and cgroup.
    losses: HashMap<(ContainerKey, LossReason), HashMap<u64, u64>>,
    ended: Vec<(Timestamp, ContainerKey)>,
    unattributed: u64,
    /// How many those were when each container was first seen.
    unattributed_before: HashMap<ContainerKey, u64>,
}

/// The v1 hierarchy that tells containers apart where the v2 one does not.
pub(crate) fn v1_controller(hierarchies: &Hierarchies) -> Option<V1Controller> {
    let mounted = |wanted| {
        hierarchies
            .mounts
            .iter()
            .any(|mount| mount.hierarchy == wanted)
    };
    if mounted(Hierarchy::Memory) {
        Some(V1Controller::Memory)
    } else if mounted(Hierarchy::Pids) {
        Some(V1Controller::Pids)
    } else {
        None
    }
}

/// A run that begins now.
fn new_run(boot: BootId, node: String, hooks: HookSet) -> Run {
    let started = now();
    Run {
        id: format!("{}-{}-{}", boot.as_str(), std::process::id(), started.0),
        boot,
        node,
        hooks: hooks.as_str().to_owned(),
        started,
        last_alive: started,
        ended_cleanly: false,
    }
}

fn resolution(container: ContainerKey, resolved: Resolved) -> Resolution {
    Resolution {
        container,
        ip: resolved.ip,
        name: resolved.name,
        first: resolved.first,
        last: resolved.last,
    }
}

fn resolutions(
    container: &ContainerKey,
    resolved: HashMap<(IpAddr, Name), Resolved>,
) -> impl Iterator<Item = Resolution> + '_ {
    let resolved = resolved.into_values();
    resolved.map(|resolved| resolution(container.clone(), resolved))
}

impl Watch {
    /// Starts to ask who is who, of what a sensor counts since it was started. What was there
    /// before is in the first report.
    pub(crate) fn start(
        sensor: Sensor,
        identity: ethogram_identity::Options,
        runtime: &Handle,
    ) -> Result<Self> {
        let node = identity.node.clone().map_or_else(host::node, Ok)?;
        let identity = ethogram_identity::Options {
            node: Some(node.clone()),
            ..identity
        };
        let run = new_run(host::boot()?, node, sensor.hook_set());
        let identity = Identity::start(identity, runtime, now())?;
        let mut watch = Self {
            sensor,
            identity,
            known_at_start: Updates::default(),
            run,
            tracking: HashMap::new(),
            members: HashMap::new(),
            unplaced: HashMap::new(),
            foldings: HashMap::new(),
            losses: HashMap::new(),
            ended: Vec::new(),
            unattributed: 0,
            unattributed_before: HashMap::new(),
        };
        // Decide about what is there before looking back at it.
        let update = watch.identity.poll(now());
        watch.decide(&update.tracking)?;
        watch.known_at_start = update;
        watch.sensor.look_back().context("the look-back failed")?;
        Ok(watch)
    }

    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    pub(crate) fn sensor(&self) -> &Sensor {
        &self.sensor
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Events that were lost and cannot be charged to any container.
    pub(crate) fn unattributed_losses(&self) -> u64 {
        self.unattributed
    }

    /// Waits for a reason to tick early, at most for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        self.sensor.wait(timeout);
    }

    /// All that changed since the last tick.
    pub(crate) fn tick(&mut self) -> Result<Report> {
        let update = self.sensor.collect();
        let time = now();
        for event in &update.cgroups {
            self.identity.cgroup_event(match event.change {
                CgroupChange::Appeared => ethogram_identity::CgroupEvent::Appeared {
                    id: event.id,
                    path: event.path.to_bytes(),
                    time: event.time,
                },
                CgroupChange::Gone => ethogram_identity::CgroupEvent::Gone {
                    id: event.id,
                    time: event.time,
                },
            });
        }
        let known = self.identity.poll(time);
        if let Err(error) = self.decide(&known.tracking) {
            // What was counted must not be lost for it.
            tracing::warn!("cannot tell the kernel what to watch: {error:#}");
        }
        self.run.last_alive = time;
        self.note_ends(&known.containers);
        let first = std::mem::take(&mut self.known_at_start);
        let mut report = Report::empty(self.run.clone());
        report.containers = [first.containers, known.containers].concat();
        report.endpoints = [first.endpoints, known.endpoints].concat();
        self.take(update, time, &mut report);
        self.forget_ended(time);
        Ok(report)
    }

    /// Stops counting and reports the rest.
    pub(crate) fn finish(mut self) -> Result<Report> {
        self.sensor.detach();
        let mut report = self.tick()?;
        // Whatever still has no container is reported under its bare cgroup now.
        for cgroup in self.unplaced.keys().copied().collect::<Vec<_>>() {
            self.place_bare(cgroup, &mut report);
        }
        report.run.ended_cleanly = true;
        Ok(report)
    }

    fn decide(&mut self, tracking: &[(u64, Tracking)]) -> Result<()> {
        for &(cgroup, decision) in tracking {
            self.tracking.insert(cgroup, decision);
            self.sensor
                .set_policy(cgroup, decision == Tracking::Track)?;
        }
        self.sensor.publish_policies();
        Ok(())
    }

    fn take(&mut self, update: Update, time: Timestamp, report: &mut Report) {
        for change in &update.changes {
            if let Some(container) = self.identity.container_of(change.cgroup) {
                let key = container.key.clone();
                self.heed(&key, std::iter::once(&change.behaviour));
            }
        }
        for change in update.changes {
            self.place_or_keep(change, time, report);
        }
        for resolved in update.resolved {
            self.place_or_keep_name(resolved, time, report);
        }
        let waiting: Vec<u64> = self.unplaced.keys().copied().collect();
        let crowded = self
            .unplaced
            .values()
            .map(|waiting| waiting.rows.len() + waiting.resolved.len())
            .sum::<usize>()
            > UNPLACED_MAX;
        for cgroup in waiting {
            self.place_kept(cgroup, time, crowded, report);
        }
        for (cgroup, loss) in update.losses {
            self.lose(cgroup, loss, report);
        }
        self.lose_unattributed(update.losses_unattributed, report);
    }

    fn place_or_keep(&mut self, change: Change, time: Timestamp, report: &mut Report) {
        let Change {
            cgroup,
            behaviour,
            tally,
            grown,
            example,
        } = change;
        if self.tracking.get(&cgroup) == Some(&Tracking::Ignore) {
            return; // counted before it was decided that nobody asked
        }
        match self
            .identity
            .container_of(cgroup)
            .map(|container| container.key.clone())
        {
            Some(key) => {
                let counted = Counted {
                    behaviour,
                    tally,
                    grown,
                    example,
                };
                report.observations.push(self.observe(key, cgroup, counted));
            }
            None => {
                let waiting = self.unplaced.entry(cgroup);
                let waiting = waiting.or_insert_with(|| Unplaced::new(time));
                waiting.rows.insert(behaviour, (tally, example));
            }
        }
    }

    fn place_or_keep_name(&mut self, resolved: Resolved, time: Timestamp, report: &mut Report) {
        let cgroup = resolved.cgroup;
        if self.tracking.get(&cgroup) == Some(&Tracking::Ignore) {
            return;
        }
        if let Some(container) = self.identity.container_of(cgroup) {
            let resolution = resolution(container.key.clone(), resolved);
            report.resolutions.push(resolution);
        } else {
            let waiting = self.unplaced.entry(cgroup);
            let waiting = waiting.or_insert_with(|| Unplaced::new(time));
            let key = (resolved.ip, resolved.name.clone());
            waiting.resolved.insert(key, resolved);
        }
    }

    /// An observation of a container: the sum over the cgroups that count for it.
    fn observe(&mut self, container: ContainerKey, cgroup: u64, counted: Counted) -> Observation {
        let Counted {
            behaviour,
            tally,
            grown,
            example,
        } = counted;
        let members = self.members.entry(container.clone()).or_default();
        members.insert(cgroup);
        let others = members.iter().filter(|&&member| member != cgroup);
        let (row, taken_in) = match self.foldings.get_mut(&container) {
            Some(foldings) => foldings.take_in(
                &behaviour,
                Tally {
                    count: grown,
                    ..tally
                },
            ),
            None => (behaviour.clone(), None),
        };
        let own = if row == behaviour {
            Some(tally)
        } else {
            self.sensor.tally(cgroup, &row)
        };
        let others = others.filter_map(|&member| self.sensor.tally(member, &row));
        let tally = others.chain(own).chain(taken_in).reduce(Tally::plus);
        Observation {
            container,
            behaviour: row,
            tally: tally.expect("the row has a tally, or takes this one in"),
            example,
        }
    }

    /// Takes note of what folded in a cgroup. Before anything of its container is observed:
    /// the rows that folded are no longer known.
    fn heed<'a>(
        &mut self,
        container: &ContainerKey,
        behaviours: impl Iterator<Item = &'a Behaviour>,
    ) {
        for folded in behaviours.filter(|b| b.access.contains(Access::FOLDED)) {
            let foldings = self.foldings.entry(container.clone()).or_default();
            foldings.folding.heed(folded);
        }
    }

    /// Reports what waited for a container that is known by now, or for too long.
    fn place_kept(&mut self, cgroup: u64, time: Timestamp, crowded: bool, report: &mut Report) {
        let Some(waiting) = self.unplaced.get(&cgroup) else {
            return;
        };
        let late = time.0 - waiting.since.0 > PLACE_WITHIN.as_nanos() as i64;
        if self.tracking.get(&cgroup) == Some(&Tracking::Ignore) {
            self.unplaced.remove(&cgroup);
        } else if let Some(key) = self.identity.container_of(cgroup).map(|c| c.key.clone()) {
            let Some(waiting) = self.unplaced.remove(&cgroup) else {
                return;
            };
            report
                .resolutions
                .extend(resolutions(&key, waiting.resolved));
            self.heed(&key, waiting.rows.keys());
            for (behaviour, (tally, example)) in waiting.rows {
                let counted = Counted {
                    behaviour,
                    tally,
                    grown: tally.count,
                    example,
                };
                report
                    .observations
                    .push(self.observe(key.clone(), cgroup, counted));
            }
        } else if late || crowded {
            self.place_bare(cgroup, report);
        }
    }

    /// Reports what is known of a cgroup without a container, as a container without a name.
    fn place_bare(&mut self, cgroup: u64, report: &mut Report) {
        let Some(Unplaced {
            since,
            rows,
            resolved,
        }) = self.unplaced.remove(&cgroup)
        else {
            return;
        };
        let key = ContainerKey {
            boot: self.run.boot.clone(),
            cgroup,
            incarnation: 0,
        };
        let mut container = Container::unknown(key.clone(), Name::default(), since);
        container.node.clone_from(&self.run.node);
        report.containers.push(container);
        report.resolutions.extend(resolutions(&key, resolved));
        for (behaviour, (tally, example)) in rows {
            report.observations.push(Observation {
                container: key.clone(),
                behaviour,
                tally,
                example,
            });
        }
    }

    fn lose(&mut self, cgroup: u64, loss: Loss, report: &mut Report) {
        if self.tracking.get(&cgroup) == Some(&Tracking::Ignore) {
            return;
        }
        let key = match self.identity.container_of(cgroup) {
            Some(container) => container.key.clone(),
            None => ContainerKey {
                boot: self.run.boot.clone(),
                cgroup,
                incarnation: 0,
            },
        };
        let by_cgroup = self.losses.entry((key.clone(), loss.reason)).or_default();
        by_cgroup.insert(cgroup, loss.count);
        let count = by_cgroup.values().sum();
        report.losses.push((
            key,
            Loss {
                reason: loss.reason,
                count,
            },
        ));
    }

    /// Charges what may be anybody's to every container that lives: for each, the number is
    /// the most that can be missing since it was first seen.
    fn lose_unattributed(&mut self, total: u64, report: &mut Report) {
        let before = std::mem::replace(&mut self.unattributed, total);
        for container in self
            .identity
            .containers()
            .filter(|container| container.ended.is_none())
        {
            let since = *self
                .unattributed_before
                .entry(container.key.clone())
                .or_insert(before);
            if total > before {
                let loss = Loss {
                    reason: LossReason::Unattributed,
                    count: total - since,
                };
                report.losses.push((container.key.clone(), loss));
            }
        }
    }

    fn note_ends(&mut self, containers: &[Container]) {
        for container in containers {
            if let Some(ended) = container.ended {
                self.ended.push((ended, container.key.clone()));
            }
        }
    }

    /// Makes room in the kernel for the cgroups of containers that ended a while ago.
    fn forget_ended(&mut self, time: Timestamp) {
        let due = |ended: &Timestamp| time.0 - ended.0 > FORGET_AFTER.as_nanos() as i64;
        let (gone, kept) = std::mem::take(&mut self.ended)
            .into_iter()
            .partition(|(ended, _)| due(ended));
        self.ended = kept;
        for (_, key) in gone as Vec<_> {
            for cgroup in self.members.remove(&key).into_iter().flatten() {
                self.sensor.forget(cgroup);
                self.tracking.remove(&cgroup);
            }
            self.losses.retain(|(container, _), _| *container != key);
            self.unattributed_before.remove(&key);
            self.foldings.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::Kind;

    fn file(path: &str) -> Behaviour {
        Behaviour::new(Kind::File, "/bin/a".into(), path.into())
    }

    #[test]
    fn what_another_cgroup_folded_is_taken_in_by_growth() {
        let mut folded = file("/tmp/*");
        folded.access = Access::FOLDED;
        let mut foldings = Foldings::default();
        let grown = |count| Tally::at(Timestamp(1), count);
        let own = foldings.take_in(&file("/tmp/x"), grown(3));
        assert_eq!(own, (file("/tmp/x"), None));
        foldings.folding.heed(&folded);
        let first = foldings.take_in(&file("/tmp/x"), grown(2));
        assert_eq!(first, (folded.clone(), Some(grown(2))));
        let second = foldings.take_in(&file("/tmp/y"), grown(5));
        assert_eq!(second, (folded.clone(), Some(grown(7))));
        assert_eq!(
            foldings.take_in(&folded, grown(100)),
            (folded, Some(grown(7)))
        );
    }
}
