//! The table of all cgroups and the containers behind them: pure, time is a parameter.
//!
//! A container's cgroup id is what the kernel counts by, so the table answers one
//! question: which container is behind an id. Names may come later than the first event,
//! and are kept for a while longer than the container.
//!
//! **One container in several hierarchies.** On hybrid hosts a runtime makes the same
//! path in the v1 hierarchies and in v2. All of these ids lead to one container, whose
//! key is its id in the best hierarchy it is in: v2, or else memory, or else pids. The
//! best is often made last, so a container that is not (yet) in the best hierarchy of the
//! host waits [`SETTLE_MS`] for it before it gets its key; until then
//! [`Directory::container_of`] does not know it. So a container has the same key whatever
//! the order in which its cgroups were made, and after a restart of the agent.

use crate::{
    cgroups::Hierarchy,
    facts::{Facts, printable},
    role::{ContainerCgroup, Role, classify},
};
use ethogram_model::{BootId, Container, ContainerKey, Name, Runtime, Timestamp, Workload};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// How long an ended container, and what was told of a container nobody has seen, is remembered.
pub const DEAD_KEPT_S: i64 = 600;
/// How many ended containers are remembered; beyond it the oldest go early
/// ([`Bounds::dead_forgotten_early`]).
pub const DEAD_KEPT_MAX: usize = 16_384;
/// How many cgroups are known at a time, in all hierarchies; beyond it new ones are not
/// ([`Bounds::cgroups_ignored`]).
pub const CGROUPS_MAX: usize = 262_144;
/// For how many containers facts are kept whose cgroups have not been seen; beyond it new
/// facts are not ([`Bounds::facts_ignored`]).
pub const FACTS_KEPT_MAX: usize = 16_384;
/// How long a container waits for its id in the best hierarchy of the host.
pub const SETTLE_MS: i64 = 500;
/// For how long a container without a name is worth asking the runtimes often.
pub const NAME_AWAITED_S: i64 = 60;

const NS_PER_S: i64 = 1_000_000_000;
const NS_PER_MS: i64 = 1_000_000;

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Containers, and with `host` also systemd units and the rest of the host.
    Machine {
        /// Whether the host's own processes are watched too.
        host: bool,
        /// Only this cgroup and all below it; empty for the whole machine. Paths are read as
        /// if they began here, because a node that shares a kernel with others may be a
        /// container itself.
        root: Vec<u8>,
    },
    /// Only one cgroup and all below it: a recorded command.
    Recorded {
        /// Its path below the hierarchy's root.
        path: Vec<u8>,
        /// The command's name, for its workload.
        command: String,
    },
}

impl Scope {
    /// All containers of the machine, and with `host` also the rest of it.
    #[must_use]
    pub const fn machine(host: bool) -> Self {
        let root = Vec::new();
        Self::Machine { host, root }
    }
}

/// Whether the sensor shall count what a cgroup's processes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Count it.
    Track,
    /// Let it pass.
    Ignore,
}

/// How often each bound was hit since the start. All zero: nothing is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Ended containers forgotten before their time.
    pub dead_forgotten_early: u64,
    /// Cgroups not taken into the table: what they do has no name.
    pub cgroups_ignored: u64,
    /// Facts of unseen containers not kept: a container may stay unnamed.
    pub facts_ignored: u64,
}

/// A number for each instance that is in the table, never used twice.
type Slot = u64;

#[derive(Debug)]
struct KnownCgroup {
    path: Box<[u8]>,
    /// The instance it belongs to; `None` for a nested cgroup whose container is not known.
    slot: Option<Slot>,
    gone: Option<Timestamp>,
}

impl KnownCgroup {
    fn is_alive(&self) -> bool {
        self.gone.is_none()
    }
}

#[derive(Debug)]
struct Instance {
    container: Container,
    /// The path of its own cgroup.
    root: Box<[u8]>,
    /// Ids of its own cgroup, one per hierarchy.
    own: Vec<u64>,
    /// Whether its key is final and others may know it.
    settled: bool,
}

#[derive(Debug)]
struct KeptFacts {
    facts: Facts,
    told: Timestamp,
}

