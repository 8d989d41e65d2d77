//! What a stream said of its containers.
//!
//! A batch describes every container of which it has a row, in most of them as the batch
//! before did. Writing that again costs a store as much as a dozen rows, so what is known
//! to be kept is left out.

use ethogram_model::{Container, ContainerKey};
use ethogram_store::Report;
use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    time::{Duration, Instant},
};

/// Containers remembered for a stream; beyond, everything is forgotten and learned again.
const REMEMBERED_MAX: usize = 4_096;
/// How long a description is believed to be kept. Retention may remove a container that
/// did nothing for long; if it does something again, it has a name after this time.
const BELIEVED_FOR: Duration = Duration::from_secs(600);

/// Descriptions that the store has.
#[derive(Default)]
pub(crate) struct Described {
    /// Hashes of what was said last.
    known: HashMap<ContainerKey, u64>,
    hasher: RandomState,
    since: Option<Instant>,
}

impl Described {
    /// Takes out what the store has; what is left is to be remembered once it is kept.
    pub(crate) fn leave_out_known(
        &mut self,
        reports: &mut [Report],
        moment: Instant,
    ) -> Vec<(ContainerKey, u64)> {
        let since = *self.since.get_or_insert(moment);
        if moment - since >= BELIEVED_FOR {
            self.known.clear();
            self.since = Some(moment);
        }
        let mut left = Vec::new();
        for report in reports {
            report.containers.retain(|container| {
                let hash = self.hash(container);
                let is_known = self.known.get(&container.key) == Some(&hash);
                if !is_known {
                    left.push((container.key.clone(), hash));
                }
                !is_known
            });
        }
        left
    }

    /// Notes what is kept.
    pub(crate) fn remember(&mut self, kept: Vec<(ContainerKey, u64)>) {
        if self.known.len() + kept.len() > REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.extend(kept);
    }

    fn hash(&self, container: &Container) -> u64 {
        self.hasher.hash_one(container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::{BootId, Name, Run, Timestamp};

    fn report(pod: &str) -> Report {
        let key = ContainerKey {
            boot: BootId::new("b"),
            cgroup: 1,
            incarnation: 0,
        };
        let mut container = Container::unknown(key, Name::default(), Timestamp(5));
        container.pod = pod.into();
        let run = Run {
            id: "r".into(),
            boot: BootId::new("b"),
            node: "n".into(),
            hooks: String::new(),
            started: Timestamp(0),
            last_alive: Timestamp(0),
            ended_cleanly: false,
        };
        Report {
            containers: vec![container],
            ..Report::empty(run)
        }
    }

    /// How many descriptions are left to be written.
    fn left(described: &mut Described, pod: &str, moment: Instant, is_kept: bool) -> usize {
        let mut reports = [report(pod)];
        let new = described.leave_out_known(&mut reports, moment);
        assert_eq!(new.len(), reports[0].containers.len());
        let count = new.len();
        if is_kept {
            described.remember(new);
        }
        count
    }

    #[test]
    fn what_is_kept_is_not_written_again() {
        let (mut described, now) = (Described::default(), Instant::now());
        assert_eq!(left(&mut described, "a", now, false), 1);
        assert_eq!(left(&mut described, "a", now, true), 1, "it was not kept");
        assert_eq!(left(&mut described, "a", now, true), 0);
        assert_eq!(
            left(&mut described, "b", now, true),
            1,
            "it says something new"
        );
        assert_eq!(left(&mut described, "b", now, true), 0);
        assert_eq!(left(&mut described, "b", now + BELIEVED_FOR, true), 1);
    }
}
