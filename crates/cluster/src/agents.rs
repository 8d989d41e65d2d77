//! What a collector knows of those who report to it.

use crate::limits::Limits;
use ethogram_model::{ContainerKey, Timestamp};
use std::{
    collections::{BTreeMap, HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Clock readings that are looked at for the one with the shortest way.
const CLOCK_READINGS_MAX: usize = 16;

/// One agent, as its collector sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentState {
    /// Its machine.
    pub node: String,
    /// Its program version.
    pub agent_version: String,
    /// The version of the protocol that was agreed.
    pub protocol: u32,
    /// Where it came from last.
    pub address: String,
    /// Streams it holds open: one, for a moment two after its line broke.
    pub streams: u32,
    /// When its last stream began.
    pub connected_at: Timestamp,
    /// When its last batch came, by the collector's clock.
    pub last_batch: Option<Timestamp>,
    /// When it had told all it knew, by the collector's clock. How long ago that is, is
    /// its lag.
    pub caught_up: Option<Timestamp>,
    /// How far its clock is behind the collector's, in nanoseconds; negative if ahead. The
    /// smallest of the last readings, and too large by that one's time on the way.
    pub clock_behind_ns: Option<i64>,
    /// Batches kept.
    pub batches: u64,
    /// Rows kept, or found to be known already.
    pub rows: u64,
    /// Rows refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Rows that its retention removed before they were told.
    pub removed_unsent: u64,
    /// How long its batches waited because it sent too many rows a second, in milliseconds.
    pub throttled_ms: u64,
    /// Why its last stream ended; empty while it never did.
    pub last_end: String,
}

/// All agents that reported since the collector started.
pub struct Agents {
    limits: Limits,
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    agents: BTreeMap<String, Entry>,
    refused_streams: BTreeMap<&'static str, u64>,
}

struct Entry {
    state: AgentState,
    clock_readings: VecDeque<i64>,
    rows_left: f64,
    filled: Instant,
    /// Hashes of containers reported since `day_began`.
    containers: HashSet<u64>,
    day_began: Instant,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Agents {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            known: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every agent, by node.
    #[must_use]
    pub fn states(&self) -> Vec<AgentState> {
        self.lock()
            .agents
            .values()
            .map(|entry| entry.state.clone())
            .collect()
    }

    /// Streams that were not let in or were ended, by reason.
    #[must_use]
    pub fn refused_streams(&self) -> BTreeMap<&'static str, u64> {
        self.lock().refused_streams.clone()
    }

    pub(crate) fn count_refused_stream(&self, reason: &'static str) {
        *self.lock().refused_streams.entry(reason).or_default() += 1;
    }

    /// Notes a new stream. `None` if there is no room for another agent.
    pub(crate) fn connect(&self, new: AgentState) -> Option<()> {
        let mut known = self.lock();
        if !known.agents.contains_key(&new.node) && known.agents.len() >= self.limits.streams_max {
            let gone = known
                .agents
                .values()
                .filter(|entry| entry.state.streams == 0);
            let oldest = gone.min_by_key(|entry| entry.state.last_batch)?;
            let oldest = oldest.state.node.clone();
            known.agents.remove(&oldest);
        }
        let entry = known
            .agents
            .entry(new.node.clone())
            .or_insert_with(|| Entry {
                state: AgentState::default(),
                clock_readings: VecDeque::new(),
                rows_left: f64::from(self.limits.rows_per_second_max),
                filled: Instant::now(),
                containers: HashSet::new(),
                day_began: Instant::now(),
            });
        let state = &mut entry.state;
        state.streams += 1;
        state.node = new.node;
        state.agent_version = new.agent_version;
        state.protocol = new.protocol;
        state.address = new.address;
        state.connected_at = new.connected_at;
        Some(())
    }

    pub(crate) fn disconnect(&self, node: &str, why: &str) {
        self.with(node, |entry| {
            entry.state.streams = entry.state.streams.saturating_sub(1);
            why.clone_into(&mut entry.state.last_end);
        });
    }

    fn with<T>(&self, node: &str, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock().agents.get_mut(node).map(work)
    }

    /// Notes what an agent's clock said when the collector's said `received`.
    pub(crate) fn read_clock(&self, node: &str, agent_ns: i64, received: Timestamp) {
        self.with(node, |entry| {
            if entry.clock_readings.len() == CLOCK_READINGS_MAX {
                entry.clock_readings.pop_front();
            }
            entry
                .clock_readings
                .push_back(received.0.saturating_sub(agent_ns));
            entry.state.clock_behind_ns = entry.clock_readings.iter().copied().min();
        });
    }

    /// How long rows must wait for their turn.
    pub(crate) fn pace(&self, node: &str, rows: usize, now: Instant) -> Duration {
        let rate = f64::from(self.limits.rows_per_second_max);
        let wait = self.with(node, |entry| {
            let passed = now.saturating_duration_since(entry.filled).as_secs_f64();
            entry.filled = now;
            // Below zero, the agent has taken rows of the time to come.
            entry.rows_left = (entry.rows_left + passed * rate).min(rate) - rows as f64;
            let wait = Duration::from_secs_f64((-entry.rows_left / rate).max(0.0));
            entry.state.throttled_ms += u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            wait
        });
        wait.unwrap_or_default()
    }

    /// Whether an agent may report a container: those it reported today, and new ones as
    /// long as there are not too many.
    pub(crate) fn admits(&self, node: &str, container: &ContainerKey, now: Instant) -> bool {
        let hash = self.hasher.hash_one(container);
        let admitted = self.with(node, |entry| {
            if now.saturating_duration_since(entry.day_began) > DAY {
                entry.containers.clear();
                entry.day_began = now;
            }
            entry.containers.contains(&hash)
                || (entry.containers.len() < self.limits.containers_per_day_max
                    && entry.containers.insert(hash))
        });
        admitted.unwrap_or(false)
    }

    /// Notes a batch that is kept.
    pub(crate) fn kept(&self, node: &str, batch: &KeptBatch) {
        self.with(node, |entry| {
            let state = &mut entry.state;
            state.batches += 1;
            state.rows += batch.rows;
            state.removed_unsent = batch.removed_unsent;
            state.last_batch = Some(batch.received);
            if batch.caught_up {
                state.caught_up = Some(batch.received);
            }
            for &(reason, rows) in &batch.refused {
                *state.refused.entry(reason).or_default() += rows;
            }
        });
    }
}

/// What is noted of a batch.
pub(crate) struct KeptBatch {
    pub(crate) received: Timestamp,
    pub(crate) rows: u64,
    pub(crate) refused: Vec<(&'static str, u64)>,
    pub(crate) removed_unsent: u64,
    pub(crate) caught_up: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::BootId;

    fn agents(limits: Limits) -> Agents {
        let agents = Agents::new(limits);
        connect(&agents, "n").unwrap();
        agents
    }

    fn connect(agents: &Agents, node: &str) -> Option<()> {
        agents.connect(AgentState {
            node: node.into(),
            ..AgentState::default()
        })
    }

    #[test]
    fn too_many_rows_a_second_wait() {
        let agents = agents(Limits {
            rows_per_second_max: 100,
            ..Limits::default()
        });
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(agents.pace("n", 100, at(1_000)), Duration::ZERO);
        assert_eq!(agents.pace("n", 50, at(1_000)), Duration::from_millis(500));
        assert_eq!(agents.pace("n", 50, at(1_500)), Duration::from_millis(500));
        assert_eq!(agents.pace("n", 50, at(9_000)), Duration::ZERO);
        assert_eq!(agents.states()[0].throttled_ms, 1_000);
    }

    #[test]
    fn too_many_containers_are_refused_until_tomorrow() {
        let agents = agents(Limits {
            containers_per_day_max: 2,
            ..Limits::default()
        });
        let key = |cgroup| ContainerKey {
            boot: BootId::new("b"),
            cgroup,
            incarnation: 0,
        };
        let now = Instant::now();
        let admits = |cgroup, now| agents.admits("n", &key(cgroup), now);
        assert!(admits(1, now) && admits(2, now) && !admits(3, now) && admits(1, now));
        assert!(admits(3, now + DAY + Duration::from_secs(60)));
    }

    #[test]
    fn the_shortest_way_tells_the_time_best() {
        let agents = agents(Limits::default());
        for delay in [50, 7, 90] {
            agents.read_clock("n", 1_000, Timestamp(5_000 + delay));
        }
        assert_eq!(agents.states()[0].clock_behind_ns, Some(4_007));
        for _ in 0..CLOCK_READINGS_MAX {
            agents.read_clock("n", 2_000, Timestamp(1_500));
        }
        assert_eq!(
            agents.states()[0].clock_behind_ns,
            Some(-500),
            "the clock was set"
        );
    }

    #[test]
    fn those_who_left_make_room() {
        let agents = agents(Limits {
            streams_max: 2,
            ..Limits::default()
        });
        connect(&agents, "m").unwrap();
        assert!(connect(&agents, "o").is_none());
        agents.disconnect("n", "gone");
        connect(&agents, "o").unwrap();
        let nodes: Vec<_> = agents
            .states()
            .into_iter()
            .map(|state| state.node)
            .collect();
        assert_eq!(nodes, ["m", "o"]);
    }
}
