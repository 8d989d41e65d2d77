//! What a subject's rows cannot contain.

use crate::{BootId, Container, Loss, LossReason, Run, Timestamp};
use std::{cmp::Reverse, collections::BTreeMap};

/// How long a run may be silent before it counts as ended. Runs report much more often.
const RUN_SILENCE_MAX_NS: i64 = 30_000_000_000;

/// What is known to be missing from a subject's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Since when the first of its containers is watched.
    pub watched_since: Timestamp,
    /// Whether a container ran already when its watch began, so that its past is not known.
    pub already_running: bool,
    /// Events known not to be counted, and answers of name servers not taken in, one entry
    /// for each reason.
    pub losses: Vec<Loss>,
    /// When containers ran and nobody watched, sorted, without overlaps.
    pub gaps: Vec<Gap>,
    /// When a watch broke off without a flush: the last moments before are not in the rows.
    pub broken_off: Vec<Timestamp>,
    /// Retention may have deleted rows last seen before this time. `None` if the subject
    /// is younger.
    pub kept_since: Option<Timestamp>,
}

/// A time in which nobody watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// From when.
    pub from: Timestamp,
    /// Until when; `None` if nobody watches now.
    pub until: Option<Timestamp>,
}

impl Completeness {
    /// The containers are those of one subject, and not none.
    pub(super) fn new(
        containers: &[&Container],
        losses: &[Loss],
        watches: &Watches,
        kept_since: Option<Timestamp>,
    ) -> Self {
        let watched_since = containers.iter().map(|c| c.watched_since).min();
        let watched_since = watched_since.unwrap_or(watches.now);
        let mut gaps = Vec::new();
        let mut broken_off = Vec::new();
        for container in containers {
            if let Some(watch) = watches.by_boot.get(&container.key.boot) {
                gaps.extend(watch.gaps(container));
                broken_off.extend(watch.broken_off(container));
            }
        }
        broken_off.sort_unstable();
        broken_off.dedup();
        Self {
            watched_since,
            already_running: containers.iter().any(|c| c.present_at_start),
            losses: sum(losses),
            gaps: united(gaps),
            broken_off,
            kept_since: kept_since.filter(|kept| watched_since < *kept),
        }
    }

    /// Whether everything since the watch began is in the rows.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost() == 0
            && self.gaps.is_empty()
            && self.broken_off.is_empty()
            && self.kept_since.is_none()
    }

    /// Events known not to be counted, whatever the reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses
            .iter()
            .filter(|loss| loss.reason.is_of_events())
            .fold(0, |sum, loss| sum.saturating_add(loss.count))
    }
}

fn sum(losses: &[Loss]) -> Vec<Loss> {
    let mut by_reason = BTreeMap::<LossReason, u64>::new();
    for loss in losses.iter().filter(|loss| loss.count > 0) {
        let count = by_reason.entry(loss.reason).or_default();
        *count = count.saturating_add(loss.count);
    }
    let loss = |(reason, count)| Loss { reason, count };
    by_reason.into_iter().map(loss).collect()
}

/// Sorts gaps and joins those that overlap.
fn united(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_unstable();
    let mut united = Vec::<Gap>::new();
    for gap in gaps {
        match united.last_mut() {
            Some(last) if last.until.is_none_or(|until| gap.from <= until) => {
                last.until = match (last.until, gap.until) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    _ => None,
                };
            }
            _ => united.push(gap),
        }
    }
    united
}

/// Who watched when: found once for all subjects, because a cluster has thousands of both.
pub(super) struct Watches<'a> {
    by_boot: BTreeMap<&'a BootId, Watch<'a>>,
    now: Timestamp,
}

/// The runs of one boot, sorted by start.
struct Watch<'a> {
    runs: Vec<&'a Run>,
    /// Whether the machine has booted again since, so that nothing of this boot runs.
    is_over: bool,
    now: Timestamp,
}

impl<'a> Watches<'a> {
    pub(super) fn new(runs: &'a [Run], now: Timestamp) -> Self {
        let latest = latest_starts(runs);
        let mut by_boot = BTreeMap::new();
        for run in runs {
            let watch = by_boot.entry(&run.boot).or_insert_with(|| Watch {
                runs: Vec::new(),
                is_over: false,
                now,
            });
            watch.runs.push(run);
            let boots = latest.get(run.node.as_str()).into_iter().flatten();
            let mut others = boots.filter(|(boot, _)| **boot != run.boot);
            watch.is_over |= others.any(|(_, started)| *started > run.last_alive);
        }
        for watch in by_boot.values_mut() {
            watch.runs.sort_by_key(|run| (run.started, run.last_alive));
        }
        Self { by_boot, now }
    }
}

/// Of each machine the two boots whose latest runs began last, the last one first: one of
/// them is another boot than any that is asked about.
fn latest_starts(runs: &[Run]) -> BTreeMap<&str, Vec<(&BootId, Timestamp)>> {
    let mut starts = BTreeMap::<&str, BTreeMap<&BootId, Timestamp>>::new();
    for run in runs {
        let boots = starts.entry(&run.node).or_default();
        let started = boots.entry(&run.boot).or_insert(run.started);
        *started = run.started.max(*started);
    }
    let latest = |boots: BTreeMap<_, _>| {
        let mut boots: Vec<_> = boots.into_iter().collect();
        boots.sort_by_key(|(_, started)| Reverse(*started));
        boots.truncate(2);
        boots
    };
    starts
        .into_iter()
        .map(|(node, boots)| (node, latest(boots)))
        .collect()
}

impl Watch<'_> {
    /// When a container of this boot ran without being watched.
    fn gaps(&self, container: &Container) -> Vec<Gap> {
        let end = container.ended.unwrap_or(self.now);
        let mut gaps = Vec::new();
        let mut watched_until: Option<Timestamp> = None;
        for run in self.runs.iter().filter(|run| run.started < end) {
            // Before the first run nothing is missing: the watch began with it.
            if let Some(from) = watched_until.filter(|until| *until < run.started) {
                gaps.push(Gap {
                    from,
                    until: Some(run.started),
                });
            }
            let alive = run.last_alive.max(container.watched_since);
            watched_until = Some(watched_until.map_or(alive, |until| until.max(alive)));
        }
        let end_is_known = container.ended.is_some() || !self.is_over;
        if let Some(from) = watched_until
            && end_is_known
            && end.0.saturating_sub(from.0) > RUN_SILENCE_MAX_NS
        {
            gaps.push(Gap {
                from,
                until: container.ended,
            });
        }
        gaps
    }

    /// When runs that watched a container ended without a flush.
    fn broken_off<'a>(&'a self, container: &'a Container) -> impl Iterator<Item = Timestamp> + 'a {
        let overlaps = |run: &Run| {
            run.last_alive >= container.watched_since
                && container.ended.is_none_or(|ended| run.started <= ended)
        };
        self.runs
            .iter()
            .enumerate()
            .filter(move |(at, run)| {
                let is_last = at + 1 == self.runs.len();
                let silent_ns = self.now.0.saturating_sub(run.last_alive.0);
                let is_alive = is_last && !self.is_over && silent_ns <= RUN_SILENCE_MAX_NS;
                !run.ended_cleanly && !is_alive && overlaps(run)
            })
            .map(|(_, run)| run.last_alive)
    }
}
