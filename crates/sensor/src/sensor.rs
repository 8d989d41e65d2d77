//! The sensor: what the rest of the agent sees.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use ethogram_model::{Access, Behaviour, Budget, Kind, Loss, LossReason, Name, Tally, Timestamp};

use crate::{
    SensorError,
    bpf::{self, Kernel},
    clock::{self, Clock},
    dns::{self, Resolutions, Streams},
    folds,
    hooks::{HookChoice, HookSet},
    names,
    record::{self, Content, Key, Record},
    sockets::{self, OpenSocket},
    table::{Reading, Table},
};

/// Bounds of what the kernel half keeps. Memory is used as behaviours appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Behaviours counted in the kernel at a time; above, events take the slow way through
    /// the ring. About 160 bytes each.
    pub behaviours_max: u32,
    /// Of these, for one cgroup, so that a flood leaves room for others.
    pub behaviours_per_cgroup_max: u32,
    /// Size of the ring buffer for names and events of the slow way; a power of two and a
    /// multiple of the page size.
    pub ring_bytes: u32,
    /// Executables that the kernel knows to have been named. Some 70 bytes each, and twice
    /// their paths here.
    pub executables_max: u32,
    /// Rows kept of each cgroup before they fold.
    pub budget: Budget,
}

impl Default for Limits {
    /// For 200 containers with 1,300 behaviours each.
    fn default() -> Self {
        Self {
            behaviours_max: 1 << 18,
            behaviours_per_cgroup_max: 1 << 16,
            ring_bytes: 16 << 20,
            executables_max: 1 << 16,
            budget: Budget::default(),
        }
    }
}

/// A v1 controller whose hierarchy tells containers apart where the v2 hierarchy does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V1Controller {
    /// `memory`; its ids carry 1 in the top byte.
    Memory,
    /// `pids`; its ids carry 2 in the top byte.
    Pids,
}

impl V1Controller {
    /// The top byte of ids of its hierarchy.
    #[must_use]
    pub const fn tag(self) -> u32 {
        match self {
            Self::Memory => 1,
            Self::Pids => 2,
        }
    }

    pub(crate) fn subsystem_index(self) -> Result<i32, SensorError> {
        bpf::subsystem_index(match self {
            Self::Memory => "memory_cgrp_id",
            Self::Pids => "pids_cgrp_id",
        })
    }
}

/// How the sensor is to watch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Whether cgroups nobody decided about are watched. An agent wants that: a container's
    /// first exec comes before anyone knows the container.
    pub track_unknown: bool,
    /// The v1 hierarchy to ask where the v2 hierarchy has all tasks in its root.
    pub v1_controller: Option<V1Controller>,
    /// Whether this very process may be watched too (tests).
    pub watch_self: bool,
    /// By which hooks.
    pub hooks: HookChoice,
}

/// One hook and whether it is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// `tp_btf/sys_exit` and the like.
    pub hook: String,
    /// Whether it is attached.
    pub attached: bool,
    /// What is missed without it.
    pub note: String,
}

/// A cgroup that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupEvent {
    /// Its id, tagged as in [`V1Controller::tag`].
    pub id: u64,
    /// Its path below its hierarchy's root.
    pub path: Name,
    /// Whether it came or went.
    pub change: CgroupChange,
    /// When.
    pub time: Timestamp,
}

/// Whether a cgroup came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupChange {
    /// It was made.
    Appeared,
    /// It was removed.
    Gone,
}

/// A behaviour of a cgroup whose tally changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub cgroup: u64,
    /// What.
    pub behaviour: Behaviour,
    /// Cumulative since the sensor started.
    pub tally: Tally,
    /// How much of the count is new since it was last told.
    pub grown: u64,
    /// The arguments of the first exec, for a process row.
    pub example: Name,
}

/// A name that a cgroup asked for, with an address it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Whose.
    pub cgroup: u64,
    /// The address.
    pub ip: IpAddr,
    /// The name.
    pub name: Name,
    /// When that was first told.
    pub first: Timestamp,
    /// When it was last told, to a minute: an answer that is repeated sooner says nothing new.
    pub last: Timestamp,
}