/// The table.
#[derive(Debug)]
pub struct Directory {
    boot: BootId,
    node: String,
    scope: Scope,
    /// The best hierarchy of the host.
    best: Hierarchy,
    cgroups: HashMap<u64, KnownCgroup>,
    instances: HashMap<Slot, Instance>,
    next_slot: Slot,
    /// The running instance at a path.
    live: HashMap<Box<[u8]>, Slot>,
    by_runtime_id: HashMap<String, Vec<Slot>>,
    /// Ended instances, oldest first.
    dead: VecDeque<(Timestamp, Slot)>,
    /// Cgroups that went away, oldest first.
    dead_cgroups: VecDeque<(Timestamp, u64)>,
    /// How often an id was a container's key before.
    incarnations: HashMap<u64, u32>,
    facts: HashMap<String, KeptFacts>,
    unsettled: BTreeSet<Slot>,
    /// Containers whose name a runtime can tell and has not.
    unnamed: BTreeSet<Slot>,
    changed: BTreeSet<Slot>,
    bounds: Bounds,
}

impl Directory {
    /// An empty table. `best` is the best hierarchy of the host.
    #[must_use]
    pub fn new(boot: BootId, node: String, scope: Scope, best: Hierarchy) -> Self {
        Self {
            boot,
            node,
            scope,
            best,
            cgroups: HashMap::new(),
            instances: HashMap::new(),
            next_slot: 0,
            live: HashMap::new(),
            by_runtime_id: HashMap::new(),
            dead: VecDeque::new(),
            dead_cgroups: VecDeque::new(),
            incarnations: HashMap::new(),
            facts: HashMap::new(),
            unsettled: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            changed: BTreeSet::new(),
            bounds: Bounds::default(),
        }
    }

    /// A cgroup exists: the scan found it (`at_start`), or the kernel just made it.
    /// Telling it again changes nothing, but the kernel's word that it was just made
    /// corrects a scan that ran a moment later.
    pub fn appeared(&mut self, id: u64, path: &[u8], time: Timestamp, at_start: bool) {
        match self.cgroups.get(&id) {
            Some(known) if known.is_alive() && *known.path == *path => {
                if !at_start {
                    self.born_under_watch(id, time);
                }
                return;
            }
            // Its end was missed.
            Some(known) if known.is_alive() => self.gone(id, time),
            _ => {}
        }
        if self.cgroups.len() >= CGROUPS_MAX && !self.make_room() {
            self.bounds.cgroups_ignored += 1;
            return;
        }
        let slot = match self.owner(path) {
            Some((root_len, owner)) if root_len == path.len() => {
                Some(self.own_cgroup_appeared(id, path, owner, time, at_start))
            }
            Some((root_len, _)) => self.live.get(&path[..root_len]).copied(),
            None => None,
        };
        let path = path.into();
        let gone = None;
        self.cgroups.insert(id, KnownCgroup { path, slot, gone });
    }

    /// A cgroup went away. One that is not known, or gone already, changes nothing.
    pub fn gone(&mut self, id: u64, time: Timestamp) {
        let Some(known) = self.cgroups.get_mut(&id).filter(|known| known.is_alive()) else {
            return;
        };
        known.gone = Some(time);
        self.dead_cgroups.push_back((time, id));
        let Some(slot) = known.slot else {
            return;
        };
        let Some(instance) = self.instances.get(&slot) else {
            return;
        };
        if !instance.own.contains(&id) {
            return;
        }
        let still = |id: &u64| self.cgroups.get(id).is_some_and(KnownCgroup::is_alive);
        if instance.container.key.cgroup == id || !instance.own.iter().any(still) {
            self.end(slot, time);
        }
    }

    /// A runtime told something of a container, which may not have been seen yet.
    pub fn told(&mut self, facts: &Facts, now: Timestamp) {
        let slots = self
            .by_runtime_id
            .get(&facts.id)
            .cloned()
            .unwrap_or_default();
        if slots.is_empty()
            && !self.facts.contains_key(&facts.id)
            && self.facts.len() >= FACTS_KEPT_MAX
        {
            self.bounds.facts_ignored += 1;
            return;
        }
        let kept = self
            .facts
            .entry(facts.id.clone())
            .or_insert_with(|| KeptFacts {
                facts: facts.clone(),
                told: now,
            });
        kept.told = now;
        if facts.source >= kept.facts.source {
            kept.facts = facts.clone();
        }
        let best = kept.facts.clone();
        for slot in slots {
            self.name(slot, &best);
        }
    }

