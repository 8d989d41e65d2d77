//! Who has a key (an address, a port) when, if several may claim it at a time.

use crate::objects::Uid;
use ethogram_model::{Labels, Timestamp};
use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    sync::Arc,
};

/// For how long the end of a name is remembered, so that the next name of its key cannot
/// reach back behind it.
pub const FREED_KEPT_S: i64 = 86_400;
/// How many such ends are remembered; beyond it the oldest go early
/// ([`Bounds::freed_forgotten_early`](super::Bounds::freed_forgotten_early)).
pub const FREED_KEPT_MAX: usize = 65_536;

/// What is shown of the holder of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) name: Box<str>,
    pub(super) namespace: Arc<str>,
    pub(super) labels: Arc<Labels>,
}

/// By what right a key is claimed, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    Slice,
    External,
    Pod,
    Service,
    Node,
}

/// One key that a holder claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<K> {
    pub(super) key: K,
    pub(super) right: Right,
    /// From when it may have had it.
    pub(super) from: Timestamp,
    /// Since when it surely had not had it before; not before `from`. It decides between
    /// pods, of which the last to get an address has it.
    pub(super) since: Timestamp,
}

/// A name of a key, from when to when. Told again when it ends or its holder's labels change.
#[derive(Debug)]
pub(super) struct Interval<K> {
    pub(super) key: K,
    pub(super) who: Arc<Who>,
    pub(super) from: Timestamp,
    pub(super) until: Option<Timestamp>,
}

#[derive(Debug)]
struct Claim {
    holder: Uid,
    who: Arc<Who>,
    right: Right,
    from: Timestamp,
    since: Timestamp,
}

impl Claim {
    /// The greatest of a key's claims has it. Whoever came first keeps what several may
    /// share by intent; a pod's address is never shared, and word of its old holder's end
    /// may only be late.
    fn rank(&self) -> (Right, Option<Timestamp>, Reverse<Option<Timestamp>>) {
        match self.right {
            Right::Pod => (self.right, Some(self.since), Reverse(None)),
            _ => (self.right, None, Reverse(Some(self.since))),
        }
    }
}

#[derive(Debug)]
struct Shown {
    holder: Uid,
    who: Arc<Who>,
    from: Timestamp,
}

#[derive(Debug, Default)]
struct Key {
    claims: Vec<Claim>,
    shown: Option<Box<Shown>>,
    /// When the last name ended.
    free_since: Option<Timestamp>,
}

/// The table of claims.
#[derive(Debug)]
pub(super) struct Claims<K> {
    keys: HashMap<K, Key>,
    by_holder: HashMap<Uid, Box<[K]>>,
    /// Keys without a name, by when they lost it.
    freed: VecDeque<(Timestamp, K)>,
    /// Whether names are given yet. Until everything was listed once, a weaker claim could
    /// get a key only because it was listed first.
    open: bool,
    changed: Vec<Interval<K>>,
    forgotten_early: u64,
}

impl<K: Copy + Eq + Hash + Ord> Claims<K> {
    pub(super) fn new() -> Self {
        Self {
            keys: HashMap::new(),
            by_holder: HashMap::new(),
            freed: VecDeque::new(),
            open: false,
            changed: Vec::new(),
            forgotten_early: 0,
        }
    }

    /// Gives names from now on, to all that was claimed so far too.
    pub(super) fn open(&mut self, now: Timestamp) {
        if std::mem::replace(&mut self.open, true) {
            return;
        }
        let keys: Vec<K> = self.keys.keys().copied().collect();
        for key in keys {
            self.settle(key, now);
        }
    }

    /// The holder claims these keys, and no others any more.
    pub(super) fn set(
        &mut self,
        holder: &Uid,
        who: &Arc<Who>,
        wanted: &[Wanted<K>],
        now: Timestamp,
    ) {
        let had = self.by_holder.remove(holder).unwrap_or_default();
        for key in had {
            if wanted.iter().all(|w| w.key != key) {
                self.release(key, holder, now);
            }
        }
        for one in wanted {
            self.claim(holder, who, one, now);
        }
        if !wanted.is_empty() {
            let keys = wanted.iter().map(|w| w.key).collect();
            self.by_holder.insert(holder.clone(), keys);
        }
    }

