//! Which names cgroups were given which addresses for, and when.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use ethogram_model::{Name, Timestamp};

use crate::Resolved;

/// Pairs of name and address of one cgroup; about 150 bytes each. What comes after is counted
/// as a loss of names.
const PER_CGROUP_MAX: usize = 4_096;

type Known = HashMap<(IpAddr, Name), (Timestamp, Timestamp)>;

/// All that name servers told.
#[derive(Debug, Default)]
pub(crate) struct Resolutions {
    by_cgroup: HashMap<u64, Known>,
    changed: HashSet<(u64, IpAddr, Name)>,
    /// Answers that could not be taken in, by cgroup.
    refused: BTreeMap<u64, u64>,
}

impl Resolutions {
    /// A cgroup was told at a time that a name has an address.
    pub(crate) fn learn(&mut self, cgroup: u64, ip: IpAddr, name: Name, time: Timestamp) {
        let known = self.by_cgroup.entry(cgroup).or_default();
        let count = known.len();
        match known.get_mut(&(ip, name.clone())) {
            Some((first, last)) => {
                *first = time.min(*first);
                *last = time.max(*last);
            }
            None if count < PER_CGROUP_MAX => {
                known.insert((ip, name.clone()), (time, time));
            }
            None => return self.refuse(cgroup),
        }
        self.changed.insert((cgroup, ip, name));
    }

    /// Something that a cgroup was told is not taken in.
    pub(crate) fn refuse(&mut self, cgroup: u64) {
        *self.refused.entry(cgroup).or_default() += 1;
    }

    /// How often that happened, by cgroup.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.refused.iter().map(|(&cgroup, &count)| (cgroup, count))
    }

    /// What was learned since the last time.
    pub(crate) fn take_changed(&mut self) -> Vec<Resolved> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .filter_map(|(cgroup, ip, name)| {
                let known = self.by_cgroup.get(&cgroup)?;
                let &(first, last) = known.get(&(ip, name.clone()))?;
                Some(Resolved {
                    cgroup,
                    ip,
                    name,
                    first,
                    last,
                })
            })
            .collect()
    }

    /// Drops what cgroups were told that are gone.
    pub(crate) fn forget(&mut self, gone: impl Fn(u64) -> bool) {
        self.by_cgroup.retain(|cgroup, _| !gone(*cgroup));
        self.refused.retain(|cgroup, _| !gone(*cgroup));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_again_is_one_row_with_its_first_and_last_time() {
        let mut resolutions = Resolutions::default();
        let ip = IpAddr::from([192, 0, 2, 1]);
        for time in [5, 3, 9] {
            resolutions.learn(7, ip, Name::from("a.example"), Timestamp(time));
        }
        resolutions.learn(8, ip, Name::from("b.example"), Timestamp(1));
        let mut told = resolutions.take_changed();
        told.sort_by_key(|told| told.cgroup);
        let told: Vec<_> = told
            .iter()
            .map(|r| (r.cgroup, r.name.as_str(), r.first.0, r.last.0))
            .collect();
        assert_eq!(told, [(7, "a.example", 3, 9), (8, "b.example", 1, 1)]);
        assert!(resolutions.take_changed().is_empty());
        resolutions.forget(|cgroup| cgroup == 7);
        assert_eq!(resolutions.by_cgroup.len(), 1);
    }

    #[test]
    fn beyond_its_bound_a_cgroups_names_are_counted_and_not_kept() {
        let mut resolutions = Resolutions::default();
        let name = |n: usize| Name::from(&*format!("{n}.example"));
        let ip = IpAddr::from([192, 0, 2, 1]);
        for n in 0..PER_CGROUP_MAX + 3 {
            resolutions.learn(7, ip, name(n), Timestamp(1));
        }
        resolutions.learn(7, ip, name(0), Timestamp(2));
        assert_eq!(resolutions.take_changed().len(), PER_CGROUP_MAX);
        assert_eq!(resolutions.refused().collect::<Vec<_>>(), [(7, 3)]);
    }
}