/// What happened since the last time.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// In the order in which they happened.
    pub cgroups: Vec<CgroupEvent>,
    /// In no order.
    pub changes: Vec<Change>,
    /// In no order.
    pub resolved: Vec<Resolved>,
    /// Losses that grew, cumulative, by cgroup.
    pub losses: Vec<(u64, Loss)>,
    /// Losses that cannot be charged to a cgroup, cumulative: anybody's on this machine.
    pub losses_unattributed: u64,
}

/// How long a deleted key's slot rests before it is used again: far longer than any
/// program runs that may still count in it.
const SLOT_REST: Duration = Duration::from_secs(1);

/// How often it is looked whether a cgroup has too many keys. Looking for those that may go
/// reads the whole map: some 0.3 us each.
const EVICT_EVERY: Duration = Duration::from_secs(1);

/// A key that was not counted in for so long may go if its cgroup has too many. Should it
/// be seen again, it is new again: its row goes on.
const COLD_AFTER: Duration = Duration::from_secs(1);

/// How long an event waits for the name of its executable, which is sent with another event
/// if there was no room for it. Then it is counted without a source.
const NAME_WAIT: Duration = Duration::from_secs(60);

/// Slots whose keys were deleted, each with its cgroup, and the cgroups that are gone.
struct Resting {
    since_ns: u64,
    gone: HashSet<u64>,
    slots: Vec<(u64, u32)>,
}

/// What records are turned into.
pub(crate) struct Intake {
    pub(crate) table: Table,
    pub(crate) sockets: Vec<OpenSocket>,
    pub(crate) cgroups: Vec<CgroupEvent>,
    streams: Streams,
    resolutions: Resolutions,
    pub(crate) malformed: u64,
}

/// The programs in the kernel, and all that is known of what they counted.
pub struct Sensor {
    kernel: Kernel,
    intake: Intake,
    losses_told: BTreeMap<(u64, u8), u64>,
    gone: HashSet<u64>,
    resting: Vec<Resting>,
    limits: Limits,
    /// Slots that each cgroup gave back, as the kernel is told.
    given_back: HashMap<u64, u64>,
    evicted_ns: u64,
    /// The folded places that the kernel knows, by cgroup.
    folds: HashMap<u64, HashSet<u64>>,
    policies_changed: bool,
    is_detached: bool,
}

impl Sensor {
    /// Loads and attaches the programs. From here on everything is counted.
    ///
    /// # Errors
    /// The kernel lacks something, or does not allow it.
    pub fn start(options: &Options) -> Result<Self, SensorError> {
        Ok(Self {
            kernel: Kernel::load(options)?,
            intake: Intake::new(options.limits.budget),
            losses_told: BTreeMap::new(),
            gone: HashSet::new(),
            resting: Vec::new(),
            limits: options.limits,
            given_back: HashMap::new(),
            evicted_ns: 0,
            folds: HashMap::new(),
            policies_changed: false,
            is_detached: false,
        })
    }

    /// Which set of hooks is in use.
    #[must_use]
    pub fn hook_set(&self) -> HookSet {
        self.kernel.hook_set()
    }

    /// Which hooks are in use, and what those that are missing would have seen.
    #[must_use]
    pub fn hooks(&self) -> &[HookStatus] {
        self.kernel.hooks()
    }

    /// Decides whether a cgroup is watched. Takes effect with the next [`Sensor::collect`].
    ///
    /// # Errors
    /// The kernel's table is full.
    pub fn set_policy(&mut self, cgroup: u64, track: bool) -> Result<(), SensorError> {
        self.policies_changed = true;
        self.kernel.set_policy(cgroup, track)
    }

    /// Makes policies set since the last time effective now.
    pub fn publish_policies(&mut self) {
        if std::mem::take(&mut self.policies_changed) {
            self.kernel.publish_policies();
        }
    }

    /// Records what is there already: processes, open files, sockets of watched cgroups.
    ///
    /// # Errors
    /// The kernel refuses an iterator.
    pub fn look_back(&mut self) -> Result<(), SensorError> {
        self.publish_policies();
        let clock = Clock::read();
        let Self { kernel, intake, .. } = self;
        kernel.look_back(|records| intake.take(&records, clock))?;
        for (open, behaviour) in sockets::behaviours(std::mem::take(&mut intake.sockets)) {
            let time = clock.wall(open.time_ns);
            intake.table.event(
                open.cgroup,
                open.exe,
                behaviour,
                time,
                Name::default(),
                None,
            );
        }
        Ok(())
    }