    /// Time went on: keys become final, and what ended long ago is forgotten.
    pub fn tick(&mut self, now: Timestamp) {
        let settle_before = now.0 - SETTLE_MS * NS_PER_MS;
        let ready: Vec<Slot> = self
            .unsettled
            .iter()
            .copied()
            .filter(|slot| self.instances[slot].container.watched_since.0 <= settle_before)
            .collect();
        for slot in ready {
            self.settle(slot);
        }
        let forget_before = now.0 - DEAD_KEPT_S * NS_PER_S;
        while let Some(&(ended, slot)) = self.dead.front() {
            let expired = ended.0 <= forget_before;
            if !expired && self.dead.len() <= DEAD_KEPT_MAX {
                break;
            }
            self.bounds.dead_forgotten_early += u64::from(!expired);
            self.dead.pop_front();
            self.forget(slot);
        }
        while self
            .dead_cgroups
            .front()
            .is_some_and(|(gone, _)| gone.0 <= forget_before)
        {
            self.forget_oldest_cgroup();
        }
        let by_runtime_id = &self.by_runtime_id;
        self.facts
            .retain(|id, kept| kept.told.0 > forget_before || by_runtime_id.contains_key(id));
    }

    /// The container behind a cgroup id, running or recently ended, whether the id is of
    /// its own cgroup or of one below. `None` for what is not watched, is forgotten, or
    /// (for [`SETTLE_MS`]) has no key yet: ask again later.
    #[must_use]
    pub fn container_of(&self, id: u64) -> Option<&Container> {
        let known = self.cgroups.get(&id)?;
        let slot = known.slot.or_else(|| {
            let (root_len, _) = self.owner(&known.path)?;
            self.live.get(&known.path[..root_len]).copied()
        })?;
        let instance = self.instances.get(&slot)?;
        instance.settled.then_some(&instance.container)
    }

    /// Whether the sensor shall count what is done in a cgroup of this path.
    #[must_use]
    pub fn should_track(&self, path: &[u8]) -> Tracking {
        if self.owner(path).is_some() {
            Tracking::Track
        } else {
            Tracking::Ignore
        }
    }

    /// The containers that are new or of which something changed since the last call,
    /// ended ones included.
    pub fn changed(&mut self) -> Vec<Container> {
        let settled = |slot: &Slot| self.instances.get(slot).filter(|i| i.settled);
        let drained = self
            .changed
            .iter()
            .filter_map(settled)
            .map(|i| i.container.clone())
            .collect();
        self.changed.retain(|slot| self.unsettled.contains(slot));
        drained
    }

