//! The one entry point: cgroup events in, containers and endpoints out.

use crate::{
    cgroups::Hierarchies,
    directory::{Bounds, Directory, Scope, Tracking},
    endpoints::Endpoints,
    facts::{Addresses, Facts},
    runtimes::{Demand, Line, REPORTS_MAX, Report, RuntimeEndpoint, RuntimeStatus, well_known},
};
use ethogram_model::{BootId, Container, Endpoint, Timestamp};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::PathBuf,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
};

/// How often the cgroups are read again, in case the sensor lost an event of one.
pub const RESCAN_S: i64 = 30;

/// What to watch, and whom to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is watched.
    pub scope: Scope,
    /// The machine's name; the kernel's host name if `None`. In a container with a host name
    /// of its own, tell it.
    pub node: Option<String>,
    /// The runtimes to ask; the well-known ones if `None`.
    pub runtimes: Option<Vec<RuntimeEndpoint>>,
    /// Where the host's file system is: below it the well-known runtimes are looked for.
    pub host_root: PathBuf,
    /// The cgroup hierarchies; those of this host if `None`.
    pub hierarchies: Option<Hierarchies>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scope: Scope::machine(false),
            node: None,
            runtimes: None,
            host_root: PathBuf::from("/"),
            hierarchies: None,
        }
    }
}

/// Why nobody can be known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the kernel is missing.
    #[error("cannot read {path}: {why}; is /proc mounted?")]
    Proc {
        /// Which.
        path: &'static str,
        /// Why.
        why: io::Error,
    },
    /// There are no cgroups to be seen.
    #[error(
        "no cgroup hierarchy is mounted where this process can see it; in a container, \
         mount the host's /sys/fs/cgroup into it"
    )]
    NoCgroups,
}

/// Something happened to a cgroup, as the kernel told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupEvent {
    /// It was made.
    Appeared {
        /// Its id, tagged with its hierarchy.
        id: u64,
        /// Its path below its hierarchy's root.
        path: Vec<u8>,
        /// When.
        time: Timestamp,
    },
    /// It was removed.
    Gone {
        /// Its id, tagged with its hierarchy.
        id: u64,
        /// When.
        time: Timestamp,
    },
}

/// What is new since the last poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// Containers that are new, changed or ended, whole.
    pub containers: Vec<Container>,
    /// Addresses that got or lost their holder.
    pub endpoints: Vec<Endpoint>,
    /// For each new cgroup, by its tagged id, whether it is to be counted.
    pub tracking: Vec<(u64, Tracking)>,
    /// Runtimes whose state changed.
    pub runtimes: Vec<RuntimeStatus>,
}

/// Knows who is behind every cgroup id. Asks the runtimes in the background, for as long
/// as it lives.
#[derive(Debug)]
pub struct Identity {
    directory: Directory,
    endpoints: Endpoints,
    hierarchies: Hierarchies,
    /// The containers with addresses that each runtime told last.
    holders: HashMap<RuntimeEndpoint, HashSet<String>>,
    statuses: BTreeMap<RuntimeEndpoint, RuntimeStatus>,
    reports: mpsc::Receiver<Report>,
    demand: watch::Sender<Demand>,
    tracking: Vec<(u64, Tracking)>,
    next_scan: Timestamp,
    /// Ends the background tasks with itself.
    _tasks: JoinSet<()>,
}

impl Identity {
    /// Reads the cgroups that are there, and begins to ask the runtimes, on `runtime`.
    ///
    /// Start the sensor first and feed its events afterwards: those of cgroups that the
    /// scan has seen already are understood.
    ///
    /// # Errors
    /// When the kernel does not tell its cgroups, its boot or its name.
    pub fn start(
        options: Options,
        runtime: &Handle,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let hierarchies = match options.hierarchies {
            Some(hierarchies) => hierarchies,
            None => Hierarchies::of_this_host().map_err(|why| IdentityError::Proc {
                path: "/proc/self/mountinfo",
                why,
            })?,
        };
        let best = hierarchies.best().ok_or(IdentityError::NoCgroups)?;
        let node = match options.node {
            Some(node) => node,
            None => proc_text("/proc/sys/kernel/hostname")?,
        };
        let boot = BootId::new(&proc_text("/proc/sys/kernel/random/boot_id")?);
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let (demand, demanded) = watch::channel(Demand::default());
        let mut tasks = JoinSet::new();
        for endpoint in options
            .runtimes
            .unwrap_or_else(|| well_known(&options.host_root))
        {
            let line = Line::new(endpoint, report.clone(), demanded.clone());
            tasks.spawn_on(line.run(), runtime);
        }
        let mut identity = Self {
            directory: Directory::new(boot, node, options.scope, best),
            endpoints: Endpoints::default(),
            hierarchies,
            holders: HashMap::new(),
            statuses: BTreeMap::new(),
            reports,
            demand,
            tracking: Vec::new(),
            next_scan: now,
            _tasks: tasks,
        };
        identity.scan(now, true);
        Ok(identity)
    }