    /// Waits until there is a reason to [`Sensor::collect`] early, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        self.kernel.wait(timeout);
    }

    /// All that changed since the last time.
    pub fn collect(&mut self) -> Update {
        self.publish_policies();
        let clock = Clock::read();
        // Counters first, names after: whatever was counted has its name in the ring by then.
        let readings = self.read_counters(clock);
        self.intake.take(&self.kernel.drain(), clock);
        self.intake.table.give_up_before(self.waits_since(clock));
        for reading in readings {
            self.intake.table.reading(reading);
        }
        self.tell_folds();
        let changes = self.intake.table.take_changed().into_iter();
        let changes = changes
            .map(|changed| Change {
                cgroup: changed.cgroup,
                behaviour: changed.behaviour,
                tally: changed.tally,
                grown: changed.grown,
                example: changed.example,
            })
            .collect();
        self.recycle();
        Update {
            cgroups: std::mem::take(&mut self.intake.cgroups),
            changes,
            resolved: self.intake.resolutions.take_changed(),
            losses: self.new_losses(),
            losses_unattributed: self.kernel.losses_unbooked()
                + self.kernel.skipped()
                + self.intake.malformed,
        }
    }

    /// A cgroup is gone and its last events are collected: its place may be used again.
    pub fn forget(&mut self, cgroup: u64) {
        self.kernel.drop_policy(cgroup);
        self.gone.insert(cgroup);
    }

    /// The tally of a cgroup's behaviour as it stands.
    #[must_use]
    pub fn tally(&self, cgroup: u64, behaviour: &Behaviour) -> Option<Tally> {
        self.intake.table.tally(cgroup, behaviour)
    }

    /// Rows in memory.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.intake.table.len()
    }

    /// Names of executables in memory.
    #[must_use]
    pub fn executables(&self) -> usize {
        self.intake.table.executables_kept()
    }

    /// Keys that were made in the kernel so far, for cgroups that are still there. Each cost
    /// a record with a name.
    #[must_use]
    pub fn keys_made(&self) -> u64 {
        self.kernel.slots_taken().iter().map(|(_, made)| made).sum()
    }

    /// Stops counting. What was counted can still be collected.
    pub fn detach(&mut self) {
        self.kernel.detach();
        self.is_detached = true;
    }

    /// The time since which events may wait for the name of their executable.
    fn waits_since(&self, clock: Clock) -> Timestamp {
        if self.is_detached {
            return Timestamp(i64::MAX); // No name will come.
        }
        let wait_ns = u64::try_from(NAME_WAIT.as_nanos()).unwrap_or(u64::MAX);
        clock.wall(clock::boot_ns().saturating_sub(wait_ns))
    }

    fn read_counters(&self, clock: Clock) -> Vec<Reading> {
        (0..self.kernel.slots_used())
            .filter(|&slot| self.kernel.count(slot) != self.intake.table.counted(slot))
            .map(|slot| {
                let (count, first, last) = self.kernel.counter(slot);
                Reading {
                    slot,
                    count,
                    first: clock.wall(first),
                    last: clock.wall(last),
                }
            })
            .collect()
    }

    /// Has the kernel count in folded places what is below them.
    fn tell_folds(&mut self) {
        for (cgroup, fold) in self.intake.table.take_folds() {
            let Some(place) = folds::hash(&fold) else {
                continue;
            };
            let known = self.folds.entry(cgroup).or_default();
            let grain = folds::grain(fold.grain);
            for (place, grain) in [(place, grain), (folds::ANY, grain)] {
                known.insert(place);
                if let Err(error) = self.kernel.set_fold(cgroup, place, grain) {
                    // Then user space folds alone.
                    tracing::debug!("{error}");
                }
            }
        }
    }

    /// Takes slots out of use, lets them rest, and hands them out again.
    fn recycle(&mut self) {
        let now_ns = clock::boot_ns();
        while self
            .resting
            .first()
            .is_some_and(|resting| is_past(resting.since_ns, SLOT_REST, now_ns))
        {
            let resting = self.resting.remove(0);
            self.hand_out(resting);
        }
        if !self.gone.is_empty() {
            let gone = std::mem::take(&mut self.gone);
            self.intake.table.give_up_of(&gone);
            let slots = self.kernel.delete_keys(|cgroup, _| gone.contains(&cgroup));
            self.resting.push(Resting {
                since_ns: now_ns,
                gone,
                slots,
            });
        }
        if is_past(self.evicted_ns, EVICT_EVERY, now_ns) {
            self.evicted_ns = now_ns;
            self.evict(now_ns);
        }
        let executables = self.intake.table.executables();
        if executables.len() as u64 > most_of(self.limits.executables_max) {
            self.kernel.forget_executables();
            executables.begin_anew();
        }
    }

    /// Slots that have rested may be used again.
    fn hand_out(&mut self, resting: Resting) {
        let mut changed = HashSet::new();
        for (cgroup, slot) in resting.slots {
            // Its last counts were read at the beginning of this collection.
            self.intake.table.release(slot);
            if let Err(error) = self.kernel.free_slot(slot) {
                tracing::warn!("one place in the kernel's map stays unused: {error}");
            }
            *self.given_back.entry(cgroup).or_default() += 1;
            changed.insert(cgroup);
        }
        for cgroup in changed.difference(&resting.gone) {
            let count = self.given_back.get(cgroup).copied().unwrap_or_default();
            if let Err(error) = self.kernel.set_given_back(*cgroup, count) {
                tracing::warn!("a cgroup has less room in the kernel's map: {error}");
            }
        }
        self.intake.forget(&resting.gone);
        for cgroup in resting.gone {
            self.given_back.remove(&cgroup);
            self.kernel.drop_slot_counts(cgroup);
            for place in self.folds.remove(&cgroup).into_iter().flatten() {
                self.kernel.drop_fold(cgroup, place);
            }
        }
    }

    /// Deletes the keys of crowded cgroups that were not counted in lately.
    fn evict(&mut self, now_ns: u64) {
        let crowded = self.crowded();
        if crowded.is_empty() {
            return;
        }
        let (kernel, table) = (&self.kernel, &self.intake.table);
        let slots = kernel.delete_keys(|cgroup, slot| {
            let (count, _, last_ns) = kernel.counter(slot);
            crowded.contains(&cgroup)
                && (count == 0 || is_past(last_ns, COLD_AFTER, now_ns))
                && !table.is_waiting(slot)
        });
        self.resting.push(Resting {
            since_ns: now_ns,
            gone: HashSet::new(),
            slots,
        });
    }

    /// Cgroups with most of the keys they may have, or, if together they have most of what
    /// there is, the one with most.
    fn crowded(&self) -> HashSet<u64> {
        let mut live: HashMap<u64, u64> = self.kernel.slots_taken().into_iter().collect();
        for (cgroup, count) in &mut live {
            *count -= self
                .given_back
                .get(cgroup)
                .copied()
                .unwrap_or(0)
                .min(*count);
        }
        let used: u64 = live.values().sum();
        let resting = self.resting.iter().flat_map(|resting| &resting.slots);
        for (cgroup, _) in resting {
            if let Some(count) = live.get_mut(cgroup) {
                *count = count.saturating_sub(1);
            }
        }
        let is_crowded = |count: u64| count > most_of(self.limits.behaviours_per_cgroup_max);
        let mut crowded: HashSet<u64> = live
            .iter()
            .filter(|(_, count)| is_crowded(**count))
            .map(|(cgroup, _)| *cgroup)
            .collect();
        if used > most_of(self.limits.behaviours_max) {
            let largest = live.iter().max_by_key(|(_, count)| **count);
            crowded.extend(largest.map(|(cgroup, _)| *cgroup));
        }
        crowded
    }

    fn new_losses(&mut self) -> Vec<(u64, Loss)> {
        let mut losses: BTreeMap<(u64, u8), u64> = BTreeMap::new();
        let names = self.intake.resolutions.refused();
        let names = names.map(|(cgroup, count)| (cgroup, LossReason::Names.number(), count));
        for (cgroup, number, count) in self.kernel.losses().into_iter().chain(names) {
            *losses.entry((cgroup, number)).or_default() += count;
        }
        let mut grown = Vec::new();
        for ((cgroup, number), count) in losses {
            let Some(reason) = LossReason::from_number(number) else {
                continue;
            };
            let told = self.losses_told.entry((cgroup, number)).or_default();
            if count > *told {
                *told = count;
                grown.push((cgroup, Loss { reason, count }));
            }
        }
        grown
    }
}