    /// Every container in the table whose key is final.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.instances
            .values()
            .filter(|i| i.settled)
            .map(|i| &i.container)
    }

    /// Every running cgroup that the table knows: its id.
    pub fn cgroups(&self) -> impl Iterator<Item = u64> {
        self.cgroups
            .iter()
            .filter(|(_, known)| known.is_alive())
            .map(|(id, _)| *id)
    }

    /// How many containers still wait for a name that a runtime may soon tell.
    #[must_use]
    pub fn unnamed(&self, now: Timestamp) -> usize {
        let awaited = |slot: &&Slot| {
            let container = &self.instances[*slot].container;
            now.0 - container.watched_since.0 < NAME_AWAITED_S * NS_PER_S
        };
        self.unnamed.iter().filter(awaited).count()
    }

    /// The newest instance of a runtime's container, running or ended; `None` if its
    /// cgroup was not seen.
    #[must_use]
    pub fn newest(&self, runtime_id: &str) -> Option<&Container> {
        let slot = self.by_runtime_id.get(runtime_id)?.last()?;
        Some(&self.instances[slot].container)
    }

    /// How often each bound was hit.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Who owns a path, and how many of its bytes name the owner's own cgroup; `None` for
    /// what is not watched.
    fn owner(&self, path: &[u8]) -> Option<(usize, Owner)> {
        match &self.scope {
            Scope::Recorded {
                path: root,
                command,
            } => is_within(path, root).then(|| (root.len(), Owner::Command(command.clone()))),
            Scope::Machine { host, root } => {
                if !is_within(path, root) && !root.is_empty() {
                    return None;
                }
                let above = root.len();
                match classify(&path[above..]) {
                    Role::Container(cgroup) => {
                        Some((above + cgroup.root_len, Owner::Container(cgroup)))
                    }
                    Role::Unit { name, root_len } if *host => {
                        Some((above + root_len, Owner::Unit(name)))
                    }
                    Role::Host if *host => Some((above.max(HOST_ROOT.len()), Owner::Host)),
                    Role::Unit { .. } | Role::Host => None,
                }
            }
        }
    }

    /// The own cgroup of a container appeared in one more hierarchy, or for the first time.
    fn own_cgroup_appeared(
        &mut self,
        id: u64,
        root: &[u8],
        owner: Owner,
        time: Timestamp,
        at_start: bool,
    ) -> Slot {
        if let Some(&slot) = self.live.get(root) {
            let instance = &self.instances[&slot];
            let is_new_here = |own: &u64| Hierarchy::of(*own) != Hierarchy::of(id);
            if instance.own.iter().all(is_new_here) {
                self.add_own(slot, id);
                return slot;
            }
            // The same hierarchy has a second cgroup at this path, so the first is no more.
            self.end(slot, time);
        }
        self.new_instance(id, root, owner, time, at_start)
    }

    fn add_own(&mut self, slot: Slot, id: u64) {
        let instance = self.instances.get_mut(&slot).expect(SLOT_IS_KNOWN);
        instance.own.push(id);
        if !instance.settled && rank(id) < rank(instance.container.key.cgroup) {
            instance.container.key.cgroup = id;
            self.settle_if_best(slot, id);
        }
    }

    fn new_instance(
        &mut self,
        id: u64,
        root: &[u8],
        owner: Owner,
        time: Timestamp,
        at_start: bool,
    ) -> Slot {
        let key = ContainerKey {
            boot: self.boot.clone(),
            cgroup: id,
            incarnation: 0,
        };
        let mut container = Container::unknown(key, Name::from_bytes(root), time);
        container.node.clone_from(&self.node);
        container.present_at_start = at_start;
        let unnamed = owner.describe(&mut container);
        let slot = self.next_slot;
        self.next_slot += 1;
        if matches!(owner, Owner::Container(_)) {
            let slots = self.by_runtime_id.entry(container.id.clone()).or_default();
            slots.push(slot);
        }
        let known = self.facts.get(&container.id).filter(|_| unnamed);
        let known = known.map(|kept| kept.facts.clone());
        self.instances.insert(
            slot,
            Instance {
                container,
                root: root.into(),
                own: vec![id],
                settled: false,
            },
        );
        self.live.insert(root.into(), slot);
        self.unsettled.insert(slot);
        self.changed.insert(slot);
        if unnamed {
            self.unnamed.insert(slot);
        }
        if let Some(facts) = known {
            self.name(slot, &facts);
        }
        self.settle_if_best(slot, id);
        slot
    }

    fn settle_if_best(&mut self, slot: Slot, id: u64) {
        if Hierarchy::of(id) == Some(self.best) {
            self.settle(slot);
        }
    }

    /// Makes a key final.
    fn settle(&mut self, slot: Slot) {
        if !self.unsettled.remove(&slot) {
            return;
        }
        let instance = self.instances.get_mut(&slot).expect(SLOT_IS_KNOWN);
        let key = &mut instance.container.key;
        let next = self.incarnations.entry(key.cgroup).or_insert(0);
        key.incarnation = *next;
        *next += 1;
        instance.settled = true;
        self.changed.insert(slot);
    }

    fn end(&mut self, slot: Slot, time: Timestamp) {
        self.settle(slot);
        let instance = self.instances.get_mut(&slot).expect(SLOT_IS_KNOWN);
        if instance.container.ended.is_some() {
            return;
        }
        instance.container.ended = Some(time);
        if self.live.get(&instance.root) == Some(&slot) {
            self.live.remove(&instance.root);
        }
        self.changed.insert(slot);
        self.dead.push_back((time, slot));
    }

    fn forget(&mut self, slot: Slot) {
        let Some(instance) = self.instances.remove(&slot) else {
            return;
        };
        let key = &instance.container.key;
        if self.incarnations.get(&key.cgroup) == Some(&(key.incarnation + 1)) {
            self.incarnations.remove(&key.cgroup);
        }
        if let Some(slots) = self.by_runtime_id.get_mut(&instance.container.id) {
            slots.retain(|s| *s != slot);
            if slots.is_empty() {
                self.by_runtime_id.remove(&instance.container.id);
            }
        }
        self.unnamed.remove(&slot);
        self.changed.remove(&slot);
    }

    /// Forgets the cgroup that went away first; returns whether there is room now.
    fn make_room(&mut self) -> bool {
        while self.cgroups.len() >= CGROUPS_MAX && !self.dead_cgroups.is_empty() {
            self.bounds.dead_forgotten_early += 1;
            self.forget_oldest_cgroup();
        }
        self.cgroups.len() < CGROUPS_MAX
    }

    fn forget_oldest_cgroup(&mut self) {
        if let Some((gone, id)) = self.dead_cgroups.pop_front()
            // The id may have been used again meanwhile.
            && self.cgroups.get(&id).is_some_and(|known| known.gone == Some(gone))
        {
            self.cgroups.remove(&id);
        }
    }

    fn name(&mut self, slot: Slot, facts: &Facts) {
        let instance = self.instances.get_mut(&slot).expect(SLOT_IS_KNOWN);
        let container = &mut instance.container;
        let before = container.clone();
        if facts.runtime != Runtime::Unknown {
            container.runtime = facts.runtime;
        }
        container.name.clone_from(&facts.name);
        container.image.clone_from(&facts.image);
        container.namespace.clone_from(&facts.namespace);
        container.pod.clone_from(&facts.pod);
        if !facts.pod_uid.is_empty() {
            container.pod_uid.clone_from(&facts.pod_uid);
        }
        container.workload = facts.workload.clone();
        container.labels.clone_from(&facts.labels);
        if *container != before {
            self.changed.insert(slot);
        }
        if !facts.name.is_empty() {
            self.unnamed.remove(&slot);
        }
    }

    /// The kernel told of the making of a cgroup that a scan had found before: its
    /// container was not there at the start.
    fn born_under_watch(&mut self, id: u64, time: Timestamp) {
        let Some(slot) = self.cgroups[&id].slot else {
            return;
        };
        let Some(instance) = self.instances.get_mut(&slot) else {
            return;
        };
        if instance.own.contains(&id) && instance.container.present_at_start {
            instance.container.present_at_start = false;
            instance.container.watched_since = time;
            self.changed.insert(slot);
        }
    }
}