    /// The holder claims nothing any more since `ended`.
    pub(super) fn end(&mut self, holder: &Uid, ended: Timestamp) {
        for key in self.by_holder.remove(holder).unwrap_or_default() {
            self.release(key, holder, ended);
        }
    }

    /// Time went on: ends of long ago are forgotten.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let forget_before = now.0.saturating_sub(FREED_KEPT_S * 1_000_000_000);
        while let Some(&(freed, key)) = self.freed.front() {
            let expired = freed.0 <= forget_before;
            if !expired && self.freed.len() <= FREED_KEPT_MAX {
                break;
            }
            self.freed.pop_front();
            if let Entry::Occupied(entry) = self.keys.entry(key)
                && entry.get().claims.is_empty()
                && entry.get().free_since == Some(freed)
            {
                self.forgotten_early += u64::from(!expired);
                entry.remove();
            }
        }
    }

    /// What began, ended or changed since the last call.
    pub(super) fn changed(&mut self) -> Vec<Interval<K>> {
        std::mem::take(&mut self.changed)
    }

    /// Who has a key now, and since when.
    pub(super) fn holder(&self, key: K) -> Option<(&Who, Timestamp)> {
        let shown = self.keys.get(&key)?.shown.as_ref()?;
        Some((&shown.who, shown.from))
    }

    pub(super) fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }

    fn claim(&mut self, holder: &Uid, who: &Arc<Who>, wanted: &Wanted<K>, now: Timestamp) {
        let claims = &mut self.keys.entry(wanted.key).or_default().claims;
        match claims.iter_mut().find(|claim| claim.holder == *holder) {
            Some(known) => {
                known.who = Arc::clone(who);
                known.right = wanted.right;
            }
            None => claims.push(Claim {
                holder: holder.clone(),
                who: Arc::clone(who),
                right: wanted.right,
                from: wanted.from,
                since: wanted.since,
            }),
        }
        self.settle(wanted.key, now);
    }

    fn release(&mut self, key: K, holder: &Uid, ended: Timestamp) {
        let Some(state) = self.keys.get_mut(&key) else {
            return;
        };
        state.claims.retain(|claim| claim.holder != *holder);
        if let Some(shown) = state.shown.take_if(|shown| shown.holder == *holder) {
            let until = ended.max(shown.from);
            state.free_since = Some(until);
            self.changed.push(shown.ended(key, until));
        }
        if !state.claims.is_empty() {
            self.settle(key, ended);
        } else if let Some(freed) = state.free_since {
            self.freed.push_back((freed, key));
        } else {
            self.keys.remove(&key);
        }
    }

    /// Gives the key to whom it belongs.
    fn settle(&mut self, key: K, now: Timestamp) {
        let Some(state) = self.keys.get_mut(&key).filter(|_| self.open) else {
            return;
        };
        // Of equals the last wins, which is the one that claimed last.
        let Some(best) = state.claims.iter().max_by_key(|claim| claim.rank()) else {
            return;
        };
        let from = match &state.shown {
            Some(shown) if shown.holder == best.holder => {
                if Arc::ptr_eq(&shown.who, &best.who) || shown.who == best.who {
                    return;
                }
                shown.from
            }
            Some(shown) if best.since > shown.from => best.since,
            Some(shown) => now.max(shown.from),
            None => best.from.max(state.free_since.unwrap_or(best.from)),
        };
        let next = Box::new(Shown {
            holder: best.holder.clone(),
            who: Arc::clone(&best.who),
            from,
        });
        self.changed.extend(
            state
                .shown
                .take_if(|shown| shown.holder != next.holder)
                .map(|shown| shown.ended(key, from)),
        );
        self.changed.push(Interval {
            key,
            who: Arc::clone(&next.who),
            from,
            until: None,
        });
        state.shown = Some(next);
    }
}

impl Shown {
    fn ended<K>(&self, key: K, until: Timestamp) -> Interval<K> {
        Interval {
            key,
            who: Arc::clone(&self.who),
            from: self.from,
            until: Some(until),
        }
    }
}

#[cfg(test)]
mod tests;