/// So much of what there is room for that room has to be made.
fn most_of(max: u32) -> u64 {
    u64::from(max) * 3 / 4
}

fn is_past(since_ns: u64, time: Duration, now_ns: u64) -> bool {
    u128::from(now_ns.saturating_sub(since_ns)) > time.as_nanos()
}

impl Intake {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            table: Table::new(budget),
            sockets: Vec::new(),
            cgroups: Vec::new(),
            streams: Streams::default(),
            resolutions: Resolutions::default(),
            malformed: 0,
        }
    }

    /// Takes records, each with its length before it, to where they belong.
    pub(crate) fn take(&mut self, records: &[u8], clock: Clock) {
        let mut rest = records;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            let Some((bytes, after)) = after.split_at_checked(length) else {
                break;
            };
            rest = after;
            match record::decode(bytes) {
                Some(record) => self.take_one(&record, clock),
                None => self.malformed += 1,
            }
        }
    }

    fn take_one(&mut self, record: &Record<'_>, clock: Clock) {
        let &Record {
            time_ns,
            cgroup,
            exe,
            ref content,
        } = record;
        let time = clock.wall(time_ns);
        match *content {
            Content::Behaviour {
                slot,
                ref key,
                path,
                extra,
            } => {
                let (behaviour, example) = behaviour_of(key, path, extra);
                self.table
                    .event(cgroup, exe, behaviour, time, example, slot);
            }
            Content::Executable { path, requested } => {
                let name = if requested.is_empty() {
                    Name::from_bytes(path)
                } else {
                    names::requested_path(path, requested)
                };
                self.table.name_executable(exe, name);
            }
            Content::CgroupNew { path } => {
                let event = cgroup_event(cgroup, path, CgroupChange::Appeared, time);
                self.cgroups.push(event);
            }
            Content::CgroupGone { path } => {
                let event = cgroup_event(cgroup, path, CgroupChange::Gone, time);
                self.cgroups.push(event);
            }
            Content::Socket(socket) => {
                self.sockets
                    .push(OpenSocket::new(cgroup, exe, time_ns, socket));
            }
            Content::Answer { message } => {
                learn(&mut self.resolutions, cgroup, message, time);
            }
            Content::AnswerPiece(ref piece) => {
                let resolutions = &mut self.resolutions;
                let loser = self.streams.take(cgroup, piece, |message| {
                    learn(resolutions, cgroup, message, time);
                });
                if let Some(loser) = loser {
                    self.resolutions.refuse(loser);
                }
            }
        }
    }

    /// Drops what is known of cgroups that are gone.
    fn forget(&mut self, gone: &HashSet<u64>) {
        self.table.forget(gone);
        self.streams.forget(|cgroup| gone.contains(&cgroup));
        self.resolutions.forget(|cgroup| gone.contains(&cgroup));
    }
}

fn learn(resolutions: &mut Resolutions, cgroup: u64, message: &[u8], time: Timestamp) {
    for (ip, name) in dns::addresses(message) {
        resolutions.learn(cgroup, ip, name, time);
    }
}

/// A behaviour without its source, and an example of it.
fn behaviour_of(key: &Key, path: &[u8], extra: &[u8]) -> (Behaviour, Name) {
    let is_program = key.kind == Kind::Process && !key.access.contains(Access::REQUESTED);
    let example = if is_program {
        names::arguments(extra)
    } else {
        Name::default()
    };
    let network = matches!(key.kind, Kind::Ingress | Kind::Egress | Kind::Bind);
    let behaviour = Behaviour {
        protocol: if network {
            key.protocol
        } else {
            ethogram_model::Protocol::None
        },
        port: key.port,
        access: key.access,
        status: key.status,
        ..Behaviour::new(key.kind, Name::default(), names::target(key, path, extra))
    };
    (behaviour, example)
}

fn cgroup_event(id: u64, path: &[u8], change: CgroupChange, time: Timestamp) -> CgroupEvent {
    CgroupEvent {
        id,
        path: Name::from_bytes(path),
        change,
        time,
    }
}