const SLOT_IS_KNOWN: &str = "a slot is taken from every index when its instance is forgotten";

/// Orders ids by how good their hierarchies are: better ones first.
fn rank(id: u64) -> (bool, Option<Hierarchy>) {
    let hierarchy = Hierarchy::of(id);
    (hierarchy.is_none(), hierarchy)
}

/// The path of the cgroup that stands for the rest of the host.
const HOST_ROOT: &[u8] = b"/";

fn is_within(path: &[u8], root: &[u8]) -> bool {
    path.strip_prefix(root)
        .is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
}

/// Whose a cgroup is.
#[derive(Debug)]
enum Owner {
    Container(ContainerCgroup),
    Unit(String),
    Command(String),
    Host,
}

impl Owner {
    /// Writes down what is known from the path alone; returns whether a runtime has to
    /// tell the rest.
    fn describe(&self, container: &mut Container) -> bool {
        let workload = |kind: &str, name: &str| Workload {
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        match self {
            Self::Container(cgroup) => {
                container.runtime = cgroup.runtime;
                container.id.clone_from(&cgroup.id);
                container.pod_uid.clone_from(&cgroup.pod_uid);
                if !cgroup.named_by_path {
                    return true;
                }
                container.name.clone_from(&cgroup.id);
                container.workload = workload("container", &cgroup.id);
            }
            Self::Unit(name) => {
                container.runtime = Runtime::Systemd;
                container.id.clone_from(name);
                container.name.clone_from(name);
                container.workload = workload("unit", name);
            }
            Self::Command(command) => {
                container.runtime = Runtime::Record;
                container.name = printable(command);
                container.workload = workload("command", &container.name);
            }
            Self::Host => {
                container.runtime = Runtime::Host;
                container.name.clone_from(&container.node);
                container.workload = workload("host", &container.node);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
