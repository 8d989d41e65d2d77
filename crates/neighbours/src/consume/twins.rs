//! Events that KubeArmor tells more than once.
//!
//! It tells a blocked operation as an alert and again as a log; what a container did before
//! it was known up to ten times; and a TCP connection twice, as `tcp_connect` and as the
//! system call. Some can be told apart from what really happened again.

use super::event::{Event, Side};
use ethogram_model::{Behaviour, Kind, Status};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};
use tokio::time::Instant;

/// How far apart twins come at most. Replays go on for ten seconds.
const WINDOW: Duration = Duration::from_secs(15);
/// How long a connect waits to learn whether it was TCP's.
pub(super) const HOLD: Duration = Duration::from_secs(2);
/// Events remembered at a time, some 150 bytes each: 15 seconds of 10,000 a second. With more
/// the oldest are forgotten early, and their twins count again.
const REMEMBERED_MAX: usize = 150_000;

/// What came lately.
#[derive(Default)]
pub(super) struct Twins {
    hasher: RandomState,
    seen: HashMap<u64, VecDeque<Instant>>,
    order: VecDeque<(Instant, u64)>,
}

impl Twins {
    /// Whether it is the same event again: the same in all fields, or a start of the same
    /// program by the same process.
    pub(super) fn is_replay(&mut self, event: &Event, behaviour: &Behaviour, now: Instant) -> bool {
        self.forget(now);
        let whole = self.hasher.hash_one(("whole", event));
        let is_replay = self.has(whole);
        self.remember(whole, now);
        let is_start = behaviour.kind == Kind::Process && behaviour.status == Status::Allow;
        if !is_start {
            return is_replay;
        }
        let process = (&event.host, &event.container_id, event.host_pid);
        let start = self
            .hasher
            .hash_one(("start", event.side, process, &event.resource));
        // Without a process there is nothing to know it by.
        let is_restart = event.host_pid != 0 && self.has(start);
        self.remember(start, now);
        is_replay || is_restart
    }

    /// Whether the other stream has told of the same refusal. Each twin has one twin.
    pub(super) fn is_told(&mut self, event: &Event, behaviour: &Behaviour, now: Instant) -> bool {
        if behaviour.status != Status::Deny {
            return false;
        }
        let of = |twins: &Self, side| {
            let who = (&event.host, &event.container_id, event.host_pid);
            let what = (behaviour.kind, &behaviour.source, &behaviour.target);
            twins.hasher.hash_one(("refusal", side, who, what))
        };
        let other = match event.side {
            Side::Log => Side::Alert,
            Side::Alert => Side::Log,
        };
        let (theirs, ours) = (of(self, other), of(self, event.side));
        if self.take(theirs) {
            return true;
        }
        self.remember(ours, now);
        false
    }

    /// Remembers that TCP told of a connection.
    pub(super) fn tcp(&mut self, event: &Event, behaviour: &Behaviour, now: Instant) {
        let connection = self.connection(event, behaviour);
        self.remember(connection, now);
    }

    /// Whether TCP has told of a connection; each call has one.
    pub(super) fn was_tcp(&mut self, event: &Event, behaviour: &Behaviour) -> bool {
        let connection = self.connection(event, behaviour);
        self.take(connection)
    }

    fn connection(&self, event: &Event, behaviour: &Behaviour) -> u64 {
        let who = (&event.host, &event.container_id, event.host_pid);
        let what = (&behaviour.target, behaviour.port);
        self.hasher.hash_one(("connection", who, what))
    }

    fn has(&self, hash: u64) -> bool {
        self.seen.contains_key(&hash)
    }

    fn take(&mut self, hash: u64) -> bool {
        let Some(times) = self.seen.get_mut(&hash) else {
            return false;
        };
        times.pop_front();
        if times.is_empty() {
            self.seen.remove(&hash);
        }
        true
    }

    fn remember(&mut self, hash: u64, now: Instant) {
        self.seen.entry(hash).or_default().push_back(now);
        self.order.push_back((now, hash));
    }

    fn forget(&mut self, now: Instant) {
        while let Some((time, hash)) = self.order.front().copied() {
            let is_old = now.duration_since(time) > WINDOW;
            if !is_old && self.order.len() <= REMEMBERED_MAX {
                return;
            }
            self.order.pop_front();
            // It may have been taken already, and another be there.
            let first = self.seen.get(&hash).and_then(|times| times.front());
            if first == Some(&time) {
                self.take(hash);
            }
        }
    }
}