    /// Takes what the sensor saw of a cgroup.
    pub fn cgroup_event(&mut self, event: CgroupEvent) {
        match event {
            CgroupEvent::Appeared { id, path, time } => self.appeared(id, &path, time, false),
            CgroupEvent::Gone { id, time } => self.directory.gone(id, time),
        }
    }

    /// Takes what the runtimes told meanwhile, and tells what is new. Never waits. Call it
    /// a few times a second.
    pub fn poll(&mut self, now: Timestamp) -> Updates {
        if now >= self.next_scan {
            self.scan(now, false);
        }
        self.directory.tick(now);
        // Ends first: a container that was restarted holds its address again.
        let mut containers = self.directory.changed();
        for (container, ended) in containers.iter().filter_map(|c| Some((c, c.ended?))) {
            self.endpoints.released(&container.id, ended);
        }
        let runtimes = self.take_reports(now);
        let named = self.directory.changed();
        containers.retain(|old| named.iter().all(|new| new.key != old.key));
        containers.extend(named);
        self.tell_demand(now);
        Updates {
            containers,
            endpoints: self.endpoints.changed(),
            tracking: std::mem::take(&mut self.tracking),
            runtimes,
        }
    }

    /// The container behind a cgroup id; see [`Directory::container_of`].
    #[must_use]
    pub fn container_of(&self, cgroup: u64) -> Option<&Container> {
        self.directory.container_of(cgroup)
    }

    /// Every container that is known, ended ones included.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.directory.containers()
    }

    /// How each runtime is doing.
    pub fn runtimes(&self) -> impl Iterator<Item = &RuntimeStatus> {
        self.statuses.values()
    }

    /// The cgroup hierarchies of this host.
    #[must_use]
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// How often each bound was hit.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.directory.bounds()
    }

    fn appeared(&mut self, id: u64, path: &[u8], time: Timestamp, at_start: bool) {
        let unnamed = self.directory.unnamed(time);
        self.directory.appeared(id, path, time, at_start);
        self.tracking.push((id, self.directory.should_track(path)));
        if self.directory.unnamed(time) > unnamed {
            self.demand.send_modify(|demand| demand.appeared += 1);
        }
    }

    /// Reads all cgroups: what is new appeared, what is missing is gone.
    fn scan(&mut self, now: Timestamp, at_start: bool) {
        self.next_scan = Timestamp(now.0.saturating_add(RESCAN_S * 1_000_000_000));
        let scan = self.hierarchies.scan();
        for (path, why) in &scan.unreadable {
            tracing::warn!(path = %path.display(), why, "cgroups below cannot be read");
        }
        if scan.truncated {
            tracing::warn!("too many cgroups: some are not known until they are made anew");
        }
        let known: HashSet<u64> = self.directory.cgroups().collect();
        let found: HashSet<u64> = scan.cgroups.iter().map(|cgroup| cgroup.id).collect();
        for cgroup in scan
            .cgroups
            .iter()
            .filter(|cgroup| !known.contains(&cgroup.id))
        {
            self.appeared(cgroup.id, &cgroup.path, now, at_start);
        }
        if scan.unreadable.is_empty() && !scan.truncated {
            for id in known.difference(&found) {
                self.directory.gone(*id, now);
            }
        }
    }

    fn take_reports(&mut self, now: Timestamp) -> Vec<RuntimeStatus> {
        let mut statuses = Vec::new();
        for _ in 0..REPORTS_MAX {
            match self.reports.try_recv() {
                Ok(Report::One(facts)) => self.told(&facts, now),
                Ok(Report::All(runtime, all)) => self.told_all(runtime, &all, now),
                Ok(Report::Status(status)) => {
                    self.statuses
                        .insert(status.endpoint.clone(), status.clone());
                    statuses.push(status);
                }
                Err(_) => break,
            }
        }
        statuses
    }

    fn told(&mut self, facts: &Facts, now: Timestamp) {
        self.directory.told(facts, now);
        let newest = self.directory.newest(&facts.id);
        self.endpoints.told(facts, newest, now);
    }

    fn told_all(&mut self, runtime: RuntimeEndpoint, all: &[Facts], now: Timestamp) {
        let holds = |facts: &&Facts| matches!(facts.addresses, Addresses::Held { .. });
        let holding: HashSet<String> = all.iter().filter(holds).map(|f| f.id.clone()).collect();
        let listed: HashSet<&str> = all.iter().map(|facts| facts.id.as_str()).collect();
        let held = self.holders.insert(runtime, holding).unwrap_or_default();
        for id in held.iter().filter(|id| !listed.contains(id.as_str())) {
            self.endpoints.released(id, now);
        }
        for facts in all {
            self.told(facts, now);
        }
    }

    fn tell_demand(&self, now: Timestamp) {
        let unnamed = self.directory.unnamed(now) > 0;
        self.demand.send_if_modified(|demand| {
            let changed = demand.unnamed != unnamed;
            demand.unnamed = unnamed;
            changed
        });
    }
}

fn proc_text(path: &'static str) -> Result<String, IdentityError> {
    let text = fs::read_to_string(path).map_err(|why| IdentityError::Proc { path, why })?;
    Ok(text.trim().to_owned())
}
