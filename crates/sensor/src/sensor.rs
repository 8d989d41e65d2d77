//! The sensor: what the rest of the agent sees.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use ethogram_model::{Access, Behaviour, Budget, Kind, Loss, LossReason, Name, Tally, Timestamp};

use crate::{
    SensorError,
    bpf::{self, Kernel},
    clock::{self, Clock},
    hooks::{HookChoice, HookSet},
    names,
    record::{self, Content, Record},
    sockets::{self, OpenSocket},
    table::{Reading, Table},
};

/// Bounds of what the kernel half keeps. Memory is used as behaviours appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Behaviours counted in the kernel at a time; above, events take the slow way through
    /// the ring. About 160 bytes each.
    pub behaviours_max: u32,
    /// Size of the ring buffer for names and events of the slow way; a power of two and a
    /// multiple of the page size.
    pub ring_bytes: u32,
    /// Rows kept of each cgroup before they fold.
    pub budget: Budget,
}

impl Default for Limits {
    /// For 200 containers with 1,300 behaviours each.
    fn default() -> Self {
        Self {
            behaviours_max: 1 << 18,
            ring_bytes: 16 << 20,
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

/// What happened since the last time.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// In the order in which they happened.
    pub cgroups: Vec<CgroupEvent>,
    /// In no order.
    pub changes: Vec<Change>,
    /// Losses that grew, cumulative, by cgroup.
    pub losses: Vec<(u64, Loss)>,
    /// Losses that cannot be charged to a cgroup, cumulative: anybody's on this machine.
    pub losses_unattributed: u64,
}

/// How long a deleted key's slot rests before it is used again: far longer than any
/// program runs that may still count in it.
const SLOT_REST: Duration = Duration::from_secs(1);

/// Slots whose keys were deleted, with the cgroups they belonged to.
struct Resting {
    since_ns: u64,
    cgroups: HashSet<u64>,
    slots: Vec<u32>,
}

/// The programs in the kernel, and all that is known of what they counted.
pub struct Sensor {
    kernel: Kernel,
    table: Table,
    sockets: Vec<OpenSocket>,
    cgroups: Vec<CgroupEvent>,
    losses_told: BTreeMap<(u64, u8), u64>,
    malformed: u64,
    gone: HashSet<u64>,
    resting: Vec<Resting>,
    policies_changed: bool,
}

impl Sensor {
    /// Loads and attaches the programs. From here on everything is counted.
    ///
    /// # Errors
    /// The kernel lacks something, or does not allow it.
    pub fn start(options: &Options) -> Result<Self, SensorError> {
        Ok(Self {
            kernel: Kernel::load(options)?,
            table: Table::new(options.limits.budget),
            sockets: Vec::new(),
            cgroups: Vec::new(),
            losses_told: BTreeMap::new(),
            malformed: 0,
            gone: HashSet::new(),
            resting: Vec::new(),
            policies_changed: false,
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
        let Self {
            kernel,
            table,
            sockets,
            cgroups,
            malformed,
            ..
        } = self;
        kernel.look_back(|records| take(records, clock, table, sockets, cgroups, malformed))?;
        for (open, behaviour) in sockets::behaviours(std::mem::take(sockets)) {
            let time = clock.wall(open.time_ns);
            table.event(
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
        self.drain(clock);
        for reading in readings {
            self.table.reading(reading);
        }
        let changes = self.table.take_changed().into_iter();
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
            cgroups: std::mem::take(&mut self.cgroups),
            changes,
            losses: self.new_losses(),
            losses_unattributed: self.kernel.losses_unbooked()
                + self.kernel.skipped()
                + self.malformed,
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
        self.table.tally(cgroup, behaviour)
    }

    /// Rows in memory.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.table.len()
    }

    /// Stops counting. What was counted can still be collected.
    pub fn detach(&mut self) {
        self.kernel.detach();
    }

    fn drain(&mut self, clock: Clock) {
        let Self {
            kernel,
            table,
            sockets,
            cgroups,
            malformed,
            ..
        } = self;
        take(kernel.drain(), clock, table, sockets, cgroups, malformed);
    }

    fn read_counters(&self, clock: Clock) -> Vec<Reading> {
        (0..self.kernel.slots_used())
            .filter(|&slot| self.kernel.count(slot) != self.table.counted(slot))
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

    /// Takes the slots of gone cgroups out of use, lets them rest, and hands them out again.
    fn recycle(&mut self) {
        let now_ns = clock::boot_ns();
        let rested = |since_ns: u64| now_ns.saturating_sub(since_ns) > SLOT_REST.as_nanos() as u64;
        while self
            .resting
            .first()
            .is_some_and(|resting| rested(resting.since_ns))
        {
            let Resting { cgroups, slots, .. } = self.resting.remove(0);
            for slot in slots {
                // Its last counts were read at the beginning of this collection.
                self.table.release(slot);
                if let Err(error) = self.kernel.free_slot(slot) {
                    tracing::warn!("one place in the kernel's map stays unused: {error}");
                }
            }
            self.table.forget(&cgroups);
        }
        if !self.gone.is_empty() {
            let cgroups = std::mem::take(&mut self.gone);
            let slots = self.kernel.delete_keys(|cgroup| cgroups.contains(&cgroup));
            self.resting.push(Resting {
                since_ns: now_ns,
                cgroups,
                slots,
            });
        }
    }

    fn new_losses(&mut self) -> Vec<(u64, Loss)> {
        let mut grown = Vec::new();
        for (cgroup, number, count) in self.kernel.losses() {
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

/// Takes records, each with its length before it, to where they belong.
fn take(
    records: Vec<u8>,
    clock: Clock,
    table: &mut Table,
    sockets: &mut Vec<OpenSocket>,
    cgroups: &mut Vec<CgroupEvent>,
    malformed: &mut u64,
) {
    let mut rest = &records[..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((bytes, after)) = after.split_at_checked(u32::from_ne_bytes(*length) as usize)
        else {
            break;
        };
        rest = after;
        let Some(Record {
            time_ns,
            cgroup,
            exe,
            content,
        }) = record::decode(bytes)
        else {
            *malformed += 1;
            continue;
        };
        let time = clock.wall(time_ns);
        match content {
            Content::Behaviour {
                slot,
                key,
                path,
                extra,
            } => {
                let is_program =
                    key.kind == Kind::Process && !key.access.contains(Access::REQUESTED);
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
                    ..Behaviour::new(key.kind, Name::default(), names::target(&key, path, extra))
                };
                table.event(cgroup, exe, behaviour, time, example, slot);
            }
            Content::Executable { path, requested } => {
                let name = if requested.is_empty() {
                    Name::from_bytes(path)
                } else {
                    names::requested_path(path, requested)
                };
                table.name_executable(exe, name);
            }
            Content::CgroupNew { path } => {
                cgroups.push(cgroup_event(cgroup, path, CgroupChange::Appeared, time));
            }
            Content::CgroupGone { path } => {
                cgroups.push(cgroup_event(cgroup, path, CgroupChange::Gone, time));
            }
            Content::Socket(socket) => sockets.push(OpenSocket::new(cgroup, exe, time_ns, socket)),
        }
    }
}

fn cgroup_event(id: u64, path: &[u8], change: CgroupChange, time: Timestamp) -> CgroupEvent {
    CgroupEvent {
        id,
        path: Name::from_bytes(path),
        change,
        time,
    }
}
