//! Equal values kept once: the replicas of a Deployment have the same labels.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// Below this many values nothing is swept.
const SWEEP_MIN: usize = 1024;

/// Values that are in use, each once.
#[derive(Debug)]
pub(super) struct Pool<T: ?Sized> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized + Eq + Hash> Pool<T> {
    pub(super) fn new() -> Self {
        Self {
            values: HashSet::new(),
            sweep_at: SWEEP_MIN,
        }
    }

    /// The one copy of a value.
    pub(super) fn get<V>(&mut self, value: V) -> Arc<T>
    where
        V: std::borrow::Borrow<T>,
        Arc<T>: From<V>,
    {
        if let Some(known) = self.values.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = SWEEP_MIN.max(self.values.len() * 2);
        }
        let new = Arc::from(value);
        self.values.insert(Arc::clone(&new));
        new
    }
}
