//! A map of bounded size that forgets what was not used lately.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Two generations: what is used moves to the young one; when that is full it becomes
/// the old one, and the former old one is forgotten. Costs far less than exact
/// least-recently-used order and keeps what every report uses.
pub(super) struct RecentMap<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_entries_max: usize,
}

impl<K: Eq + Hash, V: Clone> RecentMap<K, V> {
    pub(super) fn new(generation_entries_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_entries_max,
        }
    }

    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_entries_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::RecentMap;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut map = RecentMap::new(10);
        map.insert(0, "used");
        for other in 1..100 {
            assert_eq!(map.get(&0), Some("used"));
            map.insert(other, "once");
        }
        assert_eq!(map.get(&0), Some("used"));
        assert_eq!(map.get(&1), None);
        let kept = (0..100).filter(|key| map.get(key).is_some()).count();
        assert!((10..=20).contains(&kept), "{kept}");
    }
}
